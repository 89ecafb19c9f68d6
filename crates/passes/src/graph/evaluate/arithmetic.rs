//! Operators that compute element by element.

use onnxquant_ir::Node;
use onnxquant_ir::onnx::tensor_proto::DataType;

use super::arguments::{Arguments, Operator, broadcast};
use super::constant::Constant;
use super::scalar::Scalar;

pub(super) fn operator(node: &Node) -> Option<Operator> {
    Some(match node.op_type() {
        "Add" => |arguments| binary(arguments, i64::checked_add, |a, b| a + b),
        "Sub" => |arguments| binary(arguments, i64::checked_sub, |a, b| a - b),
        "Mul" => |arguments| binary(arguments, i64::checked_mul, |a, b| a * b),
        // On integers it truncates, as the specification says.
        "Div" => |arguments| binary(arguments, i64::checked_div, |a, b| a / b),
        "Max" => |arguments| binary(arguments, |a, b| Some(a.max(b)), max),
        "Min" => |arguments| binary(arguments, |a, b| Some(a.min(b)), min),
        "Pow" => |arguments| elementwise(arguments, &power),
        "Equal" => equal,
        "Cast" => cast,
        "Clip" => clip,
        "Abs" => |arguments| unary(arguments, f64::abs),
        "Exp" => |arguments| unary(arguments, f64::exp),
        "Neg" => |arguments| unary(arguments, |x| -x),
        "Reciprocal" => |arguments| unary(arguments, |x| 1.0 / x),
        "Sqrt" => |arguments| unary(arguments, f64::sqrt),
        _ => return None,
    })
}

/// The larger, or no number where one is none.
fn max(a: f64, b: f64) -> f64 {
    if a.is_nan() || a > b { a } else { b }
}

fn min(a: f64, b: f64) -> f64 {
    if a.is_nan() || a < b { a } else { b }
}

fn unary(arguments: &Arguments<'_>, operator: fn(f64) -> f64) -> Option<Constant> {
    let x = arguments.at(0)?;
    let numbers = x.scalars(x.shape())?.map(|number| Some(Scalar::Real(operator(number?.real()?))));
    Constant::collect(x.dtype(), x.shape(), numbers)
}

/// Of two tensors of one type.
fn binary(
    arguments: &Arguments<'_>,
    of_integers: fn(i64, i64) -> Option<i64>,
    of_reals: fn(f64, f64) -> f64,
) -> Option<Constant> {
    elementwise(arguments, &|a, b| match (a, b) {
        (Scalar::Integer(a), Scalar::Integer(b)) => of_integers(a, b).map(Scalar::Integer),
        (Scalar::Real(a), Scalar::Real(b)) => Some(Scalar::Real(of_reals(a, b))),
        _ => None,
    })
}

/// The result has the type of the first operand. The attribute `axis` belongs to the broadcasting of opsets below 7.
fn elementwise(arguments: &Arguments<'_>, operator: &dyn Fn(Scalar, Scalar) -> Option<Scalar>) -> Option<Constant> {
    let (a, b) = (arguments.at(0)?, arguments.at(1)?);
    let of_one_type = a.dtype() == b.dtype() || arguments.node.is("Pow");
    if !of_one_type || arguments.node.inputs().len() != 2 || arguments.node.attribute("axis").is_some() {
        return None;
    }
    let shape = broadcast(a.shape(), b.shape())?;
    arguments.allowed(&shape)?;
    let pairs = a.scalars(&shape)?.zip(b.scalars(&shape)?);
    Constant::collect(a.dtype(), &shape, pairs.map(|(a, b)| operator(a?, b?)))
}

/// Of floats; the exponent may be of another type.
fn power(base: Scalar, exponent: Scalar) -> Option<Scalar> {
    let exponent = match exponent {
        Scalar::Integer(x) => x as f64,
        Scalar::Real(x) => x,
    };
    Some(Scalar::Real(base.real()?.powf(exponent)))
}

fn equal(arguments: &Arguments<'_>) -> Option<Constant> {
    let (a, b) = (arguments.at(0)?, arguments.at(1)?);
    if a.dtype() != b.dtype() || arguments.node.attribute("axis").is_some() {
        return None;
    }
    let shape = broadcast(a.shape(), b.shape())?;
    arguments.allowed(&shape)?;
    let pairs = a.scalars(&shape)?.zip(b.scalars(&shape)?);
    Constant::collect(DataType::Bool, &shape, pairs.map(|(a, b)| Some(Scalar::Integer(i64::from(a? == b?)))))
}

fn cast(arguments: &Arguments<'_>) -> Option<Constant> {
    let to = DataType::try_from(i32::try_from(arguments.node.int("to", 0)).ok()?).ok()?;
    let x = arguments.at(0)?;
    if x.dtype() == to {
        return Some(x);
    }
    Constant::collect(to, x.shape(), x.scalars(x.shape())?.map(|number| number?.cast(to)))
}

/// Bounds are attributes below opset 11.
fn clip(arguments: &Arguments<'_>) -> Option<Constant> {
    let x = arguments.at(0)?;
    let bound = |slot, name, default| match arguments.given(slot) {
        true => arguments.at(slot).filter(|bound| bound.len() == 1)?.scalars(&[])?.next()??.real(),
        false => Some(f64::from(arguments.node.float(name, default))),
    };
    let (low, high) = (bound(1, "min", f32::MIN)?, bound(2, "max", f32::MAX)?);
    let numbers = x.scalars(x.shape())?.map(|number| Some(Scalar::Real(min(max(number?.real()?, low), high))));
    Constant::collect(x.dtype(), x.shape(), numbers)
}
