//! A slow interpreter that shows what small models mean.

use std::collections::HashMap;

use ndarray::{ArrayD, Axis, IxDyn, Zip};
use onnxquant_ir::onnx::tensor_proto::DataType;
use onnxquant_ir::{Graph, Model, Node, tensor};

use super::array;

/// The outputs of the model for one input `x`, in order.
pub(crate) fn run(model: &Model, x: &ArrayD<f32>) -> Vec<ArrayD<f32>> {
    let graph = model.graph();
    let mut known = HashMap::from([(graph.inputs()[0].value, x.clone())]);
    for &id in graph.initializers() {
        known.insert(id, array(graph.value(id).tensor().expect("initializers have data")));
    }
    for (_, node) in graph.nodes() {
        let inputs = node.inputs().iter().map(|value| value.map(|id| &known[&id])).collect::<Vec<_>>();
        let results = match node.op_type() {
            "DynamicQuantizeLinear" => dynamic_codes(inputs[0].expect("a needed input")),
            "QuantizeLinear" => vec![quantize(graph, node, &inputs)],
            "Split" => split(node, inputs[0].expect("a needed input")),
            "Concat" => vec![concat(node, &inputs)],
            _ => vec![evaluate(node, &inputs)],
        };
        known.extend(node.outputs().iter().copied().flatten().zip(results));
    }
    graph.outputs().iter().map(|port| known[&port.value].clone()).collect()
}

/// The inputs of a node.
struct Inputs<'a>(&'a [Option<&'a ArrayD<f32>>]);

impl<'a> Inputs<'a> {
    fn given(&self, slot: usize) -> Option<&'a ArrayD<f32>> {
        self.0.get(slot).copied().flatten()
    }

    fn at(&self, slot: usize) -> &'a ArrayD<f32> {
        self.given(slot).expect("a needed input")
    }

    fn integers(&self, slot: usize) -> Vec<i64> {
        self.at(slot).iter().map(|&x| x as i64).collect()
    }
}

fn evaluate(node: &Node, inputs: &[Option<&ArrayD<f32>>]) -> ArrayD<f32> {
    let inputs = Inputs(inputs);
    let kinds = [activation, arithmetic, reduction, movement, layer, normalization];
    let found = kinds.into_iter().find_map(|kind| kind(node, &inputs));
    found.unwrap_or_else(|| panic!("no interpreter for {}", node.op_type()))
}

fn activation(node: &Node, inputs: &Inputs<'_>) -> Option<ArrayD<f32>> {
    let x = inputs.at(0);
    Some(match node.op_type() {
        "Identity" | "Dropout" => x.clone(),
        "Cast" => {
            let to = DataType::try_from(node.int("to", 0) as i32).unwrap();
            array(&tensor::from_f32_as(to, x.shape(), &x.iter().copied().collect::<Vec<_>>()))
        }
        "Relu" => x.mapv(|x| x.max(0.0)),
        "LeakyRelu" => x.mapv(|x| if x < 0.0 { x * node.float("alpha", 0.01) } else { x }),
        "PRelu" => broadcast(x, inputs.at(1), |x, slope| if x < 0.0 { x * slope } else { x }),
        "Sigmoid" => x.mapv(|x| 1.0 / (1.0 + (-x).exp())),
        "HardSigmoid" => x.mapv(|x| (x * node.float("alpha", 0.2) + node.float("beta", 0.5)).clamp(0.0, 1.0)),
        "HardSwish" => x.mapv(|x| x * (x / 6.0 + 0.5).clamp(0.0, 1.0)),
        "Clip" => {
            let bound = |slot: usize, name: &str, default: f32| {
                inputs.given(slot).map_or_else(|| node.float(name, default), |bound| *bound.iter().next().unwrap())
            };
            let (low, high) = (bound(1, "min", f32::NEG_INFINITY), bound(2, "max", f32::INFINITY));
            x.mapv(|x| x.max(low).min(high))
        }
        _ => return None,
    })
}

