//! Turns a MatMul or Gemm into `com.microsoft.MatMulNBits`, the operator that ONNX Runtime has for weights in blocks.
//!
//! # Shapes and units
//!
//! | input | holds | shape |
//! |---|---|---|
//! | 1 | codes of 4 or 8 bits, low nibble first | uint8 `[M, blocks, block * bits / 8]` |
//! | 2 | scales | `[M, blocks]` |
//! | 3 | zero points in as many bits, left out where all are `2^(bits - 1)` | uint8 `[M, blocks * bits / 8]` |
//! | 5 | bias | `[M]` |
//!
//! Blocks are powers of two from 16 to 256 along K; the last may be short and is filled up. Scales per tensor or per
//! channel are repeated for every block.
//!
//! # Method
//!
//! Codes of 1 to 3 bits are stored in planes that the runtime joins to codes of 4 bits when it loads the model (see
//! [`crate::byte_planes`]); their zero points, all alike, are expanded from one number then. Scales have to be
//! constants: the kernel reads them before anything is computed where optimizations are off.
//!
//! The layer's node becomes the operator. The bias of a Gemm, and the vector that an `Add` behind a MatMul adds, become
//! its bias; other biases are left in an `Add`.
//!
//! Accuracy level 4: activations are rounded to int8 in blocks of the same size, which is what makes it fast. Weights so
//! large that its sums would overflow get level 1, which rounds nothing (see `accuracy_level`).

use onnxquant_ir::onnx::tensor_proto::DataType;
use onnxquant_ir::{Graph, NewNode, NodeId, TensorError, ValueId, int_attribute, tensor};
use onnxquant_quant::Granularity;

use super::accuracy_level::accuracy_level;
use super::codes::Codes;
use super::packed_weight::PackedWeight;
use crate::find::sites::Site;
use crate::graph::insert::insert;
pub use crate::runtime::nbits::MICROSOFT;
use crate::write::add_to_bias::{Slot, numbers, slot};
use crate::write::byte_planes::write_planes;

/// Blocks that the kernels take.
const BLOCKS: std::ops::RangeInclusive<usize> = 16..=256;

/// The block of scales that are repeated anyway, for a kernel of `bits` bits.
///
/// Activations are rounded in blocks of the same size. On a sentence encoder (MiniLM) with 8 bits a channel that leaves
/// 26.6, 28.4 and 29.4 dB in blocks of 128, 64 and 32, at 1.9, 1.7 and 1.6 times the speed of floats; with 4 bits the
/// weights' own error is far larger, and speed decides.
fn repeated_block(bits: u32) -> usize {
    if bits > 4 { 64 } else { 128 }
}

/// The block size that the operator takes, with codes of `bits` bits, for `k` inputs whose scales are as fine as
/// `granularity`.
pub fn block_of(granularity: Granularity, k: usize, bits: u32) -> Option<usize> {
    match granularity {
        Granularity::Block(size) => {
            let largest = (1 << size.trailing_zeros().min(BLOCKS.end().ilog2())).min(*BLOCKS.end());
            BLOCKS.contains(&largest).then_some(largest)
        }
        Granularity::Tensor | Granularity::Channel => {
            // The largest that adds no more than an eighth of filling.
            let least = k.next_multiple_of(*BLOCKS.start());
            let fits = |block: &usize| k.next_multiple_of(*block) - least <= least / 8;
            std::iter::successors(Some(repeated_block(bits)), |block| Some(block / 2)).find(fits)
        }
    }
}

/// The codes of a weight as the operator wants them.
struct Blocks {
    /// Bits of a code that the kernel reads.
    bits: u32,
    block: usize,
    k: usize,
    m: usize,
}

impl Blocks {
    fn count(&self) -> usize {
        self.k.div_ceil(self.block)
    }

    fn pack(&self, numbers: impl Iterator<Item = u8>) -> Vec<u8> {
        packed(self.bits, numbers)
    }
}

