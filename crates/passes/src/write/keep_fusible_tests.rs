use onnxquant_ir::onnx::{AttributeProto, NodeProto, TensorProto};
use onnxquant_ir::{Model, float_attribute};

use super::*;
use crate::testing::{array, assert_valid, floats, input_names, model, node, op_types, run, sites};

fn with(nodes: Vec<NodeProto>, outputs: &str) -> Model {
    let constants: Vec<(&str, TensorProto)> = vec![
        ("w", floats(&[6, 4], 1)),
        ("b", floats(&[4], 2)),
        ("low", tensor::from_f32(&[], &[-0.5])),
        ("high", tensor::from_f32(&[], &[0.75])),
    ];
    model("x", constants, nodes, outputs)
}

fn layer(op_type: &str, inputs: &[&str], output: &str) -> NodeProto {
    node(op_type, inputs, &[output], vec![])
}

/// The last node, which takes `p` to `y`.
fn end(op_type: &str, inputs: &[&str]) -> NodeProto {
    layer(op_type, &[&["p"], inputs].concat(), "y")
}

fn rewrite(model: &mut Model) {
    let site = sites(model).remove(0).unwrap();
    keep_fusible(model.graph_mut(), &site);
}

#[test]
fn activation_after_a_layer_is_rewritten_and_keeps_the_outputs() {
    let matmul = || layer("MatMul", &["x", "w"], "p");
    let lone_gemm = || layer("Gemm", &["x", "w"], "p");
    let gemm = || layer("Gemm", &["x", "w", "b"], "p");
    let add = || vec![layer("MatMul", &["x", "w"], "m"), layer("Add", &["b", "m"], "p")];
    let of = |first: NodeProto, last: NodeProto| vec![first, last];
    let table = [
        (of(matmul(), end("Relu", &[])), vec!["MatMul", "Max"]),
        (of(matmul(), end("Clip", &["low", "high"])), vec!["MatMul", "Max", "Min"]),
        (of(matmul(), end("Clip", &["low"])), vec!["MatMul", "Max"]),
        (of(matmul(), end("Clip", &["low", ""])), vec!["MatMul", "Max"]),
        (of(matmul(), end("Clip", &["", "high"])), vec!["MatMul", "Min"]),
        (of(lone_gemm(), end("Relu", &[])), vec!["Gemm", "Max"]),
        (of(lone_gemm(), end("Clip", &["low", "high"])), vec!["Gemm", "Max", "Min"]),
        (of(gemm(), end("Relu", &[])), vec!["Gemm", "Add", "Relu"]),
        (of(gemm(), end("Clip", &["low", "high"])), vec!["Gemm", "Add", "Clip"]),
        ([add(), vec![end("Relu", &[])]].concat(), vec!["MatMul", "Add", "Max"]),
        ([add(), vec![end("Clip", &["low", "high"])]].concat(), vec!["MatMul", "Add", "Max", "Min"]),
    ];
    let x = array(&floats(&[3, 6], 3));
    for (nodes, expected) in table {
        let mut model = with(nodes, "y");
        let before = run(&model, &x);
        rewrite(&mut model);
        assert_valid(&model);
        assert_eq!(op_types(&model), expected);
        assert_eq!(run(&model, &x), before, "{expected:?}");
        let (_, last) = model.graph().nodes().last().unwrap();
        assert_eq!(last.output(0).map(|id| model.graph().value(id).name()), Some("y"), "{expected:?}");
        rewrite(&mut model);
        assert_valid(&model);
        assert_eq!(run(&model, &x), before, "{expected:?} rewritten twice");
    }
}

#[test]
fn layer_whose_activation_need_not_change_stays_as_it_is() {
    let bounds =
        |names: &[&str]| -> Vec<AttributeProto> { names.iter().map(|name| float_attribute(name, 1.0)).collect() };
    let clip = |names: &[&str]| node("Clip", &["p"], &["y"], bounds(names));
    let matmul = || layer("MatMul", &["x", "w"], "p");
    let gemm = || layer("Gemm", &["x", "w", "b"], "p");
    let table = [
        ("bounds as attributes", vec![matmul(), clip(&["min", "max"])], "y"),
        ("one bound as an attribute", vec![matmul(), clip(&["max"])], "y"),
        ("no bounds", vec![matmul(), clip(&[])], "y"),
        ("other activation", vec![matmul(), end("Sigmoid", &[])], "y"),
        ("nothing after it", vec![layer("MatMul", &["x", "w"], "y")], "y"),
        ("two readers", vec![matmul(), end("Relu", &[]), layer("Identity", &["p"], "z")], "y z"),
        ("one reader twice", vec![matmul(), end("Add", &["p"])], "y"),
        ("graph output", vec![matmul(), end("Relu", &[])], "y p"),
        ("Gemm with two readers", vec![gemm(), end("Relu", &[]), layer("Identity", &["p"], "z")], "y z"),
        (
            "Add with two readers",
            vec![
                layer("MatMul", &["x", "w"], "m"),
                layer("Add", &["m", "b"], "p"),
                end("Relu", &[]),
                layer("Identity", &["p"], "z"),
            ],
            "y z",
        ),
    ];
    for (what, nodes, outputs) in table {
        let mut model = with(nodes, outputs);
        let before = model.to_proto();
        rewrite(&mut model);
        assert_eq!(model.to_proto(), before, "{what}");
    }
}

