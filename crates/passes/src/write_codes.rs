//! Replaces a layer's float weight by codes, scales and the nodes that decode them.
//!
//! Two forms are written, each the one that ONNX Runtime runs at full speed:
//!
//! | layer | form | what the runtime makes of it |
//! |---|---|---|
//! | MatMul, Gemm | `DequantizeLinear` per tensor, channel or block, weight `[K, M]` (`transB = 0`) | `MatMulNBits` |
//! | Conv | `Cast -> [Sub ->] Mul`, scale `[M, 1, ...]` | folded when the model loads: a float Conv |
//!
//! A `DequantizeLinear` before a Conv would be computed at every run instead. Both forms mean
//! `real = scale * (code - zero_point)`, and both give the same f32 numbers.
//!
//! A correction of the layer's mean output goes into its bias (see [`crate::add_to_bias`]).
//!
//! What comes after a MatMul or Gemm is changed where it would keep the runtime from fusing (see
//! [`crate::keep_fusible`]).
//!
//! Every layer gets its own initializers and its own decoding nodes, also where layers shared a weight: the
//! runtime does not fuse a shared one. The float weight goes when nothing reads it any more.

use onnxquant_ir::onnx::tensor_proto::DataType;
use onnxquant_ir::onnx::{AttributeProto, TensorProto};
use onnxquant_ir::{Graph, ValueId, int_attribute, tensor};
use onnxquant_quant::{Granularity, LayerSolution, MatrixView, QuantError};

use crate::add_to_bias::add_to_bias;
use crate::constant_chain;
use crate::insert::insert;
use crate::keep_fusible::keep_fusible;
use crate::sites::Site;

/// A quantized weight, packed as it is stored in the file.
#[derive(Clone, Debug)]
pub struct PackedWeight {
    pub(crate) codes: TensorProto,
    pub(crate) scale: TensorProto,
    /// Of the codes' type for MatMul and Gemm, of the scale's for Conv; absent where all are 0.
    zero_point: Option<TensorProto>,
    /// Attributes of `DequantizeLinear`.
    attributes: Vec<AttributeProto>,
    /// Added to the layer's bias, one number an output channel.
    pub(crate) correction: Vec<f32>,
}

impl PackedWeight {
    /// Whether these are int8 codes without zero points, one scale a tensor or an output: what integer kernels take.
    pub fn is_plain_int8(&self) -> bool {
        let in_blocks = self.attributes.iter().any(|attribute| attribute.name() == "block_size");
        self.codes.data_type() == DataType::Int8 as i32 && self.zero_point.is_none() && !in_blocks
    }

    /// Packs the solution of `site` with codes of type `storage`.
    ///
    /// A Conv takes scales per tensor or per channel only. `correction` is added to the bias where the layer
    /// has one.
    pub fn new(
        site: &Site,
        storage: DataType,
        granularity: Granularity,
        solution: &LayerSolution,
        correction: Vec<f32>,
    ) -> Result<Self, QuantError> {
        let codes = match &site.view {
            MatrixView::Dense { .. } => {
                let (_, k, m) = solution.codes.dim();
                tensor::from_codes(storage, &[k, m], solution.codes.iter().copied())
            }
            MatrixView::Conv(_) => {
                let codes = site.view.from_matrix(solution.codes.view())?;
                tensor::from_codes(storage, codes.shape(), codes.iter().copied())
            }
        };
        if let (MatrixView::Conv(_), Granularity::Block(size)) = (&site.view, granularity) {
            return Err(QuantError::Setting {
                what: "granularity of a Conv",
                found: format!("blocks of {size}"),
                expected: "scales per tensor or per channel",
            });
        }
        let dims = scale_dims(site, granularity, solution);
        let count = dims.iter().product();
        let real = |numbers: Vec<f32>| tensor::from_f32_as(site.dtype, &dims, &numbers);
        let zero_points = solution.zero_points.iter().copied().take(count);
        let is_conv = matches!(site.view, MatrixView::Conv(_));
        let zero_point = solution.zero_points.iter().any(|&code| code != 0).then(|| match is_conv {
            true => real(zero_points.map(f32::from).collect()),
            false => tensor::from_codes(storage, &dims, zero_points),
        });
        Ok(Self {
            codes,
            scale: real(solution.scales.iter().copied().take(count).collect()),
            zero_point,
            attributes: attributes(granularity),
            correction,
        })
    }

