//! Says which scale and zero point a tensor has, in the graph's own list.
//!
//! # Problem
//!
//! Tools that show or compile graphs look for the scales of activations in `GraphProto.quantization_annotation`, and not
//! all of them follow `QuantizeLinear`.
//!
//! # Method
//!
//! The tensor that a `QuantizeLinear` with constant parameters reads gets an annotation with the keys that the schema
//! names: `SCALE_TENSOR` and `ZERO_POINT_TENSOR` (`onnx.proto`, `TensorAnnotation`). Where a tensor is quantized twice the
//! first one counts; what the model says already stays.

use onnxquant_ir::{Graph, Node, ValueId};

/// Annotates every activation that has a fixed scale; returns how many.
pub fn annotate(graph: &mut Graph) -> usize {
    let quantized = graph.nodes().filter(|(_, node)| node.is("QuantizeLinear"));
    let notes: Vec<_> = quantized.filter_map(|(_, node)| note(graph, node)).collect();
    let mut count = 0;
    for (tensor, scale, zero_point) in notes {
        count += usize::from(graph.annotate_quantization(tensor, scale, zero_point));
    }
    count
}

/// The tensor that is quantized, its scale and its zero point.
fn note(graph: &Graph, node: &Node) -> Option<(ValueId, ValueId, Option<ValueId>)> {
    let is_constant = |value: &ValueId| graph.value(*value).constant().is_some();
    let tensor = node.input(0).filter(|value| !is_constant(value))?;
    let zero_point = node.input(2);
    let is_fixed = zero_point.as_ref().is_none_or(is_constant);
    Some((tensor, node.input(1).filter(is_constant)?, zero_point)).filter(|_| is_fixed)
}

#[cfg(test)]
mod tests {
    use onnxquant_ir::tensor;

    use super::*;
    use crate::testing::{assert_valid, model, node};

    #[test]
    fn tensors_with_fixed_scales_are_annotated_once() {
        let quantize = |inputs: &[&str], output: &str| node("QuantizeLinear", inputs, &[output], vec![]);
        let nodes = vec![
            quantize(&["x", "s", "z"], "q"),
            node("DequantizeLinear", &["q", "s", "z"], &["d"], vec![]),
            quantize(&["x", "t"], "p"),
            quantize(&["d", "t"], "r"),
            node("Identity", &["t"], &["computed"], vec![]),
            quantize(&["y", "computed"], "n"),
        ];
        let float = |number: f32| tensor::from_f32(&[], &[number]);
        let zero_point = tensor::from_codes(onnxquant_ir::onnx::tensor_proto::DataType::Uint8, &[], std::iter::once(3));
        let constants = vec![("s", float(0.1)), ("t", float(0.2)), ("z", zero_point)];
        let mut model = model("x y", constants, nodes, "q p r n");
        assert_eq!((annotate(model.graph_mut()), annotate(model.graph_mut())), (2, 0));
        assert_valid(&model);
        let notes = model.to_proto().graph.unwrap_or_default().quantization_annotation;
        let words = |at: usize| {
            let note = notes.get(at)?;
            let entries = note.quant_parameter_tensor_names.iter();
            let entries: Vec<String> = entries.map(|entry| format!("{} {}", entry.key(), entry.value())).collect();
            Some((note.tensor_name().to_owned(), entries.join(", ")))
        };
        let expected = |tensor: &str, words: &str| Some((tensor.to_owned(), words.to_owned()));
        assert_eq!(words(0), expected("x", "SCALE_TENSOR s, ZERO_POINT_TENSOR z"));
        assert_eq!((words(1), words(2)), (expected("d", "SCALE_TENSOR t"), None));
    }
}
