use onnxquant_ir::onnx::{NodeProto, OperatorSetIdProto, TensorProto};
use onnxquant_ir::{Model, float_attribute, int_attribute, ints_attribute, text_attribute};

use super::*;
use crate::testing::{body, floats, graph_attribute, message, model, node, site_map};

fn units(model: &Model) -> Vec<Unit> {
    find_units(model.graph(), &site_map(model), |_| true)
}

/// Every unit as `result Kernel`, with `+ result` of its tail.
fn found(model: &Model) -> Vec<String> {
    let graph = model.graph();
    let result = |id: NodeId| graph.node(id).output(0).map_or("", |value| graph.value(value).name());
    let line = |unit: &Unit| {
        let tail = unit.tail.map_or(String::new(), |tail| format!(" + {}", result(tail)));
        format!("{} {:?}{tail}", result(unit.node), unit.kernel)
    };
    units(model).iter().map(line).collect()
}

fn number(x: f32) -> TensorProto {
    tensor::from_f32(&[], &[x])
}

fn constants() -> Vec<(&'static str, TensorProto)> {
    vec![
        ("w", floats(&[6, 4], 1)),
        ("k", floats(&[4, 3, 2, 2], 2)),
        ("row", floats(&[4], 3)),
        ("matrix", floats(&[3, 4], 3)),
        ("column", floats(&[4, 1], 3)),
        ("zero", number(0.0)),
        ("three", number(3.0)),
        ("six", number(6.0)),
        ("half", tensor::from_f32(&[1], &[0.5])),
        ("minus", number(-1.0)),
        ("infinite", number(f32::INFINITY)),
        ("one_by_one", tensor::from_f32(&[1, 1], &[0.5])),
        ("indices", tensor::from_i64(&[2], &[0, 1])),
    ]
}

fn plain(op_type: &str, inputs: &[&str], output: &str) -> NodeProto {
    node(op_type, inputs, &[output], vec![])
}

/// A model of two inputs, `x` and `z`.
fn of(nodes: Vec<NodeProto>, outputs: &str) -> Model {
    model("x z", constants(), nodes, outputs)
}

/// What the node gives whose result is read by a Softmax.
fn found_of(op_type: &str, inputs: &[&str], attributes: Vec<onnxquant_ir::onnx::AttributeProto>) -> Vec<String> {
    found(&of(vec![node(op_type, inputs, &["r"], attributes), plain("Softmax", &["r"], "y")], "y"))
}

#[test]
fn each_operator_has_the_kernel_of_the_table() {
    let table: &[(&str, &[&str], &str)] = &[
        ("Conv", &["x", "k"], "Linear"),
        ("Conv", &["x", "k", "row"], "Linear"),
        ("Gemm", &["x", "w", "row"], "Linear"),
        ("MatMul", &["x", "w"], "Linear"),
        ("MatMul", &["x", "z"], "Product"),
        ("Add", &["x", "z"], "Elementwise"),
        ("Add", &["x", "row"], "Elementwise"),
        ("Mul", &["row", "x"], "Elementwise"),
        ("Concat", &["x", "z", "row"], "Elementwise"),
        ("Sigmoid", &["x"], "Unary"),
        ("LeakyRelu", &["x"], "Unary"),
        ("AveragePool", &["x"], "Unary"),
        ("GlobalAveragePool", &["x"], "Unary"),
        ("MaxPool", &["x"], "Movement"),
        ("Reshape", &["x", "indices"], "Movement"),
        ("Transpose", &["x"], "Movement"),
        ("Gather", &["x", "indices"], "Movement"),
        ("Resize", &["x", "", "row"], "Movement"),
    ];
    for (op_type, inputs, kernel) in table {
        assert_eq!(found_of(op_type, inputs, vec![]), [format!("r {kernel}")], "{op_type} {inputs:?}");
    }
}

