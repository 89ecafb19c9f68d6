//! Reads and changes the inputs and attributes of a node of a message.

use onnxquant_ir::onnx::{AttributeProto, NodeProto};

use super::error::Refusal;

/// The name to base new names of a node's parts on.
pub(super) fn label(node: &NodeProto) -> &str {
    let output = node.output.iter().map(String::as_str).find(|output| !output.is_empty());
    if node.name().is_empty() { output.unwrap_or_default() } else { node.name() }
}

/// Input `slot`, unless it is left out.
pub(super) fn input(node: &NodeProto, slot: usize) -> Option<&str> {
    node.input.get(slot).map(String::as_str).filter(|name| !name.is_empty())
}

/// Makes input `slot` read `name`; slots up to it are created as left out.
pub(super) fn set_input(node: &mut NodeProto, slot: usize, name: String) {
    if node.input.len() <= slot {
        node.input.resize(slot + 1, String::new());
    }
    node.input[slot] = name;
}

/// The attribute `name`; an attribute bound to one of a local function is refused.
pub(super) fn attribute<'a>(node: &'a NodeProto, name: &str) -> Result<Option<&'a AttributeProto>, Refusal> {
    let found = node.attribute.iter().find(|attribute| attribute.name() == name);
    match found {
        Some(bound) if !bound.ref_attr_name().is_empty() => Err(Refusal::BoundAttribute { attribute: name.to_owned() }),
        _ => Ok(found),
    }
}

/// The integer attribute `name`, or `default` where it is absent.
pub(super) fn int(node: &NodeProto, name: &str, default: i64) -> Result<i64, Refusal> {
    Ok(attribute(node, name)?.map_or(default, AttributeProto::i))
}

/// The text attribute `name`, or `default` where it is absent.
pub(super) fn text<'a>(node: &'a NodeProto, name: &str, default: &'a str) -> Result<&'a str, Refusal> {
    let text = |found: &'a AttributeProto| std::str::from_utf8(found.s()).unwrap_or_default();
    Ok(attribute(node, name)?.map_or(default, text))
}

/// Takes the attribute `name` off the node.
pub(super) fn take(node: &mut NodeProto, name: &str) -> Result<Option<AttributeProto>, Refusal> {
    attribute(node, name)?;
    let index = node.attribute.iter().position(|attribute| attribute.name() == name);
    Ok(index.map(|index| node.attribute.remove(index)))
}

/// Takes an integer attribute off the node; `default` where it is absent.
pub(super) fn take_int(node: &mut NodeProto, name: &str, default: i64) -> Result<i64, Refusal> {
    Ok(take(node, name)?.map_or(default, |found| found.i()))
}

/// Takes a list of integers off the node; absent and empty are the same.
pub(super) fn take_ints(node: &mut NodeProto, name: &str) -> Result<Option<Vec<i64>>, Refusal> {
    Ok(take(node, name)?.map(|found| found.ints).filter(|ints| !ints.is_empty()))
}

/// Sets or replaces an attribute.
pub(super) fn set(node: &mut NodeProto, attribute: AttributeProto) {
    match node.attribute.iter_mut().find(|present| present.name() == attribute.name()) {
        Some(present) => *present = attribute,
        None => node.attribute.push(attribute),
    }
}
