//! Where factors go into what makes the value.

use ndarray::ArrayD;
use onnxquant_ir::onnx::{ModelProto, NodeProto, TensorProto};
use onnxquant_ir::{float_attribute, int_attribute, ints_attribute, tensor};

use super::migrate_scale::Absorbed;
use super::testing::{Constants, FACTORS, conv, dense, image, matrix, migrated, op, with};
use crate::testing::{floats, info, numbers, op_types};

type Row = (&'static str, ModelProto);

fn four(seed: usize) -> TensorProto {
    floats(&[4], seed)
}

fn first() -> NodeProto {
    op("Conv", &["x", "w"], "a")
}

fn last() -> NodeProto {
    op("Conv", &["h", "v"], "y")
}

#[track_caller]
fn assert_absorbed(table: Vec<Row>) {
    for (what, proto) in table {
        let graph = proto.graph.as_ref().unwrap();
        let nodes = graph.node.iter().map(|node| node.op_type().to_owned()).collect::<Vec<_>>();
        let x = if graph.initializer[0].dims.len() == 2 { matrix() } else { image() };
        let channels = if what.contains("Normalization") { 3 } else { 4 };
        let (model, outcome) = migrated(what, proto, &x, &FACTORS[..channels]);
        assert_eq!(outcome, Absorbed::IntoProducer, "{what}");
        assert_eq!(op_types(&model), nodes, "{what}");
    }
}

#[test]
fn factors_go_into_dense_producers() {
    let out = || op("MatMul", &["h", "v"], "y");
    let gemm = || vec![int_attribute("transB", 1), float_attribute("alpha", 0.5), float_attribute("beta", 2.0)];
    let turned = || vec![("t", floats(&[4, 5], 7)), ("b", floats(&[1, 4], 4))];
    let with_bias = |bias| dense(vec![("b", bias)], vec![op("Gemm", &["x", "w", "b"], "h"), out()]);
    assert_absorbed(vec![
        ("MatMul", dense(vec![], vec![op("MatMul", &["x", "w"], "h"), out()])),
        (
            "Gemm with attributes, Relu",
            dense(
                turned(),
                vec![
                    with("Gemm", &["x", "t", "b"], "a", gemm()),
                    op("Relu", &["a"], "h"),
                    op("Gemm", &["h", "v"], "y"),
                ],
            ),
        ),
        ("Gemm, column bias", with_bias(floats(&[3, 1], 4))),
        ("Gemm, matrix bias", with_bias(floats(&[3, 4], 4))),
        ("Gemm, scalar bias", with_bias(floats(&[], 4))),
    ]);
}

#[test]
fn factors_go_into_dense_producers_behind_what_passes_them() {
    let out = || op("MatMul", &["h", "v"], "y");
    assert_absorbed(vec![
        (
            "MatMul, Add, LeakyRelu, Dropout, Identity",
            dense(
                vec![("b", four(4))],
                vec![
                    op("MatMul", &["x", "w"], "a"),
                    op("Add", &["b", "a"], "c"),
                    op("LeakyRelu", &["c"], "d"),
                    op("Dropout", &["d"], "e"),
                    op("Identity", &["e"], "h"),
                    out(),
                ],
            ),
        ),
        (
            "MatMul, Add of a scalar, PRelu",
            dense(
                vec![("b", floats(&[], 4)), ("s", four(5))],
                vec![op("MatMul", &["x", "w"], "a"), op("Add", &["a", "b"], "c"), op("PRelu", &["c", "s"], "h"), out()],
            ),
        ),
        (
            "Mul by a scalar on the way",
            dense(
                vec![("s", tensor::from_f32(&[1], &[-3.0]))],
                vec![op("MatMul", &["x", "w"], "a"), op("Mul", &["s", "a"], "h"), out()],
            ),
        ),
        (
            "gate",
            dense(
                vec![("u", floats(&[5, 4], 6))],
                vec![
                    op("MatMul", &["x", "u"], "a"),
                    op("Sigmoid", &["a"], "g"),
                    op("MatMul", &["x", "w"], "u2"),
                    op("Mul", &["g", "u2"], "h"),
                    out(),
                ],
            ),
        ),
    ]);
}

#[test]
fn factors_go_into_convolutions() {
    let window = || vec![ints_attribute("kernel_shape", &[2, 2]), ints_attribute("strides", &[2, 1])];
    assert_absorbed(vec![
        ("Conv with bias, Relu", {
            let nodes = vec![op("Conv", &["x", "w", "b"], "a"), op("Relu", &["a"], "h"), last()];
            conv(vec![("b", four(4))], nodes)
        }),
        ("Conv, Conv with pads", {
            let padded = with("Conv", &["h", "v"], "y", vec![ints_attribute("pads", &[1, 0, 2, 1])]);
            conv(vec![], vec![op("Conv", &["x", "w"], "h"), padded])
        }),
        ("PRelu, MaxPool, AveragePool, groups", {
            let nodes = vec![
                first(),
                op("PRelu", &["a", "s"], "b"),
                with("MaxPool", &["b"], "c", window()),
                with("AveragePool", &["c"], "h", window()),
                with("Conv", &["h", "u"], "y", vec![int_attribute("group", 2)]),
            ];
            conv(vec![("s", floats(&[4, 1, 1], 4)), ("u", floats(&[6, 2, 1, 2], 5))], nodes)
        }),
        ("depthwise and full", {
            let depthwise = with("Conv", &["h", "u"], "z", vec![int_attribute("group", 4)]);
            let mut proto =
                conv(vec![("u", floats(&[8, 1, 2, 2], 5))], vec![op("Conv", &["x", "w"], "h"), depthwise, last()]);
            proto.graph.as_mut().unwrap().output.push(info("z"));
            proto
        }),
        ("ConvTranspose with bias, Relu", {
            let nodes = vec![op("ConvTranspose", &["x", "t", "b"], "a"), op("Relu", &["a"], "h"), last()];
            conv(vec![("t", floats(&[3, 4, 2, 2], 6)), ("b", four(4))], nodes)
        }),
    ]);
}

#[test]
fn factors_go_into_numbers_a_channel() {
    assert_absorbed(vec![
        ("Add of a number a channel", {
            conv(vec![("b", floats(&[4, 1, 1], 4))], vec![first(), op("Add", &["a", "b"], "h"), last()])
        }),
        ("Add of one number", {
            conv(vec![("b", floats(&[], 4))], vec![first(), op("Add", &["b", "a"], "h"), last()])
        }),
        ("Mul by a number a channel", {
            let nodes = vec![first(), op("Sigmoid", &["a"], "c"), op("Mul", &["c", "b"], "h"), last()];
            conv(vec![("b", floats(&[1, 4, 1, 1], 4))], nodes)
        }),
        ("squeeze and excitation", {
            let nodes = vec![
                first(),
                op("Conv", &["x", "e"], "b"),
                op("Sigmoid", &["b"], "c"),
                op("Mul", &["c", "a"], "h"),
                last(),
            ];
            conv(vec![("e", floats(&[4, 3, 2, 2], 5))], nodes)
        }),
    ]);
}

#[test]
fn factors_go_past_global_pools() {
    let squeezing = |nodes: Vec<_>| {
        let pooled = vec![first(), op("Relu", &["a"], "r"), op("GlobalAveragePool", &["r"], "p")];
        let constants = vec![("shape", tensor::from_i64(&[2], &[-1, 4])), ("u", floats(&[4, 3], 5))];
        conv(constants, [pooled, nodes, vec![op("Gemm", &["h", "u"], "y")]].concat())
    };
    assert_absorbed(vec![
        ("global pool, Flatten", squeezing(vec![op("Flatten", &["p"], "h")])),
        ("global pool, Reshape", squeezing(vec![op("Reshape", &["p", "shape"], "h")])),
        ("global pool, Squeeze, Dropout", squeezing(vec![op("Squeeze", &["p"], "q"), op("Dropout", &["q"], "h")])),
        ("global maximum", {
            let nodes = vec![first(), op("GlobalMaxPool", &["a"], "h"), op("Conv", &["h", "u"], "y")];
            conv(vec![("u", floats(&[2, 4, 1, 1], 5))], nodes)
        }),
    ]);
}

#[test]
fn factors_go_into_normalizations() {
    let parameters = || {
        let variance = tensor::from_f32(&[3], &[0.5, 1.0, 2.0]);
        vec![("g", floats(&[3], 4)), ("b", floats(&[3], 5)), ("m", floats(&[3], 6)), ("s", variance)]
    };
    assert_absorbed(vec![
        ("BatchNormalization, Conv", {
            let nodes = vec![op("BatchNormalization", &["x", "g", "b", "m", "s"], "h"), op("Conv", &["h", "u"], "y")];
            conv([parameters(), vec![("u", floats(&[2, 3, 1, 1], 5))]].concat(), nodes)
        }),
        ("InstanceNormalization, Conv", {
            let nodes = vec![op("InstanceNormalization", &["x", "g", "b"], "h"), op("Conv", &["h", "w"], "y")];
            conv(parameters(), nodes)
        }),
    ]);
}

#[test]
fn normalization_takes_the_factors_of_all_its_readers() {
    let five = |seed| floats(&[5], seed);
    let variance = tensor::from_f32(&[5], &[0.5, 1.0, 2.0, 3.0, 0.1]);
    let constants = || -> Constants {
        vec![("g", five(4)), ("b", five(5)), ("m", five(6)), ("s", variance.clone()), ("k", floats(&[5, 4], 7))]
    };
    let readers = || vec![op("MatMul", &["h", "w"], "y"), op("Gemm", &["h", "k"], "z"), op("MatMul", &["h", "w"], "q")];
    let table: Vec<(&str, Vec<NodeProto>)> = vec![
        ("LayerNormalization", vec![op("LayerNormalization", &["x", "g", "b"], "h")]),
        ("LayerNormalization without bias", vec![op("LayerNormalization", &["x", "g"], "h")]),
        ("RMSNormalization", vec![op("RMSNormalization", &["x", "g"], "h")]),
        ("in parts", vec![op("Sigmoid", &["x"], "n"), op("Mul", &["n", "g"], "a"), op("Add", &["a", "b"], "h")]),
        ("in parts, constants first", vec![op("Mul", &["g", "x"], "a"), op("Add", &["b", "a"], "h")]),
        ("BatchNormalization", vec![op("BatchNormalization", &["x", "g", "b", "m", "s"], "h")]),
    ];
    for (what, nodes) in table {
        let count = nodes.len() + 3;
        let mut proto = dense(constants(), [nodes, readers()].concat());
        proto.graph.as_mut().unwrap().output.extend([info("z"), info("q")]);
        let (model, outcome) = migrated(what, proto, &matrix(), &[0.3, 7.0, 1.1, 25.0, 0.9]);
        assert_eq!(outcome, Absorbed::IntoProducer, "{what}");
        assert_eq!(op_types(&model).len(), count, "{what}");
        assert!(model.graph().find("w").is_none(), "{what}: the shared weight goes");
    }
}

#[test]
fn channels_that_are_not_those_of_the_producer_are_left_to_a_mul() {
    let norm = || op("BatchNormalization", &["x", "g", "b", "m", "s"], "a");
    let statistics = || -> Constants {
        let variance = tensor::from_f32(&[4], &[0.5, 1.0, 2.0, 3.0]);
        vec![("g", four(4)), ("b", four(5)), ("m", four(6)), ("s", variance)]
    };
    let image = image();
    let cube = ArrayD::from_shape_vec(vec![4, 4, 6], numbers(96, 3)).unwrap();
    let table: Vec<(&str, ModelProto, &ArrayD<f32>, usize)> = vec![
        (
            "channels and places flattened",
            {
                let nodes = vec![first(), op("Flatten", &["a"], "h"), op("Gemm", &["h", "u"], "y")];
                conv(vec![("u", floats(&[100, 2], 5))], nodes)
            },
            &image,
            100,
        ),
        (
            "pool, then the last axis",
            {
                let pool = with("MaxPool", &["a"], "h", vec![ints_attribute("kernel_shape", &[2, 2])]);
                conv(vec![("u", floats(&[4, 2], 5))], vec![first(), pool, op("MatMul", &["h", "u"], "y")])
            },
            &image,
            4,
        ),
        (
            "axis added in front by broadcasting",
            {
                let nodes = vec![norm(), op("Add", &["a", "one"], "h"), op("Conv", &["h", "v"], "y")];
                conv([statistics(), vec![("one", floats(&[1, 1, 1, 1], 7))]].concat(), nodes)
            },
            &cube,
            4,
        ),
        (
            "Conv of fewer axes",
            {
                let nodes =
                    vec![op("Conv", &["x", "u"], "a"), op("Mul", &["a", "one"], "h"), op("Conv", &["h", "v"], "y")];
                conv(vec![("one", floats(&[1, 1, 1, 1], 7)), ("u", floats(&[4, 4, 1], 5))], nodes)
            },
            &cube,
            4,
        ),
    ];
    for (what, proto, x, channels) in table {
        let factors = (0..channels).map(|index| 0.3 + index as f32).collect::<Vec<_>>();
        let (_, outcome) = migrated(what, proto, x, &factors);
        assert_eq!(outcome, Absorbed::ByMul, "{what}");
    }
}

#[test]
fn output_channels_that_no_axis_counts_are_left_to_a_mul() {
    let in_groups = with("ConvTranspose", &["x", "u"], "h", vec![int_attribute("group", 3)]);
    let constants = vec![("u", floats(&[3, 2, 2, 2], 5)), ("q", floats(&[2, 6, 1, 1], 6))];
    let proto = conv(constants, vec![in_groups, op("Conv", &["h", "q"], "y")]);
    let factors = [0.3, 1.3, 2.3, 3.3, 4.3, 5.3];
    assert_eq!(migrated("ConvTranspose in groups", proto, &image(), &factors).1, Absorbed::ByMul);
}
