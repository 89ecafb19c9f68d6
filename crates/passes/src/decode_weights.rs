//! Decodes quantized weights back to float constants, so that an engine without quantized types can run them.
//!
//! Decoded are the two forms of [`crate::write_codes`], and whatever else has the same shape: a
//! `DequantizeLinear` of constants, and `Cast -> [Sub ->] Mul` of constants with integer codes. The
//! arithmetic is the runtime's, `scale * (code - zero_point)` in f32.
//!
//! Not decoded: values that graph outputs or subgraphs refer to by name. Q/DQ around activations stay.

use onnxquant_ir::onnx::TensorProto;
use onnxquant_ir::{Graph, GraphError, Model, Node, NodeId, TensorError, ValueId, tensor};

/// Codes, scales and zero points found in the graph, with the shape rules of `DequantizeLinear`.
struct Encoded<'a> {
    codes: &'a TensorProto,
    scale: &'a TensorProto,
    zero_point: Option<&'a TensorProto>,
    layout: Layout,
}

enum Layout {
    /// Scale of `DequantizeLinear`: scalar, per axis, or per block of an axis.
    Axis { axis: i64, block_size: i64 },
    /// Scale that broadcasts against the codes.
    Broadcast,
}

/// Replaces every decoding of constants by the float constant it makes; returns how many.
pub fn decode_weights(model: &mut Model) -> Result<usize, DecodeError> {
    let graph = model.graph_mut();
    let nodes = graph.nodes().map(|(id, _)| id).collect::<Vec<_>>();
    let mut decoded = 0;
    for id in nodes {
        let Some(tensor) = encoded(graph, graph.node(id)).map(|found| decode(&found)).transpose()? else { continue };
        replace(graph, id, tensor)?;
        decoded += 1;
    }
    Ok(decoded)
}

/// Whether `node` decodes a constant.
pub fn decodes_constant(graph: &Graph, node: &Node) -> bool {
    encoded(graph, node).is_some()
}

/// A quantized weight that cannot be decoded.
#[derive(Debug, thiserror::Error)]
#[error("cannot decode a quantized weight")]
pub enum DecodeError {
    /// The tensors do not fit together.
    Tensor(#[from] TensorError),
    /// The graph refused the edit.
    Graph(#[from] GraphError),
}

fn constant<'a>(graph: &'a Graph, node: &Node, slot: usize) -> Option<&'a TensorProto> {
    graph.value(node.input(slot)?).constant()
}

fn encoded<'a>(graph: &'a Graph, node: &Node) -> Option<Encoded<'a>> {
    match node.op_type() {
        _ if !node.domain().is_empty() => None,
        "DequantizeLinear" => Some(Encoded {
            codes: constant(graph, node, 0).filter(|codes| tensor::holds_codes(codes))?,
            scale: constant(graph, node, 1)?,
            zero_point: match node.input(2) {
                Some(zero_point) => Some(graph.value(zero_point).constant()?),
                None => None,
            },
            layout: Layout::Axis { axis: node.int("axis", 1), block_size: node.int("block_size", 0) },
        }),
        "Mul" => {
            let scale = constant(graph, node, 1)?;
            let (_, inner) = graph.producer(node.input(0)?)?;
            let (cast, zero_point) = match inner.op_type() {
                "Sub" => (graph.producer(inner.input(0)?)?.1, Some(constant(graph, inner, 1)?)),
                _ => (inner, None),
            };
            let codes = constant(graph, cast, 0).filter(|codes| cast.is("Cast") && tensor::holds_codes(codes))?;
            Some(Encoded { codes, scale, zero_point, layout: Layout::Broadcast })
        }
        _ => None,
    }
}

fn decode(found: &Encoded<'_>) -> Result<TensorProto, TensorError> {
    let codes = tensor::to_codes(found.codes)?;
    let shape = tensor::shape(found.codes)?;
    let scales = tensor::to_f32(found.scale)?;
    let zero_points = match found.zero_point {
        Some(zero_point) if tensor::is_float(zero_point) => tensor::to_f32(zero_point)?.into_owned(),
        Some(zero_point) => tensor::to_codes(zero_point)?.into_iter().map(f32::from).collect(),
        None => vec![0.0; scales.len()],
    };
    let scale_shape = tensor::shape(found.scale)?;
    let index = ScaleIndex::new(&shape, &scale_shape, &found.layout)
        .filter(|index| index.len == scales.len() && zero_points.len() == scales.len())
        .ok_or_else(|| TensorError {
            tensor: found.codes.name().to_owned(),
            problem: format!("scale of shape {scale_shape:?} does not fit codes of shape {shape:?}"),
        })?;
    let real = |(position, &code): (usize, &i16)| {
        let group = index.of(position);
        scales[group] * (f32::from(code) - zero_points[group])
    };
    let numbers = codes.iter().enumerate().map(real).collect::<Vec<f32>>();
    Ok(tensor::from_f32_as(tensor::data_type(found.scale)?, &shape, &numbers))
}

/// Maps the position of a code to that of its scale: per dimension a divisor and a stride.
struct ScaleIndex {
    /// Size, block size and stride among the scales; innermost dimension first.
    dims: Vec<(usize, usize, usize)>,
    len: usize,
}

impl ScaleIndex {
    fn new(shape: &[usize], scale_shape: &[usize], layout: &Layout) -> Option<Self> {
        let mut blocks = vec![usize::MAX; shape.len()];
        match layout {
            Layout::Axis { .. } if scale_shape.iter().product::<usize>() == 1 && scale_shape.len() < 2 => {}
            Layout::Axis { axis, block_size } => {
                let axis = usize::try_from(axis.rem_euclid(i64::try_from(shape.len()).ok()?.max(1))).ok()?;
                if *block_size > 0 {
                    blocks.fill(1);
                    blocks[axis] = usize::try_from(*block_size).ok()?;
                } else {
                    *blocks.get_mut(axis)? = 1;
                }
            }
            Layout::Broadcast => {
                let missing = shape.len().checked_sub(scale_shape.len())?;
                for (index, (&dim, &of_scale)) in shape[missing..].iter().zip(scale_shape).enumerate() {
                    blocks[missing + index] = if of_scale == dim { 1 } else { usize::MAX };
                    (of_scale == dim || of_scale == 1).then_some(())?;
                }
            }
        }
        let mut len = 1;
        let mut dims = Vec::new();
        for (&size, &block) in shape.iter().zip(&blocks).rev() {
            dims.push((size.max(1), block, len));
            len *= size.max(1).div_ceil(block);
        }
        Some(Self { dims, len })
    }

    fn of(&self, mut position: usize) -> usize {
        let mut index = 0;
        for &(size, block, stride) in &self.dims {
            index += position % size / block * stride;
            position /= size;
        }
        index
    }
}

fn replace(graph: &mut Graph, node: NodeId, decoded: TensorProto) -> Result<(), GraphError> {
    let inputs = graph.node(node).inputs().iter().copied().flatten().collect::<Vec<ValueId>>();
    if graph.node_to_constant(node, decoded).is_ok() {
        inputs.into_iter().for_each(|value| graph.remove_if_unused(value));
    }
    Ok(())
}
