//! Compares arrays with what the graph declares and converts them where that is harmless.
//!
//! | input is | array may be | otherwise |
//! |---|---|---|
//! | a float type | any float type; rounded to nearest (numpy makes float64 unless told) | error; integers are not accepted, since pictures of 0..255 that were meant to be normalized look just so |
//! | an integer type | any integer type, if every value fits | error naming the value |
//! | boolean | boolean | error |

use std::path::Path;

use half::f16;
use ndarray::ArrayD;

use super::InputSpec;
use crate::error::CalibError;
use crate::tensor::{ElementType, Tensor, find, narrow, with_array};

/// Whether arrays of one type may be fed to inputs of another, values permitting.
fn convertible(from: ElementType, to: ElementType) -> bool {
    from == to || (from.is_float() && to.is_float()) || (from.is_integer() && to.is_integer())
}

/// Checks type and shape as far as a header tells.
pub(crate) fn check_header(
    path: &Path,
    spec: &InputSpec,
    element: ElementType,
    shape: &[usize],
) -> Result<(), CalibError> {
    if !convertible(element, spec.element) {
        return Err(CalibError::WrongType {
            path: path.into(),
            array: spec.name.clone(),
            found: element,
            expected: spec.element,
            hint: if spec.element.is_float() && element.is_integer() {
                ": apply the model's preprocessing and store floats"
            } else {
                ""
            },
        });
    }
    if !spec.accepts(shape) {
        return Err(wrong_shape(path, spec, shape, ""));
    }
    // Other axes may be empty, as a cache is before the first step.
    if shape.first() == Some(&0) { Err(empty_array(path, spec, shape)) } else { Ok(()) }
}

/// The error for an array without elements.
pub(crate) fn empty_array(path: &Path, spec: &InputSpec, shape: &[usize]) -> CalibError {
    CalibError::EmptyArray { path: path.into(), array: spec.name.clone(), shape: shape.to_vec() }
}

/// The error for an array of the wrong shape.
pub(crate) fn wrong_shape(path: &Path, spec: &InputSpec, shape: &[usize], hint: &str) -> CalibError {
    let rank_hint = match &spec.dims {
        Some(dims) if hint.is_empty() && dims.len() == shape.len() + 1 => ": a batch axis seems to be missing",
        _ => hint,
    };
    CalibError::WrongShape {
        path: path.into(),
        array: spec.name.clone(),
        found: shape.to_vec(),
        expected: spec.shape_text(),
        hint: rank_hint.into(),
    }
}

/// Converts an array whose header was checked to the input's type and looks for NaN.
pub(crate) fn convert(path: &Path, spec: &InputSpec, tensor: Tensor) -> Result<Tensor, CalibError> {
    let found = tensor.element_type();
    let tensor = if found == spec.element {
        tensor
    } else if found.is_float() {
        convert_float(&tensor, spec.element)
    } else {
        convert_integer(path, spec, &tensor)?
    };
    match tensor.first_nan() {
        Some(index) => Err(CalibError::NotANumber { path: path.into(), array: spec.name.clone(), index }),
        None => Ok(tensor),
    }
}

fn convert_float(tensor: &Tensor, to: ElementType) -> Tensor {
    let wide: ArrayD<f64> = match tensor {
        Tensor::F32(a) => a.mapv(f64::from),
        Tensor::F16(a) => a.mapv(f64::from),
        Tensor::F64(a) => a.clone(),
        other => unreachable!("header check lets no {} through here", other.element_type()),
    };
    match to {
        ElementType::F32 => Tensor::F32(wide.mapv(narrow)),
        ElementType::F16 => Tensor::F16(wide.mapv(f16::from_f64)),
        _ => Tensor::F64(wide),
    }
}

