//! What the file holds of a layer's weight: codes, scales and zero points in the shapes in which they are written.

use std::borrow::Cow;

use ndarray::{Array3, ArrayView3, Zip};
use onnxquant_ir::onnx::TensorProto;
use onnxquant_ir::onnx::tensor_proto::DataType;
use onnxquant_ir::{TensorError, tensor};
use onnxquant_quant::{Granularity, LayerSolution, QuantError};

use super::accuracy_level::leave_room;
use super::byte_planes::Fields;
use crate::decode::decode_weights::alphabet;
use crate::find::sites::Site;
use crate::layers::Decoding;

/// Types of codes that may be negative.
const SIGNED: [DataType; 3] = [DataType::Int8, DataType::Int4, DataType::Int2];

/// A quantized weight: codes in a type that holds them, in the shape of the operator's weight, `[K, M]` of a MatMul or
/// Gemm.
#[derive(Clone, Debug)]
pub struct PackedWeight {
    pub(crate) codes: TensorProto,
    pub(crate) scale: TensorProto,
    /// As many as scales; absent where all are 0.
    zero_points: Option<Vec<i16>>,
    pub(crate) granularity: Granularity,
    /// Added to the layer's bias, one number an output channel.
    pub(crate) correction: Vec<f32>,
}

impl PackedWeight {
    /// Whether these are symmetric codes, one scale a tensor or an output: what integer kernels take.
    pub fn is_plain(&self) -> bool {
        let in_blocks = matches!(self.granularity, Granularity::Block(_));
        self.is_signed() && self.zero_points.is_none() && !in_blocks
    }

    /// Whether ONNX Runtime may compute with integers where this weight's codes are fused with a MatMul or Gemm: it rounds the
    /// inputs then. With weights so large that its sums would overflow it is kept from it.
    pub fn may_round_inputs(&self) -> bool {
        leave_room(&self.scale)
    }

    /// Packs the solution of `site` with codes of type `storage`. On mirrored grids ([`onnxquant_quant::Grid::mirrored`])
    /// scales may be negative.
    ///
    /// Convolutions take scales per tensor or per channel only. `correction` is added to the bias where the layer
    /// has one.
    pub fn new(
        site: &Site,
        storage: DataType,
        granularity: Granularity,
        solution: &LayerSolution,
        correction: Vec<f32>,
    ) -> Result<Self, QuantError> {
        if alphabet(storage) != solution.alphabet {
            return Err(QuantError::Setting {
                what: "type of codes",
                found: storage.as_str_name().to_owned(),
                expected: "a type whose numbers are those that the codes stand for",
            });
        }
        let solution =
            &if SIGNED.contains(&storage) { without_mirrored_grids(solution) } else { Cow::Borrowed(solution) };
        let codes = match site.layer.decoding() {
            Decoding::Fused => {
                let (_, k, m) = solution.codes.dim();
                tensor::from_codes(storage, &[k, m], solution.codes.iter().copied())
            }
            Decoding::Folded => {
                let codes = site.view.from_matrix(solution.codes.view())?;
                tensor::from_codes(storage, codes.shape(), codes.iter().copied())
            }
        };
        if let (Decoding::Folded, Granularity::Block(size)) = (site.layer.decoding(), granularity) {
            return Err(QuantError::Setting {
                what: "granularity of a convolution",
                found: format!("blocks of {size}"),
                expected: "scales per tensor or per channel",
            });
        }
        let (dims, order) = scale_order(site, granularity, solution);
        let scales: Vec<f32> = in_order(&solution.scales, &order);
        let is_shifted = solution.zero_points.iter().any(|&code| code != 0);
        Ok(Self {
            codes,
            scale: tensor::from_f32_as(site.dtype, &dims, &scales),
            zero_points: is_shifted.then(|| in_order(&solution.zero_points, &order)),
            granularity,
            correction,
        })
    }

    /// Added to the layer's bias, one number an output channel.
    pub fn correction(&self) -> &[f32] {
        &self.correction
    }

