//! The mask that a model takes beside a picture or a sound: one where something was given, zero where it was filled up.
//!
//! Detectors of Hugging Face's transformers have it as `pixel_mask` `[batch, rows, columns]`, models of speech as
//! `attention_mask` `[batch, samples]` or `[batch, frames]`.

use std::ops::Range;
use std::path::Path;

use ndarray::{ArrayD, Axis, IxDyn};

use super::InputSpec;
use super::check::wrong_shape;
use super::part::Part;
use crate::error::CalibError;
use crate::tensor::{ElementType, Tensor};

/// What the input may be called.
const NAMES: [&str; 2] = ["pixel_mask", "attention_mask"];

/// What becomes of pictures or sounds.
pub(crate) trait Shown {
    /// The shape of the tensor made of a file, of which just enough is read to know.
    fn scan(&self, part: &Part) -> Result<Vec<usize>, CalibError>;

    /// Reads and converts a file.
    fn load(&self, part: &Part) -> Result<Tensor, CalibError>;

    /// How much of what the model is shown comes from the file.
    fn filled(&self, part: &Part) -> Result<Filled, CalibError>;
}

/// How much of a sample was given: a part of every axis.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Filled {
    pub(crate) lengths: Vec<usize>,
    pub(crate) given: Vec<Range<usize>>,
}

/// The input that takes the mask.
#[derive(Debug)]
pub(crate) struct Mask {
    pub(crate) index: usize,
    spec: InputSpec,
}

impl Mask {
    /// Of a model that requires one other input.
    pub(crate) fn among(inputs: &[InputSpec]) -> Option<Self> {
        let required = inputs.iter().filter(|input| !input.optional).count();
        let is_mask = |(_, input): &(usize, &InputSpec)| !input.optional && NAMES.contains(&input.name.as_str());
        let (index, spec) = inputs.iter().enumerate().find(is_mask).filter(|_| required == 2)?;
        Some(Self { index, spec: spec.clone() })
    }

    /// What the input is called.
    pub(crate) fn name(&self) -> &str {
        &self.spec.name
    }

    /// The shape of the mask for a sample that lies in `path`.
    pub(crate) fn shape(&self, path: &Path, filled: &Filled) -> Result<Vec<usize>, CalibError> {
        let shape = self.tensor(filled).shape().to_vec();
        if self.spec.accepts(&shape) { Ok(shape) } else { Err(wrong_shape(path, &self.spec, &shape, "")) }
    }

    /// The mask, with a batch axis unless the input has none.
    pub(crate) fn tensor(&self, filled: &Filled) -> Tensor {
        let is_given = |at: IxDyn| filled.given.iter().enumerate().all(|(axis, given)| given.contains(&at[axis]));
        let mut mask = ArrayD::from_shape_fn(IxDyn(&filled.lengths), |at| i64::from(is_given(at)));
        if self.spec.dims.as_ref().is_none_or(|dims| dims.len() != mask.ndim()) {
            mask = mask.insert_axis(Axis(0));
        }
        of_type(self.spec.element, Tensor::I64(mask))
    }
}

/// Ones and zeros in a type that the input's can be made of.
pub(super) fn of_type(element: ElementType, tensor: Tensor) -> Tensor {
    match tensor {
        Tensor::I64(array) if element == ElementType::Bool => Tensor::Bool(array.mapv(|one| one != 0)),
        Tensor::I64(array) if element.is_float() => Tensor::F32(array.mapv(|one| one as f32)),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Dim;

    fn spec(name: &str, element: ElementType, rank: usize, optional: bool) -> InputSpec {
        InputSpec { name: name.into(), element, dims: Some(vec![Dim::Unknown; rank]), optional }
    }

    #[test]
    fn ones_stand_where_something_was_given() {
        let inputs =
            [spec("pixel_values", ElementType::F32, 4, false), spec("pixel_mask", ElementType::Bool, 3, false)];
        let mask = Mask::among(&inputs).unwrap();
        let filled = Filled { lengths: vec![2, 3], given: vec![0..1, 1..3] };
        let wanted = ndarray::array![[[false, true, true], [false, false, false]]].into_dyn();
        assert_eq!((mask.index, mask.name(), mask.tensor(&filled)), (1, "pixel_mask", Tensor::Bool(wanted)));
        assert_eq!(mask.shape(Path::new("a.png"), &filled).unwrap(), [1, 2, 3]);
        let other = Mask { spec: spec("pixel_mask", ElementType::I64, 4, false), index: 0 };
        assert!(other.shape(Path::new("a.png"), &filled).is_err());
    }

    #[test]
    fn a_mask_is_made_beside_one_input_alone() {
        let (values, mask) =
            (spec("x", ElementType::F32, 2, false), spec("attention_mask", ElementType::I64, 2, false));
        let optional = spec("attention_mask", ElementType::I64, 2, true);
        assert!(Mask::among(&[values.clone(), mask.clone()]).is_some());
        assert!(Mask::among(&[values.clone(), optional]).is_none());
        assert!(Mask::among(&[values.clone(), values.clone(), mask]).is_none());
    }
}
