//! Stores codes of 1 to 7 bits in as many bits, and writes the operators that put them together again.
//!
//! # Problem
//!
//! ONNX has types of 8, 4 and 2 bits, and old runtimes not even those. A tensor of bytes is known to all of them.
//!
//! # Shapes and units
//!
//! What is to be made are `n_bytes` bytes. Every byte holds one field of 8 bits or two of 4 (low one first), every
//! field one code.
//!
//! # Method
//!
//! The bits of a code are divided into planes of 4, 2 and 1 bits: 3 bits are 2 low ones and 1 high one. A plane of
//! width `w` in fields of `f` bits packs `f / w` bytes into one. The bytes are cut into `f` runs, numbered in binary, so
//! that all planes unpack to one shape, `[2, 2, .., bytes of a run]`:
//!
//! ```text
//! BitShift(plane, [0, w, 2w, ..]) -> BitwiseAnd(mask) [-> BitShift(to its place)] -> BitwiseOr(the planes)
//! -> [Slice, where the runs are not full ->] Reshape
//! ```
//!
//! All inputs are constants: ONNX Runtime computes this once, when it loads the model, and drops the planes.
//!
//! # Cost
//!
//! In the file `bits / 8` bytes a code, and a few hundred bytes for the operators.

use onnxquant_ir::onnx::AttributeProto;
use onnxquant_ir::onnx::tensor_proto::DataType;
use onnxquant_ir::{Graph, NodeId, ValueId, tensor, text_attribute};

use crate::graph::insert::insert;

/// What the bitwise operators need of the default opset.
pub const PLANES_OPSET: i64 = 18;

/// How bytes hold codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fields {
    /// Bits a field, 4 or 8.
    pub(crate) width: u32,
    /// Bits of a field that are not always 0.
    pub(crate) used: u32,
    /// Zero bits below them.
    pub(crate) lift: u32,
}

/// Some of the bits of every field.
#[derive(Clone, Copy)]
struct Plane {
    width: u32,
    offset: u32,
}

/// Writes `bytes` as planes before the node `before`; returns the uint8 tensor of `dims` and the planes.
pub(crate) fn write_planes(
    graph: &mut Graph,
    before: NodeId,
    name: &str,
    bytes: &[u8],
    dims: &[usize],
    fields: Fields,
) -> (ValueId, Vec<ValueId>) {
    let mut writer = Writer { graph, before, name, fields, run: bytes.len().div_ceil(fields.width as usize).max(1) };
    let (mut whole, mut stored) = (None, Vec::new());
    for plane in planes(fields) {
        let packed = writer.store(plane, pack(bytes, writer.run, fields.width, plane));
        stored.push(packed);
        let unpacked = writer.unpack(plane, packed);
        whole = Some(match whole {
            None => unpacked,
            Some(below) => writer.insert("BitwiseOr", &[below, unpacked], "joined", vec![]),
        });
    }
    let whole = whole.expect("a code has at least one bit");
    (writer.shape(whole, bytes.len(), dims), stored)
}

/// The planes of a field, low bits first.
fn planes(fields: Fields) -> Vec<Plane> {
    let mut offset = fields.lift;
    let mut next = |width: u32| {
        let plane = Plane { width, offset };
        offset += width;
        plane
    };
    [4, 2, 1].into_iter().filter(|width| fields.used & width != 0).map(&mut next).collect()
}

/// `width` ones at the bottom of every field of a byte.
fn mask(width: u32, field: u32) -> u8 {
    let ones = (1u16 << width) - 1;
    (0..8 / field).map(|index| (ones << (index * field)) as u8).fold(0, |mask, part| mask | part)
}

/// Run `high * width + low` goes to byte run `low`, shifted by `high * width`.
fn pack(bytes: &[u8], run: usize, field: u32, plane: Plane) -> Vec<u8> {
    let mask = mask(plane.width, field);
    let runs = plane.width as usize;
    let mut packed = vec![0; runs * run];
    for (number, bytes) in bytes.chunks(run).enumerate() {
        let shift = (number / runs) as u32 * plane.width;
        let target = &mut packed[number % runs * run..];
        target.iter_mut().zip(bytes).for_each(|(packed, byte)| *packed |= ((byte >> plane.offset) & mask) << shift);
    }
    packed
}