fn arithmetic(node: &Node, inputs: &Inputs<'_>) -> Option<ArrayD<f32>> {
    let x = inputs.at(0);
    Some(match node.op_type() {
        "Abs" => x.mapv(f32::abs),
        "Add" => broadcast(x, inputs.at(1), |a, b| a + b),
        "Sub" => broadcast(x, inputs.at(1), |a, b| a - b),
        "Mul" => broadcast(x, inputs.at(1), |a, b| a * b),
        "Div" => broadcast(x, inputs.at(1), |a, b| a / b),
        "Round" => x.mapv(f32::round_ties_even),
        "Max" => broadcast(x, inputs.at(1), f32::max),
        "Min" => broadcast(x, inputs.at(1), f32::min),
        _ => return None,
    })
}

fn reduction(node: &Node, inputs: &Inputs<'_>) -> Option<ArrayD<f32>> {
    let x = inputs.at(0);
    Some(match node.op_type() {
        "ReduceMin" => scalar(x.iter().copied().fold(f32::INFINITY, f32::min)),
        "ReduceMax" if inputs.given(1).is_some() || node.ints("axes").is_some() => {
            let axis = node.ints("axes").map_or_else(|| inputs.integers(1)[0], |axes| axes[0]) as usize;
            x.map_axis(Axis(axis), |run| run.iter().copied().fold(f32::NEG_INFINITY, f32::max)).insert_axis(Axis(axis))
        }
        "ReduceMax" => scalar(x.iter().copied().fold(f32::NEG_INFINITY, f32::max)),
        _ => return None,
    })
}

/// Shapes and places.
fn movement(node: &Node, inputs: &Inputs<'_>) -> Option<ArrayD<f32>> {
    let x = inputs.at(0);
    Some(match node.op_type() {
        "Shape" => ArrayD::from_shape_vec(vec![x.ndim()], x.shape().iter().map(|&dim| dim as f32).collect()).unwrap(),
        "Slice" if inputs.integers(3) == [-1] => {
            let (from, to) = (inputs.integers(1)[0] as usize, inputs.integers(2)[0] as usize);
            x.slice_axis(Axis(x.ndim() - 1), (from..to).into()).to_owned()
        }
        "Flatten" => {
            let rows = x.shape()[..node.int("axis", 1) as usize].iter().product::<usize>();
            x.to_shape(vec![rows, x.len() / rows]).unwrap().to_owned()
        }
        "Squeeze" => {
            let kept = x.shape().iter().copied().filter(|&dim| dim != 1).collect::<Vec<_>>();
            x.to_shape(kept).unwrap().to_owned()
        }
        "Transpose" => match node.ints("perm") {
            Some(perm) => x.clone().permuted_axes(perm.iter().map(|&a| a as usize).collect::<Vec<_>>()),
            None => x.t().to_owned(),
        },
        "Reshape" => {
            let mut dims = inputs.integers(1);
            dims.iter_mut().enumerate().filter(|(_, dim)| **dim == 0).for_each(|(i, dim)| *dim = x.shape()[i] as i64);
            let known = dims.iter().filter(|&&dim| dim > 0).product::<i64>();
            let dims = dims.iter().map(|&dim| if dim < 0 { x.len() as i64 / known } else { dim } as usize);
            ArrayD::from_shape_vec(dims.collect::<Vec<_>>(), x.iter().copied().collect()).unwrap()
        }
        "Pad" => pad(node, x, inputs.given(1), inputs.given(3)),
        _ => return None,
    })
}

/// Layers, pools and what decodes.
fn layer(node: &Node, inputs: &Inputs<'_>) -> Option<ArrayD<f32>> {
    let x = inputs.at(0);
    Some(match node.op_type() {
        "MatMul" => matmul(x, inputs.at(1)),
        "MatMulInteger" => matmul(&broadcast(x, inputs.at(2), |a, b| a - b), inputs.at(1)),
        "Gemm" => {
            let turned =
                |array: &ArrayD<f32>, name| if node.int(name, 0) != 0 { array.t().to_owned() } else { array.clone() };
            let product = matmul(&turned(x, "transA"), &turned(inputs.at(1), "transB")) * node.float("alpha", 1.0);
            inputs
                .given(2)
                .map_or(product.clone(), |c| broadcast(&product, &(c * node.float("beta", 1.0)), |a, b| a + b))
        }
        "Conv" => conv(node, x, inputs.at(1), inputs.given(2)),
        "ConvTranspose" => conv_transpose(node, x, inputs.at(1), inputs.given(2)),
        "MaxPool" | "AveragePool" | "GlobalMaxPool" | "GlobalAveragePool" => pool(node, x),
        "DequantizeLinear" => dequantize(node, x, inputs.at(1), inputs.given(2)),
        _ => return None,
    })
}

