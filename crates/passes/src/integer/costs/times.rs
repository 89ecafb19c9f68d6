//! Tables of times, one for each class of processors of which figures are known.
//!
//! The figures stand in files beside this one, `vnni.toml` and `avx2.toml`, with words on where they come from.
//! `cargo xtask bench costs` measures that of the processor on which it runs.

use std::sync::LazyLock;

use serde::Deserialize;

use crate::runtime::convolution::ConvolutionTimes;
use crate::runtime::cpu::Cpu;

static VNNI: LazyLock<Times> = LazyLock::new(|| parse(include_str!("vnni.toml")));
static AVX2: LazyLock<Times> = LazyLock::new(|| parse(include_str!("avx2.toml")));

/// A class of processors and its table.
pub(crate) type Table = (Cpu, &'static Times);

/// The table of one class of processors. Where nothing else is said, figures are nanoseconds for an element of the
/// result.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Times {
    /// A MatMul or Gemm with a constant weight.
    pub(crate) dense_float: KernelTime,
    /// The same as `MatMulNBits`, with codes of 8 bits and float activations.
    pub(crate) dense_nbits8: KernelTime,
    /// The same with codes of 4 bits.
    pub(crate) dense_nbits4: KernelTime,
    /// The same with an input that is quantized at run time, but for the quantizing.
    pub(crate) dense_dynamic: KernelTime,
    /// The same in a region.
    pub(crate) dense_codes: KernelTime,
    pub(crate) depthwise_float: KernelTime,
    pub(crate) depthwise_codes: KernelTime,
    /// Where channels are no multiple of 16.
    pub(crate) ragged_depthwise_codes: KernelTime,
    /// A Conv of several groups that is not depthwise, in float.
    pub(crate) grouped: KernelTime,
    /// A Conv without groups.
    pub(crate) convolution: ConvolutionTimes,
    pub(crate) float_elementwise: f64,
    pub(crate) codes_elementwise: f64,
    pub(crate) codes_mul: f64,
    /// A run of elements that an operand of fewer elements is spread over.
    pub(crate) codes_spread: f64,
    /// An element of a window.
    pub(crate) float_max_pool: f64,
    /// The same on codes.
    pub(crate) codes_max_pool: f64,
    /// The same where the codes do not come from a convolution.
    pub(crate) first_max_pool: f64,
    pub(crate) float_sigmoid: f64,
    pub(crate) codes_lookup: f64,
    pub(crate) float_movement: f64,
    pub(crate) codes_movement: f64,
    /// Floats to codes; with the change of layout that goes with it in convolution networks.
    pub(crate) quantize: f64,
    /// Codes to floats, with the same.
    pub(crate) dequantize: f64,
    /// Operators that never run on codes.
    pub(crate) other: f64,
    /// Starting a node.
    pub(crate) node: f64,
}

/// A kernel's time: a start, a multiply-add, a weight (reading it, where there are few rows), an element of the result, an
/// element of a window over a single channel (the kernels of codes make a table of where each lies).
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct KernelTime {
    pub(crate) start: f64,
    pub(crate) mac: f64,
    #[serde(default)]
    pub(crate) weight: f64,
    #[serde(default)]
    pub(crate) output: f64,
    #[serde(default)]
    pub(crate) pointer: f64,
}

/// What a layer has to do.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Size {
    pub(crate) macs: f64,
    /// Those that are read from memory: 0 where they lie in a cache.
    pub(crate) weights: f64,
    pub(crate) outputs: f64,
    /// Elements of the windows of a depthwise Conv, over a single channel.
    pub(crate) pointers: f64,
}

impl KernelTime {
    /// Nanoseconds for a layer of this size.
    pub(crate) fn time(&self, size: &Size) -> f64 {
        self.start + self.work(size)
    }

    /// The same without the start.
    pub(crate) fn work(&self, size: &Size) -> f64 {
        let read = self.mac * size.macs + self.weight * size.weights + self.pointer * size.pointers;
        read + self.output * size.outputs
    }
}

impl Times {
    /// The tables that count where a file is served, each with the class that it was made for. Of AVX-512 without VNNI and
    /// of Arm none is known: the one counts as AVX2, whose products of codes it has, the other as VNNI, for its products of
    /// codes do not saturate either.
    pub(crate) fn of(cpu: Cpu) -> Vec<Table> {
        let (vnni, avx2): (Table, Table) = ((Cpu::Vnni, &VNNI), (Cpu::Avx2, &AVX2));
        match cpu {
            Cpu::Portable => vec![vnni, avx2],
            Cpu::Avx2 | Cpu::Avx512 => vec![avx2],
            Cpu::Vnni | Cpu::Arm64 => vec![vnni],
        }
    }
}

/// The table in a file of the source tree; tests read each of them.
fn parse(text: &str) -> Times {
    toml::from_str(text).expect("the tables of the source tree are complete")
}
