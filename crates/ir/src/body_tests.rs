use onnxquant_proto::onnx::NodeProto;

use super::*;
use crate::testing::{graph, graph_attribute, info, message, model, named, nested, node, number, with};
use crate::verify::verify;

/// 2 KiB.
fn large(name: &str, start: f32) -> TensorProto {
    let numbers: Vec<f32> = (0..512).map(|at| start + at as f32).collect();
    named(name, tensor::from_f32(&[512], &numbers))
}

/// An If whose branches add the outer `w` to `x`; the second has a `v` of its own.
fn branches() -> Model {
    let then = graph("", "", vec![node("Add", &["x", "w"], &["t"])], "t");
    let mut other = graph("", "", vec![node("Add", &["x", "w"], &["s"]), node("Add", &["s", "v"], &["e"])], "e");
    other.initializer.push(large("v", 7.0));
    let attributes = vec![graph_attribute("then_branch", then), graph_attribute("else_branch", other)];
    let mut main = graph("x c", "", vec![with(node("If", &["c"], &["y"]), attributes)], "y");
    main.initializer.push(large("w", 0.0));
    model(main)
}

fn open(model: &Model, at: usize) -> (BodyId, Model) {
    let id = model.graph().bodies().remove(at);
    let opened = model.open_body(&id).unwrap();
    assert_eq!(verify(&opened), []);
    (id, opened)
}

/// Every name of a constant of a graph.
fn constants(graph: &GraphProto) -> Vec<&str> {
    graph.initializer.iter().map(|tensor| tensor.name()).collect()
}

fn nodes(graph: &GraphProto) -> String {
    let text = |node: &NodeProto| format!("{}({})", node.op_type(), node.input.join(" "));
    graph.node.iter().map(text).collect::<Vec<_>>().join(" ")
}

#[test]
fn opened_and_closed_unchanged_a_body_is_what_it_was() {
    let mut deep = vec![branches()];
    deep.push(model(graph("c v", "", vec![nested(3, "v")], "y")));
    for model in deep {
        let before = model.to_proto();
        let mut after = model.clone();
        for id in model.graph().bodies() {
            let opened = after.open_body(&id).unwrap();
            after.close_body(&id, opened, &|_, _| false);
        }
        assert_eq!(after.to_proto(), before);
        assert_eq!(verify(&after), []);
    }
}

#[test]
fn outer_constants_are_constants_inside_and_other_values_inputs() {
    let model = branches();
    let (_, then) = open(&model, 0);
    let graph = then.graph();
    assert!(graph.value(graph.find("w").unwrap()).constant().is_some());
    assert_eq!(graph.value(graph.find("x").unwrap()).origin(), Origin::Input);
    assert!(graph.is_captured("w") && graph.is_captured("x") && !graph.is_captured("t"));
    let (_, other) = open(&model, 1);
    assert!(!other.graph().is_captured("v"));
}

#[test]
fn new_constants_go_outside_once_and_what_nobody_reads_goes() {
    let mut model = branches();
    for (at, wanted) in [(0, "twice"), (1, "double")] {
        let (id, mut body) = open(&model, at);
        let graph = body.graph_mut();
        let add = graph.nodes().find(|(_, node)| node.is("Add")).unwrap().0;
        let old = graph.node(add).input(1).unwrap();
        let new = graph.add_constant(wanted, large("", 3.0));
        graph.set_input(add, 1, Some(new));
        graph.remove_if_unused(old);
        model.close_body(&id, body, &|_, _| false);
        assert_eq!(verify(&model), []);
    }
    let proto = model.to_proto();
    let main = proto.graph.unwrap();
    assert_eq!(constants(&main), ["twice"], "`w` is not read any more, and one constant is enough for both");
    let bodies: Vec<&GraphProto> = onnxquant_proto::bodies(&main.node[0]).collect();
    assert_eq!([nodes(bodies[0]), nodes(bodies[1])], ["Add(x twice)", "Add(x twice) Add(s v)"]);
    assert_eq!(constants(bodies[1]), ["v"]);
}

#[test]
fn what_has_to_stay_stays_and_what_changed_gets_a_name_of_its_own() {
    let mut model = branches();
    let (id, mut body) = open(&model, 0);
    let graph = body.graph_mut();
    let weight = graph.find("w").unwrap();
    graph.set_tensor(weight, large("", 9.0));
    model.close_body(&id, body, &|_, _| true);
    assert_eq!(verify(&model), []);
    let main = model.to_proto().graph.unwrap();
    assert_eq!(constants(&main), ["w"], "the other branch reads it");
    let then = onnxquant_proto::bodies(&main.node[0]).next().unwrap();
    assert_eq!((constants(then), nodes(then).as_str()), (vec!["w_1"], "Add(x w_1)"));
}

#[test]
fn bodies_of_other_operators_and_broken_ones_are_not_opened() {
    let broken = graph("", "", vec![node("Add", &["x", "x"], &["t"]), node("Add", &["x", "x"], &["t"])], "t");
    let good = graph("", "", vec![node("Add", &["x", "x"], &["e"])], "e");
    let branches = vec![graph_attribute("then_branch", broken), graph_attribute("else_branch", good.clone())];
    let search = NodeProto { domain: Some("com.microsoft".into()), ..node("BeamSearch", &["x"], &["z"]) };
    let search = with(search, vec![graph_attribute("decoder", good)]);
    let mut proto = message(graph("x c", "", vec![with(node("If", &["c"], &["y"]), branches), search], "y z"));
    proto
        .opset_import
        .push(onnxquant_proto::onnx::OperatorSetIdProto { domain: Some("com.microsoft".into()), version: Some(1) });
    let model = Model::from_proto(proto).unwrap();
    let found = model.graph().bodies();
    assert_eq!(found.iter().map(BodyId::attribute).collect::<Vec<_>>(), ["then_branch", "else_branch"]);
    assert!(model.open_body(&found[0]).is_none());
    assert!(model.open_body(&found[1]).is_some());
}

#[test]
fn inner_names_that_shadow_outer_ones_keep_their_meaning() {
    let mut shadow = graph("", "", vec![node("Add", &["x", "w"], &["t"])], "t");
    shadow.initializer.push(number("w"));
    let other = graph("", "", vec![node("Add", &["x", "w"], &["e"])], "e");
    let attributes = vec![graph_attribute("then_branch", shadow), graph_attribute("else_branch", other)];
    let mut main = graph("x c", "", vec![with(node("If", &["c"], &["y"]), attributes)], "y");
    main.initializer.push(large("w", 0.0));
    main.value_info.push(info("x"));
    let mut model = model(main);
    let before = model.to_proto();
    let (id, body) = open(&model, 0);
    let inner = body.graph().find("w").unwrap();
    assert!(body.graph().value(inner).tensor().unwrap().dims.is_empty(), "the inner one");
    model.close_body(&id, body, &|_, _| false);
    assert_eq!(model.to_proto(), before);
}