fn normalization(node: &Node, inputs: &Inputs<'_>) -> Option<ArrayD<f32>> {
    let x = inputs.at(0);
    Some(match node.op_type() {
        "BatchNormalization" => {
            let channel = |slot: usize| {
                let ones = vec![1; x.ndim().saturating_sub(2)];
                let shape = [vec![inputs.at(slot).len()], ones].concat();
                inputs.at(slot).to_shape(shape).unwrap().to_owned()
            };
            let factor = channel(1) / (channel(4) + node.float("epsilon", 1e-5)).mapv(f32::sqrt);
            let centred = broadcast(x, &channel(3), |a, b| a - b);
            broadcast(&broadcast(&centred, &factor, |a, b| a * b), &channel(2), |a, b| a + b)
        }
        "InstanceNormalization" => {
            let axes = (2..x.ndim()).collect::<Vec<_>>();
            let channel = |slot: usize| {
                let shape = [vec![inputs.at(slot).len()], vec![1; axes.len()]].concat();
                inputs.at(slot).to_shape(shape).unwrap().to_owned()
            };
            let normalized = normalize(x, &axes, true);
            broadcast(&broadcast(&normalized, &channel(1), |a, b| a * b), &channel(2), |a, b| a + b)
        }
        "LayerNormalization" | "RMSNormalization" => {
            let normalized = normalize(x, &[x.ndim() - 1], node.op_type() == "LayerNormalization");
            let scaled = broadcast(&normalized, inputs.at(1), |a, b| a * b);
            inputs.given(2).map_or(scaled.clone(), |bias| broadcast(&scaled, bias, |a, b| a + b))
        }
        _ => return None,
    })
}

/// Variance, or mean square, of 1 over `axes`.
fn normalize(x: &ArrayD<f32>, axes: &[usize], centred: bool) -> ArrayD<f32> {
    let mean = |x: &ArrayD<f32>| {
        axes.iter().fold(x.clone(), |x, &axis| x.mean_axis(Axis(axis)).unwrap().insert_axis(Axis(axis)))
    };
    let x = if centred { broadcast(x, &mean(x), |a, b| a - b) } else { x.clone() };
    broadcast(&x, &mean(&x.mapv(|x| x * x)), |a, b| a / (b + 1e-5).sqrt())
}

/// Two spatial dimensions without padding; the global ones are those whose window is all there is.
fn pool(node: &Node, x: &ArrayD<f32>) -> ArrayD<f32> {
    let global = node.op_type().starts_with("Global");
    let list = |name: &str| node.ints(name).map_or([1, 1], |list| [list[0] as usize, list[1] as usize]);
    let window = if global { [x.shape()[2], x.shape()[3]] } else { list("kernel_shape") };
    let strides = list("strides");
    let size = |i: usize| (x.shape()[2 + i] - window[i]) / strides[i] + 1;
    ArrayD::from_shape_fn(IxDyn(&[x.shape()[0], x.shape()[1], size(0), size(1)]), |at| {
        let places = (0..window[0]).flat_map(|row| (0..window[1]).map(move |column| (row, column)));
        let numbers =
            places.map(|(row, column)| x[[at[0], at[1], at[2] * strides[0] + row, at[3] * strides[1] + column]]);
        match node.op_type().contains("Max") {
            true => numbers.fold(f32::NEG_INFINITY, f32::max),
            false => numbers.sum::<f32>() / (window[0] * window[1]) as f32,
        }
    })
}

/// Zeros around, from amounts before and after each axis.
fn pad(node: &Node, x: &ArrayD<f32>, pads: Option<&ArrayD<f32>>, axes: Option<&ArrayD<f32>>) -> ArrayD<f32> {
    let integers = |array: &ArrayD<f32>| array.iter().map(|&x| x as i64).collect::<Vec<_>>();
    let rank = x.ndim() as i64;
    let pads = pads.map_or_else(|| node.ints("pads").unwrap().to_vec(), integers);
    let axes = axes.map_or_else(|| (0..rank).collect(), integers);
    let (mut shape, mut before) = (x.shape().to_vec(), vec![0; x.ndim()]);
    for (index, axis) in axes.iter().enumerate() {
        let axis = axis.rem_euclid(rank) as usize;
        before[axis] = pads[index] as usize;
        shape[axis] += (pads[index] + pads[axes.len() + index]) as usize;
    }
    ArrayD::from_shape_fn(shape, |at| {
        let inside = (0..x.ndim()).map(|axis| at[axis].checked_sub(before[axis])).collect::<Option<Vec<_>>>();
        inside.and_then(|at| x.get(IxDyn(&at)).copied()).unwrap_or(0.0)
    })
}

