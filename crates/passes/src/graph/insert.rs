//! Inserts operators with one output.

use onnxquant_ir::onnx::AttributeProto;
use onnxquant_ir::{Graph, NewNode, NodeId, ValueId};

/// Puts `op_type` of `inputs` before the node `before` in execution order; returns what it makes, the value `output`.
pub(crate) fn insert(
    graph: &mut Graph,
    before: NodeId,
    op_type: &'static str,
    inputs: &[ValueId],
    output: String,
    attributes: Vec<AttributeProto>,
) -> ValueId {
    let inputs = inputs.iter().copied().map(Some).collect();
    let new = NewNode { op_type, name: format!("{output}_{op_type}"), inputs, outputs: vec![output], attributes };
    let node = graph.insert_before(before, new);
    graph.node(node).output(0).expect("the node was made with one output")
}

/// Puts an operator behind `node` that takes over its output, with name and readers; `node` makes `made` instead, the
/// operator's first input.
pub(crate) fn append(graph: &mut Graph, node: NodeId, op_type: &'static str, made: String) -> NodeId {
    append_to(graph, (node, 0), op_type, made)
}

/// The same behind output `slot` of `node`.
pub(crate) fn append_to(
    graph: &mut Graph,
    (node, slot): (NodeId, usize),
    op_type: &'static str,
    made: String,
) -> NodeId {
    let new = NewNode { op_type, name: format!("{made}_{op_type}"), outputs: vec![made], ..NewNode::default() };
    let behind = graph.insert_after(node, new);
    graph.swap_outputs(node, slot, behind);
    let made = graph.node(node).output(slot);
    graph.set_input(behind, 0, made);
    behind
}
