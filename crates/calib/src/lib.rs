//! Calibration data, inference, and layer statistics.
//!
//! [`CalibSet`] finds and checks samples and reads them one at a time. A [`Session`] runs a
//! model on them and observes values inside it by their ONNX names. [`collect`] gathers the
//! second moments of layer inputs; [`compare`] measures how far one model's outputs are from
//! another's. This crate knows tensors, names and `ModelProto`; it knows neither layers nor
//! quantization, and is the only one that knows the inference engine.
//!
//! ```no_run
//! use std::path::Path;
//! use onnxquant_calib::{
//!     CalibSet, DataOptions, InputSpec, StatKind, StatRequest, collect, engine, inline_functions, open_session,
//! };
//! use onnxquant_quant::MatrixView;
//!
//! let model = inline_functions(&onnxquant_proto::read_model(Path::new("model.onnx"))?)?;
//! let graph = model.graph.as_ref().ok_or("no graph")?;
//! let inputs = InputSpec::from_graph(graph, model.ir_version())?;
//! let data = CalibSet::open(Path::new("calib"), &inputs, &DataOptions::default())?;
//! let view = MatrixView::Dense { inputs: 64, outputs: 32, transposed: false };
//! let request = StatRequest { value: "x".into(), view, kind: StatKind::Gram };
//! let session = open_session(engine(), &model, &[request.value.clone()], &data)?;
//! let stats = collect(&session, &data, &data.split().calibration, &[request], &|_| ())?;
//! println!("{} rows", stats[0][0].n_rows());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

// The readers alone, as the fuzz targets build them, leave what engines share unused.
#![cfg_attr(not(any(feature = "tract", feature = "ort")), allow(dead_code, unused_imports))]

mod data;
mod engine;
mod error;
mod graph;
mod run;
mod statistics;
mod stream;
mod tensor;
#[cfg(test)]
mod testing;

pub use data::{
    BESIDE_MODELS, CalibSet, ChannelOrder, DataOptions, DataReport, Dim, GRAPHS, GenaiDecoder, IMAGE_PRESETS,
    ImageBase, ImageLayout, ImageOptions, ImagePreset, InputSpec, NamedTensors, Sample, Split, TextOptions, ValueRange,
    read_npy, read_npz, sample_files, write_captures,
};
pub use engine::{
    BlockedNode, Cut, Engine, Fault, Feed, Given, SATURATE_PAIRS, Session, Shapes, SharedEngine, cut, engine,
    failing_nodes, open_session, open_session_for, unknown_operators,
};
#[cfg(feature = "ort")]
pub use engine::{OrtEngine, OrtError, OrtLevel, OrtModel, OrtOptions, OrtPlaces};
pub use error::{CalibError, FormatError};
pub use graph::{graph_outputs, inline_functions};
pub use run::{Progress, SampleRun, for_each_batch};
pub use statistics::{
    ComparisonSums, LayerMoments, Measurement, MomentSums, NotMeasured, Original, OutputComparison, OutputError,
    PairRequest, PartComparison, PartMoments, RequestPart, Slice, SliceError, Slicing, StatKind, StatRequest, TakePart,
    TokenError, collect, collect_channels, collect_histograms, collect_pair_parts, collect_pairs, collect_parts,
    compare, compare_stream_parts, compare_streams, gram_bytes, judged_outputs, larger, observe_shapes,
};
pub use stream::{CutShapes, MOST_PARTS, MakeModel, Network, Stream, count_parts, run_in_pieces};
pub use tensor::{ElementType, Tensor};
