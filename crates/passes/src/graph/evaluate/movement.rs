//! Operators that move elements and keep their bits.

use ndarray::{ArrayD, ArrayViewD, Axis, IxDyn, Slice, Zip, concatenate};
use onnxquant_ir::Node;
use onnxquant_ir::onnx::tensor_proto::DataType;

use super::arguments::{Arguments, Operator, broadcast};
use super::constant::{Constant, Elements, Word, Words, each_width};
use crate::graph::constant_chain::{permutation, positions};

pub(super) fn operator(node: &Node) -> Option<Operator> {
    Some(match node.op_type() {
        "Concat" => concat,
        "ConstantOfShape" => constant_of_shape,
        "Expand" => expand,
        "Gather" => gather,
        "Slice" => slice,
        "Tile" => tile,
        "Transpose" => transpose,
        "Where" => choose,
        _ => return None,
    })
}

fn transpose(arguments: &Arguments<'_>) -> Option<Constant> {
    let data = arguments.at(0)?;
    permuted(&data, &permutation(arguments.node.ints("perm"), data.shape().len())?)
}

/// With its axes in another order.
pub(super) fn permuted(data: &Constant, perm: &[usize]) -> Option<Constant> {
    fn of<T: Word>(elements: &Elements<T>, perm: &[usize]) -> Elements<T> {
        elements.view().permuted_axes(IxDyn(perm)).as_standard_layout().into_owned().into_shared()
    }
    let words = each_width!(&data.words, elements => of(elements, perm));
    Some(Constant { dtype: data.dtype, words })
}

fn concat(arguments: &Arguments<'_>) -> Option<Constant> {
    fn of<'a, T: Word>(parts: impl Iterator<Item = &'a Constant>, axis: usize) -> Option<Elements<T>> {
        let parts = parts.map(|part| Some(T::of(&part.words)?.view())).collect::<Option<Vec<_>>>()?;
        let whole = concatenate(Axis(axis), &parts).ok()?;
        Some(whole.as_standard_layout().into_owned().into_shared())
    }
    let slots = 0..arguments.node.inputs().len();
    let parts = slots.map(|slot| arguments.at(slot)).collect::<Option<Vec<_>>>()?;
    let first = parts.first()?;
    let [axis] = positions(&[arguments.node.attribute("axis")?.i()], first.shape().len())?[..] else { return None };
    let count = parts.iter().try_fold(0usize, |count, part| count.checked_add(part.len()))?;
    if count > arguments.max_elements || parts.iter().any(|part| part.dtype != first.dtype) {
        return None;
    }
    let words = each_width!(&first.words, _elements => of(parts.iter(), axis)?);
    Some(Constant { dtype: first.dtype, words })
}

/// Zeros of f32 where no value is given.
fn constant_of_shape(arguments: &Arguments<'_>) -> Option<Constant> {
    let filling = match arguments.node.attribute("value") {
        Some(value) => Constant::read(value.t.as_deref()?).filter(|value| value.len() == 1)?.reshaped(&[])?,
        None => Constant { dtype: DataType::Float, words: Words::Four(ArrayD::zeros(IxDyn(&[])).into_shared()) },
    };
    repeated(arguments, &filling, &sizes(&arguments.list(0)?)?)
}

fn expand(arguments: &Arguments<'_>) -> Option<Constant> {
    let data = arguments.at(0)?;
    let shape = broadcast(data.shape(), &sizes(&arguments.list(1)?)?)?;
    repeated(arguments, &data, &shape)
}

/// Broadcast to `shape`.
fn repeated(arguments: &Arguments<'_>, data: &Constant, shape: &[usize]) -> Option<Constant> {
    fn of<T: Word>(elements: &Elements<T>, shape: &[usize]) -> Option<Elements<T>> {
        let whole = elements.broadcast(shape)?;
        Some(whole.as_standard_layout().into_owned().into_shared())
    }
    arguments.allowed(shape)?;
    let words = each_width!(&data.words, elements => of(elements, shape)?);
    Some(Constant { dtype: data.dtype, words })
}

/// Repeats, one number a dimension, since opset 6.
fn tile(arguments: &Arguments<'_>) -> Option<Constant> {
    let data = arguments.at(0)?;
    let repeats = sizes(&arguments.list(1)?)?;
    let (mut open, mut repeated_shape, mut shape) = (Vec::new(), Vec::new(), Vec::new());
    for (&size, &repeat) in data.shape().iter().zip(&repeats) {
        open.extend([1, size]);
        repeated_shape.extend([repeat, size]);
        shape.push(size.checked_mul(repeat)?);
    }
    let fits = repeats.len() == data.shape().len();
    repeated(arguments, &data.reshaped(&open).filter(|_| fits)?, &repeated_shape)?.reshaped(&shape)
}

fn gather(arguments: &Arguments<'_>) -> Option<Constant> {
    fn of<T: Word>(elements: &Elements<T>, axis: usize, chosen: &[usize]) -> Elements<T> {
        elements.select(Axis(axis), chosen).as_standard_layout().into_owned().into_shared()
    }
    let (data, indices) = (arguments.at(0)?, arguments.at(1)?);
    let shape = data.shape();
    let [axis] = positions(&[arguments.node.int("axis", 0)], shape.len())?[..] else { return None };
    let chosen = positions(&indices.integers()?, *shape.get(axis)?)?;
    let result = [shape.get(..axis)?, indices.shape(), shape.get(axis + 1..)?].concat();
    arguments.allowed(&result)?;
    let words = each_width!(&data.words, elements => of(elements, axis, &chosen));
    Constant { dtype: data.dtype, words }.reshaped(&result)
}

