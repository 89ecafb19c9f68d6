//! The operators on small integer tensors. `None` wherever the result is not certain.

use ndarray::{ArrayD, ArrayViewD, Axis, IxDyn, Slice, concatenate};
use onnxquant_ir::onnx::TensorProto;
use onnxquant_ir::onnx::tensor_proto::DataType;
use onnxquant_ir::{Graph, Node, tensor};

use crate::graph::constant_chain::{permutation, positions, reshaped, squeezed, unsqueezed};

/// No tensor with more elements is read or made, except that the shape of any constant is known.
pub const MAX_ELEMENTS: usize = 1024;

/// An int64 or int32 tensor of at most [`MAX_ELEMENTS`] elements.
struct Integers {
    dtype: DataType,
    array: ArrayD<i64>,
}

impl Integers {
    fn new(dtype: DataType, array: ArrayD<i64>) -> Option<Self> {
        let fits = |&x: &i64| dtype == DataType::Int64 || i32::try_from(x).is_ok();
        let right = matches!(dtype, DataType::Int64 | DataType::Int32) && is_small(array.shape());
        (right && array.iter().all(fits)).then_some(Self { dtype, array })
    }

    fn read(tensor: &TensorProto) -> Option<Self> {
        let shape = tensor::shape(tensor).ok().filter(|shape| is_small(shape))?;
        let array = ArrayD::from_shape_vec(shape, tensor::to_i64(tensor).ok()?).ok()?;
        Self::new(tensor::data_type(tensor).ok()?, array)
    }

    fn with(&self, array: ArrayD<i64>) -> Option<Self> {
        Self::new(self.dtype, array)
    }

    fn dims(&self) -> Vec<i64> {
        self.array.shape().iter().filter_map(|&dim| i64::try_from(dim).ok()).collect()
    }

    /// The elements of a tensor of one dimension.
    fn list(&self) -> Option<Vec<i64>> {
        (self.array.ndim() == 1).then(|| self.array.iter().copied().collect())
    }

    /// The only element.
    fn one(&self) -> Option<i64> {
        self.array.first().copied().filter(|_| self.array.len() == 1)
    }

    fn to_tensor(&self) -> TensorProto {
        let narrow = |&x: &i64| i32::try_from(x).expect("the range of int32 was checked when the tensor was made");
        let numbers = self.array.iter();
        let raw: Vec<u8> = match self.dtype {
            DataType::Int32 => numbers.flat_map(|x| narrow(x).to_le_bytes()).collect(),
            _ => numbers.flat_map(|x| x.to_le_bytes()).collect(),
        };
        tensor::from_raw(self.dtype, self.array.shape(), raw)
    }
}

fn is_small(shape: &[usize]) -> bool {
    let count = shape.iter().try_fold(1usize, |count, &dim| count.checked_mul(dim));
    count.is_some_and(|count| count <= MAX_ELEMENTS)
}

/// What a node reads.
struct Arguments<'a> {
    graph: &'a Graph,
    node: &'a Node,
}

impl<'a> Arguments<'a> {
    fn given(&self, slot: usize) -> bool {
        self.node.input(slot).is_some()
    }

    fn constant(&self, slot: usize) -> Option<&'a TensorProto> {
        self.graph.value(self.node.input(slot)?).constant()
    }

    fn integers(&self, slot: usize) -> Option<Integers> {
        Integers::read(self.constant(slot)?)
    }

    fn list(&self, slot: usize) -> Option<Vec<i64>> {
        self.integers(slot)?.list()
    }

    /// `axes` of `Squeeze` and `Unsqueeze`: an attribute below opset 13, an input since.
    fn axes(&self) -> Option<Vec<i64>> {
        self.node.ints("axes").map(<[i64]>::to_vec).or_else(|| self.list(1))
    }
}

/// The tensor that `node` makes of its constant inputs.
pub(super) fn evaluate(graph: &Graph, node: &Node) -> Option<TensorProto> {
    if !node.domain().is_empty() || node.outputs().len() != 1 {
        return None;
    }
    let arguments = Arguments { graph, node };
    let result = match node.op_type() {
        "Add" => arithmetic(&arguments, i64::checked_add),
        "Sub" => arithmetic(&arguments, i64::checked_sub),
        "Mul" => arithmetic(&arguments, i64::checked_mul),
        // Truncates, as the specification of Div says.
        "Div" => arithmetic(&arguments, i64::checked_div),
        "Cast" => cast(&arguments),
        "Concat" => concat(&arguments),
        "ConstantOfShape" => constant_of_shape(&arguments),
        "Gather" => gather(&arguments),
        "Identity" => arguments.integers(0),
        "Range" => range(&arguments),
        "Reshape" => reshape(&arguments),
        "Shape" => shape(&arguments),
        "Slice" => slice(&arguments),
        "Squeeze" | "Unsqueeze" => squeeze(&arguments),
        "Transpose" => transpose(&arguments),
        _ => None,
    };
    result.map(|result| result.to_tensor())
}

