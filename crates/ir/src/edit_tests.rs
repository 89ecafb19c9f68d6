use onnxquant_proto::onnx::TensorAnnotation;

use super::*;
use crate::model::Model;
use crate::tensor;
use crate::testing::{branching, graph, info, message, model, nested, node, number};
use crate::verify::verify;

fn value(model: &Model, name: &str) -> ValueId {
    model.graph().find(name).unwrap_or_else(|| panic!("no value `{name}`"))
}

fn maker(model: &Model, name: &str) -> NodeId {
    model.graph().producer(value(model, name)).expect("a node makes it").0
}

fn names(model: &Model) -> Vec<String> {
    let mut names = model.graph().values().map(|(_, value)| value.name().to_owned()).collect::<Vec<_>>();
    names.sort();
    names
}

pub(super) fn relu(input: ValueId, output: &str) -> NewNode {
    NewNode { op_type: "Relu", inputs: vec![Some(input)], outputs: vec![output.to_owned()], ..NewNode::default() }
}

/// `x -> a -> b -> y` with the constants `v` and `w`.
fn chain() -> Model {
    let nodes = vec![node("Relu", &["x"], &["a"]), node("Add", &["a", "w"], &["b"]), node("Mul", &["b", "v"], &["y"])];
    model(graph("x", "v w", nodes, "y"))
}

/// A body two levels down reads `a` and `w`.
fn captured() -> Model {
    let nodes = vec![node("Relu", &["x"], &["a"]), nested(2, "a"), branching("c", "z", vec![], "w")];
    model(graph("x c", "w", nodes, "y z"))
}

#[test]
fn fresh_name_avoids_values_nodes_and_bodies() {
    let mut proto = graph("x", "w", vec![branching("x", "y", vec![node("Relu", &["x"], &["inside"])], "inside")], "y");
    proto.node[0].name = Some("node".into());
    proto.node[0].attribute[0].g.as_mut().unwrap().node[0].name = Some("inner_node".into());
    let mut model = model(proto);
    for taken in ["x", "w", "y", "inside", "node", "inner_node"] {
        assert_eq!(model.graph_mut().fresh_name(taken), format!("{taken}_1"));
        assert_eq!(model.graph_mut().fresh_name(taken), format!("{taken}_2"));
    }
    assert_eq!(model.graph_mut().fresh_name("free"), "free");
    assert_eq!(model.graph_mut().fresh_name(""), "_1");
}

#[test]
fn fresh_name_avoids_names_of_bodies_two_deep() {
    let mut model = model(graph("x c", "", vec![nested(3, "x")], "y"));
    assert_eq!(
        ["deep0", "deep1", "deep2"].map(|name| model.graph_mut().fresh_name(name)),
        ["deep0_1", "deep1_1", "deep2_1"]
    );
}

#[test]
fn name_of_a_removed_value_is_not_given_again() {
    let mut model = chain();
    let y = value(&model, "v");
    let mul = maker(&model, "y");
    model.graph_mut().set_input(mul, 1, None);
    model.graph_mut().remove_if_unused(y);
    assert!(model.graph().find("v").is_none());
    assert_eq!(model.graph_mut().fresh_name("v"), "v_1");
}

#[test]
fn inserted_node_stands_where_it_was_put() {
    let mut model = chain();
    let (a, add) = (value(&model, "a"), maker(&model, "b"));
    let before = model.graph_mut().insert_before(add, relu(a, "a"));
    let after = model.graph_mut().insert_after(add, relu(a, "a"));
    assert_eq!(verify(&model), []);
    let order = model.graph().order();
    assert_eq!(order[1..4], [before, add, after]);
    assert!(["a_1", "a_2"].iter().all(|name| model.graph().find(name).is_some()));
}

#[test]
fn input_beyond_the_end_leaves_those_between_out() {
    let mut model = chain();
    let (w, relu) = (value(&model, "w"), maker(&model, "a"));
    model.graph_mut().set_input(relu, 3, Some(w));
    assert_eq!(verify(&model), []);
    assert_eq!(model.to_proto().graph.unwrap().node[0].input, ["x", "", "", "w"]);
    model.graph_mut().truncate_inputs(relu, 1);
    assert_eq!(verify(&model), []);
    assert_eq!(model.to_proto(), chain().to_proto());
}

#[test]
fn replaced_uses_lead_to_the_new_value() {
    let mut model = chain();
    let (a, x) = (value(&model, "a"), value(&model, "x"));
    model.graph_mut().replace_uses(a, x).unwrap();
    assert_eq!(verify(&model), []);
    assert_eq!(model.to_proto().graph.unwrap().node[1].input, ["x", "w"]);
    assert!(model.graph().value(a).uses().is_empty());
}

#[test]
fn pinned_names_are_not_replaced() {
    for name in ["a", "y", "w"] {
        let mut model = captured();
        let (pinned, x) = (value(&model, name), value(&model, "x"));
        let before = model.to_proto();
        let error = model.graph_mut().replace_uses(pinned, x).unwrap_err();
        assert!(matches!(&error, GraphError::NamePinned { value } if value == name), "{error}");
        assert_eq!(model.to_proto(), before);
    }
}

