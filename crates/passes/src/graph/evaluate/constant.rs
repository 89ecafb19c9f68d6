//! A constant tensor in memory, its elements as words of their width.

use ndarray::{ArcArray, ArrayD, IxDyn};
use onnxquant_ir::onnx::TensorProto;
use onnxquant_ir::onnx::tensor_proto::DataType;
use onnxquant_ir::tensor;
use onnxquant_proto::data_type_bits;

use super::scalar::Scalar;

/// Elements in rows, shared among the copies of a tensor.
pub(super) type Elements<T> = ArcArray<T, IxDyn>;

/// The elements by their width.
#[derive(Clone)]
pub(super) enum Words {
    One(Elements<u8>),
    Two(Elements<u16>),
    Four(Elements<u32>),
    Eight(Elements<u64>),
}

/// Bits of an element.
pub(super) trait Word: Copy {
    fn of(words: &Words) -> Option<&Elements<Self>>;
}

macro_rules! word {
    ($kind:ident, $type:ty) => {
        impl Word for $type {
            fn of(words: &Words) -> Option<&Elements<Self>> {
                match words {
                    Words::$kind(elements) => Some(elements),
                    _ => None,
                }
            }
        }
    };
}
word!(One, u8);
word!(Two, u16);
word!(Four, u32);
word!(Eight, u64);

/// The words that an expression makes of words of any width.
macro_rules! each_width {
    ($words:expr, $elements:ident => $made:expr) => {
        match $words {
            Words::One($elements) => Words::One($made),
            Words::Two($elements) => Words::Two($made),
            Words::Four($elements) => Words::Four($made),
            Words::Eight($elements) => Words::Eight($made),
        }
    };
}
pub(super) use each_width;

/// A constant tensor of elements of 1, 2, 4 or 8 bytes.
#[derive(Clone)]
pub(crate) struct Constant {
    pub(super) dtype: DataType,
    pub(super) words: Words,
}

impl Constant {
    /// `None` for strings, for elements of other widths and where the payload is not what is declared.
    pub(crate) fn read(tensor: &TensorProto) -> Option<Self> {
        let dtype = tensor::data_type(tensor).ok()?;
        let shape = tensor::shape(tensor).ok()?;
        let raw = tensor::to_raw(tensor).ok()?;
        let words = match data_type_bits(dtype)? {
            8 => Words::One(shaped(&shape, raw.to_vec())?),
            16 => Words::Two(shaped(&shape, raw.as_chunks().0.iter().map(|&b| u16::from_le_bytes(b)).collect())?),
            32 => Words::Four(shaped(&shape, raw.as_chunks().0.iter().map(|&b| u32::from_le_bytes(b)).collect())?),
            64 => Words::Eight(shaped(&shape, raw.as_chunks().0.iter().map(|&b| u64::from_le_bytes(b)).collect())?),
            _ => return None,
        };
        Some(Self { dtype, words })
    }

    pub(crate) fn to_tensor(&self) -> TensorProto {
        let raw: Vec<u8> = match &self.words {
            Words::One(elements) => elements.iter().copied().collect(),
            Words::Two(elements) => elements.iter().flat_map(|word| word.to_le_bytes()).collect(),
            Words::Four(elements) => elements.iter().flat_map(|word| word.to_le_bytes()).collect(),
            Words::Eight(elements) => elements.iter().flat_map(|word| word.to_le_bytes()).collect(),
        };
        tensor::from_raw(self.dtype, self.shape(), raw)
    }

    /// A tensor of these numbers in rows; `None` where one has no place in `dtype`, or their count is another.
    pub(super) fn collect(
        dtype: DataType,
        shape: &[usize],
        numbers: impl Iterator<Item = Option<Scalar>>,
    ) -> Option<Self> {
        let bits = numbers.map(|number| number?.write(dtype));
        let words = match data_type_bits(dtype)? {
            8 => Words::One(shaped(shape, bits.map(|bits| Some(bits? as u8)).collect::<Option<_>>()?)?),
            16 => Words::Two(shaped(shape, bits.map(|bits| Some(bits? as u16)).collect::<Option<_>>()?)?),
            32 => Words::Four(shaped(shape, bits.map(|bits| Some(bits? as u32)).collect::<Option<_>>()?)?),
            64 => Words::Eight(shaped(shape, bits.collect::<Option<_>>()?)?),
            _ => return None,
        };
        Some(Self { dtype, words })
    }

    /// An int64 tensor of one dimension.
    pub(super) fn list(numbers: &[i64]) -> Option<Self> {
        let numbers = numbers.iter().map(|&number| Some(Scalar::Integer(number)));
        Self::collect(DataType::Int64, &[numbers.len()], numbers)
    }

    pub(crate) fn dtype(&self) -> DataType {
        self.dtype
    }

    pub(crate) fn shape(&self) -> &[usize] {
        match &self.words {
            Words::One(elements) => elements.shape(),
            Words::Two(elements) => elements.shape(),
            Words::Four(elements) => elements.shape(),
            Words::Eight(elements) => elements.shape(),
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.shape().iter().product()
    }

    /// Whether no element is an infinity or no number.
    pub(crate) fn is_finite(&self) -> bool {
        let finite = |number: Option<Scalar>| number.and_then(Scalar::real).is_none_or(f64::is_finite);
        self.scalars(self.shape()).is_none_or(|mut numbers| numbers.all(finite))
    }

    /// The numbers of the tensor broadcast to `shape`, in rows.
    pub(super) fn scalars(&self, shape: &[usize]) -> Option<Box<dyn Iterator<Item = Option<Scalar>> + '_>> {
        let dtype = self.dtype;
        let read = move |bits: u64| Scalar::read(dtype, bits);
        Some(match &self.words {
            Words::One(elements) => Box::new(elements.broadcast(shape)?.into_iter().map(move |&w| read(w.into()))),
            Words::Two(elements) => Box::new(elements.broadcast(shape)?.into_iter().map(move |&w| read(w.into()))),
            Words::Four(elements) => Box::new(elements.broadcast(shape)?.into_iter().map(move |&w| read(w.into()))),
            Words::Eight(elements) => Box::new(elements.broadcast(shape)?.into_iter().map(move |&w| read(w))),
        })
    }

    /// All elements of an int32, int64 or bool tensor.
    pub(super) fn integers(&self) -> Option<Vec<i64>> {
        let integer = |number| match number {
            Some(Scalar::Integer(x)) => Some(x),
            _ => None,
        };
        self.scalars(self.shape())?.map(integer).collect()
    }

    /// The same elements in another shape of as many.
    pub(super) fn reshaped(&self, shape: &[usize]) -> Option<Self> {
        let words = each_width!(&self.words, elements => elements.clone().into_shape_with_order(IxDyn(shape)).ok()?);
        Some(Self { dtype: self.dtype, words })
    }
}

fn shaped<T: Clone>(shape: &[usize], words: Vec<T>) -> Option<Elements<T>> {
    ArrayD::from_shape_vec(shape, words).ok().map(ArrayD::into_shared)
}
