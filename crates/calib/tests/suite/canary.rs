//! What this crate relies on in its engines, so that a new version that changes it is noticed.

use onnxquant_calib::{Session, engine, open_session};
use onnxquant_proto::onnx::TensorProto;

use crate::engines::engines;
use crate::models::{self, data, input, model, node, tensor};

#[test]
fn the_engine_s_version_is_the_one_that_is_built() {
    let locked = include_str!("../../../../Cargo.lock");
    let version = engine().name().strip_prefix("tract ").unwrap();
    assert!(locked.contains(&format!("name = \"tract-core\"\nversion = \"{version}\"\n")), "{version}");
}

/// tract's optimised form of a Softmax between DequantizeLinear and QuantizeLinear is wrong.
#[test]
fn softmax_between_quantized_values_is_computed_in_float() {
    let step = |name: &str, value: f32| tensor(name, &[], &[value]);
    let zero = TensorProto {
        name: Some("zero".into()),
        data_type: Some(3),
        raw_data: Some(vec![0].into()),
        ..Default::default()
    };
    let nodes = vec![
        node("QuantizeLinear", &["x", "sx", "zero"], &["xq"]),
        node("DequantizeLinear", &["xq", "sx", "zero"], &["xd"]),
        node("Softmax", &["xd"], &["p"]),
        node("QuantizeLinear", &["p", "sp", "zero"], &["pq"]),
        node("DequantizeLinear", &["pq", "sp", "zero"], &["y"]),
    ];
    let initializers = vec![step("sx", 1.0 / 32.0), step("sp", 1.0 / 127.0), zero];
    let model = model(vec![input("x", &[2, 6])], nodes, initializers);
    let folder = tempfile::tempdir().unwrap();
    let x = models::array(5, &[2, 6]).mapv(|v| 3.0 * v);
    let data = data(folder.path(), &model, &[vec![("x", x.clone())]]);
    let quantize = |v: f32, scale: f32| (v / scale).round_ties_even().clamp(-128.0, 127.0) * scale;
    let e = x.mapv(|v| quantize(v, 1.0 / 32.0).exp());
    for engine in engines() {
        let session = open_session(engine, &model, &["y".to_owned()], &data).unwrap();
        let y = session.run(&data.load(0).unwrap()).unwrap()[0].to_f32().unwrap();
        for (row, found) in e.outer_iter().zip(y.outer_iter()) {
            let sum = row.sum();
            for (v, found) in row.iter().zip(found) {
                let expected = quantize(v / sum, 1.0 / 127.0);
                assert!((expected - found).abs() < 1.5 / 127.0, "{}: {found} for {}", engine.name(), v / sum);
            }
        }
    }
}
