//! Makes signed weights of integer products unsigned.
//!
//! # Problem
//!
//! On x86 without VNNI the runtime's kernels for unsigned by signed codes let sums of two products saturate. What two
//! models compute on codes shall be compared without that, on whatever processor.
//!
//! # Method
//!
//! `w - z = (w + 128) - (z + 128)`: weight and zero point move together, and kernels for unsigned by unsigned codes add
//! exactly. Layers are those of `MatMulInteger`, `ConvInteger`, `QLinearMatMul` and `QLinearConv` with a constant weight;
//! others, and activations that are not known to be unsigned, are left alone.
//!
//! # References
//!
//! ONNX operators `MatMulInteger`, `ConvInteger`, `QLinearMatMul`, `QLinearConv`; ONNX Runtime, `core/mlas/lib/qgemm.h`.

use onnxquant_ir::onnx::TensorProto;
use onnxquant_ir::onnx::tensor_proto::DataType;
use onnxquant_ir::{Graph, Node, TensorError, ValueId, tensor};

/// From the least code of one type to that of the other.
const STEP: i16 = 128;
/// The zero point of the activations is this input of all these operators.
const ACTIVATION_ZERO_POINT: usize = 2;

/// Changes every such weight of the graph itself; bodies are not entered.
///
/// # Errors
/// A tensor does not hold what it declares.
pub fn unsigned_weights(graph: &mut Graph) -> Result<(), TensorError> {
    for id in graph.order().to_vec() {
        let node = graph.node(id);
        let Some([weight_slot, zero_slot]) = slots(node).filter(|_| has_unsigned_activations(graph, node)) else {
            continue;
        };
        let Some(weight) = signed(graph, node.input(weight_slot)) else { continue };
        let zero_point = match node.input(zero_slot) {
            None => tensor::from_codes(DataType::Uint8, &[], [STEP]),
            Some(value) => match signed(graph, Some(value)) {
                Some(zero_point) => moved(zero_point)?,
                None => continue,
            },
        };
        let weight = moved(weight)?;
        let label = graph.label(id).to_owned();
        for (slot, what, tensor) in [(weight_slot, "weight", weight), (zero_slot, "zero_point", zero_point)] {
            let value = graph.add_constant(&format!("{label}_unsigned_{what}"), tensor);
            graph.set_input(id, slot, Some(value));
        }
    }
    Ok(())
}

/// The inputs that are weight and zero point.
fn slots(node: &Node) -> Option<[usize; 2]> {
    match node.op_type() {
        _ if !node.domain().is_empty() => None,
        "MatMulInteger" | "ConvInteger" => Some([1, 3]),
        "QLinearMatMul" | "QLinearConv" => Some([3, 5]),
        _ => None,
    }
}

fn has_unsigned_activations(graph: &Graph, node: &Node) -> bool {
    let made = |value: ValueId| graph.producer(value).is_some_and(|(_, before)| before.is("DynamicQuantizeLinear"));
    let constant = |value: ValueId| graph.value(value).constant();
    let zero_point = node.input(ACTIVATION_ZERO_POINT).and_then(constant);
    node.input(0).is_some_and(made) || zero_point.is_some_and(|codes| codes.data_type() == DataType::Uint8 as i32)
}

fn signed(graph: &Graph, value: Option<ValueId>) -> Option<&TensorProto> {
    graph.value(value?).constant().filter(|codes| codes.data_type() == DataType::Int8 as i32)
}

fn moved(codes: &TensorProto) -> Result<TensorProto, TensorError> {
    let numbers = tensor::to_codes(codes)?.into_iter().map(|code| code + STEP);
    Ok(tensor::from_codes(DataType::Uint8, &tensor::shape(codes)?, numbers))
}

#[cfg(test)]
mod tests {
    use onnxquant_ir::tensor::{from_codes, from_f32};

    use super::*;
    use crate::testing::{assert_valid, model, node};

    /// Type and codes of an input.
    fn codes_of(graph: &Graph, op: &str, slot: usize) -> (i32, Vec<i16>) {
        let (_, node) = graph.nodes().find(|(_, node)| node.is(op)).expect("it is there");
        let codes = node.input(slot).and_then(|value| graph.value(value).constant()).expect("a constant");
        (codes.data_type(), tensor::to_codes(codes).expect("it holds codes"))
    }

    #[test]
    fn weight_and_zero_point_move_together() {
        let constants = vec![
            ("w", from_codes(DataType::Int8, &[2, 2], [-128, -1, 0, 127])),
            ("wz", from_codes(DataType::Int8, &[2], [0, 3])),
        ];
        let quantize = node("DynamicQuantizeLinear", &["x"], &["q", "s", "z"], vec![]);
        let nodes = vec![quantize, node("MatMulInteger", &["q", "w", "z", "wz"], &["y"], vec![])];
        let mut model = model("x", constants, nodes, "y");
        unsigned_weights(model.graph_mut()).unwrap();
        assert_valid(&model);
        let unsigned = DataType::Uint8 as i32;
        assert_eq!(codes_of(model.graph(), "MatMulInteger", 1), (unsigned, vec![0, 127, 128, 255]));
        assert_eq!(codes_of(model.graph(), "MatMulInteger", 3), (unsigned, vec![128, 131]));
    }

    #[test]
    fn a_zero_point_that_is_left_out_is_told_and_signed_activations_stay() {
        let weight = || ("w", from_codes(DataType::Int8, &[2, 1], [-1, 1]));
        let quantize = node("DynamicQuantizeLinear", &["x"], &["q", "s", "z"], vec![]);
        let nodes = vec![quantize, node("MatMulInteger", &["q", "w", "z"], &["y"], vec![])];
        let mut without = model("x", vec![weight()], nodes, "y");
        unsigned_weights(without.graph_mut()).unwrap();
        assert_eq!(codes_of(without.graph(), "MatMulInteger", 3), (DataType::Uint8 as i32, vec![128]));
        let constants = vec![weight(), ("s", from_f32(&[], &[0.5])), ("z", from_codes(DataType::Int8, &[], [0]))];
        let quantize = node("QuantizeLinear", &["x", "s", "z"], &["q"], vec![]);
        let nodes = vec![quantize, node("MatMulInteger", &["q", "w", "z"], &["y"], vec![])];
        let mut signed = model("x", constants, nodes, "y");
        unsigned_weights(signed.graph_mut()).unwrap();
        assert_eq!(codes_of(signed.graph(), "MatMulInteger", 1), (DataType::Int8 as i32, vec![-1, 1]));
    }
}
