//! Conv in any number of spatial dimensions.

use onnxquant_ir::Node;
use onnxquant_quant::MatrixView;

use super::layer::{Bias, Channels, Decoding, Layer, OnCodes};
use super::skip_reason::SkipReason;
use super::window::{Window, is_unpadded, kernel, problem};
use crate::runtime::kernel::Kernel;

#[derive(Debug)]
pub(super) struct Conv;

impl Layer for Conv {
    fn op_type(&self) -> &'static str {
        "Conv"
    }

    fn view(&self, node: &Node, shape: &[usize]) -> Result<MatrixView, SkipReason> {
        let (out_channels, group_channels, kernel) = kernel(shape)?;
        let window = Window { node, kernel };
        let in_channels = group_channels.checked_mul(window.groups()?);
        let conv = window.geometry(shape, [in_channels, Some(out_channels)])?;
        conv.check().map_err(|error| problem(error.to_string()))?;
        Ok(MatrixView::Conv(conv))
    }

    fn bias(&self) -> Bias {
        Bias::Input(2)
    }

    fn channels(&self) -> Channels {
        Channels::Second
    }

    fn scale_dims(&self, view: &MatrixView) -> Vec<usize> {
        [vec![view.groups() * view.outputs()], vec![1; view.spatial_rank() + 1]].concat()
    }

    fn scale_of(&self, _: &MatrixView, _: usize, output: usize) -> usize {
        output
    }

    fn decoding(&self) -> Decoding {
        Decoding::Folded
    }

    fn output_axis(&self, _: &Node, rank: usize) -> Option<usize> {
        (rank >= 3).then_some(0)
    }

    fn sums_all_weights(&self, node: &Node) -> bool {
        is_unpadded(node)
    }

    fn on_codes(&self) -> Option<OnCodes> {
        Some(OnCodes { to_codes: Kernel::QLinearConv, plus_constant: None, to_floats: None })
    }

    fn float_weight_becomes_codes(&self) -> bool {
        true
    }
}