fn broadcast(a: &ArrayD<f32>, b: &ArrayD<f32>, f: impl Fn(f32, f32) -> f32) -> ArrayD<f32> {
    let rank = a.ndim().max(b.ndim());
    let dim = |array: &ArrayD<f32>, index: usize| {
        (index + array.ndim()).checked_sub(rank).map_or(1, |index| array.shape()[index])
    };
    let one = |index| if dim(a, index) == 1 { dim(b, index) } else { dim(a, index) };
    let shape = (0..rank).map(one).collect::<Vec<_>>();
    let (a, b) = (a.broadcast(shape.clone()).unwrap(), b.broadcast(shape).unwrap());
    Zip::from(&a).and(&b).map_collect(|&a, &b| f(a, b))
}

fn matmul(x: &ArrayD<f32>, w: &ArrayD<f32>) -> ArrayD<f32> {
    let (k, m) = (w.shape()[0], w.shape()[1]);
    let rows = x.len() / k;
    let flat = x.to_shape((rows, k)).unwrap();
    let product = ArrayD::from_shape_fn(IxDyn(&[rows, m]), |at| (0..k).map(|i| flat[[at[0], i]] * w[[i, at[1]]]).sum());
    let shape = [&x.shape()[..x.ndim() - 1], &[m]].concat();
    ArrayD::from_shape_vec(shape, product.iter().copied().collect()).unwrap()
}

/// One and two dimensions, pads, strides, dilations and groups.
fn conv(node: &Node, x: &ArrayD<f32>, w: &ArrayD<f32>, b: Option<&ArrayD<f32>>) -> ArrayD<f32> {
    if w.ndim() == 3 {
        let result = conv(node, &x.clone().insert_axis(Axis(3)), &w.clone().insert_axis(Axis(3)), b);
        return result.index_axis_move(Axis(3), 0);
    }
    let list = |name: &str, default: usize| {
        let found = node.ints(name).unwrap_or_default().iter().map(|&n| n as usize).collect::<Vec<_>>();
        move |index: usize| found.get(index).copied().unwrap_or(default)
    };
    let (strides, dilations, pads) = (list("strides", 1), list("dilations", 1), list("pads", 0));
    let rank = node.ints("pads").map_or(2, |pads| pads.len() / 2);
    let end = |index: usize| if index < rank { pads(rank + index) } else { 0 };
    let begin = |index: usize| if index < rank { pads(index) } else { 0 };
    let size = |index: usize| {
        let padded = x.shape()[2 + index] + begin(index) + end(index);
        (padded - (w.shape()[2 + index] - 1) * dilations(index) - 1) / strides(index) + 1
    };
    let (out, per_group) = (w.shape()[0], w.shape()[1]);
    let groups = node.int("group", 1) as usize;
    ArrayD::from_shape_fn(IxDyn(&[x.shape()[0], out, size(0), size(1)]), |at| {
        let first = at[1] / (out / groups) * per_group;
        let mut sum = 0.0;
        for (position, weight) in w.index_axis(Axis(0), at[1]).indexed_iter() {
            let place = |i: usize| (at[2 + i] * strides(i) + position[1 + i] * dilations(i)).checked_sub(begin(i));
            let (Some(row), Some(column)) = (place(0), place(1)) else { continue };
            sum += weight * x.get([at[0], first + position[0], row, column]).copied().unwrap_or(0.0);
        }
        sum + b.map_or(0.0, |b| b[[at[1]]])
    })
}

