//! Numbers in place of names.

use std::collections::HashMap;

use onnxquant_ir::onnx::tensor_shape_proto::{Dimension, dimension};
use onnxquant_ir::onnx::type_proto::{Map, Opaque, Optional, Sequence, SparseTensor, Tensor, Value};
use onnxquant_ir::onnx::{TensorShapeProto, TypeProto};

/// Domains whose operators are published, and so are their names.
const PUBLISHED: [&str; 6] =
    ["", "ai.onnx", "ai.onnx.ml", "ai.onnx.preview.training", "com.microsoft", "com.microsoft.nchwc"];

/// Whether the operators of a domain are known to everyone.
pub(super) fn is_published(domain: &str) -> bool {
    PUBLISHED.contains(&domain)
}

/// What every name has become. Equal names become equal ones, whatever graph they are in, so that inner graphs go on to
/// read what they read.
#[derive(Default)]
pub(super) struct Names(HashMap<(&'static str, String), usize>, HashMap<&'static str, usize>);

impl Names {
    /// A value's; that of what is absent stays empty.
    pub(super) fn value(&mut self, name: &str) -> String {
        self.other("v", name)
    }

    /// A name of the kind that `letter` stands for.
    pub(super) fn other(&mut self, letter: &'static str, name: &str) -> String {
        if name.is_empty() {
            return String::new();
        }
        let Self(known, counts) = self;
        let number = known.entry((letter, name.to_owned())).or_insert_with(|| {
            let count = counts.entry(letter).or_default();
            *count += 1;
            *count
        });
        format!("{letter}{number}")
    }

    /// A domain's, where it is not published.
    pub(super) fn domain(&mut self, domain: &str) -> String {
        if is_published(domain) { domain.to_owned() } else { self.other("d", domain) }
    }

    /// That of an operator that is not published.
    pub(super) fn operator(&mut self, domain: &str, name: &str) -> String {
        // One name in two domains is two operators.
        self.other("f", &format!("{domain}\0{name}"))
    }

    /// A type; what its axes are called goes.
    pub(super) fn type_of(&mut self, from: &TypeProto) -> TypeProto {
        let inner =
            |names: &mut Self, inner: &Option<Box<TypeProto>>| inner.as_deref().map(|t| Box::new(names.type_of(t)));
        let value = from.value.as_ref().map(|value| match value {
            Value::TensorType(tensor) => {
                Value::TensorType(Tensor { elem_type: tensor.elem_type, shape: self.shape(tensor.shape.as_ref()) })
            }
            Value::SparseTensorType(tensor) => {
                let shape = self.shape(tensor.shape.as_ref());
                Value::SparseTensorType(SparseTensor { elem_type: tensor.elem_type, shape })
            }
            Value::SequenceType(found) => {
                Value::SequenceType(Box::new(Sequence { elem_type: inner(self, &found.elem_type) }))
            }
            Value::OptionalType(found) => {
                Value::OptionalType(Box::new(Optional { elem_type: inner(self, &found.elem_type) }))
            }
            Value::MapType(found) => {
                Value::MapType(Box::new(Map { key_type: found.key_type, value_type: inner(self, &found.value_type) }))
            }
            Value::OpaqueType(_) => Value::OpaqueType(Opaque::default()),
        });
        TypeProto { value, denotation: None }
    }

    fn shape(&mut self, shape: Option<&TensorShapeProto>) -> Option<TensorShapeProto> {
        let value = |names: &mut Self, value: &dimension::Value| match value {
            dimension::Value::DimValue(length) => dimension::Value::DimValue(*length),
            dimension::Value::DimParam(name) => dimension::Value::DimParam(names.other("x", name)),
        };
        let dim = |names: &mut Self, dim: &Dimension| Dimension {
            value: dim.value.as_ref().map(|found| value(names, found)),
            denotation: None,
        };
        shape.map(|shape| TensorShapeProto { dim: shape.dim.iter().map(|found| dim(self, found)).collect() })
    }
}
