use ndarray::ArrayD;
use onnxquant_ir::onnx::tensor_proto::DataType;
use onnxquant_ir::onnx::{ModelProto, NodeProto, TensorProto};
use onnxquant_ir::{int_attribute, ints_attribute};

use super::*;
use crate::testing::{
    assert_close, assert_unchanged, assert_valid, body, constant_named, floats, graph_attribute, image, info, message,
    node, numbers, op_types, run, sites,
};

type Constants = Vec<(&'static str, TensorProto)>;

fn list(numbers: &[i64]) -> TensorProto {
    tensor::from_i64(&[numbers.len()], numbers)
}

fn rows() -> ArrayD<f32> {
    ArrayD::from_shape_vec(vec![5, 6], numbers(30, 7)).unwrap()
}

fn axis(axis: i64) -> Vec<onnxquant_ir::onnx::AttributeProto> {
    vec![int_attribute("axis", axis)]
}

/// The norm of every output's weights is that of `g`.
fn normalized(dims: &[usize], layer: NodeProto) -> ModelProto {
    let lengths = [vec![dims[0]], vec![1; dims.len() - 1]].concat();
    let axes: Vec<i64> = (1..dims.len() as i64).collect();
    let constants = vec![("v", floats(dims, 1)), ("g", floats(&lengths, 2))];
    let nodes = vec![
        node("ReduceL2", &["v"], &["n"], vec![ints_attribute("axes", &axes)]),
        node("Div", &["g", "n"], &["f"], vec![]),
        node("Mul", &["f", "v"], &["w"], vec![]),
        layer,
    ];
    message("x", constants, nodes, "y")
}

/// What is folded, and how many weights are seen then.
fn cases() -> Vec<(&'static str, ModelProto, usize)> {
    let conv = node("Conv", &["x", "w"], &["y"], vec![]);
    let gemm = node("Gemm", &["x", "w"], &["y"], vec![int_attribute("transB", 1)]);
    let packed = |cut: Vec<NodeProto>, constants: Constants| {
        let products = ["q", "k", "v"].map(|part| node("MatMul", &["x", part], &[&format!("x{part}")], vec![]));
        let joined = node("Concat", &["xq", "xk", "xv"], &["y"], axis(1));
        let constants = [vec![("w", floats(&[6, 12], 3))], constants].concat();
        message("x", constants, [cut, products.to_vec(), vec![joined]].concat(), "y")
    };
    let slice = |from: &str, to: &str, part: &str| node("Slice", &["w", from, to, "one"], &[part], vec![]);
    let bounds =
        || vec![("0", list(&[0])), ("4", list(&[4])), ("8", list(&[8])), ("12", list(&[12])), ("one", list(&[1]))];
    let beside = vec![
        node("Concat", &["a", "b"], &["c"], axis(0)),
        node("Transpose", &["c"], &["w"], vec![]),
        node("MatMul", &["x", "w"], &["y"], vec![]),
    ];
    let half = tensor::from_f32_as(DataType::Float16, &[4, 6], &numbers(24, 5));
    let to_f32 = vec![int_attribute("to", DataType::Float as i64)];
    let halves = vec![node("Cast", &["h"], &["f"], to_f32), node("Mul", &["f", "s"], &["w"], vec![]), gemm.clone()];
    vec![
        ("weight normalization of a Conv", normalized(&[4, 3, 2, 2], conv), 1),
        ("and of a Gemm", normalized(&[4, 6], gemm), 1),
        ("Split of a packed weight", packed(vec![node("Split", &["w"], &["q", "k", "v"], axis(1))], vec![]), 3),
        ("Slices", packed(vec![slice("0", "4", "q"), slice("4", "8", "k"), slice("8", "12", "v")], bounds()), 3),
        (
            "two weights in one",
            message("x", vec![("a", floats(&[3, 6], 1)), ("b", floats(&[2, 6], 2))], beside, "y"),
            1,
        ),
        ("short floats", message("x", vec![("h", half), ("s", floats(&[4, 1], 2))], halves, "y"), 1),
    ]
}

#[test]
fn computed_weight_becomes_a_constant_and_results_stay() {
    for (what, proto, layers) in cases() {
        let before = Model::from_proto(proto).unwrap();
        assert_eq!(sites(&before).iter().filter(|site| site.is_ok()).count(), 0, "{what}");
        let mut model = before.clone();
        assert_eq!(fold_weights(&mut model), layers, "{what}");
        assert_valid(&model);
        assert_eq!(sites(&model).iter().filter(|site| site.is_ok()).count(), layers, "{what}");
        assert_eq!(fold_weights(&mut model), 0, "{what}: idempotent");
        assert_eq!(model.graph().initializers().len(), layers, "{what}: what it came from goes");
        let x = if what.contains("Conv") { image() } else { rows() };
        if op_types(&before).iter().all(|op_type| !["ReduceL2", "Slice"].contains(op_type)) {
            assert_close(&run(&model, &x), &run(&before, &x), 1e-6, what);
        }
    }
}

#[test]
fn weight_normalization_gives_the_lengths_asked_for() {
    let conv = node("Conv", &["x", "w"], &["y"], vec![]);
    let mut model = Model::from_proto(normalized(&[4, 3, 2, 2], conv)).unwrap();
    fold_weights(&mut model);
    let weights = tensor::to_f32(constant_named(model.graph(), "w")).unwrap();
    let lengths = tensor::to_f32(&floats(&[4, 1, 1, 1], 2)).unwrap().into_owned();
    for (row, length) in weights.chunks(12).zip(lengths) {
        let found = row.iter().map(|x| x * x).sum::<f32>().sqrt();
        assert!((found - length.abs()).abs() < 1e-5, "{found} {length}");
    }
}

/// Links that are followed without computing anything stay, and what they lead to is folded alone.
#[test]
fn chain_of_links_stays() {
    let nodes = vec![
        node("Transpose", &["w"], &["t"], vec![]),
        node("MatMul", &["x", "t"], &["y"], vec![]),
        node("Mul", &["v", "s"], &["m"], vec![]),
        node("Transpose", &["m"], &["u"], vec![]),
        node("MatMul", &["x", "u"], &["z"], vec![]),
        node("Gather", &["m", "i"], &["g"], vec![]),
    ];
    let constants = vec![("w", floats(&[4, 6], 1)), ("v", floats(&[4, 6], 2)), ("s", floats(&[4, 1], 3))];
    let mut model = Model::from_proto(message("x i", constants, nodes, "y z g")).unwrap();
    assert_eq!(fold_weights(&mut model), 1);
    assert_valid(&model);
    assert_eq!(op_types(&model), ["Transpose", "MatMul", "Transpose", "MatMul", "Gather"]);
    assert_eq!(model.graph().initializers().len(), 2);
}

#[test]
fn what_would_make_the_file_larger_or_is_not_known_stays() {
    const N: usize = 40;
    let matmul = || node("MatMul", &["x", "w"], &["y"], vec![]);
    let large = |name: &'static str| (name, floats(&[N, N], 1));
    let one = |op_type: &str, inputs: &[&str], constants: Constants| {
        message("x", constants, vec![node(op_type, inputs, &["w"], vec![]), matmul()], "y")
    };
    let mut infinite = floats(&[4, 4], 1);
    infinite =
        tensor::from_f32(&[4, 4], &tensor::to_f32(&infinite).unwrap().iter().map(|x| x / 0.0).collect::<Vec<_>>());
    let square = list(&[N as i64, N as i64]);
    let codes = tensor::from_codes(DataType::Int8, &[4, 4], [1; 16]);
    let decoded = vec![
        node("Cast", &["c"], &["f"], vec![int_attribute("to", DataType::Float as i64)]),
        node("Sqrt", &["f"], &["w"], vec![]),
        matmul(),
    ];
    let mut shared = one("Neg", &["v"], vec![large("v")]);
    shared.graph.as_mut().unwrap().node.push(node("Add", &["y", "v"], &["z"], vec![]));
    let branch = |name: &str| body(vec![node("Identity", &["v"], &[name], vec![])], &[name]);
    let bodies = vec![graph_attribute("then_branch", branch("t")), graph_attribute("else_branch", branch("e"))];
    let mut captured = one("Neg", &["v"], vec![large("v")]);
    captured.graph.as_mut().unwrap().node.push(node("If", &["y"], &["z"], bodies));
    let mut output = one("Neg", &["v"], vec![large("v")]);
    output.graph.as_mut().unwrap().output.push(info("w"));
    let mut overridable = one("Neg", &["v"], vec![large("v")]);
    overridable.graph.as_mut().unwrap().input.push(info("v"));
    let outer = vec![("a", floats(&[N, 1], 1)), ("b", floats(&[1, N], 2))];
    let table = vec![
        ("Expand", one("Expand", &["a", "s"], vec![("a", floats(&[N], 1)), ("s", square.clone())])),
        ("ConstantOfShape", one("ConstantOfShape", &["s"], vec![("s", square)])),
        ("outer product", one("Mul", &["a", "b"], outer)),
        ("codes", message("x", vec![("c", codes)], decoded, "y")),
        ("not finite", one("Neg", &["v"], vec![("v", infinite)])),
        ("another reader", shared),
        ("a body", captured),
        ("an output", output),
        ("a caller", overridable),
        ("no operator that is known", one("Erf", &["v"], vec![large("v")])),
        ("an activation", one("Add", &["v", "x"], vec![large("v")])),
    ];
    for (what, proto) in table {
        assert_unchanged(what, proto, fold_weights);
    }
}

/// One part of a table is as large as the table, and others read the table: neither part is made.
#[test]
fn weights_of_one_constant_go_together_or_not_at_all() {
    const N: usize = 60;
    let nodes = vec![
        node("Neg", &["v"], &["a"], vec![]),
        node("Abs", &["v"], &["b"], vec![]),
        node("MatMul", &["x", "a"], &["y"], vec![]),
        node("MatMul", &["x", "b"], &["z"], vec![]),
    ];
    assert_unchanged("two of one", message("x", vec![("v", floats(&[N, N], 1))], nodes, "y z"), fold_weights);
}

/// A result of the Split that is an output of the graph keeps it, so that its other results stay there, too.
#[test]
fn part_that_is_an_output_keeps_the_whole_there() {
    const N: usize = 60;
    let nodes = vec![node("Split", &["w"], &["a", "b"], axis(1)), node("MatMul", &["x", "a"], &["y"], vec![])];
    let proto = message("x", vec![("w", floats(&[N, N], 1))], nodes, "y b");
    assert_unchanged("an output", proto, fold_weights);
}

#[test]
fn unused_part_goes() {
    let nodes = vec![node("Split", &["w"], &["a", "b"], axis(1)), node("MatMul", &["x", "b"], &["y"], vec![])];
    let mut model = Model::from_proto(message("x", vec![("w", floats(&[6, 8], 1))], nodes, "y")).unwrap();
    assert_eq!(fold_weights(&mut model), 1);
    assert_valid(&model);
    assert_eq!((op_types(&model), model.graph().initializers().len()), (vec!["MatMul"], 1));
}

#[test]
fn computed_bias_and_table_are_folded() {
    let nodes = vec![
        node("Neg", &["b"], &["bias"], vec![]),
        node("Conv", &["x", "w", "bias"], &["y"], vec![]),
        node("Neg", &["t"], &["table"], vec![]),
        node("Gather", &["table", "i"], &["z"], vec![]),
    ];
    let constants = vec![("w", floats(&[4, 3, 2, 2], 1)), ("b", floats(&[4], 2)), ("t", floats(&[9, 6], 3))];
    let mut model = Model::from_proto(message("x i", constants, nodes, "y z")).unwrap();
    assert_eq!(fold_weights(&mut model), 2);
    assert_valid(&model);
    assert_eq!(op_types(&model), ["Conv", "Gather"]);
}

/// Every value is computed from the one before it twice: what is computed does not grow with the number of ways.
#[test]
fn long_chain_is_computed_once() {
    let name = |index: usize| if index == 0 { "v".to_owned() } else { format!("v{index}") };
    let mut nodes: Vec<NodeProto> =
        (0..200).map(|i| node("Max", &[&name(i), &name(i)], &[&name(i + 1)], vec![])).collect();
    nodes.push(node("MatMul", &["x", "v200"], &["y"], vec![]));
    let mut model = Model::from_proto(message("x", vec![("v", floats(&[6, 4], 1))], nodes, "y")).unwrap();
    assert_eq!(fold_weights(&mut model), 1);
    assert_eq!(op_types(&model), ["MatMul"]);
    assert_eq!(constant_named(model.graph(), "v200").raw_data, floats(&[6, 4], 1).raw_data);
}
