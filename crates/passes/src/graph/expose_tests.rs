use onnxquant_ir::{Model, verify};

use super::*;
use crate::testing::{body, floats, graph_attribute, info, message, node as named};

const DENSE: MatrixView = MatrixView::Dense { inputs: 6, outputs: 4, transposed: false };

fn step(output: &str, attribute: &str) -> BodyStep {
    BodyStep { output: output.to_owned(), attribute: attribute.to_owned() }
}

/// A Loop of an If, whose first branch multiplies the state `s`.
fn model() -> ModelProto {
    let then = body(vec![named("MatMul", &["s", "w"], &["t"], vec![])], &["t"]);
    let other = body(vec![named("Relu", &["s"], &["e"], vec![])], &["e"]);
    let branches = vec![graph_attribute("then_branch", then), graph_attribute("else_branch", other)];
    let nodes = vec![named("If", &["go"], &["next"], branches), named("Identity", &["go"], &["on"], vec![])];
    let inner = GraphProto { input: vec![info("i"), info("go"), info("s")], ..body(nodes, &["on", "next"]) };
    let repeat = named("Loop", &["n", "c", "x"], &["y"], vec![graph_attribute("body", inner)]);
    message("x n c", vec![("w", floats(&[6, 6], 1))], vec![repeat], "y")
}

fn exposed(model: &mut ModelProto, path: &[BodyStep]) -> Option<String> {
    expose(model, InnerValue { path, name: "s", view: &DENSE, dtype: DataType::Float })
}

#[test]
fn a_nested_value_becomes_one_of_the_main_graph() {
    let mut proto = model();
    let path = [step("y", "body"), step("next", "then_branch")];
    let first = exposed(&mut proto, &path).unwrap();
    // The loop alone, and the same once more.
    let second = exposed(&mut proto, &path[..1]).unwrap();
    let third = exposed(&mut proto, &path).unwrap();
    assert_eq!(HashSet::from([&first, &second, &third]).len(), 3);
    let model = Model::from_proto(proto).unwrap();
    assert_eq!(verify(&model), []);
    let graph = model.graph();
    let (_, repeat) = graph.producer(graph.find(&first).unwrap()).unwrap();
    assert!(repeat.is("Loop"));
    let names: Vec<&str> = repeat.outputs().iter().flatten().map(|&value| graph.value(value).name()).collect();
    assert_eq!(names, ["y", &first, &second, &third], "states of the loop behind its own");
    let body = repeat.attribute("body").unwrap().g.as_ref().unwrap();
    assert_eq!((body.input.len(), body.output.len(), repeat.inputs().len()), (6, 5, 6));
}

#[test]
fn what_cannot_be_handed_out_is_not() {
    let mut old = model();
    old.opset_import[0].version = Some(9);
    let conv = onnxquant_quant::ConvGeometry {
        in_channels: 6,
        out_channels: 4,
        groups: 1,
        kernel: vec![1],
        strides: vec![1],
        dilations: vec![1],
        padding: onnxquant_quant::Padding::Explicit { begin: vec![0], end: vec![0] },
    };
    let pictures = MatrixView::Conv(conv);
    let path = [step("y", "body")];
    let value = InnerValue { path: &path, name: "s", view: &pictures, dtype: DataType::Float };
    assert_eq!(expose(&mut old, value), None, "steps are not stacked at opset 9");
    assert_eq!(exposed(&mut model(), &[step("z", "body")]), None);
    assert_eq!(exposed(&mut model(), &[step("y", "other")]), None);
}