#[test]
fn operators_without_a_kernel_are_no_units() {
    let table: &[(&str, &[&str])] = &[
        ("Sub", &["x", "z"]),
        ("Div", &["x", "z"]),
        ("Erf", &["x"]),
        ("Relu", &["x"]),
        ("Add", &["row", "three"]),
        ("MatMul", &["row", "x"]),
        ("Gather", &["w", "x"]),
        ("Gemm", &["x", "z", "row"]),
    ];
    for (op_type, inputs) in table {
        assert!(found_of(op_type, inputs, vec![]).is_empty(), "{op_type} {inputs:?}");
    }
    assert!(found_of("Resize", &["x", "", "row"], vec![text_attribute("mode", "linear")]).is_empty());
    let pool = node("MaxPool", &["x"], &["y", "indices_of_most"], vec![]);
    assert!(found(&of(vec![pool], "y indices_of_most")).is_empty());
    let mut other = message("x z", vec![], vec![plain("Add", &["x", "z"], "y")], "y");
    other.opset_import.push(OperatorSetIdProto { domain: Some("com.example".to_owned()), version: Some(1) });
    other.graph.as_mut().unwrap().node[0].domain = Some("com.example".to_owned());
    assert!(found(&Model::from_proto(other).unwrap()).is_empty());
}

#[test]
fn forms_of_average_pools_without_a_kernel_are_no_units() {
    let square = || ints_attribute("kernel_shape", &[2, 2]);
    let int = int_attribute;
    let table = [
        (vec![square()], true),
        (vec![square(), ints_attribute("dilations", &[1, 1])], true),
        (vec![square(), ints_attribute("dilations", &[1, 2])], false),
        (vec![square(), int("ceil_mode", 1)], true),
        (vec![square(), int("count_include_pad", 1)], true),
        (vec![square(), int("ceil_mode", 1), int("count_include_pad", 1)], false),
        (vec![ints_attribute("kernel_shape", &[2, 2, 2, 2])], false),
    ];
    for (attributes, is_unit) in table {
        assert_eq!(!found_of("AveragePool", &["x"], attributes.clone()).is_empty(), is_unit, "{attributes:?}");
    }
}

#[test]
fn only_global_average_pools_ask_for_scales_in_bounds() {
    let model = of(vec![plain("GlobalAveragePool", &["x"], "g"), plain("Sigmoid", &["g"], "y")], "y");
    let units = units(&model);
    let takes = |at: usize, input, output| units[at].takes_scales(model.graph(), input, output);
    assert!(takes(0, 0.1, 0.1) && takes(0, 25.0, 0.1) && takes(0, 0.001, 0.25));
    assert!(!takes(0, 26.0, 0.1) && !takes(0, 0.001, 0.26) && !takes(0, 1.0, 1e-30));
    assert!(takes(1, 1.0, 1e-30));
}

#[test]
fn bias_must_be_a_constant_row() {
    let computed = plain("Softmax", &["z"], "b");
    for (op_type, weight) in [("Gemm", "w"), ("Conv", "k")] {
        let nodes = vec![computed.clone(), plain(op_type, &["x", weight, "b"], "y")];
        assert!(found(&of(nodes, "y")).is_empty(), "{op_type}");
    }
    for (bias, is_row) in [("row", true), ("three", true), ("half", true), ("matrix", false), ("column", false)] {
        assert_eq!(!found_of("Gemm", &["x", "w", bias], vec![]).is_empty(), is_row, "{bias}");
    }
}

