//! The repository's trained models: every float value of the graph can be observed.

use std::path::{Path, PathBuf};

use onnxquant_calib::{CalibSet, DataOptions, Engine, InputSpec, Session, Tensor, open_session};
use onnxquant_proto::onnx::ModelProto;

use crate::engines::engines;

fn fixture(name: &str) -> (ModelProto, PathBuf) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures").join(name);
    let model = onnxquant_proto::read_model(&folder.join("model.onnx")).expect("the fixture is a valid model");
    (model, folder)
}

fn open(model: &ModelProto, path: &Path, samples: usize) -> CalibSet {
    let graph = model.graph.as_ref().expect("the fixture has a graph");
    let inputs = InputSpec::from_graph(graph, model.ir_version.unwrap_or_default()).expect("inputs are tensors");
    let options = DataOptions { samples: Some(samples), ..DataOptions::default() };
    CalibSet::open(path, &inputs, &options).expect("the fixture's data fits its model")
}

#[test]
fn every_value_of_every_fixture_is_observed_and_the_same_in_every_engine() {
    for name in ["digits_mlp", "mnist_cnn", "digits_conv1d", "digits_transformer", "digits_transformer_op14"] {
        let (model, folder) = fixture(name);
        let data = open(&model, &folder.join("calib"), 3);
        let graph = model.graph.as_ref().expect("checked when opening");
        let values: Vec<String> = graph.node.iter().flat_map(|n| n.output.clone()).filter(|o| !o.is_empty()).collect();
        let outputs: Vec<String> = graph.output.iter().filter_map(|o| o.name.clone()).collect();
        let session = |engine: &dyn Engine, values: &[String]| {
            open_session(engine, &model, values, &data).expect("engines run the fixtures")
        };
        for engine in engines() {
            let (all, plain) = (session(engine, &values), session(engine, &outputs));
            let first = session(engines()[0], &values);
            for index in 0..data.len() {
                let sample = data.load(index).expect("the fixture's data are readable");
                let observed = all.run(&sample).expect("runs");
                for (output, expected) in outputs.iter().zip(plain.run(&sample).expect("runs")) {
                    let position = values.iter().position(|v| v == output).expect("outputs are computed by nodes");
                    let worst = difference(&observed[position], &expected);
                    assert!(worst < 1e-4, "{name} {output}: observing everything changes the output by {worst}");
                }
                for ((value, own), other) in values.iter().zip(&observed).zip(first.run(&sample).expect("runs")) {
                    let worst = difference(own, &other);
                    assert!(worst < 1e-4, "{name} {value}: {} differs from tract by {worst}", engine.name());
                }
            }
        }
    }
}

/// The largest, relative to values beyond 1; that of integers is not looked at.
fn difference(a: &Tensor, b: &Tensor) -> f32 {
    assert_eq!((a.element_type(), a.shape()), (b.element_type(), b.shape()));
    let (Some(a), Some(b)) = (a.to_f32(), b.to_f32()) else { return 0.0 };
    a.iter().zip(&b).fold(0.0_f32, |worst, (a, b)| worst.max((a - b).abs() / b.abs().max(1.0)))
}
