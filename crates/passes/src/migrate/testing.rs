//! Models whose value `h` is scaled.

use ndarray::ArrayD;
use onnxquant_ir::onnx::{AttributeProto, ModelProto, NodeProto, TensorProto};
use onnxquant_ir::{Model, ValueId};

use super::migrate_scale::{Absorbed, can_absorb, migrate};
use crate::find::sites::Site;
use crate::testing::{array, assert_close, assert_valid, floats, message, node, numbers, run, sites};

pub(super) type Constants = Vec<(&'static str, TensorProto)>;

/// One factor for each of four channels; no power of two among them.
pub(super) const FACTORS: [f32; 4] = [0.3, 7.0, 1.1, 25.0];

pub(super) fn op(op_type: &str, inputs: &[&str], output: &str) -> NodeProto {
    node(op_type, inputs, &[output], vec![])
}

pub(super) fn with(op_type: &str, inputs: &[&str], output: &str, attributes: Vec<AttributeProto>) -> NodeProto {
    node(op_type, inputs, &[output], attributes)
}

/// The value in the middle is `h`, with four channels; `w` goes into it and `v` out of it.
pub(super) fn dense(constants: Constants, nodes: Vec<NodeProto>) -> ModelProto {
    let own = [("w", floats(&[5, 4], 1)), ("v", floats(&[4, 3], 2))];
    message("x", own.into_iter().chain(constants).collect(), nodes, "y")
}

pub(super) fn conv(constants: Constants, nodes: Vec<NodeProto>) -> ModelProto {
    let own = [("w", floats(&[4, 3, 2, 2], 1)), ("v", floats(&[6, 4, 2, 1], 2))];
    message("x", own.into_iter().chain(constants).collect(), nodes, "y")
}

pub(super) fn matrix() -> ArrayD<f32> {
    ArrayD::from_shape_vec(vec![3, 5], numbers(15, 3)).unwrap()
}

pub(super) fn image() -> ArrayD<f32> {
    ArrayD::from_shape_vec(vec![2, 3, 6, 6], numbers(216, 3)).unwrap()
}

pub(super) fn readers(model: &Model, value: ValueId) -> Vec<Site> {
    sites(model).into_iter().flatten().filter(|site| site.input == value).collect()
}

/// Migrates `h`, and checks outputs, weights and what else must hold whatever the outcome.
#[track_caller]
pub(super) fn migrated(what: &str, proto: ModelProto, x: &ArrayD<f32>, factors: &[f32]) -> (Model, Absorbed) {
    let mut model = Model::from_proto(proto).unwrap_or_else(|violations| panic!("{what}: {violations:?}"));
    let h = model.graph().find("h").unwrap();
    let layers = readers(&model, h);
    assert!(!layers.is_empty(), "{what}");
    let before = run(&model, x);
    let weights = layers.iter().map(|site| array(&site.weight_tensor(model.graph()).unwrap())).collect::<Vec<_>>();
    let absorbs = can_absorb(model.graph(), h, &layers);
    let outcome = migrate(model.graph_mut(), h, &layers, factors).unwrap();
    assert!(absorbs || outcome == Absorbed::ByMul, "{what}");
    assert!(!absorbs || outcome == Absorbed::IntoProducer || what == "overflow", "{what}");
    assert_valid(&model);
    assert_close(&run(&model, x), &before, 1e-4, what);
    let again = sites(&model).into_iter().flatten().collect::<Vec<_>>();
    for (site, old) in layers.iter().zip(weights) {
        let new = again.iter().find(|again| again.node == site.node).unwrap();
        let scaled = array(&new.weight_tensor(model.graph()).unwrap());
        assert_eq!(new.view, site.view, "{what}");
        let product = old.iter().enumerate().map(|(i, w)| w * factors[site.view.channel_and_output(i).0]);
        let product = ArrayD::from_shape_vec(old.shape(), product.collect()).unwrap();
        assert_close(&[scaled], &[product], 1e-6, what);
    }
    (model, outcome)
}