struct Writer<'a> {
    graph: &'a mut Graph,
    before: NodeId,
    name: &'a str,
    fields: Fields,
    /// Bytes a run.
    run: usize,
}

impl Writer<'_> {
    fn insert(&mut self, op: &'static str, inputs: &[ValueId], what: &str, attributes: Vec<AttributeProto>) -> ValueId {
        insert(self.graph, self.before, op, inputs, format!("{}_{what}", self.name), attributes)
    }

    fn constant(&mut self, what: &str, dims: &[usize], bytes: Vec<u8>) -> ValueId {
        self.graph.add_constant(&format!("{}_{what}", self.name), tensor::from_raw(DataType::Uint8, dims, bytes))
    }

    fn numbers(&mut self, what: &str, numbers: &[usize]) -> ValueId {
        let fits = |&number: &usize| i64::try_from(number).expect("a dimension of data in memory fits 63 bits");
        let numbers: Vec<i64> = numbers.iter().map(fits).collect();
        self.graph.add_constant(&format!("{}_{what}", self.name), tensor::from_i64(&[numbers.len()], &numbers))
    }

    /// A shape with `first` in the axes along which fields are unpacked, then `rest`.
    fn dims(&self, plane: Plane, first: usize, rest: usize, last: usize) -> Vec<usize> {
        let (axes, packed) = (self.fields.width.ilog2() as usize, self.shifts(plane).ilog2() as usize);
        [vec![first; packed], vec![rest; axes - packed], vec![last]].concat()
    }

    /// Fields of a plane in one field of the bytes.
    fn shifts(&self, plane: Plane) -> u32 {
        self.fields.width / plane.width
    }

    fn store(&mut self, plane: Plane, packed: Vec<u8>) -> ValueId {
        self.constant(&format!("plane_{}", plane.width), &self.dims(plane, 1, 2, self.run), packed)
    }

    /// The bits of one plane in their places, of shape `[2, 2, .., run]`.
    fn unpack(&mut self, plane: Plane, packed: ValueId) -> ValueId {
        let shifts = self.shifts(plane);
        let mut value = packed;
        if shifts > 1 {
            let amounts = (0..shifts).map(|index| (index * plane.width) as u8).collect();
            let amounts = self.constant("shifts", &self.dims(plane, 2, 1, 1), amounts);
            let right = vec![text_attribute("direction", "RIGHT")];
            value = self.insert("BitShift", &[value, amounts], "shifted", right);
            let mask = self.constant("mask", &[], vec![mask(plane.width, self.fields.width)]);
            value = self.insert("BitwiseAnd", &[value, mask], "masked", vec![]);
        }
        if plane.offset > 0 {
            let offset = self.constant("offset", &[], vec![plane.offset as u8]);
            value = self.insert("BitShift", &[value, offset], "placed", vec![text_attribute("direction", "LEFT")]);
        }
        value
    }

    fn shape(&mut self, mut value: ValueId, n_bytes: usize, dims: &[usize]) -> ValueId {
        if self.run * self.fields.width as usize != n_bytes {
            let flat = self.graph.add_constant(&format!("{}_flat", self.name), tensor::from_i64(&[1], &[-1]));
            value = self.insert("Reshape", &[value, flat], "all", vec![]);
            let (start, end) = (self.numbers("start", &[0]), self.numbers("end", &[n_bytes]));
            value = self.insert("Slice", &[value, start, end], "used", vec![]);
        }
        let dims = self.numbers("dims", dims);
        self.insert("Reshape", &[value, dims], "bytes", vec![])
    }
}

#[cfg(test)]
#[path = "byte_planes_tests.rs"]
mod tests;
