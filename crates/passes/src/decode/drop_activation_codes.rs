//! Lets activations that a model rounds to codes and back be floats again.
//!
//! `QuantizeLinear -> DequantizeLinear` with one scale and zero point, both constants, stand for the float that the first
//! reads. Codes that begin or end at 0 also stand for a Relu or Clip that was left out because it changes nothing in front of
//! them: a Clip to what they can hold takes their place, where the numbers have not that sign anyway. Left alone: pairs whose
//! codes another operator reads, or that make an output of the graph or are read by a body.

use onnxquant_ir::onnx::TensorProto;
use onnxquant_ir::onnx::tensor_proto::DataType;
use onnxquant_ir::{Graph, GraphError, Model, NodeId, Use, ValueId, float_attribute, tensor};

use crate::decode::integer_operators::MOVERS;
use crate::graph::insert::insert;

/// The first opset whose Clip reads its bounds as inputs.
const CLIP_WITH_INPUTS: i64 = 11;
/// What these operators make is not negative.
const NOT_NEGATIVE: [&str; 5] = ["Relu", "Sigmoid", "Softmax", "HardSigmoid", "Abs"];

/// Removes every such pair of the main graph; returns how many.
pub fn drop_activation_codes(model: &mut Model) -> Result<usize, GraphError> {
    let has_inputs = model.opset("").is_some_and(|opset| opset >= CLIP_WITH_INPUTS);
    let graph = model.graph_mut();
    let decoders: Vec<NodeId> =
        graph.nodes().filter(|(_, node)| node.is("DequantizeLinear")).map(|(id, _)| id).collect();
    let mut dropped = 0;
    for decoder in decoders {
        let Some(Pair { float, real, held }) = Pair::find(graph, decoder) else { continue };
        if graph.is_output(real) || graph.value(real).uses().iter().any(|user| !matches!(user, Use::Input(..))) {
            continue;
        }
        let float = match held.filter(|[low, _]| *low != 0.0 || !is_not_negative(graph, float)) {
            Some(held) => clip(graph, decoder, float, held, has_inputs),
            None => float,
        };
        graph.replace_uses(real, float)?;
        graph.remove_if_unused(real);
        dropped += 1;
    }
    Ok(dropped)
}

/// A `QuantizeLinear` and the `DequantizeLinear` behind it.
struct Pair {
    /// The float before it.
    float: ValueId,
    /// The one that it makes.
    real: ValueId,
    /// The least and the largest number that the codes stand for, where one of them is 0.
    held: Option<[f32; 2]>,
}

impl Pair {
    fn find(graph: &Graph, decoder: NodeId) -> Option<Self> {
        let decoder = graph.node(decoder);
        let (_, encoder) = graph.producer(decoder.input(0)?).filter(|(_, node)| node.is("QuantizeLinear"))?;
        let constant = |value: Option<ValueId>| value.and_then(|value| graph.value(value).constant());
        let same = |slot: usize| match (encoder.input(slot), decoder.input(slot)) {
            (None, None) => true,
            (a, b) => constant(a).zip(constant(b)).is_some_and(|(a, b)| equal(a, b)),
        };
        let scale = constant(encoder.input(1)).filter(|_| same(1) && same(2))?;
        let zero_point = constant(encoder.input(2));
        let of_encoder = DataType::try_from(i32::try_from(encoder.int("output_dtype", 0)).ok()?).ok();
        let held = held(scale, zero_point, of_encoder.filter(|dtype| *dtype != DataType::Undefined));
        Some(Self { float: encoder.input(0)?, real: decoder.output(0)?, held })
    }
}

/// What codes of one scale hold, where they begin or end at 0.
fn held(scale: &TensorProto, zero_point: Option<&TensorProto>, of_encoder: Option<DataType>) -> Option<[f32; 2]> {
    let dtype = zero_point.and_then(|codes| tensor::data_type(codes).ok()).or(of_encoder).unwrap_or(DataType::Uint8);
    let (least, most) = match dtype {
        DataType::Uint4 => (0, 15),
        DataType::Uint8 => (0, 255),
        DataType::Uint16 => (0, 65535),
        DataType::Int4 => (-8, 7),
        DataType::Int8 => (-128, 127),
        DataType::Int16 => (-32768, 32767),
        _ => return None,
    };
    let zero = match zero_point {
        Some(codes) => number(codes)?,
        None => 0,
    };
    let [scale] = tensor::to_f32(scale).ok()?[..] else { return None };
    (least == zero || most == zero).then(|| [least - zero, most - zero].map(|code| code as f32 * scale))
}

