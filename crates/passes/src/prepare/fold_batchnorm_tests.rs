use ndarray::ArrayD;
use onnxquant_ir::onnx::tensor_proto::DataType;
use onnxquant_ir::onnx::{AttributeProto, ModelProto, NodeProto, TensorProto};
use onnxquant_ir::{float_attribute, int_attribute, ints_attribute, tensor};

use super::*;
use crate::testing::{
    assert_close, assert_unchanged, assert_valid, body, floats, graph_attribute, image, message, model, node, numbers,
    op_types, run,
};

type Constants = Vec<(&'static str, TensorProto)>;

/// Parameters of a BatchNormalization with one entry a channel; variances are > 0.
fn parameters(channels: usize) -> Constants {
    let variance = numbers(channels, 8).into_iter().map(|x| x.abs() + 0.5).collect::<Vec<_>>();
    let variance = tensor::from_f32(&[channels], &variance);
    vec![
        ("gamma", floats(&[channels], 5)),
        ("beta", floats(&[channels], 6)),
        ("mean", floats(&[channels], 7)),
        ("variance", variance),
    ]
}

fn norm(input: &str, attributes: Vec<AttributeProto>) -> NodeProto {
    node("BatchNormalization", &[input, "gamma", "beta", "mean", "variance"], &["y"], attributes)
}

fn layer(op_type: &str, inputs: &[&str], attributes: Vec<AttributeProto>) -> NodeProto {
    node(op_type, inputs, &["a"], attributes)
}

fn constants(dims: &[usize], channels: usize, bias: Option<TensorProto>) -> Constants {
    let bias = bias.map(|bias| ("b", bias));
    parameters(channels).into_iter().chain([("w", floats(dims, 1))]).chain(bias).collect()
}

fn conv_message() -> ModelProto {
    let nodes = vec![layer("Conv", &["x", "w", "b"], vec![]), norm("a", vec![])];
    message("x", constants(&[4, 3, 2, 2], 4, Some(floats(&[4], 2))), nodes, "y")
}

#[test]
fn norm_after_a_layer_is_folded_and_keeps_the_outputs() {
    let matrix = ArrayD::from_shape_vec(vec![5, 6], numbers(30, 3)).unwrap();
    let signal = ArrayD::from_shape_vec(vec![2, 4, 7], numbers(56, 3)).unwrap();
    let bias = || Some(floats(&[4], 2));
    let gemm_bias = Some(floats(&[1, 4], 2));
    let grouped = || vec![int_attribute("group", 2), ints_attribute("pads", &[1, 1])];
    let trans_b = || vec![int_attribute("transB", 1)];
    let lone_beta = || vec![float_attribute("beta", 0.5)];
    let image = image();
    let table: Vec<(&str, NodeProto, Constants, &ArrayD<f32>)> = vec![
        ("Conv, bias", layer("Conv", &["x", "w", "b"], vec![]), constants(&[4, 3, 2, 2], 4, bias()), &image),
        ("Conv", layer("Conv", &["x", "w"], vec![]), constants(&[4, 3, 2, 2], 4, None), &image),
        ("Conv, groups", layer("Conv", &["x", "w", "b"], grouped()), constants(&[4, 2, 3], 4, bias()), &signal),
        ("Gemm", layer("Gemm", &["x", "w", "b"], vec![]), constants(&[6, 4], 4, bias()), &matrix),
        ("Gemm, transB", layer("Gemm", &["x", "w", "b"], trans_b()), constants(&[4, 6], 4, gemm_bias), &matrix),
        ("Gemm, beta", layer("Gemm", &["x", "w"], lone_beta()), constants(&[6, 4], 4, None), &matrix),
    ];
    for (what, layer, constants, x) in table {
        let op_type = layer.op_type().to_owned();
        let mut model = model("x", constants, vec![layer, norm("a", vec![float_attribute("epsilon", 0.01)])], "y");
        let before = run(&model, x);
        assert_eq!(fold_batchnorm(&mut model).unwrap(), 1, "{what}");
        assert_valid(&model);
        assert_eq!(op_types(&model), [op_type], "{what}");
        assert_close(&run(&model, x), &before, 1e-4, what);
        let names = model.graph().initializers().iter().map(|&id| model.graph().value(id).name()).collect::<Vec<_>>();
        assert_eq!(names, ["w", "w_folded_bias"], "{what}: the parameters go");
        let folded = model.to_proto();
        assert_eq!(fold_batchnorm(&mut model).unwrap(), 0, "{what}: idempotent");
        assert_eq!(model.to_proto(), folded, "{what}");
    }
}

#[test]
fn norm_that_cannot_be_folded_stays_as_it_is() {
    type Change = fn(&mut ModelProto);
    fn graph(proto: &mut ModelProto) -> &mut onnxquant_ir::onnx::GraphProto {
        proto.graph.as_mut().unwrap()
    }
    fn constant<'a>(proto: &'a mut ModelProto, name: &str) -> &'a mut TensorProto {
        graph(proto).initializer.iter_mut().find(|tensor| tensor.name() == name).unwrap()
    }
    fn gemm(proto: &mut ModelProto, attributes: Vec<AttributeProto>, bias: &[usize]) {
        graph(proto).node[0] = layer("Gemm", &["x", "w", "b"], attributes);
        *constant(proto, "w") = crate::testing::named("w", floats(&[6, 4], 1));
        *constant(proto, "b") = crate::testing::named("b", floats(bias, 2));
    }
    let table: Vec<(&str, Change)> = vec![
        ("another reader", |p| graph(p).node.push(node("Relu", &["a"], &["z"], vec![]))),
        ("graph output", |p| graph(p).output.push(crate::testing::info("a"))),
        ("captured", |p| {
            let branch = |name: &str| body(vec![node("Identity", &["a"], &[name], vec![])], &[name]);
            let bodies = vec![graph_attribute("then_branch", branch("t")), graph_attribute("else_branch", branch("e"))];
            graph(p).node.push(node("If", &["x"], &["z"], bodies));
        }),
        ("weight shared", |p| graph(p).node.push(node("Identity", &["w"], &["z"], vec![]))),
        ("weight overridable", |p| graph(p).input.push(crate::testing::info("w"))),
        ("mean overridable", |p| graph(p).input.push(crate::testing::info("mean"))),
        ("mean computed", |p| {
            graph(p).node.insert(0, node("Identity", &["mean"], &["m"], vec![]));
            graph(p).node[2].input[3] = "m".into();
        }),
        ("bias computed", |p| {
            graph(p).node.insert(0, node("Identity", &["b"], &["c"], vec![]));
            graph(p).node[1].input[2] = "c".into();
        }),
        ("training mode", |p| graph(p).node[1].attribute.push(int_attribute("training_mode", 1))),
        ("more outputs", |p| graph(p).node[1].output.extend(["m".into(), "v".into()])),
        ("only the second output", |p| {
            graph(p).node[1].output = vec![String::new(), "y".into()];
        }),
        ("per pixel", |p| graph(p).node[1].attribute.push(int_attribute("spatial", 0))),
        ("f16 weight", |p| {
            *constant(p, "w") =
                crate::testing::named("w", tensor::from_f32_as(DataType::Float16, &[4, 3, 2, 2], &[1.0; 48]))
        }),
        ("wrong number of parameters", |p| *constant(p, "gamma") = crate::testing::named("gamma", floats(&[3], 1))),
        ("variance below -epsilon", |p| {
            *constant(p, "variance") = crate::testing::named("variance", tensor::from_f32(&[4], &[-1.0; 4]))
        }),
        ("other layer", |p| graph(p).node[0].op_type = Some("ConvTranspose".into())),
        ("other domain", |p| graph(p).node[0].domain = Some("com.example".into())),
        ("activation between", |p| graph(p).node[0] = layer("Relu", &["x"], vec![])),
        ("no layer before", |p| graph(p).node[1].input[0] = "x".into()),
        ("norm as data of nothing", |p| graph(p).node[1].input[0] = String::new()),
        ("Gemm alpha", |p| gemm(p, vec![float_attribute("alpha", 2.0)], &[4])),
        ("Gemm beta", |p| gemm(p, vec![float_attribute("beta", 2.0)], &[4])),
        ("Gemm, column bias", |p| gemm(p, vec![], &[4, 1])),
        ("Gemm, matrix bias", |p| gemm(p, vec![], &[5, 4])),
        ("no weights, dims whose product overflows", |p| {
            *constant(p, "w") =
                crate::testing::named("w", tensor::from_raw(DataType::Float, &[0, 1 << 40, 1 << 40], vec![]));
            for name in ["gamma", "beta", "mean", "variance", "b"] {
                *constant(p, name) = crate::testing::named(name, tensor::from_f32(&[0], &[]));
            }
        }),
    ];
    for (what, change) in table {
        let mut proto = conv_message();
        proto
            .opset_import
            .push(onnxquant_ir::onnx::OperatorSetIdProto { domain: Some("com.example".into()), version: Some(1) });
        change(&mut proto);
        assert_unchanged(what, proto, |model| fold_batchnorm(model).unwrap());
    }
}

