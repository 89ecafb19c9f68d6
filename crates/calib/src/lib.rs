//! Calibration data, inference with tract, and layer statistics.
//!
//! [`CalibSet`] finds and checks samples and reads them one at a time. A [`Session`] runs a
//! model on them and observes values inside it by their ONNX names. [`collect`] gathers the
//! second moments of layer inputs; [`compare`] measures how far one model's outputs are from
//! another's. This crate knows tensors, names and `ModelProto`; it knows neither layers nor
//! quantization, and is the only one that knows the inference engine.
//!
//! ```no_run
//! use std::path::Path;
//! use onnxquant_calib::{CalibSet, DataOptions, InputSpec, Session, StatKind, StatRequest, collect, inline_functions};
//! use onnxquant_quant::MatrixView;
//!
//! let model = inline_functions(&onnxquant_proto::read_model(Path::new("model.onnx"))?)?;
//! let graph = model.graph.as_ref().ok_or("no graph")?;
//! let inputs = InputSpec::from_graph(graph, model.ir_version())?;
//! let data = CalibSet::open(Path::new("calib"), &inputs, &DataOptions::default())?;
//! let view = MatrixView::Dense { inputs: 64, outputs: 32, transposed: false };
//! let request = StatRequest { value: "x".into(), view, kind: StatKind::Gram };
//! let session = Session::new(&model, &[request.value.clone()], &data)?;
//! let stats = collect(&session, &data, &data.split().calibration, &[request], &|_| ())?;
//! println!("{} rows", stats[0][0].n_rows());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![forbid(unsafe_code)]

mod activations;
mod compare;
mod data;
mod dump;
mod engine;
mod error;
mod inline;
mod run;
mod statistics;
#[cfg(feature = "tract")]
mod stream;
mod tensor;
#[cfg(test)]
mod testing;

pub use activations::{collect_channels, collect_histograms, observe_sizes};
#[cfg(feature = "tract")]
pub use compare::compare_streams;
pub use compare::{Original, OutputComparison, compare, judged_outputs, total_sqnr_db};
pub use data::{
    CalibSet, ChannelOrder, DataOptions, Dim, FormatError, ImageFit, ImageLayout, ImageOptions, InputSpec,
    NamedTensors, Sample, Split, read_npy, read_npz,
};
pub use dump::write_captures;
pub use engine::Engine;
#[cfg(feature = "tract")]
pub use engine::{BlockedNode, SATURATE_PAIRS, Session, failing_nodes, graph_outputs, unknown_operators};
pub use error::CalibError;
pub use inline::inline_functions;
pub use run::{Progress, SampleRun, for_each_batch};
#[cfg(feature = "tract")]
pub use statistics::collect_pairs;
pub use statistics::{LayerMoments, PairRequest, StatKind, StatRequest, collect, gram_bytes};
#[cfg(feature = "tract")]
pub use stream::{MakeModel, Network, Stream};
pub use tensor::{ElementType, Tensor};
