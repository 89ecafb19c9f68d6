//! What an operator whose weight can be codes says of itself.

use std::fmt;

use onnxquant_ir::Node;
use onnxquant_quant::MatrixView;

use super::skip_reason::SkipReason;
use crate::runtime::kernel::Kernel;

/// An operator whose weight can be codes. Its input is input 0, its weight input 1.
pub trait Layer: fmt::Debug + Sync {
    /// Its name.
    fn op_type(&self) -> &'static str;

    /// How weight and input of a node are read as matrices, where the weight has this shape.
    fn view(&self, node: &Node, shape: &[usize]) -> Result<MatrixView, SkipReason>;

    /// Where it adds its bias.
    fn bias(&self) -> Bias;

    /// Where the channels of its input stand.
    fn channels(&self) -> Channels;

    /// Shape of the scales of a weight with one an output, as its decoding takes it.
    fn scale_dims(&self, view: &MatrixView) -> Vec<usize>;

    /// Which of these scales belongs to output `output` and input channel `channel`.
    fn scale_of(&self, view: &MatrixView, channel: usize, output: usize) -> usize;

    /// How the runtime takes codes where activations are floats.
    fn decoding(&self) -> Decoding;

    /// The axis of a weight of `rank` dimensions that counts the outputs, where one axis alone does.
    fn output_axis(&self, node: &Node, rank: usize) -> Option<usize>;

    /// Whether the result is the product and the bias, without factors.
    fn is_plain(&self, _: &Node) -> bool {
        true
    }

    /// Whether every element of the result sums up products with all the weights of its output: none lies beyond the
    /// edge of the input.
    fn sums_all_weights(&self, node: &Node) -> bool;

    /// The runtime's kernels for codes of input and weight, where it has some.
    fn on_codes(&self) -> Option<OnCodes>;

    /// Whether the runtime quantizes a float weight by itself where input and result are stored as codes.
    fn float_weight_becomes_codes(&self) -> bool;

    /// The operator that multiplies codes like this one, and makes integers.
    fn integer_op_type(&self) -> Option<&'static str> {
        None
    }

    /// Whether all versions of the runtime fuse a `DequantizeLinear` of 4 bits in blocks.
    fn fuses_blocks_of_four_bits(&self) -> bool {
        false
    }
}

/// Where a layer adds its bias.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bias {
    /// At this input.
    Input(usize),
    /// In an `Add` that is the only reader of its result.
    AddBehind,
}

/// Where the channels of an input stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Channels {
    /// On the last axis.
    Last,
    /// On the second of two axes.
    Columns,
    /// On axis 1 of at least three.
    Second,
}

/// How the runtime takes codes of a layer with float activations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decoding {
    /// It fuses a `DequantizeLinear`, also of blocks, and codes are stored as `[K, M]`.
    Fused,
    /// It has no kernel on such codes: `Cast -> Mul`, computed when the model loads. Scales per tensor or per output.
    Folded,
}

/// The runtime's kernels for a layer on codes, by what comes of its result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OnCodes {
    /// It is stored as codes.
    pub to_codes: Kernel,
    /// A constant is added to it.
    pub plus_constant: Option<Kernel>,
    /// It stays as it is: floats.
    pub to_floats: Option<Kernel>,
}

/// The view of a weight of two dimensions.
pub(super) fn dense(shape: &[usize], transposed: bool) -> Result<MatrixView, SkipReason> {
    match *shape {
        [inputs, outputs] if !transposed => Ok(MatrixView::Dense { inputs, outputs, transposed }),
        [outputs, inputs] => Ok(MatrixView::Dense { inputs, outputs, transposed }),
        _ => Err(SkipReason::Rank { shape: shape.to_vec(), expected: "two dimensions" }),
    }
}
