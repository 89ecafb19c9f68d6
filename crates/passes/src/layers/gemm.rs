//! Gemm without factors: `x W + b`.

use onnxquant_ir::Node;
use onnxquant_quant::MatrixView;

use super::layer::{Bias, Channels, Decoding, Layer, OnCodes, dense};
use super::skip_reason::SkipReason;
use crate::runtime::kernel::Kernel;

#[derive(Debug)]
pub(super) struct Gemm;

impl Layer for Gemm {
    fn op_type(&self) -> &'static str {
        "Gemm"
    }

    fn view(&self, node: &Node, shape: &[usize]) -> Result<MatrixView, SkipReason> {
        let unusual = |attribute| Err(SkipReason::GemmForm { attribute });
        if node.float("alpha", 1.0) != 1.0 {
            return unusual("alpha");
        }
        if node.float("beta", 1.0) != 1.0 && node.input(2).is_some() {
            return unusual("beta");
        }
        if node.int("transA", 0) != 0 {
            return unusual("transA");
        }
        dense(shape, node.int("transB", 0) != 0)
    }

    fn bias(&self) -> Bias {
        Bias::Input(2)
    }

    fn channels(&self) -> Channels {
        Channels::Columns
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

    fn output_axis(&self, node: &Node, rank: usize) -> Option<usize> {
        (rank == 2).then(|| if node.int("transB", 0) != 0 { 0 } else { 1 })
    }

    fn is_plain(&self, node: &Node) -> bool {
        node.float("alpha", 1.0) == 1.0 && (node.float("beta", 1.0) == 1.0 || node.input(2).is_none())
    }

    fn sums_all_weights(&self, _: &Node) -> bool {
        true
    }

    fn on_codes(&self) -> Option<OnCodes> {
        let kernel = Kernel::QGemm;
        Some(OnCodes { to_codes: kernel, plus_constant: Some(kernel), to_floats: Some(kernel) })
    }

    fn float_weight_becomes_codes(&self) -> bool {
        true
    }
}