    /// The numbers that the codes mean, in the shape of the operator's weight.
    pub fn decode(&self, site: &Site) -> Result<TensorProto, TensorError> {
        let (codes, scales) = (tensor::to_codes(&self.codes)?, tensor::to_f32(&self.scale)?);
        let alphabet = alphabet(tensor::data_type(&self.codes)?);
        let zero_point = |scale: usize| self.zero_points.as_ref().map_or(0, |zero_points| zero_points[scale]);
        let real = |(index, code): (usize, &i16)| {
            let scale = self.scale_index(site, index);
            scales[scale] * alphabet.value(code - zero_point(scale))
        };
        let real = codes.iter().enumerate().map(real).collect::<Vec<f32>>();
        let unfit = |problem: String| TensorError { tensor: self.codes.name().to_owned(), problem };
        let real = match site.layer.decoding() {
            Decoding::Folded => real,
            // `[K, M]`, which the operator may store the other way round.
            Decoding::Fused => {
                let matrix = ArrayView3::from_shape((1, site.view.inputs(), site.view.outputs()), &real);
                let matrix = matrix.map_err(|error| unfit(error.to_string()))?;
                site.view.from_matrix(matrix).map_err(|error| unfit(error.to_string()))?.into_iter().collect()
            }
        };
        Ok(tensor::from_f32_as(site.dtype, &site.view.weight_shape(), &real))
    }

    /// Which scale the `index`th code has.
    pub(crate) fn scale_index(&self, site: &Site, index: usize) -> usize {
        let outputs = site.view.outputs();
        match (site.layer.decoding(), self.granularity) {
            (_, Granularity::Tensor) => 0,
            (Decoding::Folded, _) => {
                let (channel, output) = site.view.channel_and_output(index);
                site.layer.scale_of(&site.view, channel, output)
            }
            (Decoding::Fused, Granularity::Block(size)) => index / outputs / size * outputs + index % outputs,
            (Decoding::Fused, _) => index % outputs,
        }
    }

    /// Whether codes may be negative; their zero points are 0 then.
    pub(crate) fn is_signed(&self) -> bool {
        SIGNED.iter().any(|&dtype| self.codes.data_type() == dtype as i32)
    }

    /// The same with codes of another type that holds them.
    pub(crate) fn stored_as(&self, storage: DataType) -> Result<Self, TensorError> {
        if self.codes.data_type() == storage as i32 {
            return Ok(self.clone());
        }
        let codes = tensor::from_codes(storage, &tensor::shape(&self.codes)?, tensor::to_codes(&self.codes)?);
        Ok(Self { codes, ..self.clone() })
    }

    /// How `codes` of `bits` bits lie in fields of `width`, and what is added to them there.
    ///
    /// Symmetric codes of one bit are -1 and 1: as 0 and 2 their lowest bit is always 0. Where their scale was raised
    /// for the bias they may be 0 as well, which takes a second bit.
    pub(crate) fn fields(&self, codes: &[i16], bits: u32, width: u32) -> (Fields, i16) {
        match (self.is_signed(), bits) {
            (true, 1) if !codes.contains(&0) => (Fields { width, used: 1, lift: 1 }, 1),
            (true, _) => (Fields { width, used: bits.max(2), lift: 0 }, 1 << (bits.max(2) - 1)),
            (false, _) => (Fields { width, used: bits, lift: 0 }, 0),
        }
    }

    /// The scales of a MatMul or Gemm of `k` inputs in blocks of `block`, `[blocks, M]`.
    pub(crate) fn spread_scales(&self, k: usize, block: usize) -> Result<Vec<f32>, TensorError> {
        Ok(self.spread(&tensor::to_f32(&self.scale)?, k, block))
    }

    /// The zero points likewise.
    pub(crate) fn spread_zero_points(&self, k: usize, block: usize) -> Result<Vec<i16>, TensorError> {
        let count = tensor::element_count(&self.scale)?;
        Ok(self.spread(self.zero_points.as_deref().unwrap_or(&vec![0; count]), k, block))
    }

    fn spread<T: Copy>(&self, numbers: &[T], k: usize, block: usize) -> Vec<T> {
        let outputs = self.codes.dims.last().and_then(|&dim| usize::try_from(dim).ok()).unwrap_or(0);
        let index = |block_index: usize, m: usize| match self.granularity {
            Granularity::Tensor => 0,
            Granularity::Channel => m,
            Granularity::Block(size) => block_index * block / size * outputs + m,
        };
        let all = (0..k.div_ceil(block)).flat_map(|b| (0..outputs).map(move |m| (b, m)));
        all.map(|(b, m)| numbers[index(b, m)]).collect()
    }

