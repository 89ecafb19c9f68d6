//! Inserts an operator with one output.

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
