//! ONNX Runtime, where it is: cuts, threads, files.

use ndarray::Axis;
use onnxquant_calib::{
    CalibSet, Engine, Feed, Given, OrtLevel, OrtOptions, Sample, Session, Tensor, engine, graph_outputs, open_session,
};
use onnxquant_proto::onnx::ModelProto;
use rayon::prelude::*;

use crate::engines::ort;
use crate::models::{self, data, input, model, node, noise, tensor};

/// A convolution network whose weights lie outside the message.
fn network() -> ModelProto {
    let nodes = vec![
        node("Conv", &["x", "w1"], &["a"]),
        node("Relu", &["a"], &["b"]),
        node("Conv", &["b", "w2"], &["c"]),
        node("Sigmoid", &["c"], &["d"]),
        node("Mul", &["c", "d"], &["y"]),
    ];
    let weights = vec![tensor("w1", &[8, 3, 3, 3], &noise(1, 216)), tensor("w2", &[8, 8, 3, 3], &noise(2, 576))];
    let mut model = model(vec![input("x", &[-1, 3, 9, 9])], nodes, weights);
    model.graph.as_mut().unwrap().output.push(input("y", &[-1, 8, 5, 5]));
    model
}

fn samples(folder: &std::path::Path) -> CalibSet {
    let samples: Vec<_> = (0..8).map(|i| vec![("x", models::array(i, &[1 + i as usize % 3, 3, 9, 9]))]).collect();
    data(folder, &network(), &samples)
}

fn names(values: &[&str]) -> Vec<String> {
    values.iter().map(|value| (*value).to_owned()).collect()
}

#[test]
fn a_cut_computes_bit_by_bit_what_the_whole_does() {
    let Some(ort) = ort() else { return };
    let folder = tempfile::tempdir().unwrap();
    let data = samples(folder.path());
    let whole = open_session(ort, &network(), &names(&["b", "y"]), &data).unwrap();
    let shapes = |sample: &Sample| sample.iter().map(|(_, tensor)| tensor.shape().to_vec()).collect::<Vec<_>>();
    for index in 0..data.len() {
        let values = whole.run(&data.load(index).unwrap()).unwrap();
        let given: Sample = vec![("x".to_owned(), values[0].clone()), ("b".to_owned(), values[0].clone())];
        let feed = |name: &str| Feed { name: name.to_owned(), element_type: Some(values[0].element_type()) };
        let cut = Given { feeds: vec![feed("x"), feed("b")], shapes: vec![shapes(&given)] };
        let piece = ort.open(&network(), &names(&["y"]), &cut).unwrap();
        assert!(piece.reads("b") && !piece.reads("x"));
        assert_eq!(piece.run(&given).unwrap()[0], values[1]);
    }
}

#[test]
fn values_depend_neither_on_threads_nor_on_what_else_is_observed_and_are_tract_s() {
    let Some(ort) = ort() else { return };
    let folder = tempfile::tempdir().unwrap();
    let data = samples(folder.path());
    let all = open_session(ort, &network(), &names(&["a", "b", "c", "d", "y"]), &data).unwrap();
    let last = open_session(ort, &network(), &names(&["y"]), &data).unwrap();
    let tract = open_session(engine(), &network(), &names(&["y"]), &data).unwrap();
    let one_by_one: Vec<Vec<Tensor>> = (0..data.len()).map(|i| all.run(&data.load(i).unwrap()).unwrap()).collect();
    let pool = rayon::ThreadPoolBuilder::new().num_threads(4).build().unwrap();
    let side_by_side: Vec<Vec<Tensor>> =
        pool.install(|| (0..data.len()).into_par_iter().map(|i| all.run(&data.load(i).unwrap()).unwrap()).collect());
    assert_eq!(one_by_one, side_by_side);
    for (index, values) in one_by_one.iter().enumerate() {
        let sample = data.load(index).unwrap();
        assert_eq!(last.run(&sample).unwrap()[0], values[4]);
        let (own, other) = (values[4].to_f32().unwrap(), tract.run(&sample).unwrap()[0].to_f32().unwrap());
        assert!(own.iter().zip(&other).all(|(a, b)| (a - b).abs() < 1e-4), "sample {index}");
    }
}

#[test]
fn files_are_run_as_they_are_served() {
    let Some(ort) = ort() else { return };
    let folder = tempfile::tempdir().unwrap();
    let data = samples(folder.path());
    let (file, optimized) = (folder.path().join("model.onnx"), folder.path().join("optimized.onnx"));
    std::fs::write(&file, prost::Message::encode_to_vec(&network())).unwrap();
    let options = OrtOptions { level: OrtLevel::Extended, optimized: Some(&optimized), ..OrtOptions::default() };
    let outputs = graph_outputs(&network());
    let plain = open_session(ort, &network(), &outputs, &data).unwrap();
    for model in [ort.load(&file, &OrtOptions::default()).unwrap(), ort.load(&file, &options).unwrap()] {
        let sample = data.load(1).unwrap();
        let found = model.run(&sample, &outputs).unwrap()[0].to_f32().unwrap();
        let expected = plain.run(&sample).unwrap()[0].to_f32().unwrap();
        assert_eq!(found.len_of(Axis(0)), 2);
        assert!(found.iter().zip(&expected).all(|(a, b)| (a - b).abs() < 1e-4));
        assert!(!model.time(&sample, &outputs, 3).unwrap().is_zero());
        let message = model.run(&sample, &names(&["none"])).unwrap_err();
        assert!(message.contains("none"), "{message}");
    }
    let fused = onnxquant_proto::read_model(&optimized).unwrap().graph.unwrap();
    assert!(fused.node.iter().any(|node| node.op_type() == "FusedConv"), "a Conv and its Relu become one node");
}

#[test]
fn files_that_do_not_load_are_errors_that_say_why() {
    let Some(ort) = ort() else { return };
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("model.onnx");
    let mut odd = network();
    odd.graph.as_mut().unwrap().node[1].op_type = Some("Unheard".into());
    std::fs::write(&file, prost::Message::encode_to_vec(&odd)).unwrap();
    let message = ort.load(&file, &OrtOptions::default()).unwrap_err().to_string();
    assert!(message.contains("does not load") && message.contains("Unheard"), "{message}");
    std::fs::write(&file, "no model").unwrap();
    let message = ort.load(&file, &OrtOptions::default()).unwrap_err().to_string();
    assert!(message.contains("does not load") && message.contains(ort.version()), "{message}");
    let message = ort.load(&folder.path().join("none.onnx"), &OrtOptions::default()).unwrap_err().to_string();
    assert!(message.contains("none.onnx"), "{message}");
}