    /// The scales as numbers of another type that holds them.
    pub(crate) fn scale_as(&self, dtype: DataType) -> Result<TensorProto, TensorError> {
        if self.scale.data_type() == dtype as i32 {
            return Ok(self.scale.clone());
        }
        Ok(tensor::from_f32_as(dtype, &tensor::shape(&self.scale)?, &tensor::to_f32(&self.scale)?))
    }

    /// The zero points as real numbers of the scale's shape, or one number for all, of codes to which `base` was added;
    /// `None` where all are 0.
    pub(crate) fn real_zero_points(&self, dtype: DataType, base: i16) -> Result<Option<TensorProto>, TensorError> {
        let real = |code: &i16| f32::from(code + base);
        Ok(match &self.zero_points {
            Some(codes) => {
                let numbers: Vec<f32> = codes.iter().map(real).collect();
                Some(tensor::from_f32_as(dtype, &tensor::shape(&self.scale)?, &numbers))
            }
            None => (base != 0).then(|| tensor::from_f32_as(dtype, &[], &[f32::from(base)])),
        })
    }

    /// The zero points in the type of the codes, of the scale's shape.
    ///
    /// Where all are 0 they may be absent, but of int8 with several scales: ONNX Runtime, asked for exact products
    /// (`session.x64quantprecision`), moves those codes to uint8 with one zero point of its own, and then refuses the file.
    pub(crate) fn coded_zero_points(&self) -> Result<Option<TensorProto>, TensorError> {
        let (dtype, dims) = (tensor::data_type(&self.codes)?, tensor::shape(&self.scale)?);
        let of_all = |codes: &[i16]| tensor::from_codes(dtype, &dims, codes.iter().copied());
        let needed = dtype == DataType::Int8 && !dims.is_empty();
        let zeros = || vec![0; dims.iter().product()];
        Ok(self.zero_points.clone().or_else(|| needed.then(zeros)).map(|codes| of_all(&codes)))
    }
}

/// The same numbers with the zero point 0 where it is -1: `scale * (code + 1) = -scale * (-1 - code)`.
pub fn without_mirrored_grids(solution: &LayerSolution) -> Cow<'_, LayerSolution> {
    if solution.zero_points.iter().all(|&code| code == 0) {
        return Cow::Borrowed(solution);
    }
    let mut plain = solution.clone();
    let block_size = plain.block_size.max(1);
    for ((g, k, m), code) in plain.codes.indexed_iter_mut() {
        if plain.zero_points[[g, k / block_size, m]] == -1 {
            *code = -1 - *code;
        }
    }
    Zip::from(&mut plain.scales).and(&mut plain.zero_points).for_each(|scale, zero_point| {
        if *zero_point == -1 {
            (*scale, *zero_point) = (-*scale, 0);
        }
    });
    Cow::Owned(plain)
}

/// The shape of the scales, and which one of the solution, by its place there, each of them is.
///
/// Scalar per tensor; `[M]` or `[blocks, M]` for `DequantizeLinear`; what the layer says for those that are folded.
fn scale_order(site: &Site, granularity: Granularity, solution: &LayerSolution) -> (Vec<usize>, Vec<usize>) {
    let (groups, blocks, m) = solution.scales.dim();
    let dims = match granularity {
        Granularity::Tensor => vec![],
        Granularity::Channel => site.layer.scale_dims(&site.view),
        Granularity::Block(_) => vec![blocks, m],
    };
    let mut order: Vec<usize> = (0..dims.iter().product()).collect();
    if granularity == Granularity::Channel && site.layer.decoding() == Decoding::Folded {
        let channels = site.view.in_channels();
        for (channel, output) in (0..channels).flat_map(|channel| (0..m).map(move |output| (channel, output))) {
            let output = channel * groups / channels * m + output;
            order[site.layer.scale_of(&site.view, channel, output)] = output;
        }
    }
    (dims, order)
}

fn in_order<T: Copy>(numbers: &Array3<T>, order: &[usize]) -> Vec<T> {
    let numbers: Vec<T> = numbers.iter().copied().collect();
    order.iter().map(|&index| numbers[index]).collect()
}