#[test]
fn product_with_a_positive_number_is_a_rescale() {
    let table: &[(&str, &[&str], Option<f32>)] = &[
        ("Mul", &["x", "half"], Some(0.5)),
        ("Mul", &["three", "x"], Some(3.0)),
        ("Div", &["x", "half"], Some(2.0)),
        ("Mul", &["x", "minus"], None),
        ("Mul", &["x", "zero"], None),
        ("Mul", &["x", "infinite"], None),
        ("Mul", &["x", "row"], None),
        ("Mul", &["x", "one_by_one"], None),
    ];
    for &(op_type, inputs, factor) in table {
        let model = of(vec![plain(op_type, inputs, "r"), plain("Softmax", &["r"], "y")], "y");
        let units = units(&model);
        let [unit] = &units[..] else { panic!("{op_type} {inputs:?}: {units:?}") };
        assert_eq!(unit.kernel, factor.map_or(Kernel::Elementwise, Kernel::Rescale), "{op_type} {inputs:?}");
        if factor.is_some() {
            let slot = usize::from(inputs[0] != "x");
            assert_eq!(unit.inputs, [(slot, model.graph().find("x").unwrap())], "{op_type} {inputs:?}");
        }
    }
    for divisor in ["minus", "zero", "infinite", "row"] {
        assert!(found_of("Div", &["x", divisor], vec![]).is_empty(), "{divisor}");
    }
    assert!(found_of("Div", &["six", "x"], vec![]).is_empty(), "a number over the activation");
}

#[test]
fn rescale_that_is_a_graph_output_is_no_unit() {
    assert!(found(&of(vec![plain("Mul", &["x", "half"], "y")], "y")).is_empty());
    assert_eq!(found(&of(vec![plain("Add", &["x", "half"], "y")], "y")), ["y Elementwise"]);
}

#[test]
fn only_the_first_result_of_a_node_may_be_a_graph_output() {
    let split = || vec![node("Split", &["x"], &["a", "b"], vec![int_attribute("axis", 1)])];
    let nodes = || split().into_iter().chain([plain("Softmax", &["a"], "c"), plain("Softmax", &["b"], "d")]).collect();
    for (outputs, is_unit) in [("c d", true), ("a c d", true), ("b c d", false), ("a b c d", false)] {
        assert_eq!(!found(&of(nodes(), outputs)).is_empty(), is_unit, "{outputs}");
    }
    let units = units(&of(nodes(), "c d"));
    assert_eq!(units[0].outputs.len(), 2);
}

#[test]
fn activation_from_zero_up_is_the_tail_of_its_unit() {
    let table: &[(&str, &[&str], Option<f32>)] =
        &[("Relu", &["p"], None), ("Clip", &["p", "zero", "six"], Some(6.0)), ("Clip", &["p", "zero"], None)];
    for &(op_type, inputs, ceiling) in table {
        let model = of(vec![plain("Conv", &["x", "k"], "p"), plain(op_type, inputs, "y")], "y");
        assert_eq!(found(&model), ["p Linear + y"], "{inputs:?}");
        let unit = units(&model).remove(0);
        assert_eq!(unit.ceiling, ceiling, "{inputs:?}");
        assert_eq!(unit.outputs, [model.graph().find("y").unwrap()], "{inputs:?}");
    }
    let bounds = vec![float_attribute("min", 0.0), float_attribute("max", 4.0)];
    let old = of(vec![plain("Add", &["x", "z"], "p"), node("Clip", &["p"], &["y"], bounds)], "y");
    assert_eq!(found(&old), ["p Elementwise + y"]);
    assert_eq!(units(&old)[0].ceiling, Some(4.0));
}

#[test]
fn activation_that_does_more_or_is_not_alone_is_no_tail() {
    let conv = || plain("Conv", &["x", "k"], "p");
    let relu = || plain("Relu", &["p"], "y");
    let table = [
        ("from below zero", vec![conv(), plain("Clip", &["p", "minus", "six"], "y")], "y", "p Linear"),
        ("from above zero", vec![conv(), plain("Clip", &["p", "half", "six"], "y")], "y", "p Linear"),
        ("without lower end", vec![conv(), plain("Clip", &["p", "", "six"], "y")], "y", "p Linear"),
        ("computed end", vec![conv(), plain("Clip", &["p", "zero", "z"], "y")], "y", "p Linear"),
        ("other reader", vec![conv(), relu(), plain("Softmax", &["p"], "s")], "y s", "p Linear"),
        ("graph output", vec![conv(), relu()], "y p", "p Linear"),
        ("movement", vec![plain("Transpose", &["x"], "p"), relu()], "y", "p Movement"),
        ("rescale", vec![plain("Mul", &["x", "half"], "p"), relu()], "y", "p Rescale(0.5)"),
    ];
    for (what, nodes, outputs, expected) in table {
        assert_eq!(found(&of(nodes, outputs)), [expected], "{what}");
    }
}

