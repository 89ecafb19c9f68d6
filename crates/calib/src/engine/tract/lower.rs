//! Rewrites operators whose attributes the engine passes over into others that it computes as the standard says.
//!
//! | in the model | for the engine |
//! |---|---|
//! | a recurrent operator from the end to the start | the input reversed, the operator from the start to the end, `Y` reversed |
//! | Celu with `alpha` | LeakyRelu, which divides what is negative by `alpha`, and Elu with `alpha` |
//! | Swish with `alpha` | QuickGelu, whose definition is the same |

use onnxquant_proto::onnx::attribute_proto::AttributeType;
use onnxquant_proto::onnx::{AttributeProto, GraphProto, NodeProto, TensorProto};

/// The engine's own name for reversing along an axis. Its inputs are those of a Slice.
pub(super) const REVERSE: &str = "onnxquant.Reverse";

const INT64: i32 = 7;

/// Rewrites the nodes of a graph, not those of graphs inside it.
pub(super) fn lower(graph: &mut GraphProto) {
    let nodes = std::mem::take(&mut graph.node);
    for node in nodes {
        match node.op_type() {
            "GRU" | "LSTM" | "RNN" if is_reverse(&node) => run_forward(node, graph),
            "Celu" => graph.node.extend(celu(node)),
            "Swish" => graph.node.push(swish(node)),
            _ => graph.node.push(node),
        }
    }
}

fn is_reverse(node: &NodeProto) -> bool {
    node.attribute.iter().any(|attribute| attribute.name() == "direction" && attribute.s() == b"reverse")
}

/// The engine takes samples of full length only, so that reversing all steps is reversing each sample's.
fn run_forward(mut node: NodeProto, graph: &mut GraphProto) {
    node.attribute.retain(|attribute| attribute.name() != "direction");
    let is_batch_first = node.attribute.iter().any(|attribute| attribute.name() == "layout" && attribute.i() == 1);
    let first = node.output.iter().find(|name| !name.is_empty()).cloned().unwrap_or_default();
    let name = |what: &str| format!("{first}/{what}");
    let constants = [("last", -1), ("before_first", i64::MIN), ("axis", i64::from(is_batch_first)), ("step", -1)];
    graph.initializer.extend(constants.map(|(what, value)| vector(name(what), value)));
    let reverse = |from: String, to: String| NodeProto {
        op_type: Some(REVERSE.into()),
        input: std::iter::once(from).chain(constants.map(|(what, _)| name(what))).collect(),
        name: Some(format!("{to}/reverse")),
        output: vec![to],
        ..NodeProto::default()
    };
    if let Some(x) = node.input.first_mut() {
        let reversed = name("from_last");
        graph.node.push(reverse(std::mem::replace(x, reversed.clone()), reversed));
    }
    let y = node.output.first_mut().filter(|y| !y.is_empty()).map(|y| std::mem::replace(y, name("to_first")));
    graph.node.push(node);
    graph.node.extend(y.map(|y| reverse(name("to_first"), y)));
}

/// An integer as a vector.
fn vector(name: String, value: i64) -> TensorProto {
    TensorProto {
        name: Some(name),
        dims: vec![1],
        data_type: Some(INT64),
        raw_data: Some(value.to_le_bytes().to_vec().into()),
        ..TensorProto::default()
    }
}

/// `max(0, x) + min(0, alpha (exp(x / alpha) - 1))` for a positive `alpha`.
fn celu(node: NodeProto) -> Vec<NodeProto> {
    let alpha = alpha(&node);
    let [Some(from), Some(to)] = [node.input.first(), node.output.first()] else { return vec![node] };
    let divided = format!("{to}/divided");
    let divide = NodeProto {
        op_type: Some("LeakyRelu".into()),
        input: vec![from.clone()],
        output: vec![divided.clone()],
        name: Some(divided.clone()),
        attribute: vec![float("alpha", 1.0 / alpha)],
        ..NodeProto::default()
    };
    let elu = NodeProto { op_type: Some("Elu".into()), input: vec![divided], ..node };
    vec![divide, elu]
}

/// `x sigmoid(alpha x)`.
fn swish(node: NodeProto) -> NodeProto {
    let attribute = vec![float("alpha", alpha(&node))];
    NodeProto { op_type: Some("QuickGelu".into()), domain: Some("com.microsoft".into()), attribute, ..node }
}

/// The attribute of this name, 1 by default.
fn alpha(node: &NodeProto) -> f32 {
    node.attribute.iter().find(|attribute| attribute.name() == "alpha").map_or(1.0, AttributeProto::f)
}

fn float(name: &str, value: f32) -> AttributeProto {
    AttributeProto {
        name: Some(name.into()),
        f: Some(value),
        r#type: Some(AttributeType::Float.into()),
        ..AttributeProto::default()
    }
}
