//! How long a Conv without groups takes in ONNX Runtime, in float and on codes.
//!
//! # Problem
//!
//! Multiply-adds alone do not tell: kernels compute 16 output channels at a time, and those that are not there cost the
//! same; and there are several kernels.
//!
//! # Method
//!
//! | | when | costs beside the products |
//! |---|---|---|
//! | float | up to 15 input channels, or a multiple of 4 | |
//! | | else | gathers every window into a matrix |
//! | codes | one input and one output channel | that of a depthwise Conv of a single channel: slow |
//! | | input channels a multiple of 4 ([`crate::align_channels`] sees to it), outputs too, at least 16 | |
//! | | else | gathers every window into a matrix |
//!
//! The form was fitted to 44 shapes in ONNX Runtime 1.32, one thread, x86-64 with AVX-512 VNNI: 1 to 256 input channels,
//! 1 to 36 outputs, windows of 1x1, 3x3, 5x5, 7x7, 3x39 and 1x256. Figures stand in the tables of
//! [`crate::integer::costs`]; what gathering takes is one number of products in all of them, so that the layout of a Conv
//! does not depend on the processor.
//!
//! # References
//!
//! In ONNX Runtime: `nchwc_transformer.cc`, `qlinearconv.cc`.

use onnxquant_quant::ConvGeometry;
use serde::Deserialize;

/// Channels of the result that are computed at a time.
const LANES: usize = 16;
/// Input channels that the kernels without a matrix read at a time.
pub(crate) const CHANNELS: usize = 4;
/// What a window of codes that is gathered takes, and each of its elements, in products of codes: those of 0.0053 ns.
const GATHER_WINDOW: f64 = 30.0 / 0.0053;
const GATHER_CODE: f64 = 0.055 / 0.0053;

/// Nanoseconds of the parts of a Conv on one class of processors.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ConvolutionTimes {
    float: Direct,
    codes: Direct,
    /// An element of a window of floats that is gathered.
    gather_float: f64,
    /// A window of codes of a single channel, and each of its elements.
    single_window: f64,
    single_element: f64,
}

/// A start, a product, an element of the result, an element of a window over a single channel (the kernels of codes make a
/// table of where each lies).
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Direct {
    start: f64,
    product: f64,
    output: f64,
    #[serde(default)]
    pointer: f64,
}

/// A Conv without groups.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Convolution {
    in_channels: usize,
    out_channels: usize,
    /// Elements of the kernel, one channel.
    window: usize,
}

impl Convolution {
    /// The Conv of this geometry.
    pub(crate) fn new(conv: &ConvGeometry) -> Self {
        Self { in_channels: conv.in_channels, out_channels: conv.out_channels, window: conv.kernel.iter().product() }
    }

    /// A Conv with a weight `[out_channels, in_channels, ...]` of windows of so many elements.
    pub(crate) fn of_sizes(out_channels: usize, in_channels: usize, window: usize) -> Self {
        Self { in_channels, out_channels, window }
    }

    /// Nanoseconds for so many elements of the result.
    pub(crate) fn in_float(&self, times: &ConvolutionTimes, outputs: f64) -> f64 {
        let Direct { start, product, output, .. } = times.float;
        let positions = outputs / self.out_channels as f64;
        let is_direct = self.in_channels < LANES || self.in_channels.is_multiple_of(CHANNELS);
        let position = match is_direct {
            true => product * self.filled_products(self.in_channels),
            false if self.window == 1 => product * self.inputs() * self.out_channels as f64,
            false => (product * self.out_channels as f64 + times.gather_float) * self.inputs(),
        };
        start + positions * position + output * outputs
    }

    /// The same on codes.
    pub(crate) fn on_codes(&self, times: &ConvolutionTimes, outputs: f64) -> f64 {
        let Direct { start, product, output, pointer } = times.codes;
        let positions = outputs / self.out_channels as f64;
        let channels = match self.aligning_pays() {
            true => self.in_channels.next_multiple_of(CHANNELS),
            false => self.in_channels,
        };
        let is_direct = self.has_fast_outputs() && channels.is_multiple_of(CHANNELS);
        let position = match (self.in_channels, self.out_channels) {
            (1, 1) => times.single_window + times.single_element * self.inputs(),
            _ if is_direct => product * self.filled_products(channels) + pointer * self.pointers(),
            _ => product * (self.filled_products(channels) + self.gathering()),
        };
        start + positions * position + output * outputs
    }

    /// Whether adding input channels of zeros, up to a multiple of 4, takes less time than gathering windows of codes.
    pub(crate) fn aligning_pays(&self) -> bool {
        let more = self.in_channels.next_multiple_of(CHANNELS) - self.in_channels;
        more > 0 && self.window > 1 && self.has_fast_outputs() && self.filled_products(more) < self.gathering()
    }

    /// Whether there is a kernel for the output channels that needs no matrix of windows.
    fn has_fast_outputs(&self) -> bool {
        self.out_channels >= LANES && self.out_channels.is_multiple_of(CHANNELS)
    }

    /// Products at a position, those of channels that are dropped included.
    fn filled_products(&self, in_channels: usize) -> f64 {
        (in_channels * self.window * self.out_channels.next_multiple_of(LANES)) as f64
    }

    /// What gathering a window of codes takes, in products; a window of one element is there already.
    fn gathering(&self) -> f64 {
        if self.window > 1 { GATHER_WINDOW + GATHER_CODE * self.inputs() } else { 0.0 }
    }

    /// Elements of a window over one channel; a window of one element needs no table.
    fn pointers(&self) -> f64 {
        if self.window > 1 { self.window as f64 } else { 0.0 }
    }

    fn inputs(&self) -> f64 {
        (self.in_channels * self.window) as f64
    }
}

/// Input channels that a Conv on codes will be written with, where it is the only one that reads its input.
pub fn aligned_channels(conv: &ConvGeometry) -> usize {
    let serves = conv.groups == 1 && conv.kernel.len() == 2 && Convolution::new(conv).aligning_pays();
    if serves { conv.in_channels.next_multiple_of(CHANNELS) } else { conv.in_channels }
}

#[cfg(test)]
#[path = "convolution_tests.rs"]
mod tests;
