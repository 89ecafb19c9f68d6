//! Rewrites what the engine does not know, or would silently misread, into what it knows.
//!
//! | in the model | for the engine |
//! |---|---|
//! | nodes of one name, or named as a tensor | numbered: names must be unique among both |
//! | Resize of opset 10, Upsample | `nearest_mode` is floor (the engine assumes later opsets' default); Upsample's scales become an input |
//! | TopK before opset 10 | `k` becomes an input |
//! | ConstantOfShape without `value` | with the zero of float32 that the standard means: the engine's is of float64 |
//! | optional inputs and outputs left out at the end, as empty names | no such names: the engine counts them |
//! | bfloat16 tensors | float32, and casts to bfloat16 casts to float32: the same values, more exact in between |
//! | float tensors in typed fields | raw data |
//!
//! Operators of ONNX Runtime's domain become standard ones in [`contrib`]. What it computes otherwise than the standard says is rewritten in [`lower`] where that is easy, and refused in
//! [`super::misread`] where it is not. Refused here: tensors in external files, which the caller has to load.

use std::collections::{HashMap, HashSet};

use bytes::Bytes;
use onnxquant_proto::onnx::{
    AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, attribute_proto::AttributeType,
    tensor_proto::DataLocation,
};

use super::contrib;
use super::lower::lower;
use crate::error::CalibError;
use crate::graph::{drop_trailing_empty, label, subgraphs_mut};

const FLOAT: i32 = 1;
const BFLOAT16: i32 = 16;

/// Rewrites all graphs of a model.
pub(crate) fn adapt(model: &mut ModelProto) -> Result<(), CalibError> {
    let opset = model.opset_import.iter().find(|o| matches!(o.domain(), "" | "ai.onnx")).map_or(0, |o| o.version());
    model.graph.as_mut().map_or(Ok(()), |graph| adapt_graph(graph, opset))
}

fn adapt_graph(graph: &mut GraphProto, opset: i64) -> Result<(), CalibError> {
    graph.initializer.iter_mut().try_for_each(adapt_tensor)?;
    contrib::lower(graph, opset)?;
    lower(graph);
    for node in &mut graph.node {
        drop_trailing_empty(node);
        adapt_node(node, opset, &mut graph.initializer);
        for attribute in &mut node.attribute {
            attribute.t.iter_mut().map(AsMut::as_mut).chain(&mut attribute.tensors).try_for_each(adapt_tensor)?;
        }
        subgraphs_mut(node).try_for_each(|g| adapt_graph(g, opset))?;
    }
    make_names_unique(graph);
    Ok(())
}

fn adapt_node(node: &mut NodeProto, opset: i64, initializers: &mut Vec<TensorProto>) {
    match node.op_type() {
        "Upsample" => {
            scales_to_input(node, initializers);
            round_down(node);
        }
        "Resize" if opset == 10 => round_down(node),
        "TopK" if opset < 10 => k_to_input(node, initializers),
        "ConstantOfShape" if node.attribute.iter().all(|a| a.name() != "value") => node.attribute.push(zero()),
        "Cast" => {
            let to = node.attribute.iter_mut().find(|a| a.name() == "to");
            if let Some(to) = to.filter(|a| a.i() == i64::from(BFLOAT16)) {
                to.i = Some(FLOAT.into());
            }
        }
        _ => {}
    }
}

/// The `value` of a ConstantOfShape that has none.
fn zero() -> AttributeProto {
    let zero = TensorProto {
        dims: vec![1],
        data_type: Some(FLOAT),
        raw_data: Some(0_f32.to_le_bytes().to_vec().into()),
        ..TensorProto::default()
    };
    AttributeProto {
        name: Some("value".into()),
        t: Some(Box::new(zero)),
        r#type: Some(AttributeType::Tensor.into()),
        ..AttributeProto::default()
    }
}

fn round_down(node: &mut NodeProto) {
    node.attribute.push(AttributeProto {
        name: Some("nearest_mode".into()),
        s: Some(b"floor".to_vec()),
        r#type: Some(AttributeType::String.into()),
        ..AttributeProto::default()
    });
}

fn scales_to_input(node: &mut NodeProto, initializers: &mut Vec<TensorProto>) {
    let Some(scales) = take_attribute(node, "scales").map(|a| a.floats) else { return };
    let raw = scales.iter().flat_map(|s| s.to_le_bytes()).collect();
    add_input(node, initializers, FLOAT, scales.len(), raw);
}

fn k_to_input(node: &mut NodeProto, initializers: &mut Vec<TensorProto>) {
    const INT64: i32 = 7;
    let Some(k) = take_attribute(node, "k").and_then(|a| a.i) else { return };
    add_input(node, initializers, INT64, 1, k.to_le_bytes().to_vec());
}

fn take_attribute(node: &mut NodeProto, name: &str) -> Option<AttributeProto> {
    let position = node.attribute.iter().position(|a| a.name() == name)?;
    Some(node.attribute.swap_remove(position))
}

/// Adds a constant vector as the node's last input.
fn add_input(node: &mut NodeProto, initializers: &mut Vec<TensorProto>, data_type: i32, length: usize, raw: Vec<u8>) {
    let name = format!("{}/input{}", node.output.first().map_or("", String::as_str), node.input.len());
    initializers.push(TensorProto {
        name: Some(name.clone()),
        dims: vec![i64::try_from(length).unwrap_or(i64::MAX)],
        data_type: Some(data_type),
        raw_data: Some(raw.into()),
        ..TensorProto::default()
    });
    node.input.push(name);
}