fn choose(arguments: &Arguments<'_>) -> Option<Constant> {
    fn of<T: Word>(which: &ArrayViewD<'_, u8>, yes: &Constant, no: &Constant) -> Option<Elements<T>> {
        let (yes, no) = (T::of(&yes.words)?.broadcast(which.raw_dim())?, T::of(&no.words)?.broadcast(which.raw_dim())?);
        let chosen =
            Zip::from(which).and(yes).and(no).map_collect(|&which, &yes, &no| if which == 0 { no } else { yes });
        Some(chosen.as_standard_layout().into_owned().into_shared())
    }
    let (which, yes, no) = (arguments.at(0)?, arguments.at(1)?, arguments.at(2)?);
    let shape = broadcast(&broadcast(which.shape(), yes.shape())?, no.shape())?;
    arguments.allowed(&shape)?;
    if which.dtype != DataType::Bool || yes.dtype != no.dtype {
        return None;
    }
    let which = u8::of(&which.words)?.broadcast(shape)?;
    let words = each_width!(&yes.words, _elements => of(&which, &yes, &no)?);
    Some(Constant { dtype: yes.dtype, words })
}

/// Equal parts, one an output, where no sizes are given: with `num_outputs`, of opset 18, the last may be smaller.
pub(super) fn split(arguments: &Arguments<'_>) -> Option<Vec<Constant>> {
    let (data, node) = (arguments.at(0)?, arguments.node);
    let [axis] = positions(&[node.int("axis", 0)], data.shape().len())?[..] else { return None };
    let (size, parts) = (*data.shape().get(axis)?, node.outputs().len());
    let sizes = match arguments.option("split", 1)? {
        Some(sizes) => self::sizes(&sizes)?,
        None if parts == 0 || (size % parts != 0 && node.attribute("num_outputs").is_none()) => return None,
        None => {
            let part = size.div_ceil(parts);
            (0..parts).map(|index| part.min(size.saturating_sub(index * part))).collect()
        }
    };
    if sizes.len() != parts || sizes.iter().try_fold(0usize, |sum, &size| sum.checked_add(size)) != Some(size) {
        return None;
    }
    let mut begin = 0;
    let part = |&size: &usize| {
        begin += size;
        cut(&data, &[Span { axis, range: Slice::from(begin - size..begin) }])
    };
    sizes.iter().map(part).collect()
}

/// What is kept of an axis.
struct Span {
    axis: usize,
    range: Slice,
}

fn cut(data: &Constant, spans: &[Span]) -> Option<Constant> {
    fn of<T: Word>(elements: &Elements<T>, spans: &[Span]) -> Elements<T> {
        let mut view = elements.view();
        spans.iter().for_each(|span| view.slice_axis_inplace(Axis(span.axis), span.range));
        view.as_standard_layout().into_owned().into_shared()
    }
    let words = each_width!(&data.words, elements => of(elements, spans));
    Some(Constant { dtype: data.dtype, words })
}

/// Arguments are attributes below opset 10, where there are no steps.
fn slice(arguments: &Arguments<'_>) -> Option<Constant> {
    let (data, node) = (arguments.at(0)?, arguments.node);
    let attribute = |name| node.ints(name).map(<[i64]>::to_vec);
    let as_inputs = arguments.given(1);
    let (starts, ends) = match as_inputs {
        true => (arguments.list(1)?, arguments.list(2)?),
        false => (attribute("starts")?, attribute("ends")?),
    };
    let axes = match as_inputs {
        true if arguments.given(3) => arguments.list(3)?,
        false if node.attribute("axes").is_some() => attribute("axes")?,
        _ => (0..i64::try_from(starts.len()).ok()?).collect(),
    };
    let steps = if as_inputs && arguments.given(4) { arguments.list(4)? } else { vec![1; starts.len()] };
    let axes = positions(&axes, data.shape().len())?;
    let lengths = [ends.len(), axes.len(), steps.len()];
    let twice = axes.iter().enumerate().any(|(index, axis)| axes[..index].contains(axis));
    if twice || lengths.iter().any(|&len| len != starts.len()) {
        return None;
    }
    let places = starts.into_iter().zip(ends).zip(steps);
    let span = |(axis, ((start, end), step)): (usize, ((i64, i64), i64))| {
        Some(Span { axis, range: range(*data.shape().get(axis)?, start, end, step)? })
    };
    cut(&data, &axes.into_iter().zip(places).map(span).collect::<Option<Vec<_>>>()?)
}

/// `start, start + step, ...` before `end` of `len` elements; both are counted from the end where negative and clamped.
///
/// Going down from before the first element is left open: the text of the specification clamps to that element, its
/// reference takes none.
fn range(len: usize, start: i64, end: i64, step: i64) -> Option<Slice> {
    let len = i64::try_from(len).ok()?;
    let from_front = |index: i64| if index < 0 { index.saturating_add(len) } else { index };
    let (start, end) = (from_front(start), from_front(end));
    let stride = isize::try_from(step).ok().filter(|&stride| stride != 0 && stride != isize::MIN)?;
    if step < 0 && start < 0 {
        return None;
    }
    // The elements taken as a range [low, high) that is walked from its front or, with a negative step, its back.
    let (low, high) = match step > 0 {
        true => (start.clamp(0, len), end.clamp(0, len)),
        false => (end.clamp(-1, len - 1) + 1, start.clamp(-1, len - 1) + 1),
    };
    Some(Slice::new(isize::try_from(low).ok()?, Some(isize::try_from(high.max(low)).ok()?), stride))
}

/// Dimensions, none of which is negative.
fn sizes(dims: &[i64]) -> Option<Vec<usize>> {
    dims.iter().map(|&dim| usize::try_from(dim).ok()).collect()
}
