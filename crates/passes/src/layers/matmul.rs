//! MatMul with a constant matrix on the right.

use onnxquant_ir::Node;
use onnxquant_quant::MatrixView;

use super::layer::{Bias, Channels, Decoding, Layer, OnCodes, dense};
use super::skip_reason::SkipReason;
use crate::runtime::kernel::Kernel;

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

    fn output_axis(&self, _: &Node, rank: usize) -> Option<usize> {
        (rank >= 2).then(|| rank - 1)
    }

    fn sums_all_weights(&self, _: &Node) -> bool {
        true
    }

    fn on_codes(&self) -> Option<OnCodes> {
        Some(OnCodes {
            to_codes: Kernel::QLinearMatMul,
            plus_constant: Some(Kernel::QGemm),
            to_floats: Some(Kernel::MatMulIntegerToFloat),
        })
    }

    fn float_weight_becomes_codes(&self) -> bool {
        false
    }

    fn integer_op_type(&self) -> Option<&'static str> {
        Some("MatMulInteger")
    }

    fn fuses_blocks_of_four_bits(&self) -> bool {
        true
    }
}
