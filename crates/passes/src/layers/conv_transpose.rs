//! ConvTranspose in any number of spatial dimensions.
//!
//! Its weight has the output channels of one group on axis 1: with several groups there is one scale for each pair of an
//! input channel, which tells the group, and an output channel of that group.

use onnxquant_ir::Node;
use onnxquant_quant::{MatrixView, TransposedConv};

use super::layer::{Bias, Channels, Decoding, Layer, OnCodes};
use super::skip_reason::SkipReason;
use super::window::{Window, kernel, problem};

#[derive(Debug)]
pub(super) struct ConvTranspose;

impl Layer for ConvTranspose {
    fn op_type(&self) -> &'static str {
        "ConvTranspose"
    }

    fn view(&self, node: &Node, shape: &[usize]) -> Result<MatrixView, SkipReason> {
        let (in_channels, group_outputs, kernel) = kernel(shape)?;
        let window = Window { node, kernel };
        let out_channels = group_outputs.checked_mul(window.groups()?);
        let transposed = TransposedConv {
            conv: window.geometry(shape, [Some(in_channels), out_channels])?,
            output_padding: window.sizes("output_padding", 0)?,
            output_shape: window.given("output_shape", kernel.len())?,
        };
        transposed.check().map_err(|error| problem(error.to_string()))?;
        Ok(MatrixView::ConvTranspose(transposed))
    }

    fn bias(&self) -> Bias {
        Bias::Input(2)
    }

    fn channels(&self) -> Channels {
        Channels::Second
    }

    fn scale_dims(&self, view: &MatrixView) -> Vec<usize> {
        let channels = if view.groups() == 1 { 1 } else { view.in_channels() };
        [vec![channels, view.outputs()], vec![1; view.spatial_rank()]].concat()
    }

    fn scale_of(&self, view: &MatrixView, channel: usize, output: usize) -> usize {
        let channel = if view.groups() == 1 { 0 } else { channel };
        channel * view.outputs() + output % view.outputs().max(1)
    }

    fn decoding(&self) -> Decoding {
        Decoding::Folded
    }

    /// In groups an output channel is told by both of the first axes.
    fn output_axis(&self, node: &Node, rank: usize) -> Option<usize> {
        (rank >= 3 && node.int("group", 1) == 1).then_some(1)
    }

    /// At the edges windows of the result overlap with fewer others.
    fn sums_all_weights(&self, _: &Node) -> bool {
        false
    }

    fn on_codes(&self) -> Option<OnCodes> {
        None
    }

    fn float_weight_becomes_codes(&self) -> bool {
        true
    }
}

#[cfg(test)]
#[path = "conv_transpose_tests.rs"]
mod tests;