#[test]
fn captured_values_and_their_makers_stay() {
    let mut model = captured();
    let before = model.to_proto();
    for name in ["a", "w", "x", "c"] {
        let kept = value(&model, name);
        model.graph_mut().remove_if_unused(kept);
    }
    let relu = maker(&model, "a");
    assert!(matches!(model.graph_mut().remove_node(relu), Err(GraphError::StillUsed { users: 1, .. })));
    assert_eq!(model.to_proto(), before);
    assert_eq!(verify(&model), []);
}

#[test]
fn captures_go_with_their_node() {
    let nodes = vec![node("Relu", &["x"], &["a"]), nested(2, "a"), node("Relu", &["x"], &["z"])];
    let mut model = model(graph("x c", "", nodes, "z"));
    let y = value(&model, "y");
    model.graph_mut().remove_if_unused(y);
    assert_eq!(verify(&model), []);
    assert_eq!(names(&model), ["c", "x", "z"]);
}

#[test]
fn removal_follows_what_only_the_value_kept_alive() {
    let mut proto = graph("x", "v w u", chain().to_proto().graph.unwrap().node, "a");
    proto.value_info = vec![info("a"), info("b"), info("w")];
    proto.quantization_annotation =
        ["a", "b"].map(|name| TensorAnnotation { tensor_name: Some(name.into()), ..Default::default() }).to_vec();
    let mut model = model(proto);
    let y = value(&model, "y");
    model.graph_mut().remove_if_unused(y);
    assert_eq!(verify(&model), []);
    assert_eq!(names(&model), ["a", "u", "x"]);
    let written = model.to_proto().graph.unwrap();
    let left = (written.value_info.len(), written.quantization_annotation.len(), written.initializer.len());
    assert_eq!(left, (1, 1, 1));
}

#[test]
fn removal_stops_at_nodes_with_another_used_output() {
    let nodes = vec![node("Split", &["x"], &["a", "b"]), node("Relu", &["a"], &["r"])];
    let mut model = model(graph("x", "", nodes, "b"));
    let r = value(&model, "r");
    model.graph_mut().remove_if_unused(r);
    assert_eq!(names(&model), ["a", "b", "x"]);
    let split = maker(&model, "b");
    assert!(model.graph_mut().truncate_outputs(split, 1).is_err());
    assert_eq!(verify(&model), []);
}

#[test]
fn unused_outputs_can_be_cut_off() {
    let mut model = model(graph("x", "", vec![node("Dropout", &["x"], &["y", "mask"])], "y"));
    let dropout = maker(&model, "y");
    model.graph_mut().truncate_outputs(dropout, 1).unwrap();
    assert_eq!(verify(&model), []);
    assert_eq!(names(&model), ["x", "y"]);
}

#[test]
fn output_taken_over_keeps_name_and_readers() {
    let mut model = chain();
    let (add, mul, y) = (maker(&model, "b"), maker(&model, "y"), value(&model, "y"));
    model.graph_mut().set_input(mul, 0, None);
    model.graph_mut().take_over_output(add, 0, y).unwrap();
    model.graph_mut().remove_node(mul).unwrap();
    assert_eq!(verify(&model), []);
    let written = model.to_proto().graph.unwrap();
    assert_eq!((written.node.len(), written.node[1].output[0].as_str()), (2, "y"));
    assert!(model.graph().find("b").is_none());
}

#[test]
fn output_taken_over_into_a_new_slot_is_the_nodes() {
    let mut model = chain();
    let (add, y) = (maker(&model, "b"), value(&model, "y"));
    model.graph_mut().take_over_output(add, 2, y).unwrap();
    assert_eq!(verify(&model), []);
    assert_eq!(model.to_proto().graph.unwrap().node[1].output, ["b", "", "y"]);
}

#[test]
fn output_cannot_be_taken_over_where_it_would_break_an_edge() {
    let mut model = chain();
    let (relu, add) = (maker(&model, "a"), maker(&model, "b"));
    let before = model.to_proto();
    for name in ["x", "w"] {
        let kept = value(&model, name);
        assert!(matches!(model.graph_mut().take_over_output(add, 0, kept), Err(GraphError::NotMadeByNode { .. })));
    }
    let y = value(&model, "y");
    assert!(matches!(model.graph_mut().take_over_output(relu, 0, y), Err(GraphError::StillUsed { .. })));
    assert_eq!(model.to_proto(), before);
    assert_eq!(verify(&model), []);
}

#[test]
fn swapped_outputs_take_names_and_readers_along() {
    let nodes = vec![node("Relu", &["x"], &["a"]), node("Neg", &["x"], &["b"]), node("Add", &["a", "b"], &["y"])];
    let mut model = model(graph("x", "", nodes, "y"));
    let (a, b) = (maker(&model, "a"), maker(&model, "b"));
    model.graph_mut().swap_outputs(a, 0, b);
    assert_eq!(verify(&model), []);
    let written = model.to_proto().graph.unwrap();
    assert_eq!([&written.node[0].output, &written.node[1].output], [&["b"], &["a"]]);
    model.graph_mut().swap_outputs(a, 0, a);
    assert_eq!(model.to_proto().graph.unwrap(), written);
}

