//! Lets activations that a model rounds to codes and back be floats again.
//!
//! `QuantizeLinear -> DequantizeLinear` with one scale and zero point, both constants, stand for the float that the first
//! reads. Left alone: pairs whose codes another operator reads, or that make an output of the graph or are read by a body.

use onnxquant_ir::{Graph, GraphError, Model, NodeId, ValueId};

/// Removes every such pair of the main graph; returns how many.
pub fn drop_activation_codes(model: &mut Model) -> Result<usize, GraphError> {
    let graph = model.graph_mut();
    let decoders: Vec<NodeId> =
        graph.nodes().filter(|(_, node)| node.is("DequantizeLinear")).map(|(id, _)| id).collect();
    let mut dropped = 0;
    for decoder in decoders {
        let Some((float, real)) = pair(graph, decoder) else { continue };
        if graph.is_output(real) || graph.replace_uses(real, float).is_err() {
            continue;
        }
        graph.remove_if_unused(real);
        dropped += 1;
    }
    Ok(dropped)
}

/// The float before a pair, and the one that it makes.
fn pair(graph: &Graph, decoder: NodeId) -> Option<(ValueId, ValueId)> {
    let decoder = graph.node(decoder);
    let (_, encoder) = graph.producer(decoder.input(0)?).filter(|(_, node)| node.is("QuantizeLinear"))?;
    let same = |slot: usize| match (encoder.input(slot), decoder.input(slot)) {
        (None, None) => true,
        (Some(a), Some(b)) => {
            let [a, b] = [a, b].map(|value| graph.value(value).constant());
            a.zip(b).is_some_and(|(a, b)| (a.data_type, &a.dims) == (b.data_type, &b.dims) && a.raw_data == b.raw_data)
        }
        _ => false,
    };
    let has_constants = encoder.input(1).is_some_and(|scale| graph.value(scale).constant().is_some());
    (has_constants && same(1) && same(2)).then_some((encoder.input(0)?, decoder.output(0)?))
}

#[cfg(test)]
mod tests {
    use onnxquant_ir::onnx::TensorProto;
    use onnxquant_ir::onnx::tensor_proto::DataType;
    use onnxquant_ir::tensor;

    use super::*;
    use crate::testing::{assert_valid, floats, model, node, op_types};

    fn scale(number: f32) -> TensorProto {
        tensor::from_f32(&[], &[number])
    }

    fn zero() -> TensorProto {
        tensor::from_codes(DataType::Uint8, &[], std::iter::once(3))
    }

    #[test]
    fn pairs_of_one_scale_go() {
        let nodes = vec![
            node("QuantizeLinear", &["x", "s", "z"], &["q"], vec![]),
            node("DequantizeLinear", &["q", "s2", "z"], &["d"], vec![]),
            node("Gemm", &["d", "w"], &["g"], vec![]),
            node("QuantizeLinear", &["g", "s", "z"], &["gq"], vec![]),
            node("DequantizeLinear", &["gq", "s", "z"], &["y"], vec![]),
        ];
        let constants = vec![("s", scale(0.1)), ("s2", scale(0.1)), ("z", zero()), ("w", floats(&[4, 4], 1))];
        let mut model = model("x", constants, nodes, "y");
        assert_eq!(drop_activation_codes(&mut model).unwrap(), 1, "the last one makes an output");
        assert_valid(&model);
        assert_eq!(op_types(&model), ["Gemm", "QuantizeLinear", "DequantizeLinear"]);
    }

    #[test]
    fn codes_that_others_read_and_other_scales_stay() {
        let nodes = |second: &str| {
            vec![
                node("QuantizeLinear", &["x", "s", "z"], &["q"], vec![]),
                node("DequantizeLinear", &["q", second, "z"], &["d"], vec![]),
                node("Relu", &["d"], &["y"], vec![]),
            ]
        };
        let constants = || vec![("s", scale(0.1)), ("other", scale(0.2)), ("z", zero())];
        let mut of_other_scale = model("x", constants(), nodes("other"), "y");
        assert_eq!(drop_activation_codes(&mut of_other_scale).unwrap(), 0);
        let mut shared = model("x", constants(), nodes("s"), "y q");
        assert_eq!(drop_activation_codes(&mut shared).unwrap(), 1);
        assert_valid(&shared);
        assert_eq!(op_types(&shared), ["QuantizeLinear", "Relu"], "the codes are an output");
    }
}
