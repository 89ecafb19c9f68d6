//! What an operator whose weight can be codes says of itself.

use std::fmt;

use onnxquant_ir::Node;
use onnxquant_quant::MatrixView;

use super::skip_reason::SkipReason;

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

/// The view of a weight of two dimensions.
pub(super) fn dense(shape: &[usize], transposed: bool) -> Result<MatrixView, SkipReason> {
    match *shape {
        [inputs, outputs] if !transposed => Ok(MatrixView::Dense { inputs, outputs, transposed }),
        [outputs, inputs] => Ok(MatrixView::Dense { inputs, outputs, transposed }),
        _ => Err(SkipReason::Rank { shape: shape.to_vec(), expected: "two dimensions" }),
    }
}
