use ndarray::ArrayD;
use onnxquant_ir::onnx::{AttributeProto, GraphProto, ModelProto, NodeProto};
use onnxquant_ir::{Model, float_attribute, int_attribute, ints_attribute};

use super::*;
use crate::testing::{
    array, assert_close, assert_valid, body, constant_named, floats, graph_attribute, info, input_names, message, node,
    numbers, op_types, run, sites,
};

type Constants = Vec<(&'static str, TensorProto)>;

/// One factor for each of four channels; no power of two among them.
const FACTORS: [f32; 4] = [0.3, 7.0, 1.1, 25.0];

fn op(op_type: &str, inputs: &[&str], output: &str) -> NodeProto {
    node(op_type, inputs, &[output], vec![])
}

fn with(op_type: &str, inputs: &[&str], output: &str, attributes: Vec<AttributeProto>) -> NodeProto {
    node(op_type, inputs, &[output], attributes)
}

/// The value in the middle is `h`, with four channels; `w` goes into it and `v` out of it.
fn dense(constants: Constants, nodes: Vec<NodeProto>) -> ModelProto {
    let own = [("w", floats(&[5, 4], 1)), ("v", floats(&[4, 3], 2))];
    message("x", own.into_iter().chain(constants).collect(), nodes, "y")
}

fn conv(constants: Constants, nodes: Vec<NodeProto>) -> ModelProto {
    let own = [("w", floats(&[4, 3, 2, 2], 1)), ("v", floats(&[6, 4, 2, 1], 2))];
    message("x", own.into_iter().chain(constants).collect(), nodes, "y")
}

fn matrix() -> ArrayD<f32> {
    ArrayD::from_shape_vec(vec![3, 5], numbers(15, 3)).unwrap()
}

fn image() -> ArrayD<f32> {
    ArrayD::from_shape_vec(vec![2, 3, 6, 6], numbers(216, 3)).unwrap()
}

fn readers(model: &Model, value: ValueId) -> Vec<Site> {
    sites(model).into_iter().flatten().filter(|site| site.input == value).collect()
}

/// Migrates `h`, and checks outputs, weights and what else must hold whatever the outcome.
#[track_caller]
fn migrated(what: &str, proto: ModelProto, x: &ArrayD<f32>, factors: &[f32]) -> (Model, Absorbed) {
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

#[test]
fn factors_go_into_the_producer_where_it_takes_them() {
    let four = |seed| floats(&[4], seed);
    let out = || op("MatMul", &["h", "v"], "y");
    let last = || op("Conv", &["h", "v"], "y");
    let first = || op("Conv", &["x", "w"], "a");
    let parameters = || {
        let variance = tensor::from_f32(&[3], &[0.5, 1.0, 2.0]);
        vec![("g", floats(&[3], 4)), ("b", floats(&[3], 5)), ("m", floats(&[3], 6)), ("s", variance)]
    };
    let window = || vec![ints_attribute("kernel_shape", &[2, 2]), ints_attribute("strides", &[2, 1])];
    let gemm = || vec![int_attribute("transB", 1), float_attribute("alpha", 0.5), float_attribute("beta", 2.0)];
    let turned = || vec![("t", floats(&[4, 5], 7)), ("b", floats(&[1, 4], 4))];
    let with_bias = |bias: TensorProto| dense(vec![("b", bias)], vec![op("Gemm", &["x", "w", "b"], "h"), out()]);
    let squeezing = |nodes: Vec<NodeProto>| {
        let pooled = vec![first(), op("Relu", &["a"], "r"), op("GlobalAveragePool", &["r"], "p")];
        let constants = vec![("shape", tensor::from_i64(&[2], &[-1, 4])), ("u", floats(&[4, 3], 5))];
        conv(constants, [pooled, nodes, vec![op("Gemm", &["h", "u"], "y")]].concat())
    };
    let table: Vec<(&str, ModelProto)> = vec![
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
        ("global pool, Flatten", squeezing(vec![op("Flatten", &["p"], "h")])),
        ("global pool, Reshape", squeezing(vec![op("Reshape", &["p", "shape"], "h")])),
        ("global pool, Squeeze, Dropout", squeezing(vec![op("Squeeze", &["p"], "q"), op("Dropout", &["q"], "h")])),
        ("global maximum", {
            let nodes = vec![first(), op("GlobalMaxPool", &["a"], "h"), op("Conv", &["h", "u"], "y")];
            conv(vec![("u", floats(&[2, 4, 1, 1], 5))], nodes)
        }),
        ("BatchNormalization, Conv", {
            let nodes = vec![op("BatchNormalization", &["x", "g", "b", "m", "s"], "h"), op("Conv", &["h", "u"], "y")];
            conv([parameters(), vec![("u", floats(&[2, 3, 1, 1], 5))]].concat(), nodes)
        }),
        ("InstanceNormalization, Conv", {
            let nodes = vec![op("InstanceNormalization", &["x", "g", "b"], "h"), op("Conv", &["h", "w"], "y")];
            conv(parameters(), nodes)
        }),
    ];
    for (what, proto) in table {
        let names = |proto: &ModelProto| {
            proto.graph.as_ref().unwrap().node.iter().map(|node| node.op_type().to_owned()).collect::<Vec<_>>()
        };
        let nodes = names(&proto);
        let is_dense = proto.graph.as_ref().unwrap().initializer[0].dims.len() == 2;
        let x = if is_dense { matrix() } else { image() };
        let channels = if what.contains("Normalization") { 3 } else { 4 };
        let (model, outcome) = migrated(what, proto, &x, &FACTORS[..channels]);
        assert_eq!(outcome, Absorbed::IntoProducer, "{what}");
        assert_eq!(op_types(&model), nodes, "{what}");
    }
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
fn factors_go_into_a_mul_where_the_producer_does_not_take_them() {
    type Change = fn(&mut GraphProto);
    let matmul = || op("MatMul", &["x", "w"], "a");
    let plain = || vec![op("MatMul", &["x", "w"], "h"), op("MatMul", &["h", "v"], "y")];
    let between = |nodes: Vec<NodeProto>| [vec![matmul()], nodes, vec![op("MatMul", &["h", "v"], "y")]].concat();
    let same: Change = |_| {};
    let table: Vec<(&str, Vec<NodeProto>, Change)> = vec![
        ("graph input", vec![op("Identity", &["x"], "h"), op("MatMul", &["h", "w"], "y")], same),
        ("Clip", between(vec![op("Clip", &["a"], "h")]), same),
        ("Sigmoid", between(vec![op("Sigmoid", &["a"], "h")]), same),
        ("two activations", between(vec![op("MatMul", &["x", "w"], "b"), op("Add", &["a", "b"], "h")]), same),
        ("square", between(vec![op("Mul", &["a", "a"], "h")]), same),
        (
            "gelu",
            {
                let gelu =
                    vec![op("Sigmoid", &["a"], "b"), op("Mul", &["a", "b"], "c"), op("Mul", &["c", "half"], "h")];
                between(gelu)
            },
            |g| g.initializer.push(crate::testing::named("half", tensor::from_f32(&[], &[0.5]))),
        ),
        ("graph output", plain(), |g| g.output.push(info("h"))),
        ("another reader", plain(), |g| {
            g.node.push(op("Relu", &["h"], "z"));
            g.output.push(info("z"));
        }),
        ("another reader before", between(vec![op("Relu", &["a"], "h")]), |g| g.output.push(info("a"))),
        ("weight overridable", plain(), |g| g.input.push(info("w"))),
        ("slope computed", between(vec![op("Relu", &["x"], "s"), op("PRelu", &["a", "s"], "h")]), |g| {
            g.initializer[0] = crate::testing::named("w", floats(&[5, 5], 1));
            g.initializer[1] = crate::testing::named("v", floats(&[5, 3], 1));
        }),
        ("weight of another type", plain(), |g| {
            g.initializer[0] = crate::testing::named("w", tensor::from_f32_as(DataType::Double, &[5, 4], &[1.0; 20]))
        }),
        ("constant on the left", vec![op("MatMul", &["l", "x"], "h"), op("MatMul", &["h", "w"], "y")], |g| {
            g.initializer.push(crate::testing::named("l", floats(&[2, 3], 1)))
        }),
        (
            "long chain",
            {
                let names = (0..20).map(|index| format!("n{index}")).collect::<Vec<_>>();
                let mut chain = vec![op("Identity", &["a"], "n0")];
                chain.extend(names.windows(2).map(|pair| op("Identity", &[&pair[0]], &pair[1])));
                chain.push(op("Identity", &["n19"], "h"));
                between(chain)
            },
            same,
        ),
    ];
    for (what, nodes, change) in table {
        let mut proto = dense(vec![], nodes);
        change(proto.graph.as_mut().unwrap());
        let count = proto.graph.as_ref().unwrap().node.len();
        let channels = if ["graph input", "slope computed", "constant on the left"].contains(&what) { 5 } else { 4 };
        let (model, outcome) = migrated(what, proto, &matrix(), &[0.3, 7.0, 1.1, 25.0, 0.9][..channels]);
        assert_eq!(outcome, Absorbed::ByMul, "{what}");
        assert_eq!(op_types(&model).len(), count + 1, "{what}");
        assert_eq!(constant_named(model.graph(), "h_factors").dims, [channels as i64], "{what}");
    }
}

#[test]
fn channels_that_are_not_those_of_the_producer_are_left_to_a_mul() {
    let norm = || op("BatchNormalization", &["x", "g", "b", "m", "s"], "a");
    let four = |seed| floats(&[4], seed);
    let statistics = || -> Constants {
        let variance = tensor::from_f32(&[4], &[0.5, 1.0, 2.0, 3.0]);
        vec![("g", four(4)), ("b", four(5)), ("m", four(6)), ("s", variance)]
    };
    let first = || op("Conv", &["x", "w"], "a");
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
fn only_the_layers_that_are_given_read_the_mul() {
    let nodes = vec![
        op("Relu", &["x"], "h"),
        op("Conv", &["h", "w"], "y"),
        op("Relu", &["h"], "z"),
        op("Conv", &["h", "w"], "q"),
    ];
    let mut proto = conv(vec![], nodes);
    proto.graph.as_mut().unwrap().output.extend([info("z"), info("q")]);
    let mut model = Model::from_proto(proto).unwrap();
    let h = model.graph().find("h").unwrap();
    let before = run(&model, &image());
    let layers = readers(&model, h);
    let last = &layers[1..];
    assert_eq!(migrate(model.graph_mut(), h, last, &FACTORS[..3]).unwrap(), Absorbed::ByMul);
    assert_valid(&model);
    assert_close(&run(&model, &image()), &before, 1e-4, "one of two");
    assert_eq!(op_types(&model), ["Relu", "Conv", "Relu", "Mul", "Conv"]);
    let inputs = model.graph().nodes().map(|(_, node)| input_names(model.graph(), node)).collect::<Vec<_>>();
    assert_eq!(inputs[1], ["h", "w"], "the other layer keeps input and weight");
    assert_eq!(inputs[3], ["h", "h_factors"]);
    assert_eq!(inputs[4], ["h_scaled", "w_scaled"]);
    assert_eq!(constant_named(model.graph(), "h_factors").dims, [1, 3, 1, 1]);
}

#[test]
fn value_that_a_subgraph_reads_stays_as_it_is() {
    let branch = |name: &str| body(vec![op("Identity", &["h"], name)], &[name]);
    let bodies = vec![graph_attribute("then_branch", branch("t")), graph_attribute("else_branch", branch("e"))];
    let nodes = vec![op("MatMul", &["x", "w"], "h"), op("MatMul", &["h", "v"], "y"), with("If", &["x"], "z", bodies)];
    let mut model = Model::from_proto(dense(vec![], nodes)).unwrap();
    let h = model.graph().find("h").unwrap();
    let layers = readers(&model, h);
    assert_eq!(migrate(model.graph_mut(), h, &layers, &FACTORS).unwrap(), Absorbed::ByMul);
    assert_valid(&model);
    assert_eq!(array(constant_named(model.graph(), "w")), array(&floats(&[5, 4], 1)));
}

#[test]
fn shared_weights_and_those_behind_a_chain_are_copied() {
    let turn = || vec![ints_attribute("perm", &[1, 0])];
    let nodes = vec![
        with("Transpose", &["t"], "u", turn()),
        op("MatMul", &["x", "u"], "h"),
        op("MatMul", &["h", "v"], "y"),
        op("MatMul", &["x", "u"], "z"),
        op("MatMul", &["z", "v"], "q"),
    ];
    let mut proto = dense(vec![("t", floats(&[4, 5], 5))], nodes);
    proto.graph.as_mut().unwrap().output.push(info("q"));
    let (model, outcome) = migrated("shared", proto, &matrix(), &FACTORS);
    assert_eq!(outcome, Absorbed::IntoProducer);
    let inputs = model.graph().nodes().map(|(_, node)| input_names(model.graph(), node)).collect::<Vec<_>>();
    assert_eq!(inputs, [vec!["t"], vec!["x", "t_scaled"], vec!["h", "v_scaled"], vec!["x", "u"], vec!["z", "v"]]);
}

#[test]
fn f16_stays_f16() {
    let half =
        |dims: &[usize], seed| tensor::from_f32_as(DataType::Float16, dims, &numbers(dims.iter().product(), seed));
    for (what, first, outcome) in
        [("absorbed", "MatMul", Absorbed::IntoProducer), ("multiplied", "Clip", Absorbed::ByMul)]
    {
        let nodes = vec![op("MatMul", &["x", "w"], "a"), op(first, &["a", "u"], "h"), op("MatMul", &["h", "v"], "y")];
        let mut nodes = nodes;
        if first == "Clip" {
            nodes[1].input.truncate(1);
        }
        let constants = vec![("w", half(&[5, 4], 1)), ("u", half(&[4, 4], 2)), ("v", half(&[4, 3], 4))];
        let mut model = Model::from_proto(message("x", constants, nodes, "y")).unwrap();
        let h = model.graph().find("h").unwrap();
        let before = run(&model, &matrix());
        let layers = readers(&model, h);
        assert_eq!(migrate(model.graph_mut(), h, &layers, &FACTORS).unwrap(), outcome, "{what}");
        assert_valid(&model);
        assert_close(&run(&model, &matrix()), &before, 2e-2, what);
        let types =
            model.graph().initializers().iter().map(|&id| model.graph().value(id).tensor().unwrap().data_type());
        assert!(types.into_iter().all(|dtype| dtype == DataType::Float16 as i32), "{what}");
    }
}

#[test]
fn producer_whose_weights_would_overflow_leaves_the_factors_to_a_mul() {
    let nodes = vec![op("MatMul", &["x", "w"], "h"), op("MatMul", &["h", "v"], "y")];
    let mut proto = dense(vec![], nodes);
    let large = tensor::from_f32(&[5, 4], &[1e10; 20]);
    proto.graph.as_mut().unwrap().initializer[0] = crate::testing::named("w", large);
    let (_, outcome) = migrated("overflow", proto, &(matrix() * 0.0), &[1e-30, 1.0, 1.0, 1.0]);
    assert_eq!(outcome, Absorbed::ByMul);
}

/// The error, and that nothing was changed.
fn refused(model: &mut Model, value: ValueId, layers: &[Site], factors: &[f32]) -> String {
    let before = model.to_proto();
    let error = migrate(model.graph_mut(), value, layers, factors).unwrap_err();
    assert_eq!(model.to_proto(), before, "{error}");
    error.to_string()
}

#[test]
fn refusal_says_why_and_leaves_the_graph_untouched() {
    let nodes = vec![
        op("Clip", &["x"], "h"),
        op("MatMul", &["h", "w"], "y"),
        op("Conv", &["h", "c"], "z"),
        op("Conv", &["h", "d"], "q"),
        op("Relu", &["h"], "r"),
        op("MatMul", &["r", "w"], "s"),
        op("MatMul", &["h", "large"], "l"),
    ];
    let large = tensor::from_f32(&[5, 1], &[100.0; 5]);
    let constants = vec![("large", large), ("c", floats(&[2, 5, 1], 1)), ("d", floats(&[2, 5, 1, 1], 1))];
    let mut model = Model::from_proto(dense(constants, nodes)).unwrap();
    let h = model.graph().find("h").unwrap();
    let found = sites(&model).into_iter().flatten().collect::<Vec<_>>();
    let [y, z, q, s, large] = &found[..] else { panic!("five layers") };
    let other_weight = Site { weight: z.weight, ..y.clone() };
    let other_type = Site { dtype: DataType::Float16, ..y.clone() };
    let mut twisted = Site { node: z.node, input: h, weight: z.weight, ..y.clone() };
    twisted.view = onnxquant_quant::MatrixView::Dense { inputs: 5, outputs: 7, transposed: false };
    let cannot = |rest: &str| format!("cannot migrate scales of `h`: {rest}");
    let (fine, one) = ([2.0; 5], std::slice::from_ref(y));
    let stale = |name: &str| cannot(&format!("{name} no longer reads it with the weight it was found with"));
    let mixed = |name: &str, first: &str| cannot(&format!("{name} reads other channels or another type than {first}"));
    let (of_y, of_z, of_q) = ("`node_y` (MatMul)", "`node_z` (Conv)", "`node_q` (Conv)");
    let of_l = "`node_l` (MatMul)";
    let wrong = |factor: f32| {
        let mut factors = fine;
        factors[3] = factor;
        factors
    };
    let expected = "expected a positive finite number";
    let table: Vec<(Vec<Site>, Vec<f32>, String)> = vec![
        (vec![], fine.to_vec(), cannot("no layer is given")),
        (vec![s.clone()], fine.to_vec(), stale("`node_s` (MatMul)")),
        (vec![other_weight], fine.to_vec(), stale(of_y)),
        (vec![twisted], fine.to_vec(), stale(of_z)),
        (vec![y.clone(), y.clone()], fine.to_vec(), cannot(&format!("{of_y} is given twice"))),
        (vec![y.clone(), z.clone()], fine.to_vec(), mixed(of_z, of_y)),
        (vec![z.clone(), q.clone()], fine.to_vec(), mixed(of_q, of_z)),
        (vec![z.clone(), other_type], fine.to_vec(), mixed(of_y, of_z)),
        (one.to_vec(), vec![2.0; 4], cannot(&format!("found 4 factors, expected 5 for the inputs of {of_y}"))),
        (one.to_vec(), wrong(0.0).to_vec(), cannot(&format!("factor 3 is 0, {expected}"))),
        (one.to_vec(), wrong(-1.0).to_vec(), cannot(&format!("factor 3 is -1, {expected}"))),
        (one.to_vec(), wrong(f32::NAN).to_vec(), cannot(&format!("factor 3 is NaN, {expected}"))),
        (one.to_vec(), wrong(f32::INFINITY).to_vec(), cannot(&format!("factor 3 is inf, {expected}"))),
        (one.to_vec(), wrong(f32::MAX).to_vec(), cannot("the reciprocal of a factor leaves the range of FLOAT")),
        (one.to_vec(), wrong(1e-39).to_vec(), cannot("the reciprocal of a factor leaves the range of FLOAT")),
        (vec![large.clone()], wrong(1e37).to_vec(), cannot(&format!("the weight of {of_l} leaves the range of FLOAT"))),
    ];
    for (layers, factors, text) in table {
        assert_eq!(refused(&mut model, h, &layers, &factors), text);
    }
}