/// Element by element; the attribute `axis` belongs to the broadcasting of opsets below 7.
fn arithmetic(arguments: &Arguments<'_>, operator: fn(i64, i64) -> Option<i64>) -> Option<Integers> {
    let (a, b) = (arguments.integers(0)?, arguments.integers(1)?);
    if a.dtype != b.dtype || arguments.node.attribute("axis").is_some() {
        return None;
    }
    let dims = broadcast_dims(a.array.shape(), b.array.shape())?;
    let (x, y) = (a.array.broadcast(dims.clone())?, b.array.broadcast(dims.clone())?);
    let numbers = x.iter().zip(&y).map(|(&x, &y)| operator(x, y)).collect::<Option<Vec<_>>>()?;
    a.with(ArrayD::from_shape_vec(dims, numbers).ok()?)
}

fn broadcast_dims(a: &[usize], b: &[usize]) -> Option<Vec<usize>> {
    let rank = a.len().max(b.len());
    let dim = |shape: &[usize], index: usize| (index + shape.len()).checked_sub(rank).map_or(1, |index| shape[index]);
    let joint = |index| match (dim(a, index), dim(b, index)) {
        (a, b) if a == b || b == 1 => Some(a),
        (1, b) => Some(b),
        _ => None,
    };
    (0..rank).map(joint).collect::<Option<Vec<_>>>().filter(|dims| is_small(dims))
}

fn cast(arguments: &Arguments<'_>) -> Option<Integers> {
    let to = DataType::try_from(i32::try_from(arguments.node.int("to", 0)).ok()?).ok()?;
    let from = arguments.constant(0)?;
    if let Some(from) = Integers::read(from) {
        return Integers::new(to, from.array);
    }
    // As f32 a double would be another number.
    let exact = tensor::data_type(from).ok()? != DataType::Double;
    let shape = tensor::shape(from).ok().filter(|shape| exact && is_small(shape))?;
    let numbers = tensor::to_f32(from).ok()?.iter().map(|&x| truncated(x)).collect::<Option<Vec<_>>>()?;
    Integers::new(to, ArrayD::from_shape_vec(shape, numbers).ok()?)
}

/// The integer part of a number that int64 holds.
fn truncated(x: f32) -> Option<i64> {
    const BOUND: f32 = 9_223_372_036_854_775_808.0;
    (x.abs() < BOUND).then_some(x as i64)
}

fn concat(arguments: &Arguments<'_>) -> Option<Integers> {
    let slots = 0..arguments.node.inputs().len();
    let parts = slots.map(|slot| arguments.integers(slot)).collect::<Option<Vec<_>>>()?;
    let first = parts.first()?;
    let [axis] = positions(&[arguments.node.attribute("axis")?.i()], first.array.ndim())?[..] else { return None };
    let count = parts.iter().try_fold(0usize, |count, part| count.checked_add(part.array.len()))?;
    if count > MAX_ELEMENTS || parts.iter().any(|part| part.dtype != first.dtype) {
        return None;
    }
    let views = parts.iter().map(|part| part.array.view()).collect::<Vec<_>>();
    first.with(concatenate(Axis(axis), &views).ok()?)
}

/// Without the attribute `value` the result is of f32 and not for here.
fn constant_of_shape(arguments: &Arguments<'_>) -> Option<Integers> {
    let filling = Integers::read(arguments.node.attribute("value")?.t.as_deref()?)?;
    let dims = arguments.list(0)?.into_iter().map(|dim| usize::try_from(dim).ok()).collect::<Option<Vec<_>>>()?;
    let dims = Some(dims).filter(|dims| is_small(dims))?;
    filling.with(ArrayD::from_elem(dims, filling.one()?))
}

fn gather(arguments: &Arguments<'_>) -> Option<Integers> {
    let (data, indices) = (arguments.integers(0)?, arguments.integers(1)?);
    let shape = data.array.shape();
    let [axis] = positions(&[arguments.node.int("axis", 0)], shape.len())?[..] else { return None };
    let chosen = positions(&indices.array.iter().copied().collect::<Vec<_>>(), shape[axis])?;
    let dims = [&shape[..axis], indices.array.shape(), &shape[axis + 1..]].concat();
    let dims = Some(dims).filter(|dims| is_small(dims))?;
    let picked = data.array.select(Axis(axis), &chosen);
    data.with(ArrayD::from_shape_vec(dims, picked.iter().copied().collect()).ok()?)
}