/// Two dimensions, strides and groups: every element of the input adds its window to the result.
fn conv_transpose(node: &Node, x: &ArrayD<f32>, w: &ArrayD<f32>, b: Option<&ArrayD<f32>>) -> ArrayD<f32> {
    let stride = |index: usize| node.ints("strides").map_or(1, |strides| strides[index] as usize);
    let (groups, per_group) = (node.int("group", 1) as usize, w.shape()[1]);
    let size = |index: usize| (x.shape()[2 + index] - 1) * stride(index) + w.shape()[2 + index];
    let shape = [x.shape()[0], groups * per_group, size(0), size(1)];
    let mut result = ArrayD::from_shape_fn(IxDyn(&shape), |at| b.map_or(0.0, |b| b[[at[1]]]));
    for (at, &x_here) in x.indexed_iter() {
        let first = at[1] / (x.shape()[1] / groups) * per_group;
        for (position, weight) in w.index_axis(Axis(0), at[1]).indexed_iter() {
            let (row, column) = (at[2] * stride(0) + position[1], at[3] * stride(1) + position[2]);
            result[[at[0], first + position[0], row, column]] += x_here * weight;
        }
    }
    result
}

/// Equal parts, one an output.
fn split(node: &Node, x: &ArrayD<f32>) -> Vec<ArrayD<f32>> {
    let axis = Axis(node.int("axis", 0) as usize);
    let part = x.len_of(axis) / node.outputs().len();
    x.axis_chunks_iter(axis, part).map(|part| part.to_owned()).collect()
}

fn concat(node: &Node, inputs: &[Option<&ArrayD<f32>>]) -> ArrayD<f32> {
    let parts = inputs.iter().map(|part| part.expect("a needed input").view()).collect::<Vec<_>>();
    let rank = parts.first().map_or(0, |part| part.ndim()) as i64;
    ndarray::concatenate(Axis(node.int("axis", 0).rem_euclid(rank) as usize), &parts).unwrap()
}

fn scalar(number: f32) -> ArrayD<f32> {
    ArrayD::from_elem(IxDyn(&[]), number)
}

/// Codes, scale and zero point of `DynamicQuantizeLinear`, as its specification says; the scale of zeros is 1.
fn dynamic_codes(x: &ArrayD<f32>) -> Vec<ArrayD<f32>> {
    let (low, high) = x.iter().fold((0f32, 0f32), |(low, high), &x| (low.min(x), high.max(x)));
    let scale = if low == high { 1.0 } else { (high - low) / 255.0 };
    let zero_point = (-low / scale).clamp(0.0, 255.0).round_ties_even();
    let codes = x.mapv(|x| ((x / scale).round_ties_even() + zero_point).clamp(0.0, 255.0));
    vec![codes, scalar(scale), scalar(zero_point)]
}

/// `QuantizeLinear` to 8 bits with one scale and a constant zero point, whose type is that of the codes.
fn quantize(graph: &Graph, node: &Node, inputs: &[Option<&ArrayD<f32>>]) -> ArrayD<f32> {
    let one = |slot: usize| inputs[slot].expect("a needed input")[[]];
    let zero_point = node.input(2).and_then(|id| graph.value(id).constant()).expect("a constant zero point");
    let (low, high) = if zero_point.data_type() == DataType::Int8 as i32 { (-128.0, 127.0) } else { (0.0, 255.0) };
    let code = |x: &f32| ((x / one(1)).round_ties_even() + one(2)).clamp(low, high);
    inputs[0].expect("a needed input").map(code)
}

/// `DequantizeLinear` as its specification says it, element by element.
fn dequantize(node: &Node, x: &ArrayD<f32>, scale: &ArrayD<f32>, zero_point: Option<&ArrayD<f32>>) -> ArrayD<f32> {
    let axis = node.int("axis", 1).rem_euclid(x.ndim().max(1) as i64) as usize;
    let block = node.int("block_size", 0) as usize;
    let of = |numbers: &ArrayD<f32>, at: &IxDyn| match (numbers.ndim(), block) {
        (0, _) => numbers[[]],
        (1, _) if numbers.len() == 1 => numbers[[0]],
        (_, 0) => numbers[[at[axis]]],
        _ => {
            let mut at = at.clone();
            at[axis] /= block;
            numbers[at]
        }
    };
    ArrayD::from_shape_fn(x.raw_dim(), |at| of(scale, &at) * (x[&at] - zero_point.map_or(0.0, |zero| of(zero, &at))))
}