/// Packs numbers below `2^bits`, of 4 or 8 bits, low ones first.
pub(crate) fn packed(bits: u32, numbers: impl Iterator<Item = u8>) -> Vec<u8> {
    let numbers: Vec<u8> = numbers.collect();
    match bits {
        8 => numbers,
        _ => numbers.chunks(2).map(|pair| pair[0] | pair.get(1).map_or(0, |high| high << 4)).collect(),
    }
}

/// Writes `weight` in blocks of `block`; returns the initializers that hold it.
///
/// # Panics
/// When the layer is a convolution.
pub(crate) fn write_nbits(
    graph: &mut Graph,
    site: &Site,
    name: &str,
    weight: &PackedWeight,
    (bits, block, codes): (u32, usize, Codes),
) -> Result<Vec<ValueId>, TensorError> {
    assert!(site.view.is_dense(), "only dense layers are planned as MatMulNBits");
    let (k, m) = (site.view.inputs(), site.view.outputs());
    let layout = Blocks { bits, block, k, m };
    let (values, held) = write_operands(graph, site, name, weight, &layout, codes)?;
    become_nbits(graph, site, (bits, block), values);
    Ok(held)
}

/// Makes the layer the operator, which reads its codes, scales and zero points from `operands`.
pub(crate) fn become_nbits(
    graph: &mut Graph,
    site: &Site,
    (bits, block): (u32, usize),
    operands: [Option<ValueId>; 3],
) {
    let (k, m) = (site.view.inputs(), site.view.outputs());
    let bias = take_bias(graph, site);
    let node = site.node;
    graph.set_operator(node, MICROSOFT, "MatMulNBits");
    ["alpha", "beta", "transA", "transB"].iter().for_each(|name| drop(graph.remove_attribute(node, name)));
    let scales = operands[1].and_then(|scales| graph.value(scales).constant());
    let level = accuracy_level(scales);
    let sizes = [("K", k), ("N", m), ("bits", bits as usize), ("block_size", block), ("accuracy_level", level)];
    for (name, size) in sizes {
        let size = i64::try_from(size).expect("a dimension of data in memory fits 63 bits");
        graph.set_attribute(node, int_attribute(name, size));
    }
    graph.truncate_inputs(node, 1);
    operands.into_iter().enumerate().for_each(|(index, value)| {
        if value.is_some() {
            graph.set_input(node, index + 1, value);
        }
    });
    if let Some(bias) = bias {
        graph.set_input(node, 5, Some(bias));
    }
    graph.remove_if_unused(site.weight);
}

/// Codes, scales and zero points, and the initializers that hold them.
fn write_operands(
    graph: &mut Graph,
    site: &Site,
    name: &str,
    weight: &PackedWeight,
    layout: &Blocks,
    stored: Codes,
) -> Result<([Option<ValueId>; 3], Vec<ValueId>), TensorError> {
    let Blocks { bits, block, k, m } = *layout;
    let count = layout.count();
    let codes = tensor::to_codes(&weight.codes)?;
    let (fields, base) = match stored {
        Codes::Native(_) => (None, if weight.is_signed() { 1 << (bits - 1) } else { 0 }),
        Codes::Planes { bits: used } => {
            let (used_fields, base) = weight.fields(&codes, used, bits);
            (Some(used_fields), base)
        }
    };
    let zero_points = weight.spread_zero_points(k, block)?;
    let zero = |m: usize, b: usize| (zero_points[b * layout.m + m] + base) as u8;
    let code = |m: usize, row: usize| match row < k {
        true => (codes[row * layout.m + m] + base) as u8,
        false => zero(m, row / block),
    };
    let numbers = (0..m).flat_map(|m| (0..count * block).map(move |row| (m, row))).map(|(m, row)| code(m, row));
    let packed = layout.pack(numbers);
    let dims = [m, count, block * bits as usize / 8];
    let (codes, mut held) = match fields {
        Some(fields) => write_planes(graph, site.node, name, &packed, &dims, fields),
        None => {
            let packed = tensor::from_raw(DataType::Uint8, &dims, packed);
            let codes = graph.add_constant(&format!("{name}_quantized"), packed);
            (codes, vec![codes])
        }
    };
    let scales = weight.spread_scales(k, block)?;
    let scales: Vec<f32> = (0..m).flat_map(|m| (0..count).map(move |b| b * layout.m + m)).map(|i| scales[i]).collect();
    let scales = tensor::from_f32_as(site.dtype, &[m, count], &scales);
    let scales = graph.add_constant(&format!("{name}_scale"), scales);
    held.push(scales);

    let all_alike = zero_points.iter().all(|zero| *zero == zero_points[0]);
    let row = (count * bits as usize).div_ceil(8);
    let zeros = match zero(0, 0) {
        common if all_alike && common == 1 << (bits - 1) => None,
        common if all_alike && fields.is_some() => {
            let both = if bits == 4 { common | common << 4 } else { common };
            Some(expanded_zero_points(graph, site.node, name, both, [m, row]))
        }
        _ => {
            let numbers = (0..m).flat_map(|m| layout.pack((0..count).map(|b| zero(m, b))));
            let zeros = tensor::from_raw(DataType::Uint8, &[m, row], numbers.collect::<Vec<u8>>());
            let zeros = graph.add_constant(&format!("{name}_zero_point"), zeros);
            held.push(zeros);
            Some(zeros)
        }
    };
    Ok(([Some(codes), Some(scales), zeros], held))
}