fn range(arguments: &Arguments<'_>) -> Option<Integers> {
    let (start, limit, step) = (arguments.integers(0)?, arguments.integers(1)?, arguments.integers(2)?);
    if start.dtype != limit.dtype || start.dtype != step.dtype {
        return None;
    }
    let (first, limit, step) = (i128::from(start.one()?), i128::from(limit.one()?), i128::from(step.one()?));
    let (span, stride) = if step < 0 { (first - limit, -step) } else { (limit - first, step) };
    let count = (span.max(0) + stride - 1).checked_div(stride)?;
    let count = usize::try_from(count).ok().filter(|&count| count <= MAX_ELEMENTS)?;
    let numbers = std::iter::successors(Some(first), |last| Some(last + step)).take(count);
    let numbers = numbers.map(|x| i64::try_from(x).ok()).collect::<Option<Vec<_>>>()?;
    start.with(ArrayD::from_shape_vec(vec![count], numbers).ok()?)
}

fn with_dims(data: &Integers, dims: &[i64]) -> Option<Integers> {
    let dims = dims.iter().map(|&dim| usize::try_from(dim).ok()).collect::<Option<Vec<_>>>()?;
    data.with(ArrayD::from_shape_vec(dims, data.array.iter().copied().collect()).ok()?)
}

fn reshape(arguments: &Arguments<'_>) -> Option<Integers> {
    let data = arguments.integers(0)?;
    let allow_zero = arguments.node.int("allowzero", 0) != 0;
    with_dims(&data, &reshaped(&data.dims(), &arguments.list(1)?, allow_zero)?)
}

fn squeeze(arguments: &Arguments<'_>) -> Option<Integers> {
    let data = arguments.integers(0)?;
    let (dims, node) = (data.dims(), arguments.node);
    let dims = match node.op_type() {
        "Unsqueeze" => unsqueezed(&dims, &arguments.axes()?)?,
        _ if node.attribute("axes").is_some() || arguments.given(1) => squeezed(&dims, Some(&arguments.axes()?))?,
        _ => squeezed(&dims, None)?,
    };
    with_dims(&data, &dims)
}

/// `start` and `end`, which opset 15 brought, count dimensions and are clamped.
fn shape(arguments: &Arguments<'_>) -> Option<Integers> {
    let dims = &arguments.constant(0)?.dims;
    let rank = i64::try_from(dims.len()).ok()?;
    let place = |name, default| {
        let index = arguments.node.int(name, default);
        usize::try_from(if index < 0 { index.saturating_add(rank) } else { index }.clamp(0, rank)).ok()
    };
    let (start, end) = (place("start", 0)?, place("end", rank)?);
    let part = dims.get(start..end).unwrap_or_default().to_vec();
    Integers::new(DataType::Int64, ArrayD::from_shape_vec(vec![part.len()], part).ok()?)
}

fn transpose(arguments: &Arguments<'_>) -> Option<Integers> {
    let data = arguments.integers(0)?;
    let perm = permutation(arguments.node.ints("perm"), data.array.ndim())?;
    let array = data.array.view().permuted_axes(IxDyn(&perm));
    data.with(array.as_standard_layout().into_owned())
}

/// Arguments are attributes below opset 10, where there are no steps.
fn slice(arguments: &Arguments<'_>) -> Option<Integers> {
    let data = arguments.integers(0)?;
    let node = arguments.node;
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
    let axes = positions(&axes, data.array.ndim())?;
    let lengths = [ends.len(), axes.len(), steps.len()];
    let twice = axes.iter().enumerate().any(|(index, axis)| axes[..index].contains(axis));
    if twice || lengths.iter().any(|&len| len != starts.len()) {
        return None;
    }
    let mut view = data.array.view();
    for (index, &axis) in axes.iter().enumerate() {
        cut(&mut view, Axis(axis), starts[index], ends[index], steps[index])?;
    }
    data.with(view.as_standard_layout().into_owned())
}

/// Keeps `start, start + step, ...` before `end` of one axis; both are counted from the end where negative and clamped.
///
/// Going down from before the first element is left open: the text of the specification clamps to that element, its
/// reference takes none.
fn cut(view: &mut ArrayViewD<'_, i64>, axis: Axis, start: i64, end: i64, step: i64) -> Option<()> {
    let len = i64::try_from(view.len_of(axis)).ok()?;
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
    let range = Slice::new(isize::try_from(low).ok()?, Some(isize::try_from(high.max(low)).ok()?), stride);
    view.slice_axis_inplace(axis, range);
    Some(())
}