fn equal(a: &TensorProto, b: &TensorProto) -> bool {
    let bytes = |tensor: &TensorProto| tensor::to_raw(tensor).ok();
    (a.data_type, &a.dims) == (b.data_type, &b.dims) && bytes(a).is_some() && bytes(a) == bytes(b)
}

/// The only code of a tensor.
fn number(codes: &TensorProto) -> Option<i32> {
    let (dtype, raw) = (tensor::data_type(codes).ok()?, tensor::to_raw(codes).ok()?);
    match (dtype, &raw[..]) {
        (DataType::Int16, &[a, b]) => Some(i16::from_le_bytes([a, b]).into()),
        (DataType::Uint16, &[a, b]) => Some(u16::from_le_bytes([a, b]).into()),
        (DataType::Int16 | DataType::Uint16, _) => None,
        _ => match tensor::to_codes(codes).ok()?[..] {
            [code] => Some(code.into()),
            _ => None,
        },
    }
}

/// Whether the numbers are not negative, by what makes them.
fn is_not_negative(graph: &Graph, value: ValueId) -> bool {
    let mut value = Some(value);
    while let Some((_, node)) = value.and_then(|value| graph.producer(value)) {
        if !node.domain().is_empty() {
            return false;
        }
        if NOT_NEGATIVE.contains(&node.op_type()) {
            return true;
        }
        if node.is("Clip") {
            let low = node.input(1).and_then(|low| tensor::to_f32(graph.value(low).constant()?).ok());
            return low.map_or_else(|| node.float("min", -1.0) >= 0.0, |low| low.iter().all(|&low| low >= 0.0));
        }
        value = node.input(0).filter(|_| MOVERS.contains(&node.op_type()));
    }
    false
}

/// Puts a Clip of `float` to these numbers before `decoder`.
fn clip(graph: &mut Graph, decoder: NodeId, float: ValueId, held: [f32; 2], has_inputs: bool) -> ValueId {
    let name = format!("{}_clipped", graph.value(float).name());
    if !has_inputs {
        let bounds = ["min", "max"].iter().zip(held).map(|(name, bound)| float_attribute(name, bound)).collect();
        return insert(graph, decoder, "Clip", &[float], name, bounds);
    }
    let scale = graph.node(decoder).input(1).and_then(|scale| graph.value(scale).constant());
    let dtype = scale.and_then(|scale| tensor::data_type(scale).ok()).unwrap_or(DataType::Float);
    let [low, high] =
        held.map(|bound| graph.add_constant(&format!("{name}_bound"), tensor::from_f32_as(dtype, &[], &[bound])));
    insert(graph, decoder, "Clip", &[float, low, high], name, vec![])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_valid, constant_named, floats, model, node, op_types};

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

    #[test]
    fn codes_that_begin_at_0_leave_a_clip_where_numbers_can_be_negative() {
        let pair = |from: &str, to: &str, zero: &str| {
            let codes = format!("{to}_codes");
            [
                node("QuantizeLinear", &[from, "s", zero], &[&codes], vec![]),
                node("DequantizeLinear", &[&codes, "s", zero], &[to], vec![]),
            ]
        };
        let zeros = |dtype: DataType, code: i16| tensor::from_codes(dtype, &[], std::iter::once(code));
        let constants = || {
            vec![
                ("s", scale(0.5)),
                ("z", zeros(DataType::Uint8, 0)),
                ("i", zeros(DataType::Int8, -128)),
                ("w", floats(&[4, 4], 1)),
            ]
        };
        for zero in ["z", "i", ""] {
            let nodes = [
                vec![node("Gemm", &["x", "w"], &["g"], vec![])],
                pair("g", "a", zero).to_vec(),
                vec![node("Identity", &["a"], &["b"], vec![])],
                pair("b", "c", zero).to_vec(),
                vec![node("Gemm", &["c", "w"], &["y"], vec![])],
            ];
            let mut model = model("x", constants(), nodes.concat(), "y");
            assert_eq!(drop_activation_codes(&mut model).unwrap(), 2);
            assert_valid(&model);
            assert_eq!(op_types(&model), ["Gemm", "Clip", "Identity", "Gemm"], "`{zero}`");
            let bound = |name: &str| tensor::to_f32(constant_named(model.graph(), name)).unwrap().to_vec();
            assert_eq!([bound("g_clipped_bound"), bound("g_clipped_bound_1")].concat(), [0.0, 127.5]);
        }
    }
}
