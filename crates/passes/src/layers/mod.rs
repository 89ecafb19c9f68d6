//! The operators whose weights can be codes, and everything that depends on which one it is.
//!
//! | operator | weight | channels of the input | one scale an output | bias |
//! |---|---|---|---|---|
//! | Gemm | `[K, M]`, or `[M, K]` with `transB` | columns | `[M]` | input 2 |
//! | MatMul | `[K, M]` | last axis | `[M]` | an `Add` behind it |
//! | Conv | `[M, C/groups, kernel...]` | axis 1 | `[M, 1, ...]` | input 2 |
//! | ConvTranspose | `[C, M/groups, kernel...]` | axis 1 | `[1, M, 1, ...]`; `[C, M/groups, 1, ...]` in groups | input 2 |
//!
//! A further operator is one more implementation of [`Layer`], and a line in [`LAYERS`]; its shapes as matrices are a
//! [`MatrixView`].

mod conv;
mod conv_transpose;
mod gemm;
mod matmul;
mod window;

use std::fmt;

use onnxquant_ir::Node;
use onnxquant_quant::MatrixView;

use crate::sites::SkipReason;

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

/// All of them.
const LAYERS: [&dyn Layer; 4] = [&gemm::Gemm, &matmul::MatMul, &conv::Conv, &conv_transpose::ConvTranspose];

/// The layer that a node is, if it is one.
pub(crate) fn layer(node: &Node) -> Option<&'static dyn Layer> {
    LAYERS.into_iter().find(|layer| node.is(layer.op_type()))
}

/// The layer of this name in the default domain.
pub(crate) fn named(op_type: &str) -> Option<&'static dyn Layer> {
    LAYERS.into_iter().find(|layer| layer.op_type() == op_type)
}

/// The view of a weight of two dimensions.
fn dense(shape: &[usize], transposed: bool) -> Result<MatrixView, SkipReason> {
    match *shape {
        [inputs, outputs] if !transposed => Ok(MatrixView::Dense { inputs, outputs, transposed }),
        [outputs, inputs] => Ok(MatrixView::Dense { inputs, outputs, transposed }),
        _ => Err(SkipReason::Rank { shape: shape.to_vec(), expected: "two dimensions" }),
    }
}