#[test]
fn split_bias_leaves_the_name_to_the_sum() {
    let mut model = with(vec![layer("Gemm", &["x", "w", "b"], "p"), end("Relu", &[])], "y");
    rewrite(&mut model);
    let graph = model.graph();
    let nodes = graph.nodes().map(|(_, node)| node).collect::<Vec<_>>();
    let output = |index: usize| nodes[index].output(0).map(|id| graph.value(id).name());
    assert_eq!((output(0), output(1)), (Some("p_before_bias"), Some("p")));
    assert_eq!(input_names(graph, nodes[0]), ["x", "w"]);
    assert_eq!(input_names(graph, nodes[1]), ["p_before_bias", "b"]);
    assert_eq!(nodes[1].name(), "node_p_bias");
}

#[test]
fn bias_of_every_shape_means_the_same_after_the_split() {
    let x = array(&floats(&[3, 6], 3));
    for dims in [vec![], vec![1], vec![4], vec![1, 4], vec![3, 1], vec![3, 4]] {
        let constants = vec![("w", floats(&[6, 4], 1)), ("b", floats(&dims, 2))];
        let nodes = vec![layer("Gemm", &["x", "w", "b"], "p"), end("Relu", &[])];
        let mut model = model("x", constants, nodes, "y");
        let before = run(&model, &x);
        rewrite(&mut model);
        assert_valid(&model);
        assert_eq!(run(&model, &x), before, "{dims:?}");
    }
}

#[test]
fn bounds_the_wrong_way_round_give_the_upper_one_as_before() {
    let mut model = with(vec![layer("MatMul", &["x", "w"], "p"), end("Clip", &["high", "low"])], "y");
    let x = array(&floats(&[3, 6], 3));
    let before = run(&model, &x);
    rewrite(&mut model);
    assert_eq!(run(&model, &x), before);
    assert!(before[0].iter().all(|&y| y == -0.5));
}

#[test]
fn zero_has_the_type_of_the_layer() {
    let w = tensor::from_f32_as(DataType::Float16, &[6, 4], &crate::testing::numbers(24, 1));
    let nodes = vec![layer("MatMul", &["x", "w"], "p"), end("Relu", &[])];
    let mut model = model("x", vec![("w", w)], nodes, "y");
    rewrite(&mut model);
    let zero = crate::testing::constant_named(model.graph(), "relu_zero");
    assert_eq!((zero.data_type(), zero.dims.len()), (DataType::Float16 as i32, 0));
}

#[test]
fn a_bias_of_one_row_becomes_a_vector_where_the_rank_is_known() {
    let row = |nodes: Vec<NodeProto>| {
        let constants = vec![("w", floats(&[6, 4], 1)), ("b", floats(&[1, 4], 2)), ("k", floats(&[1, 6], 3))];
        model("x", constants, nodes, "y")
    };
    let proven = || vec![layer("Mul", &["x", "k"], "t"), layer("Relu", &["t"], "r")];
    let add = |from: &str| vec![layer("MatMul", &[from, "w"], "m"), layer("Add", &["m", "b"], "y")];
    let table = [
        (vec![layer("Gemm", &["x", "w", "b"], "y")], vec![4]),
        ([proven(), add("r")].concat(), vec![4]),
        // A vector times the weight, plus a row, is a row.
        (add("x"), vec![1, 4]),
    ];
    let x = array(&floats(&[3, 6], 4));
    for (nodes, dims) in table {
        let mut model = row(nodes);
        let before = run(&model, &x);
        rewrite(&mut model);
        assert_valid(&model);
        assert_eq!(run(&model, &x), before);
        let graph = model.graph();
        let (_, last) = graph.nodes().last().unwrap();
        let bias = last.inputs().iter().flatten().filter_map(|&value| graph.value(value).constant()).next_back();
        assert_eq!(bias.unwrap().dims, dims);
    }
}
