//! A deterministic text form of a model, for golden tests and for reading.

use std::fmt::Write;

use onnxquant_proto::onnx::attribute_proto::AttributeType;
use onnxquant_proto::onnx::{AttributeProto, TensorProto};

use crate::graph::{Graph, Node};
use crate::ids::ValueId;
use crate::model::Model;
use crate::tensor;

/// The model as text: one line an input, initializer, node and output.
pub fn dump(model: &Model) -> String {
    let graph = model.graph();
    let mut text = format!("ir {}", model.ir_version());
    for import in model.opsets() {
        let domain = if import.domain().is_empty() { "ai.onnx" } else { import.domain() };
        let _ = write!(text, ", {domain} {}", import.version());
    }
    text.push('\n');
    for port in graph.inputs() {
        let _ = writeln!(text, "input {}", graph.value(port.value).name());
    }
    for &id in graph.initializers() {
        let value = graph.value(id);
        let _ =
            writeln!(text, "const {} {}", value.name(), value.tensor().map_or("without data".into(), tensor_summary));
    }
    for (_, node) in graph.nodes() {
        let _ = writeln!(text, "{}", node_line(graph, node));
    }
    for port in graph.outputs() {
        let _ = writeln!(text, "output {}", graph.value(port.value).name());
    }
    text
}

fn node_line(graph: &Graph, node: &Node) -> String {
    let names = |values: &[Option<ValueId>]| {
        let name = |value: &Option<ValueId>| value.map_or("_", |id| graph.value(id).name());
        values.iter().map(name).collect::<Vec<_>>().join(", ")
    };
    let domain = if node.domain().is_empty() { String::new() } else { format!("{}:", node.domain()) };
    let attributes = node.attributes().iter().map(attribute_summary).collect::<Vec<_>>().join(", ");
    let attributes = if attributes.is_empty() { attributes } else { format!(" {{{attributes}}}") };
    let captures = node.captures().iter().map(|&id| graph.value(id).name()).collect::<Vec<_>>().join(", ");
    let captures = if captures.is_empty() { captures } else { format!(" captures {captures}") };
    format!("{} = {domain}{}({}){attributes}{captures}", names(node.outputs()), node.op_type(), names(node.inputs()))
}

fn attribute_summary(attribute: &AttributeProto) -> String {
    let value = match attribute.r#type() {
        AttributeType::Float => attribute.f().to_string(),
        AttributeType::Int => attribute.i().to_string(),
        AttributeType::String => String::from_utf8_lossy(attribute.s()).into_owned(),
        AttributeType::Floats => format!("{:?}", attribute.floats),
        AttributeType::Ints => format!("{:?}", attribute.ints),
        AttributeType::Tensor => attribute.t.as_deref().map_or(String::new(), tensor_summary),
        other => other.as_str_name().to_lowercase(),
    };
    format!("{}: {value}", attribute.name())
}

/// Type, shape and, for small tensors of numbers, content.
fn tensor_summary(tensor: &TensorProto) -> String {
    const SHOWN: usize = 8;
    let dtype = tensor::data_type(tensor).map_or("?", |dtype| dtype.as_str_name()).to_lowercase();
    let content = match tensor::element_count(tensor) {
        Ok(count) if count <= SHOWN => small_content(tensor),
        _ => String::new(),
    };
    format!("{dtype}{:?}{content}", tensor.dims)
}

fn small_content(tensor: &TensorProto) -> String {
    let floats = tensor::to_f32(tensor).map(|numbers| format!(" {numbers:?}"));
    let integers = || tensor::to_i64(tensor).map(|numbers| format!(" {numbers:?}"));
    let codes = || tensor::to_codes(tensor).map(|numbers| format!(" {numbers:?}"));
    floats.or_else(|_| integers()).or_else(|_| codes()).unwrap_or_default()
}
