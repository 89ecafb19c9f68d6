//! Computes what operators make of constants, as the specification of each version of the operator says.
//!
//! Movement of elements ([`movement`]) keeps every bit, of any type whose elements are whole bytes. Arithmetic
//! ([`arithmetic`]) on floats is computed in f64 and rounded once to the type, on int32 and int64 it is exact. `None`
//! wherever the result is not certain: overflow, division of integers by zero, an index out of range, a float that has
//! no integer, an operator that is not known here.
//!
//! Codes of 8 bits and fewer are moved, but never made floats: what does so decodes a quantized weight.

mod arguments;
mod arithmetic;
mod constant;
mod movement;
mod reductions;
mod scalar;
mod shapes;

use onnxquant_ir::Node;

pub(crate) use arguments::Values;
pub(crate) use constant::Constant;

use arguments::{Arguments, Operator};

/// The tensors that `node` makes of constants, none of more than `max_elements` elements.
pub(crate) fn evaluate(node: &Node, values: &dyn Values, max_elements: usize) -> Option<Vec<Constant>> {
    let arguments = Arguments { node, values, max_elements };
    if node.is("Split") {
        return movement::split(&arguments);
    }
    let operator = operator(node).filter(|_| node.outputs().len() == 1)?;
    operator(&arguments).map(|result| vec![result])
}

/// Whether [`evaluate`] knows the operator.
pub(crate) fn is_known(node: &Node) -> bool {
    node.is("Split") || operator(node).is_some()
}

fn operator(node: &Node) -> Option<Operator> {
    let known = || movement::operator(node).or_else(|| shapes::operator(node)).or_else(|| arithmetic::operator(node));
    node.domain().is_empty().then(|| known().or_else(|| reductions::operator(node)))?
}

#[cfg(test)]
#[path = "evaluate_tests.rs"]
mod tests;
