//! Operators that reduce axes to one number, which is summed up in f64.

use onnxquant_ir::Node;

use super::arguments::{Arguments, Operator};
use super::constant::Constant;
use super::movement::permuted;
use super::scalar::Scalar;
use crate::graph::constant_chain::positions;

/// Adds an element to what was summed up before.
type Step = fn(f64, f64) -> f64;

/// Makes the result of the sum and the number of elements.
type Finish = fn(f64, f64) -> f64;

pub(super) fn operator(node: &Node) -> Option<Operator> {
    Some(match node.op_type() {
        "ReduceL1" => |arguments| reduce(arguments, |sum, x| sum + x.abs(), |sum, _| sum),
        "ReduceL2" => |arguments| reduce(arguments, |sum, x| sum + x * x, |sum, _| sum.sqrt()),
        "ReduceMean" => |arguments| reduce(arguments, |sum, x| sum + x, |sum, count| sum / count),
        "ReduceSum" => |arguments| reduce(arguments, |sum, x| sum + x, |sum, _| sum),
        "ReduceSumSquare" => |arguments| reduce(arguments, |sum, x| sum + x * x, |sum, _| sum),
        _ => return None,
    })
}

/// Axes are an attribute below opset 18, of ReduceSum below 13.
fn reduce(arguments: &Arguments<'_>, step: Step, finish: Finish) -> Option<Constant> {
    let (x, node) = (arguments.at(0)?, arguments.node);
    let shape = x.shape();
    let reduced = match arguments.option("axes", 1)?.filter(|axes| !axes.is_empty()) {
        Some(axes) => positions(&axes, shape.len())?,
        None if node.int("noop_with_empty_axes", 0) != 0 => return None,
        None => (0..shape.len()).collect(),
    };
    let (inner, outer): (Vec<usize>, Vec<usize>) = (0..shape.len()).partition(|axis| reduced.contains(axis));
    let count: usize = inner.iter().filter_map(|&axis| shape.get(axis)).product();
    let keeps = node.int("keepdims", 1) != 0;
    let size = |(axis, &size): (usize, &usize)| match inner.contains(&axis) {
        true => keeps.then_some(1),
        false => Some(size),
    };
    let result: Vec<usize> = shape.iter().enumerate().filter_map(size).collect();
    if count == 0 || result.contains(&0) {
        return None;
    }
    let runs = permuted(&x, &[outer, inner].concat())?;
    let mut numbers = runs.scalars(runs.shape())?;
    let mut sum = || (0..count).try_fold(0.0, |sum, _| Some(step(sum, numbers.next()??.real()?)));
    let of_run = |_| Some(Scalar::Real(finish(sum()?, count as f64)));
    Constant::collect(x.dtype(), &result, (0..result.iter().product()).map(of_run))
}
