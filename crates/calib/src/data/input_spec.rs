//! What a graph declares about its inputs.

use std::collections::HashSet;
use std::fmt;

use onnxquant_proto::onnx::{
    GraphProto, ValueInfoProto, tensor_shape_proto::dimension::Value as DimValue, type_proto::Value as TypeValue,
};

use crate::error::CalibError;
use crate::tensor::ElementType;

/// One axis of a declared shape.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Dim {
    /// A fixed length.
    Fixed(usize),
    /// A named length that samples choose.
    Symbolic(String),
    /// A length about which nothing is declared.
    Unknown,
}

impl fmt::Display for Dim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fixed(n) => write!(f, "{n}"),
            Self::Symbolic(name) => f.write_str(name),
            Self::Unknown => f.write_str("?"),
        }
    }
}

/// Name, type and shape of a graph input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InputSpec {
    /// The input's name.
    pub name: String,
    /// Element type.
    pub element: ElementType,
    /// Declared axes; `None` if not even the rank is declared.
    pub dims: Option<Vec<Dim>>,
    /// Whether the graph has a default value, so that data may leave the input out.
    pub optional: bool,
}

impl InputSpec {
    /// Reads the declaration of one input.
    pub fn from_proto(info: &ValueInfoProto, optional: bool) -> Result<Self, CalibError> {
        let name = info.name.clone().unwrap_or_default();
        let unsupported = |reason: String| CalibError::UnsupportedInput { name: name.clone(), reason };
        let Some(TypeValue::TensorType(tensor)) = info.r#type.as_ref().and_then(|t| t.value.as_ref()) else {
            return Err(unsupported("it is not declared as a tensor".into()));
        };
        let code = tensor.elem_type.unwrap_or_default();
        let element = ElementType::from_onnx(code)
            .ok_or_else(|| unsupported(format!("element type {code} of TensorProto.DataType is not supported")))?;
        let dims = tensor.shape.as_ref().map(|shape| shape.dim.iter().map(|d| dim(d.value.as_ref())).collect());
        Ok(Self { name, element, dims, optional })
    }

    /// The inputs of a graph in order. Inputs with an initializer are optional from IR version
    /// 4 on; before, they are constants and left out.
    pub fn from_graph(graph: &GraphProto, ir_version: i64) -> Result<Vec<Self>, CalibError> {
        let defaults: HashSet<&str> = graph.initializer.iter().filter_map(|t| t.name.as_deref()).collect();
        let has_default = |i: &ValueInfoProto| i.name.as_deref().is_some_and(|n| defaults.contains(n));
        let wanted = graph.input.iter().filter(|i| ir_version >= 4 || !has_default(i));
        wanted.map(|info| Self::from_proto(info, has_default(info))).collect()
    }

    /// The declared shape in words, such as `[batch, 3, 224, 224]`.
    pub fn shape_text(&self) -> String {
        match &self.dims {
            None => "of any rank".into(),
            Some(dims) => {
                let words: Vec<String> = dims.iter().map(Dim::to_string).collect();
                format!("[{}]", words.join(", "))
            }
        }
    }

    /// Whether a shape agrees with the declared one.
    pub fn accepts(&self, shape: &[usize]) -> bool {
        let Some(dims) = &self.dims else { return true };
        dims.len() == shape.len() && dims.iter().zip(shape).all(|(d, &n)| !matches!(d, Dim::Fixed(m) if *m != n))
    }

    /// Whether the first axis looks like a batch axis that a single sample fills with 1.
    pub(crate) fn has_free_batch_axis(&self) -> bool {
        self.dims.as_ref().and_then(|d| d.first()).is_some_and(|d| !matches!(d, Dim::Fixed(n) if *n != 1))
    }
}

fn dim(value: Option<&DimValue>) -> Dim {
    match value {
        Some(DimValue::DimValue(n)) => usize::try_from(*n).map_or(Dim::Unknown, Dim::Fixed),
        Some(DimValue::DimParam(name)) if !name.is_empty() && name != "?" => Dim::Symbolic(name.clone()),
        _ => Dim::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_are_checked_axis_by_axis() {
        let spec =
            |dims: Option<Vec<Dim>>| InputSpec { name: "x".into(), element: ElementType::F32, dims, optional: false };
        let image = spec(Some(vec![Dim::Symbolic("n".into()), Dim::Fixed(3), Dim::Unknown]));
        assert!(image.accepts(&[7, 3, 9]));
        assert!(!image.accepts(&[7, 4, 9]));
        assert!(!image.accepts(&[7, 3]));
        assert_eq!(image.shape_text(), "[n, 3, ?]");
        assert!(image.has_free_batch_axis());
        assert!(!spec(Some(vec![Dim::Fixed(4)])).has_free_batch_axis());
        assert!(spec(None).accepts(&[1, 2, 3]));
        assert!(spec(Some(vec![])).accepts(&[]));
    }
}
