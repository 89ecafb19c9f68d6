//! A second reader, `onnx-protobuf`, finds in our bytes what we put there.
//!
//! That crate knows the format up to IR version 9 and keeps no difference between absent
//! and zero, so both models are listed line by line, absent as zero, and the lists compared.

use onnx_protobuf as theirs;
use onnxquant_proto::onnx as ours;
use onnxquant_proto::{decode_model, encode_model};
use theirs::Message as _;

use crate::sample::sample_model;

fn line(kind: &str, content: impl std::fmt::Debug) -> String {
    format!("{kind} {content:?}")
}

fn our_tensor(t: &ours::TensorProto) -> String {
    let numbers = (&t.float_data, &t.int32_data, &t.int64_data, &t.double_data, &t.uint64_data);
    let raw = t.raw_data.as_deref().unwrap_or_default();
    let place = (t.data_location.unwrap_or_default(), t.external_data.len());
    line("tensor", (t.name(), &t.dims, t.data_type(), numbers, &t.string_data, raw, place))
}

fn their_tensor(t: &theirs::TensorProto) -> String {
    let numbers = (&t.float_data, &t.int32_data, &t.int64_data, &t.double_data, &t.uint64_data);
    let place = (t.data_location.value(), t.external_data.len());
    line("tensor", (&t.name, &t.dims, t.data_type, numbers, &t.string_data, t.raw_data.as_slice(), place))
}

fn our_attribute(a: &ours::AttributeProto, out: &mut Vec<String>) {
    let single = (a.f(), a.i(), a.s());
    let lists = (&a.floats, &a.ints, &a.strings);
    out.push(line("attribute", (a.name(), a.r#type.unwrap_or_default(), a.ref_attr_name(), single, lists)));
    out.extend(a.t.as_deref().into_iter().chain(&a.tensors).map(our_tensor));
    a.g.as_deref().into_iter().chain(&a.graphs).for_each(|graph| our_graph(graph, out));
}

fn their_attribute(a: &theirs::AttributeProto, out: &mut Vec<String>) {
    let single = (a.f, a.i, a.s.as_slice());
    let lists = (&a.floats, &a.ints, &a.strings);
    out.push(line("attribute", (&a.name, a.type_.value(), &a.ref_attr_name, single, lists)));
    out.extend(a.t.as_ref().into_iter().chain(&a.tensors).map(their_tensor));
    a.g.as_ref().into_iter().chain(&a.graphs).for_each(|graph| their_graph(graph, out));
}

fn our_node(n: &ours::NodeProto, out: &mut Vec<String>) {
    out.push(line("node", (n.op_type(), n.name(), n.domain(), &n.input, &n.output, n.doc_string())));
    n.attribute.iter().for_each(|attribute| our_attribute(attribute, out));
}

fn their_node(n: &theirs::NodeProto, out: &mut Vec<String>) {
    out.push(line("node", (&n.op_type, &n.name, &n.domain, &n.input, &n.output, &n.doc_string)));
    n.attribute.iter().for_each(|attribute| their_attribute(attribute, out));
}

fn our_value(v: &ours::ValueInfoProto) -> String {
    use ours::tensor_shape_proto::dimension::Value;
    let mut dims = Vec::new();
    let mut elem_type = 0;
    if let Some(ours::type_proto::Value::TensorType(tensor)) = v.r#type.as_ref().and_then(|t| t.value.as_ref()) {
        elem_type = tensor.elem_type();
        dims.extend(tensor.shape.iter().flat_map(|shape| &shape.dim).map(|dim| match &dim.value {
            Some(Value::DimValue(length)) => length.to_string(),
            Some(Value::DimParam(symbol)) => symbol.clone(),
            None => "?".into(),
        }));
    }
    line("value", (v.name(), elem_type, dims))
}

fn their_value(v: &theirs::ValueInfoProto) -> String {
    use theirs::tensor_shape_proto::dimension::Value;
    let mut dims = Vec::new();
    let mut elem_type = 0;
    if let Some(theirs::type_proto::Value::TensorType(tensor)) = v.type_.as_ref().and_then(|t| t.value.as_ref()) {
        elem_type = tensor.elem_type;
        dims.extend(tensor.shape.iter().flat_map(|shape| &shape.dim).map(|dim| match &dim.value {
            Some(Value::DimValue(length)) => length.to_string(),
            Some(Value::DimParam(symbol)) => symbol.clone(),
            _ => "?".into(),
        }));
    }
    line("value", (&v.name, elem_type, dims))
}

fn our_graph(g: &ours::GraphProto, out: &mut Vec<String>) {
    out.push(line("graph", (g.name(), g.doc_string(), g.sparse_initializer.len())));
    g.node.iter().for_each(|node| our_node(node, out));
    out.extend(g.initializer.iter().map(our_tensor));
    out.extend(g.input.iter().chain(&g.output).chain(&g.value_info).map(our_value));
}

fn their_graph(g: &theirs::GraphProto, out: &mut Vec<String>) {
    out.push(line("graph", (&g.name, &g.doc_string, g.sparse_initializer.len())));
    g.node.iter().for_each(|node| their_node(node, out));
    out.extend(g.initializer.iter().map(their_tensor));
    out.extend(g.input.iter().chain(&g.output).chain(&g.value_info).map(their_value));
}

fn our_model(m: &ours::ModelProto) -> Vec<String> {
    let opsets: Vec<_> = m.opset_import.iter().map(|opset| (opset.domain(), opset.version())).collect();
    let head = (m.ir_version(), m.producer_name(), m.domain(), m.doc_string(), opsets);
    let mut out = vec![line("model", (head, m.metadata_props.len()))];
    our_graph(m.graph.as_ref().expect("model has a graph"), &mut out);
    for function in &m.functions {
        out.push(line("function", (function.name(), &function.input, &function.output)));
        function.node.iter().for_each(|node| our_node(node, &mut out));
    }
    out
}

fn their_model(m: &theirs::ModelProto) -> Vec<String> {
    let opsets: Vec<_> = m.opset_import.iter().map(|opset| (&opset.domain, opset.version)).collect();
    let head = (m.ir_version, &m.producer_name, &m.domain, &m.doc_string, opsets);
    let mut out = vec![line("model", (head, m.metadata_props.len()))];
    their_graph(&m.graph, &mut out);
    for function in &m.functions {
        out.push(line("function", (&function.name, &function.input, &function.output)));
        function.node.iter().for_each(|node| their_node(node, &mut out));
    }
    out
}

#[test]
fn second_reader_finds_the_same_content() {
    let model = sample_model();
    let bytes = encode_model(&model).expect("sample is small");
    let theirs = theirs::ModelProto::parse_from_bytes(&bytes).expect("sample is protobuf");
    let (ours, theirs) = (our_model(&model), their_model(&theirs));
    assert!(ours.len() > 100, "only {} lines to compare", ours.len());
    for (ours, theirs) in ours.iter().zip(&theirs) {
        assert_eq!(ours, theirs);
    }
    assert_eq!(ours.len(), theirs.len());
}

#[test]
fn bytes_of_the_second_writer_are_read() {
    let bytes = encode_model(&sample_model()).expect("sample is small");
    let theirs = theirs::ModelProto::parse_from_bytes(&bytes).expect("sample is protobuf");
    let rewritten = theirs.write_to_bytes().expect("what was parsed can be written");
    let ours = decode_model(rewritten.into()).expect("the same fields in another order");
    assert_eq!(our_model(&ours), their_model(&theirs));
}