fn convert_integer(path: &Path, spec: &InputSpec, tensor: &Tensor) -> Result<Tensor, CalibError> {
    let wide = widen(tensor);
    macro_rules! fit {
        ($variant:ident, $t:ty) => {{
            if let Some(index) = find(&wide, |&x| <$t>::try_from(x).is_err()) {
                return Err(CalibError::OutOfRange {
                    path: path.into(),
                    array: spec.name.clone(),
                    found: tensor.element_type(),
                    expected: spec.element,
                    value: wide[index.as_slice()].to_string(),
                    index,
                });
            }
            Tensor::$variant(wide.mapv(|x| <$t>::try_from(x).unwrap_or_default()))
        }};
    }
    Ok(match spec.element {
        ElementType::I64 => fit!(I64, i64),
        ElementType::I32 => fit!(I32, i32),
        ElementType::I16 => fit!(I16, i16),
        ElementType::I8 => fit!(I8, i8),
        ElementType::U64 => fit!(U64, u64),
        ElementType::U32 => fit!(U32, u32),
        ElementType::U16 => fit!(U16, u16),
        ElementType::U8 => fit!(U8, u8),
        other => unreachable!("header check lets no integer through for {other}"),
    })
}

/// Integers as 128-bit integers; other types as an empty array.
fn widen(tensor: &Tensor) -> ArrayD<i128> {
    match tensor {
        Tensor::I64(a) => a.mapv(i128::from),
        Tensor::I32(a) => a.mapv(i128::from),
        Tensor::I16(a) => a.mapv(i128::from),
        Tensor::I8(a) => a.mapv(i128::from),
        Tensor::U64(a) => a.mapv(i128::from),
        Tensor::U32(a) => a.mapv(i128::from),
        Tensor::U16(a) => a.mapv(i128::from),
        Tensor::U8(a) => a.mapv(i128::from),
        other => with_array!(other, a => ArrayD::zeros(a.raw_dim())),
    }
}

#[cfg(test)]
mod tests {
    use ndarray::array;

    use super::*;
    use crate::data::Dim;

    fn spec(element: ElementType) -> InputSpec {
        InputSpec { name: "x".into(), element, dims: Some(vec![Dim::Unknown]), optional: false }
    }

    #[test]
    fn float64_is_rounded_for_float_inputs() {
        let tensor = Tensor::F64(array![0.1, 2.0].into_dyn());
        let converted = convert(Path::new("a"), &spec(ElementType::F32), tensor).unwrap();
        assert_eq!(converted, Tensor::F32(array![0.1_f32, 2.0].into_dyn()));
    }

    #[test]
    fn integers_are_converted_only_if_they_fit() {
        let tensor = Tensor::I64(array![1, 70_000].into_dyn());
        let narrow = convert(Path::new("a"), &spec(ElementType::I32), tensor.clone()).unwrap();
        assert_eq!(narrow, Tensor::I32(array![1, 70_000].into_dyn()));
        let error = convert(Path::new("d/0.npz"), &spec(ElementType::U16), tensor).unwrap_err();
        assert_eq!(
            error.to_string(),
            "array `x` in `d/0.npz` is int64 and holds 70000 at index [1], which does not fit the input's type uint16"
        );
    }

    #[test]
    fn wrong_arrays_are_named() {
        let path = Path::new("d/0.npz");
        let rows = [
            (check_header(path, &spec(ElementType::F32), ElementType::U8, &[2]), "is uint8, expected float32: apply"),
            (check_header(path, &spec(ElementType::I64), ElementType::F32, &[2]), "is float32, expected int64"),
            (check_header(path, &spec(ElementType::F32), ElementType::F32, &[2, 2]), "has shape [2, 2], expected [?]"),
            (check_header(path, &spec(ElementType::F32), ElementType::F32, &[]), "a batch axis seems to be missing"),
            (check_header(path, &spec(ElementType::F32), ElementType::F32, &[0]), "it has no elements"),
        ];
        for (result, expected) in rows {
            let message = result.unwrap_err().to_string();
            assert!(message.contains(expected) && message.contains("`d/0.npz`"), "{message}");
        }
    }

    #[test]
    fn nan_is_found() {
        let tensor = Tensor::F32(array![1.0, f32::NAN].into_dyn());
        let error = convert(Path::new("a"), &spec(ElementType::F32), tensor).unwrap_err();
        assert!(matches!(error, CalibError::NotANumber { index, .. } if index == [1]));
    }
}