#[test]
fn outputs_are_swapped_with_a_node_that_has_none() {
    for outputs in [&[][..], &[""]] {
        let mut model = model(graph("x", "", vec![node("Relu", &["x"], &["a"]), node("Neg", &["x"], outputs)], "a"));
        let [relu, neg] = *model.graph().order() else { panic!("two nodes") };
        model.graph_mut().swap_outputs(relu, 0, neg);
        assert_eq!(verify(&model), []);
        assert_eq!(maker(&model, "a"), neg);
        assert_eq!(model.graph().node(relu).output(0), None);
    }
}

#[test]
fn node_becomes_a_constant_of_the_same_name() {
    let mut model = chain();
    let add = maker(&model, "b");
    let b = model.graph_mut().node_to_constant(add, tensor::from_f32(&[2], &[1.0, 2.0])).unwrap();
    assert_eq!(verify(&model), []);
    assert_eq!(model.graph().value(b).constant().unwrap().name(), "b");
    assert_eq!(model.graph().initializers().last(), Some(&b));
    assert_eq!(model.to_proto().graph.unwrap().node.len(), 2);
    assert!(model.graph().find("a").is_some(), "the inputs stay");
}

#[test]
fn node_with_pinned_or_several_outputs_becomes_no_constant() {
    let nodes = vec![node("Split", &["x"], &["a", "b"]), node("Relu", &["x"], &["y"]), node("Relu", &["x"], &[])];
    let mut model = model(graph("x", "", nodes, "y"));
    let before = model.to_proto();
    let table = [(0, "NotOneOutput"), (1, "NamePinned"), (2, "NotOneOutput")];
    for (index, expected) in table {
        let node = model.graph().order()[index];
        let error = model.graph_mut().node_to_constant(node, number("")).unwrap_err();
        assert!(format!("{error:?}").starts_with(expected), "{error:?}");
    }
    assert_eq!(model.to_proto(), before);
}

#[test]
fn sparse_initializer_goes_with_its_value() {
    let mut proto = graph("x", "", vec![node("Add", &["x", "s"], &["y"])], "y");
    let values = Some(number("s"));
    proto.sparse_initializer.push(onnxquant_proto::onnx::SparseTensorProto { values, ..Default::default() });
    let mut model = model(proto);
    let (s, add) = (value(&model, "s"), maker(&model, "y"));
    assert_eq!((model.graph().value(s).origin(), model.graph().value(s).constant()), (Origin::Constant, None));
    model.graph_mut().set_input(add, 1, None);
    model.graph_mut().remove_if_unused(s);
    assert_eq!(verify(&model), []);
    assert!(model.to_proto().graph.unwrap().sparse_initializer.is_empty());
}

#[test]
fn attributes_are_set_replaced_and_removed() {
    use crate::attribute::int_attribute;
    let mut model = chain();
    let add = maker(&model, "b");
    let graph = model.graph_mut();
    graph.set_attribute(add, int_attribute("axis", 1));
    graph.set_attribute(add, int_attribute("axis", 2));
    assert_eq!((graph.node(add).attributes().len(), graph.node(add).int("axis", 0)), (1, 2));
    assert_eq!(graph.remove_attribute(add, "axis"), Some(int_attribute("axis", 2)));
    assert_eq!(graph.remove_attribute(add, "axis"), None);
    graph.set_op_type(add, "Sub");
    assert!(graph.node(add).is("Sub"));
}

#[test]
fn initializers_below_ir_4_are_constants_and_leave_the_inputs_above() {
    let proto = |version: i64| {
        let mut proto = message(graph("x w", "w", vec![node("Add", &["x", "w"], &["y"])], "y"));
        proto.ir_version = Some(version);
        proto
    };
    let mut old = Model::from_proto(proto(3)).unwrap();
    assert_eq!(old.graph().value(value(&old, "w")).origin(), Origin::Constant);
    assert_eq!(old.to_proto(), proto(3));
    old.raise_ir_version(3);
    assert_eq!(old.graph().inputs().len(), 2);
    old.raise_ir_version(8);
    assert_eq!(verify(&old), []);
    assert_eq!((old.graph().inputs().len(), old.ir_version()), (1, 8));
    let again = Model::from_proto(old.to_proto()).unwrap();
    assert_eq!(again.graph().value(value(&again, "w")).origin(), Origin::Constant);

    let mut new = Model::from_proto(proto(8)).unwrap();
    let w = value(&new, "w");
    assert_eq!(new.graph().value(w).origin(), Origin::Overridable);
    new.graph_mut().remove_if_unused(w);
    new.raise_ir_version(4);
    assert_eq!((new.to_proto(), new.ir_version()), (proto(8), 8));
    new.graph_mut().unlist_input(w);
    assert_eq!(verify(&new), []);
    assert_eq!(new.graph().value(w).origin(), Origin::Constant);
}
