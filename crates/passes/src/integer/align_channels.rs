//! Adds channels of zeros before a Conv on codes, up to a multiple of 4.
//!
//! # Problem
//!
//! ONNX Runtime has two integer kernels for a Conv without groups. The fast one reads 4 input channels at a time; with a
//! number that is no multiple of 4, such as the 3 of pictures, the runtime gathers every window into a matrix first.
//!
//! # Method
//!
//! ```text
//! Q -> DQ -> Conv(w [M, 3, h, w])    is    Q -> Pad -> DQ -> Conv(w' [M, 4, h, w])
//! ```
//!
//! with the zero point in the new channels and zeros in the new weights.
//!
//! # Guarantee
//!
//! Exact: the sums of integers are the same.
//!
//! # Cost
//!
//! A pass over the codes of the input. A first layer of 3x3 on 224x224x3 took 437 us instead of 22 + 206 us (ONNX Runtime
//! 1.32, x86-64 with VNNI). A kernel of 1x1 needs no gathering, and few or ragged output channels keep the fast kernel
//! away: these are left alone, and so are long windows of few channels, where the products with zeros take longer.
//!
//! # Failure
//!
//! Left alone: codes that anything else reads, weights that are no int8 constant of their own or have zero points, other
//! than two spatial dimensions, groups. Subgraphs are not entered.

use onnxquant_ir::onnx::TensorProto;
use onnxquant_ir::onnx::tensor_proto::DataType;
use onnxquant_ir::{Graph, Node, NodeId, TensorError, Use, ValueId, tensor};
use onnxquant_quant::PairRule;

use crate::graph::insert::insert;
use crate::runtime::convolution::{CHANNELS, Convolution};
use crate::runtime::cpu::Cpu;

/// Adds channels wherever that serves; returns the number of layers.
///
/// The default opset must be 13 or later: only from there on a Pad takes codes.
///
/// Neighbours along the reduction are others then: on a `cpu` whose products saturate, codes that could do so there keep
/// a Conv as it is.
pub fn align_channels(graph: &mut Graph, cpu: Cpu) -> Result<usize, TensorError> {
    let convs = graph.nodes().filter(|(_, node)| node.is("Conv")).map(|(id, _)| id).collect::<Vec<_>>();
    let mut aligned = 0;
    for conv in convs {
        if let Some(found) = Ragged::find(graph, conv)
            && (!cpu.saturates() || found.keeps_rule(graph)?)
        {
            found.align(graph)?;
            aligned += 1;
        }
    }
    Ok(aligned)
}

/// A Conv on codes with a number of input channels that is no multiple of 4.
struct Ragged {
    decode: NodeId,
    codes: ValueId,
    zero_point: ValueId,
    weight: ValueId,
    shape: [usize; 4],
}

impl Ragged {
    fn find(graph: &Graph, conv: NodeId) -> Option<Self> {
        let node = graph.node(conv);
        let (decode, decoding) = decoding(graph, node, 0)?;
        let (codes, zero_point) = (decoding.input(0)?, decoding.input(2)?);
        let of_one_number = graph.value(zero_point).constant()?.dims.is_empty();
        let encoded = graph.producer(codes)?.1.is("QuantizeLinear") && graph.value(codes).uses().len() == 1;
        let (_, weights) = self::decoding(graph, node, 1)?;
        let weight = weights.input(0).filter(|&weight| graph.value(weight).uses().len() == 1)?;
        let tensor = graph.value(weight).constant()?;
        let zeros = match weights.input(2) {
            Some(value) => tensor::to_codes(graph.value(value).constant()?).ok()?.iter().all(|&code| code == 0),
            None => true,
        };
        let shape: [usize; 4] = tensor::shape(tensor).ok()?.try_into().ok()?;
        let [outputs, channels, height, width] = shape;
        let conv = Convolution::of_sizes(outputs, channels, height * width);
        let serves = node.int("group", 1) == 1 && conv.aligning_pays();
        let plain = of_one_number && encoded && zeros && tensor.data_type() == DataType::Int8 as i32;
        (serves && plain).then_some(Self { decode, codes, zero_point, weight, shape })
    }

    /// Whether no two codes saturate side by side once there are channels of zeros.
    fn keeps_rule(&self, graph: &Graph) -> Result<bool, TensorError> {
        let [_, channels, height, width] = self.shape;
        let Some(weight) = graph.value(self.weight).constant() else { return Ok(true) };
        let codes = tensor::to_codes(weight)?;
        let rule = PairRule::convolution(channels, height * width, channels.next_multiple_of(CHANNELS));
        let pairs = rule.pairs(channels * height * width);
        let keeps = |row: &[i16]| pairs.iter().all(|&(a, b)| PairRule::allows(row[a], row[b]));
        Ok(codes.chunks_exact(channels * height * width).all(keeps))
    }

    fn align(self, graph: &mut Graph) -> Result<(), TensorError> {
        let channels = self.shape[1];
        let more = channels.next_multiple_of(CHANNELS) - channels;
        let Some(weight) = graph.value(self.weight).constant() else { return Ok(()) };
        let widened = widened(weight, self.shape, channels + more)?;
        graph.set_tensor(self.weight, widened);
        let name = graph.value(self.codes).name().to_owned();
        // Before each dimension, then after each.
        let amounts = tensor::from_i64(&[8], &[0, 0, 0, 0, 0, more as i64, 0, 0]);
        let amounts = graph.add_constant(&format!("{name}_pads"), amounts);
        let output = format!("{name}_aligned");
        let padded = insert(graph, self.decode, "Pad", &[self.codes, amounts, self.zero_point], output, vec![]);
        graph.set_input(self.decode, 0, Some(padded));
        Ok(())
    }
}

/// The `DequantizeLinear` that makes an input of `node` alone.
fn decoding<'a>(graph: &'a Graph, node: &Node, slot: usize) -> Option<(NodeId, &'a Node)> {
    let value = node.input(slot)?;
    let alone = matches!(graph.value(value).uses(), [Use::Input(..)]);
    graph.producer(value).filter(|(_, found)| alone && found.is("DequantizeLinear"))
}

/// The codes with zeros in channels up to `channels`.
fn widened(weight: &TensorProto, shape: [usize; 4], channels: usize) -> Result<TensorProto, TensorError> {
    let [outputs, old, height, width] = shape;
    let codes = tensor::to_codes(weight)?;
    let zeros = vec![0; (channels - old) * height * width];
    let rows = codes.chunks(old * height * width).flat_map(|row| row.iter().chain(&zeros).copied());
    Ok(tensor::from_codes(DataType::Int8, &[outputs, channels, height, width], rows))
}

#[cfg(test)]
#[path = "align_channels_tests.rs"]
mod tests;
