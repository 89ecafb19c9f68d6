//! MatMul with a constant matrix on the right.

use onnxquant_ir::Node;
use onnxquant_quant::MatrixView;

use super::layer::{Bias, Channels, Decoding, Layer, dense};
use super::skip_reason::SkipReason;

#[derive(Debug)]
pub(super) struct MatMul;

impl Layer for MatMul {
    fn op_type(&self) -> &'static str {
        "MatMul"
    }

    fn view(&self, _: &Node, shape: &[usize]) -> Result<MatrixView, SkipReason> {
        dense(shape, false)
    }

    fn bias(&self) -> Bias {
        Bias::AddBehind
    }

    fn channels(&self) -> Channels {
        Channels::Last
    }

    fn scale_dims(&self, view: &MatrixView) -> Vec<usize> {
        vec![view.outputs()]
    }

    fn scale_of(&self, _: &MatrixView, _: usize, output: usize) -> usize {
        output
    }

    fn decoding(&self) -> Decoding {
        Decoding::Fused
    }
}
