use onnxquant_ir::onnx::{GraphProto, NodeProto};
use onnxquant_ir::{Model, ints_attribute};

use super::*;
use crate::migrate::testing::{FACTORS, conv, dense, image, matrix, migrated, op, readers, with};
use crate::testing::{
    array, assert_close, assert_valid, body, constant_named, floats, graph_attribute, info, input_names, message,
    numbers, op_types, run, sites,
};

type Change = fn(&mut GraphProto);

/// Nodes and changes of the graph that leave no place for factors.
fn without_a_place() -> Vec<(&'static str, Vec<NodeProto>, Change)> {
    let matmul = || op("MatMul", &["x", "w"], "a");
    let plain = || vec![op("MatMul", &["x", "w"], "h"), op("MatMul", &["h", "v"], "y")];
    let between = |nodes: Vec<NodeProto>| [vec![matmul()], nodes, vec![op("MatMul", &["h", "v"], "y")]].concat();
    let same: Change = |_| {};
    vec![
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
    ]
}

#[test]
fn factors_go_into_a_mul_where_the_producer_does_not_take_them() {
    for (what, nodes, change) in without_a_place() {
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