fn adapt_tensor(tensor: &mut TensorProto) -> Result<(), CalibError> {
    if tensor.data_location == Some(DataLocation::External.into()) {
        return Err(CalibError::BadModel(format!("the data of tensor `{}` have not been loaded", tensor.name())));
    }
    if tensor.data_type == Some(BFLOAT16) {
        tensor.raw_data = Some(widen_bfloat16(tensor));
        tensor.int32_data.clear();
        tensor.data_type = Some(FLOAT);
    }
    if tensor.raw_data.is_none() && !tensor.float_data.is_empty() && tensor.data_type == Some(FLOAT) {
        let floats = std::mem::take(&mut tensor.float_data);
        tensor.raw_data = Some(floats.iter().flat_map(|x| x.to_le_bytes()).collect());
    }
    Ok(())
}

/// The upper half of a float32 is a bfloat16.
fn widen_bfloat16(tensor: &TensorProto) -> Bytes {
    let pair = |low: u8, high: u8| [0, 0, low, high];
    match &tensor.raw_data {
        Some(raw) => raw.chunks_exact(2).flat_map(|b| pair(b[0], b[1])).collect(),
        None => tensor.int32_data.iter().map(|v| v.to_le_bytes()).flat_map(|b| pair(b[0], b[1])).collect(),
    }
}

fn make_names_unique(graph: &mut GraphProto) {
    let tensors = graph.initializer.iter().filter_map(|t| t.name.clone());
    let mut taken: HashSet<String> = graph.input.iter().filter_map(|i| i.name.clone()).chain(tensors).collect();
    let mut repeats: HashMap<String, usize> = HashMap::new();
    for node in &mut graph.node {
        let name = label(node).to_owned();
        let mut unique = name.clone();
        while !taken.insert(unique.clone()) {
            let count = repeats.entry(name.clone()).or_insert(1);
            *count += 1;
            unique = format!("{name}#{count}");
        }
        node.name = Some(unique);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(op: &str, name: &str, output: &str) -> NodeProto {
        NodeProto {
            op_type: Some(op.into()),
            name: Some(name.into()),
            output: vec![output.into()],
            ..NodeProto::default()
        }
    }

    fn adapted(graph: GraphProto) -> Result<GraphProto, CalibError> {
        let mut model = ModelProto { graph: Some(graph), ..ModelProto::default() };
        adapt(&mut model)?;
        Ok(model.graph.expect("it was put in"))
    }

    #[test]
    fn names_become_unique_among_nodes_and_tensors() {
        let weight = TensorProto { name: Some("w".into()), ..TensorProto::default() };
        let nodes = vec![
            node("A", "n", "a"),
            node("B", "n", "b"),
            node("C", "w", "c"),
            node("D", "", "d"),
            node("E", "n", "e"),
        ];
        let graph = adapted(GraphProto { node: nodes, initializer: vec![weight], ..GraphProto::default() }).unwrap();
        let names: Vec<&str> = graph.node.iter().map(|n| n.name()).collect();
        assert_eq!(names, ["n", "n#2", "w#2", "d", "n#3"]);
    }

    #[test]
    fn external_tensors_are_refused() {
        let external = TensorProto { name: Some("w".into()), data_location: Some(1), ..TensorProto::default() };
        let error = adapted(GraphProto { initializer: vec![external], ..GraphProto::default() }).unwrap_err();
        assert!(error.to_string().contains("tensor `w`"), "{error}");
    }

    #[test]
    fn what_is_left_out_at_the_end_is_dropped_and_what_is_left_out_before_is_not() {
        let names = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
        let cases: [[&[&str]; 2]; 5] = [
            [&["x", "w", ""], &["x", "w"]],
            [&["x", "", ""], &["x"]],
            [&["x", "", "max"], &["x", "", "max"]],
            [&["x", "", "sizes", ""], &["x", "", "sizes"]],
            [&["", ""], &[]],
        ];
        for [given, kept] in cases {
            let mut wanted = node("Any", "n", "y");
            (wanted.input, wanted.output) = (names(given), names(&["y", "", ""]));
            let graph = adapted(GraphProto { node: vec![wanted], ..GraphProto::default() }).unwrap();
            assert_eq!((&graph.node[0].input, &graph.node[0].output), (&names(kept), &names(&["y"])));
        }
    }

    #[test]
    fn bfloat16_becomes_float32() {
        let one = [0x80, 0x3f];
        let raw = TensorProto { data_type: Some(16), raw_data: Some(one.to_vec().into()), ..TensorProto::default() };
        let typed = TensorProto { data_type: Some(16), int32_data: vec![0x3f80], ..TensorProto::default() };
        let graph = adapted(GraphProto { initializer: vec![raw, typed], ..GraphProto::default() }).unwrap();
        for tensor in graph.initializer {
            assert_eq!(
                (tensor.data_type, tensor.raw_data.unwrap().as_ref()),
                (Some(1), 1.0_f32.to_le_bytes().as_slice())
            );
        }
    }
}