#[test]
fn value_that_a_subgraph_reads_is_not_made_on_codes() {
    let branch = || graph_attribute("then_branch", body(vec![plain("Identity", &["v"], "b")], &["b"]));
    let other = || graph_attribute("else_branch", body(vec![plain("Identity", &["x"], "e")], &["e"]));
    let nodes = |v: NodeProto| vec![v, node("If", &["cond"], &["y"], vec![branch(), other()])];
    let with = |nodes| {
        let cond = ("cond", tensor::from_raw(onnxquant_ir::onnx::tensor_proto::DataType::Bool, &[], vec![1u8]));
        model("x", constants().into_iter().chain([cond]).collect(), nodes, "y")
    };
    assert!(found(&with(nodes(plain("Sigmoid", &["x"], "v")))).is_empty());
    let more = [plain("Softmax", &["x"], "v"), plain("Sigmoid", &["v"], "s"), plain("Softmax", &["s"], "t")];
    let nodes = more.into_iter().chain(nodes(plain("Softmax", &["t"], "u")).split_off(1)).collect();
    assert_eq!(found(&with(nodes)), ["s Unary"], "a captured value may be read as codes");
}

#[test]
fn values_that_are_not_floats_keep_their_nodes_from_codes() {
    let nodes = vec![plain("Add", &["x", "z"], "a"), plain("Sigmoid", &["a"], "s"), plain("Softmax", &["s"], "y")];
    let model = of(nodes, "y");
    for (other, expected) in [("x", vec!["s Unary"]), ("a", vec![]), ("s", vec!["a Elementwise"])] {
        let other = model.graph().find(other).unwrap();
        let found = find_units(model.graph(), &HashMap::new(), |value| value != other);
        let expected: Vec<_> = expected.iter().map(|name: &&str| name.split(' ').next().unwrap()).collect();
        let result = |unit: &Unit| model.graph().value(model.graph().node(unit.node).output(0).unwrap()).name();
        assert_eq!(found.iter().map(result).collect::<Vec<_>>(), expected);
    }
    let integers = tensor::from_i64(&[1], &[3]);
    let with_integers = crate::testing::model("x", vec![("c", integers)], vec![plain("Add", &["x", "c"], "y")], "y");
    assert!(found(&with_integers).is_empty(), "an integer operand");
}

#[test]
fn dense_products_without_a_tail_may_write_floats() {
    let table: &[(&str, &[&str], bool)] = &[
        ("MatMul", &["x", "w"], true),
        ("Gemm", &["x", "w", "row"], true),
        ("MatMul", &["x", "z"], true),
        ("Conv", &["x", "k"], false),
        ("Add", &["x", "z"], false),
    ];
    for (op_type, inputs, expected) in table {
        let plain_model = of(vec![plain(op_type, inputs, "p"), plain("Softmax", &["p"], "y")], "y");
        assert_eq!(units(&plain_model)[0].may_write_floats(plain_model.graph()), *expected, "{op_type} {inputs:?}");
        let with_tail = of(vec![plain(op_type, inputs, "p"), plain("Relu", &["p"], "y")], "y");
        assert!(!units(&with_tail)[0].may_write_floats(with_tail.graph()), "{op_type} {inputs:?} and Relu");
    }
}
