//! The numbers of a constant at the end of a chain.
//!
//! # Method
//!
//! An element of the result is read from the initializer, at the place to which the transpositions lead back, and
//! rounded to the types of the casts in turn. Changes of shape leave elements where they are.
//!
//! # Cost
//!
//! The result, and nothing beside it; a few divisions an element for every transposition but the last.

use half::{bf16, f16};
use onnxquant_ir::onnx::TensorProto;
use onnxquant_ir::onnx::tensor_proto::DataType;
use onnxquant_ir::tensor;
use onnxquant_proto::data_type_bits;

/// What a link does to the elements.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// They take another float type.
    Cast(DataType),
    /// Those of a tensor of this shape are put in another order.
    Transpose { shape: Vec<usize>, perm: Vec<usize> },
}

/// The tensor that `steps` make of `source`, its shape apart.
pub(super) fn computed(source: &TensorProto, steps: &[Step]) -> Option<TensorProto> {
    let dtype = tensor::data_type(source).ok()?;
    let casts: Vec<DataType> = steps.iter().filter_map(Step::cast).collect();
    tensor::check_payload(source).ok()?;
    let last = casts.last().copied().unwrap_or(dtype);
    // Numbers that lie in a field of their type are taken from there.
    let reads_numbers = !casts.is_empty() || (source.raw_data.is_none() && is_short_float(dtype));
    let raw = match reads_numbers {
        true => written(last, places(source, steps)?, &number(source, dtype)?, &casts),
        false => moved(source, dtype, places(source, steps)?)?,
    };
    Some(tensor::from_raw(last, &[], raw))
}

impl Step {
    /// The order in which the axes of a tensor of these dimensions are put; `None` where something else is done.
    pub(super) fn permutation_of(&self, dims: &[usize]) -> Option<&[usize]> {
        match self {
            Self::Transpose { shape, perm } if shape == dims => Some(perm),
            _ => None,
        }
    }

    fn cast(&self) -> Option<DataType> {
        match self {
            Self::Cast(to) => Some(*to),
            Self::Transpose { .. } => None,
        }
    }
}

/// Types of which every number is one of `f32`.
fn is_short_float(dtype: DataType) -> bool {
    matches!(dtype, DataType::Float | DataType::Float16 | DataType::Bfloat16)
}

/// For every element of the result its place in the source.
fn places(source: &TensorProto, steps: &[Step]) -> Option<impl Iterator<Item = usize>> {
    let count = tensor::element_count(source).ok()?;
    let mut orders = steps.iter().filter_map(|step| match step {
        Step::Transpose { shape, perm } => Some(Order::new(shape, perm)),
        Step::Cast(_) => None,
    });
    let last = orders.next_back().unwrap_or_else(|| Order { axes: vec![(count, 1)] });
    let earlier: Vec<Order> = orders.rev().collect();
    Some(last.walk(count).map(move |place| earlier.iter().fold(place, |place, order| order.before(place))))
}

/// Where the elements of a transposed tensor were.
struct Order {
    /// Size of every axis of the result, and how far apart its elements were.
    axes: Vec<(usize, usize)>,
}

impl Order {
    fn new(shape: &[usize], perm: &[usize]) -> Self {
        let stride = |axis: usize| shape.iter().skip(axis + 1).product::<usize>();
        Self { axes: perm.iter().map(|&axis| (shape.get(axis).copied().unwrap_or(0), stride(axis))).collect() }
    }

    /// The place from which the element at `place` came.
    fn before(&self, mut place: usize) -> usize {
        let mut before = 0;
        for &(size, stride) in self.axes.iter().rev() {
            before += place % size.max(1) * stride;
            place /= size.max(1);
        }
        before
    }

    /// [`Order::before`] of all `count` places in turn.
    fn walk(self, count: usize) -> impl Iterator<Item = usize> {
        let mut at = vec![0; self.axes.len()];
        let mut next = 0;
        (0..count).map(move |_| {
            let place = next;
            for (index, &(size, stride)) in at.iter_mut().zip(&self.axes).rev() {
                *index += 1;
                next += stride;
                if *index < size {
                    break;
                }
                next -= *index * stride;
                *index = 0;
            }
            place
        })
    }
}

/// The bytes of the elements at `places`, of any type whose elements are whole bytes.
fn moved(source: &TensorProto, dtype: DataType, places: impl Iterator<Item = usize>) -> Option<Vec<u8>> {
    let width = usize::try_from(data_type_bits(dtype).filter(|bits| bits % 8 == 0)? / 8).ok()?;
    let raw = tensor::to_raw(source).ok()?;
    let mut bytes = Vec::with_capacity(raw.len());
    for place in places {
        bytes.extend_from_slice(raw.get(place * width..(place + 1) * width)?);
    }
    Some(bytes)
}

/// The numbers at `places` as `dtype`, rounded to every type of `casts` on the way.
fn written(
    dtype: DataType,
    places: impl Iterator<Item = usize>,
    number: &dyn Fn(usize) -> f32,
    casts: &[DataType],
) -> Vec<u8> {
    let width = data_type_bits(dtype).map_or(0, |bits| bits as usize / 8);
    let mut bytes = Vec::with_capacity(places.size_hint().0 * width);
    for place in places {
        let number = casts.iter().fold(number(place), |number, &to| rounded(number, to));
        match dtype {
            DataType::Float16 => bytes.extend_from_slice(&f16::from_f32(number).to_le_bytes()),
            DataType::Bfloat16 => bytes.extend_from_slice(&bf16::from_f32(number).to_le_bytes()),
            DataType::Double => bytes.extend_from_slice(&f64::from(number).to_le_bytes()),
            _ => bytes.extend_from_slice(&number.to_le_bytes()),
        }
    }
    bytes
}

fn rounded(number: f32, to: DataType) -> f32 {
    match to {
        DataType::Float16 => f16::from_f32(number).to_f32(),
        DataType::Bfloat16 => bf16::from_f32(number).to_f32(),
        _ => number,
    }
}

/// The element at a place, as `f32`.
fn number(source: &TensorProto, dtype: DataType) -> Option<Box<dyn Fn(usize) -> f32 + '_>> {
    let raw = source.raw_data.as_deref();
    let half = move |place: usize| match raw {
        Some(raw) => raw.as_chunks().0.get(place).map_or(0, |bytes| u16::from_le_bytes(*bytes)),
        None => source.int32_data.get(place).map_or(0, |&word| word as u16),
    };
    let single = move |place: usize| match raw {
        Some(raw) => raw.as_chunks().0.get(place).map_or(0.0, |bytes| f32::from_le_bytes(*bytes)),
        None => source.float_data.get(place).copied().unwrap_or(0.0),
    };
    let double = move |place: usize| match raw {
        Some(raw) => raw.as_chunks().0.get(place).map_or(0.0, |bytes| f64::from_le_bytes(*bytes)),
        None => source.double_data.get(place).copied().unwrap_or(0.0),
    };
    Some(match dtype {
        DataType::Float => Box::new(single),
        DataType::Double => Box::new(move |place| double(place) as f32),
        DataType::Float16 => Box::new(move |place| f16::from_bits(half(place)).to_f32()),
        DataType::Bfloat16 => Box::new(move |place| bf16::from_bits(half(place)).to_f32()),
        _ => return None,
    })
}