    /// Bytes that codes, scales and zero points take in the file.
    pub fn bytes(&self) -> usize {
        let tensors = [Some(&self.codes), Some(&self.scale), self.zero_point.as_ref()];
        tensors.into_iter().flatten().filter_map(|tensor| tensor.raw_data.as_ref()).map(bytes::Bytes::len).sum()
    }
}

/// Scalar per tensor; `[M]` or `[blocks, M]` for `DequantizeLinear`; `[M, 1, ...]` for a Conv.
fn scale_dims(site: &Site, granularity: Granularity, solution: &LayerSolution) -> Vec<usize> {
    let (groups, blocks, m) = solution.scales.dim();
    match (&site.view, granularity) {
        (_, Granularity::Tensor) => vec![],
        (MatrixView::Conv(conv), _) => {
            let ones = std::iter::repeat_n(1, conv.kernel.len() + 1);
            std::iter::once(groups * m).chain(ones).collect()
        }
        (_, Granularity::Channel) => vec![m],
        (_, Granularity::Block(_)) => vec![blocks, m],
    }
}

fn attributes(granularity: Granularity) -> Vec<AttributeProto> {
    match granularity {
        Granularity::Tensor => vec![],
        Granularity::Channel => vec![int_attribute("axis", 1)],
        Granularity::Block(size) => {
            let size = i64::try_from(size).expect("a block of weights in memory fits 63 bits");
            vec![int_attribute("axis", 0), int_attribute("block_size", size)]
        }
    }
}

/// What the codes of a layer need of the default opset.
pub fn needed_opset(site: &Site, storage: DataType, granularity: Granularity) -> i64 {
    let of_type = match storage {
        DataType::Int2 | DataType::Uint2 => 25,
        DataType::Int4 | DataType::Uint4 => 21,
        _ => 7,
    };
    let of_form = match (&site.view, granularity) {
        (MatrixView::Conv(_), _) => 7,
        (_, Granularity::Tensor) => 10,
        (_, Granularity::Channel) => 13,
        (_, Granularity::Block(_)) => 21,
    };
    // Below 19 the scales of DequantizeLinear are f32.
    let of_scale = match (&site.view, site.dtype) {
        (MatrixView::Conv(_), _) | (_, DataType::Float) => 7,
        _ => 19,
    };
    of_type.max(of_form).max(of_scale)
}

/// Writes the codes of `site` into the graph in place of its float weight.
pub fn write_codes(graph: &mut Graph, site: &Site, weight: PackedWeight) {
    let source = constant_chain::source(graph, site.weight).unwrap_or(site.weight);
    let name = graph.value(source).name().to_owned();
    let codes = graph.add_constant(&format!("{name}_quantized"), weight.codes);
    let scale = graph.add_constant(&format!("{name}_scale"), weight.scale);
    let zero_point = weight.zero_point.map(|tensor| graph.add_constant(&format!("{name}_zero_point"), tensor));
    let mut insert = |op_type, inputs: &[ValueId], suffix: &str, attributes| {
        insert(graph, site.node, op_type, inputs, format!("{name}_{suffix}"), attributes)
    };
    let decoded = match &site.view {
        MatrixView::Dense { .. } => {
            let inputs = [codes, scale].into_iter().chain(zero_point).collect::<Vec<_>>();
            insert("DequantizeLinear", &inputs, "dequantized", weight.attributes)
        }
        MatrixView::Conv(_) => {
            let to = int_attribute("to", i64::from(site.dtype as i32));
            let mut steps = insert("Cast", &[codes], "codes", vec![to]);
            if let Some(zero_point) = zero_point {
                steps = insert("Sub", &[steps, zero_point], "steps", vec![]);
            }
            insert("Mul", &[steps, scale], "dequantized", vec![])
        }
    };
    graph.set_input(site.node, 1, Some(decoded));
    graph.remove_attribute(site.node, "transB");
    graph.remove_if_unused(site.weight);
    if weight.correction.iter().any(|&c| c != 0.0) {
        add_to_bias(graph, site, &weight.correction);
    }
    if matches!(site.view, MatrixView::Dense { .. }) {
        keep_fusible(graph, site);
    }
}

#[cfg(test)]
#[path = "write_codes_tests.rs"]
mod tests;