#[test]
fn norms_that_share_parameters_are_folded_each() {
    let second = NodeProto { output: vec!["z".into()], ..norm("c", vec![]) };
    let nodes = vec![
        layer("Conv", &["x", "w", "b"], vec![]),
        norm("a", vec![]),
        node("Conv", &["x", "v", "b"], &["c"], vec![]),
        second,
    ];
    let mut all = constants(&[4, 3, 2, 2], 4, Some(floats(&[4], 2)));
    all.push(("v", floats(&[4, 3, 1, 1], 9)));
    let mut model = model("x", all, nodes, "y z");
    let before = run(&model, &image());
    assert_eq!(fold_batchnorm(&mut model).unwrap(), 2);
    assert_valid(&model);
    assert_close(&run(&model, &image()), &before, 1e-4, "two norms");
    assert!(["gamma", "b"].iter().all(|name| model.graph().find(name).is_none()));
}

#[test]
fn chain_of_norms_is_folded_one_after_the_other() {
    let first = node("BatchNormalization", &["a", "gamma", "beta", "mean", "variance"], &["m"], vec![]);
    let nodes = vec![layer("Conv", &["x", "w"], vec![]), first, norm("m", vec![])];
    let mut model = model("x", constants(&[4, 3, 2, 2], 4, None), nodes, "y");
    let before = run(&model, &image());
    assert_eq!(fold_batchnorm(&mut model).unwrap(), 2);
    assert_valid(&model);
    assert_eq!(op_types(&model), ["Conv"]);
    assert_close(&run(&model, &image()), &before, 1e-4, "two in a row");
}
