//! Turns `com.microsoft.MatMulNBits` back into a MatMul with a float weight, and an Add where it has a bias.
//!
//! The weight is `scale * (code - zero_point)` in f32, as the runtime computes it where it does not round activations.
//! See [`crate::write_nbits`] for the layout.
//!
//! Not decoded: nodes whose codes or scales are no constants, other numbers of bits than 2, 4 and 8, and nodes with
//! `g_idx`.

use onnxquant_ir::onnx::TensorProto;
use onnxquant_ir::onnx::tensor_proto::DataType;
use onnxquant_ir::{Graph, NewNode, Node, NodeId, TensorError, ValueId, tensor};

use crate::runtime::nbits::is_nbits;

/// Decodes every such node; returns how many.
pub(crate) fn decode_nbits(graph: &mut Graph) -> Result<usize, TensorError> {
    let mut decoded = 0;
    for id in graph.order().to_vec() {
        let node = graph.node(id);
        if !is_nbits(node) {
            continue;
        }
        if let Some(weight) = Encoded::find(graph, node).map(|found| found.decode()).transpose()? {
            replace(graph, id, weight);
            decoded += 1;
        }
    }
    Ok(decoded)
}

struct Encoded<'a> {
    k: usize,
    n: usize,
    bits: usize,
    block: usize,
    codes: &'a TensorProto,
    scales: &'a TensorProto,
    zero_points: ZeroPoints<'a>,
}

enum ZeroPoints<'a> {
    Middle,
    /// One byte for all.
    Same(&'a TensorProto),
    Each(&'a TensorProto),
}

impl<'a> Encoded<'a> {
    fn find(graph: &'a Graph, node: &Node) -> Option<Self> {
        let constant = |slot: usize| graph.value(node.input(slot)?).constant();
        let size = |name: &str| usize::try_from(node.int(name, 0)).ok().filter(|&size| size > 0);
        let zero_points = match node.input(3) {
            None => ZeroPoints::Middle,
            Some(value) => match graph.value(value).constant() {
                Some(each) => ZeroPoints::Each(each),
                None => {
                    let (_, expand) = graph.producer(value).filter(|(_, node)| node.is("Expand"))?;
                    let one = graph.value(expand.input(0)?).constant();
                    ZeroPoints::Same(one.filter(|one| one.dims.iter().all(|&dim| dim == 1))?)
                }
            },
        };
        let bits = node.int("bits", 4);
        let bits = usize::try_from(bits).ok().filter(|bits| [2, 4, 8].contains(bits) && node.input(4).is_none())?;
        let (codes, scales) = (constant(1)?, constant(2).filter(|scales| tensor::is_float(scales))?);
        Some(Self { k: size("K")?, n: size("N")?, bits, block: size("block_size")?, codes, scales, zero_points })
    }

    /// The weight, `[K, N]`.
    fn decode(&self) -> Result<TensorProto, TensorError> {
        let (scales, codes) = (tensor::to_f32(self.scales)?, bytes(self.codes)?);
        let blocks = self.k.div_ceil(self.block);
        let zero_row = (blocks * self.bits).div_ceil(8);
        let (zeros, zero_row) = match self.zero_points {
            ZeroPoints::Middle => (vec![], 0),
            ZeroPoints::Same(one) => (bytes(one)?, 0),
            ZeroPoints::Each(each) => (bytes(each)?, zero_row),
        };
        let row = blocks.checked_mul(self.block * self.bits / 8);
        let fits = |len: usize, row: Option<usize>| row.and_then(|row| row.checked_mul(self.n)) == Some(len);
        let zeros_fit = zero_row == 0 || fits(zeros.len(), Some(zero_row));
        if !(fits(codes.len(), row) && fits(scales.len(), Some(blocks)) && zeros_fit) {
            let problem = format!("does not hold {} x {} codes of {} bits", self.n, self.k, self.bits);
            return Err(TensorError { tensor: self.codes.name().to_owned(), problem });
        }
        let row = codes.len() / self.n;
        let zero = |n: usize, block: usize| match (zero_row, zeros.first()) {
            (0, None) => 1 << (self.bits - 1),
            (0, Some(&byte)) => i32::from(byte & mask(self.bits)),
            _ => self.field(&zeros[n * zero_row..], block),
        };
        let real = |k: usize, n: usize| {
            let (code, block) = (self.field(&codes[n * row..], k), k / self.block);
            scales[n * blocks + block] * (code - zero(n, block)) as f32
        };
        let numbers: Vec<f32> =
            (0..self.k).flat_map(|k| (0..self.n).map(move |n| (k, n))).map(|(k, n)| real(k, n)).collect();
        Ok(tensor::from_f32_as(tensor::data_type(self.scales)?, &[self.k, self.n], &numbers))
    }

    /// Field `index` of packed bytes.
    fn field(&self, bytes: &[u8], index: usize) -> i32 {
        let per_byte = 8 / self.bits;
        i32::from(bytes[index / per_byte] >> (index % per_byte * self.bits) & mask(self.bits))
    }
}

fn mask(bits: usize) -> u8 {
    u8::MAX >> (8 - bits)
}

fn bytes(tensor: &TensorProto) -> Result<Vec<u8>, TensorError> {
    match tensor::data_type(tensor)? {
        DataType::Uint8 => Ok(tensor::to_raw(tensor)?.to_vec()),
        other => {
            let problem = format!("is of type {}, expected UINT8", other.as_str_name());
            Err(TensorError { tensor: tensor.name().to_owned(), problem })
        }
    }
}

fn replace(graph: &mut Graph, node: NodeId, weight: TensorProto) {
    let inputs: Vec<Option<ValueId>> = graph.node(node).inputs().to_vec();
    let name = graph.label(node).to_owned();
    let weight = graph.add_constant(&format!("{name}_weight"), weight);
    graph.set_operator(node, "", "MatMul");
    ["K", "N", "bits", "block_size", "accuracy_level"].iter().for_each(|name| drop(graph.remove_attribute(node, name)));
    graph.truncate_inputs(node, 1);
    graph.set_input(node, 1, Some(weight));
    if let Some(&Some(bias)) = inputs.get(5) {
        let add = NewNode { op_type: "Add", outputs: vec![format!("{name}_before_bias")], ..NewNode::default() };
        let add = graph.insert_after(node, add);
        graph.swap_outputs(node, 0, add);
        let product = graph.node(node).output(0);
        graph.set_input(add, 0, product);
        graph.set_input(add, 1, Some(bias));
    }
    let gone = inputs.iter().enumerate().filter(|(slot, _)| (1..5).contains(slot)).filter_map(|(_, value)| *value);
    gone.for_each(|value| graph.remove_if_unused(value));
}

#[cfg(test)]
#[path = "decode_nbits_tests.rs"]
mod tests;