/// Zero points made from one when the model is loaded.
fn expanded_zero_points(graph: &mut Graph, before: NodeId, name: &str, byte: u8, dims: [usize; 2]) -> ValueId {
    let one = tensor::from_raw(DataType::Uint8, &[], vec![byte]);
    let one = graph.add_constant(&format!("{name}_zero_point"), one);
    let dims = dims.map(|dim| i64::try_from(dim).expect("a dimension of data in memory fits 63 bits"));
    let dims = graph.add_constant(&format!("{name}_zero_point_dims"), tensor::from_i64(&[2], &dims));
    insert(graph, before, "Expand", &[one, dims], format!("{name}_zero_points"), vec![])
}

/// Takes the bias away from a Gemm, or the Add from behind a MatMul, where the operator can have it; puts what it
/// cannot have into an Add.
fn take_bias(graph: &mut Graph, site: &Site) -> Option<ValueId> {
    let found = slot(graph, site)?;
    let old = found.old?;
    let vector = numbers(graph, site, &found).map(|bias| tensor::from_f32_as(site.dtype, &[bias.len()], &bias));
    if found.node == site.node {
        graph.truncate_inputs(site.node, 2);
        let Some(vector) = vector else {
            add_behind(graph, site.node, old);
            return None;
        };
        return Some(replaced(graph, old, vector));
    }
    // Of another shape it may give the sum another rank.
    let vector = vector.filter(|vector| graph.value(old).constant().is_some_and(|old| old.dims == vector.dims))?;
    drop_add(graph, site.node, &found);
    Some(replaced(graph, old, vector))
}

/// The vector as an initializer, the old one where it is that already.
fn replaced(graph: &mut Graph, old: ValueId, vector: onnxquant_ir::onnx::TensorProto) -> ValueId {
    if graph.value(old).constant().is_some_and(|old| old.dims == vector.dims) {
        return old;
    }
    let name = graph.value(old).name().to_owned();
    let new = graph.add_constant(&name, vector);
    graph.remove_if_unused(old);
    new
}

/// Removes the Add behind `node`, which makes the sum now.
fn drop_add(graph: &mut Graph, node: NodeId, found: &Slot) {
    graph.swap_outputs(node, 0, found.node);
    graph.set_input(found.node, 0, None);
    graph.set_input(found.node, 1, None);
    graph.remove_node(found.node).expect("what the Add made is made by the layer now");
}

fn add_behind(graph: &mut Graph, node: NodeId, bias: ValueId) {
    let base = graph.label(node).to_owned();
    let add = NewNode { op_type: "Add", outputs: vec![format!("{base}_before_bias")], ..NewNode::default() };
    let add = graph.insert_after(node, add);
    graph.swap_outputs(node, 0, add);
    let product = graph.node(node).output(0);
    graph.set_input(add, 0, product);
    graph.set_input(add, 1, Some(bias));
}

#[cfg(test)]
#[path = "write_nbits_tests.rs"]
mod tests;
