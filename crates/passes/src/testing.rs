//! What the tests of this crate share: small models, and a slow interpreter that shows what they mean.

use std::collections::HashMap;

use ndarray::{Array3, ArrayD, Axis, IxDyn, Zip};
use onnxquant_ir::onnx::attribute_proto::AttributeType;
use onnxquant_ir::onnx::tensor_proto::DataType;
use onnxquant_ir::onnx::{
    AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorProto, TypeProto, ValueInfoProto,
    type_proto,
};
use onnxquant_ir::{Graph, Model, Node, NodeId, ValueId, tensor, verify};
use onnxquant_quant::{Alphabet, Granularity, LayerSolution};

use crate::decode::decode_weights::alphabet;
use crate::find::sites::{Site, SkipReason, find_sites};

/// A node named like its first output with `node_` before it.
pub(crate) fn node(op_type: &str, inputs: &[&str], outputs: &[&str], attribute: Vec<AttributeProto>) -> NodeProto {
    let own = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
    NodeProto {
        name: outputs.first().map(|name| format!("node_{name}")),
        op_type: Some(op_type.to_owned()),
        input: own(inputs),
        output: own(outputs),
        attribute,
        ..NodeProto::default()
    }
}

pub(crate) fn graph_attribute(name: &str, graph: GraphProto) -> AttributeProto {
    AttributeProto {
        name: Some(name.to_owned()),
        r#type: Some(AttributeType::Graph as i32),
        g: Some(Box::new(graph)),
        ..AttributeProto::default()
    }
}

pub(crate) fn info(name: &str) -> ValueInfoProto {
    let kind = type_proto::Tensor { elem_type: Some(DataType::Float as i32), shape: None };
    let kind = TypeProto { value: Some(type_proto::Value::TensorType(kind)), ..TypeProto::default() };
    ValueInfoProto { name: Some(name.to_owned()), r#type: Some(kind), ..ValueInfoProto::default() }
}

pub(crate) fn body(nodes: Vec<NodeProto>, outputs: &[&str]) -> GraphProto {
    let output = outputs.iter().map(|name| info(name)).collect();
    GraphProto { name: Some("g".to_owned()), node: nodes, output, ..GraphProto::default() }
}

pub(crate) fn named(name: &str, tensor: TensorProto) -> TensorProto {
    TensorProto { name: Some(name.to_owned()), ..tensor }
}

/// Opset 21, IR version 10; inputs and outputs in words separated by blanks.
pub(crate) fn message(
    inputs: &str,
    constants: Vec<(&str, TensorProto)>,
    nodes: Vec<NodeProto>,
    outputs: &str,
) -> ModelProto {
    let infos = |names: &str| names.split_whitespace().map(info).collect();
    let graph = GraphProto {
        name: Some("g".to_owned()),
        node: nodes,
        initializer: constants.into_iter().map(|(name, tensor)| named(name, tensor)).collect(),
        input: infos(inputs),
        output: infos(outputs),
        ..GraphProto::default()
    };
    ModelProto {
        ir_version: Some(10),
        opset_import: vec![OperatorSetIdProto { version: Some(21), ..OperatorSetIdProto::default() }],
        graph: Some(graph),
        ..ModelProto::default()
    }
}

pub(crate) fn model(inputs: &str, constants: Vec<(&str, TensorProto)>, nodes: Vec<NodeProto>, outputs: &str) -> Model {
    Model::from_proto(message(inputs, constants, nodes, outputs)).expect("the model of a test is valid")
}

/// f32 numbers that look random and are exact in f16: multiples of 1/8 from -2 to 2.
pub(crate) fn floats(dims: &[usize], seed: usize) -> TensorProto {
    tensor::from_f32(dims, &numbers(dims.iter().product(), seed))
}

pub(crate) fn numbers(count: usize, seed: usize) -> Vec<f32> {
    let mut state = seed as u64 * 2 + 1;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((state >> 40) % 33) as f32 / 8.0 - 2.0
    };
    (0..count).map(|_| next()).collect()
}

/// Two pictures of 3 channels.
pub(crate) fn image() -> ArrayD<f32> {
    ArrayD::from_shape_vec(vec![2, 3, 5, 4], numbers(120, 3)).expect("2 x 3 x 5 x 4 are 120")
}

/// Gives the graph another initializer of this name, or its first.
pub(crate) fn set_constant(graph: &mut GraphProto, name: &str, tensor: TensorProto) {
    graph.initializer.retain(|old| old.name() != name);
    graph.initializer.push(named(name, tensor));
}

/// The pass does nothing to this model.
#[track_caller]
pub(crate) fn assert_unchanged(what: &str, proto: ModelProto, pass: impl FnOnce(&mut Model) -> usize) {
    let mut model = Model::from_proto(proto.clone()).unwrap_or_else(|violations| panic!("{what}: {violations:?}"));
    assert_eq!(pass(&mut model), 0, "{what}");
    assert_eq!(model.to_proto(), proto, "{what}");
}

/// Numbers are the same up to `tolerance`, relative where they are large.
#[track_caller]
pub(crate) fn assert_close(found: &[ArrayD<f32>], expected: &[ArrayD<f32>], tolerance: f32, what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    for (found, expected) in found.iter().zip(expected) {
        assert_eq!(found.shape(), expected.shape(), "{what}");
        let worst = found.iter().zip(expected).map(|(a, b)| (a - b).abs() / (1.0 + b.abs())).fold(0.0, f32::max);
        assert!(worst <= tolerance, "{what}: {worst}");
    }
}

pub(crate) fn sites(model: &Model) -> Vec<Result<Site, SkipReason>> {
    find_sites(model).into_iter().map(|candidate| candidate.outcome).collect()
}

/// The only layer of the model, which can be quantized.
pub(crate) fn only_site(model: &Model) -> Site {
    let mut found = sites(model);
    assert_eq!(found.len(), 1);
    found.remove(0).expect("the layer can be quantized")
}

/// All layers that can be quantized, by node.
pub(crate) fn site_map(model: &Model) -> HashMap<NodeId, Site> {
    sites(model).into_iter().flatten().map(|site| (site.node, site)).collect()
}

/// Codes that use the whole range, scales that are exact in f16.
pub(crate) fn solution(site: &Site, granularity: Granularity, low: i16, high: i16) -> LayerSolution {
    let (groups, k, m) = (site.view.groups(), site.view.inputs(), site.view.outputs());
    let block_size = if let Granularity::Block(size) = granularity { size } else { k };
    let shape = (groups, k.div_ceil(block_size), m);
    let per_scale =
        |(g, b, o): (usize, usize, usize)| if granularity == Granularity::Tensor { 0 } else { g * 5 + b * 3 + o };
    let span = usize::try_from(high - low + 1).unwrap();
    LayerSolution {
        codes: Array3::from_shape_fn((groups, k, m), |(g, i, o)| low + ((g * 31 + i * 7 + o * 13) % span) as i16),
        scales: Array3::from_shape_fn(shape, |at| (1 + per_scale(at)) as f32 / 64.0),
        zero_points: Array3::from_shape_fn(shape, |at| if low < 0 { 0 } else { 1 + (per_scale(at) % 3) as i16 % high }),
        block_size,
        alphabet: Alphabet::Integers,
        preprocessed: None,
        promise: None,
        notes: vec![],
    }
}

/// The same model with the weights that the solution means in place of the codes.
pub(crate) fn with_weights(mut model: Model, solution: &LayerSolution) -> Model {
    let site = only_site(&model);
    let weights = site.view.from_matrix(solution.dequantize().view()).unwrap();
    let weights = tensor::from_f32_as(site.dtype, weights.shape(), &weights.iter().copied().collect::<Vec<_>>());
    model.graph_mut().set_tensor(site.weight, weights);
    model
}

pub(crate) fn find_node(graph: &Graph, op_type: &str) -> Option<NodeId> {
    graph.nodes().find(|(_, node)| node.is(op_type)).map(|(id, _)| id)
}

pub(crate) fn op_types(model: &Model) -> Vec<&str> {
    model.graph().nodes().map(|(_, node)| node.op_type()).collect()
}

pub(crate) fn input_names<'a>(graph: &'a Graph, node: &Node) -> Vec<&'a str> {
    node.inputs().iter().map(|value| value.map_or("", |id| graph.value(id).name())).collect()
}

#[track_caller]
pub(crate) fn assert_valid(model: &Model) {
    assert_eq!(verify(model), []);
    let again = Model::from_proto(model.to_proto()).expect("what is written can be read");
    assert_eq!(again.to_proto(), model.to_proto());
}

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

pub(crate) fn array(tensor: &TensorProto) -> ArrayD<f32> {
    let floats = tensor::to_f32(tensor).map(|numbers| numbers.into_owned());
    let alphabet = tensor::data_type(tensor).map(alphabet).unwrap_or_default();
    let codes = || tensor::to_codes(tensor).map(|codes| codes.into_iter().map(|code| alphabet.value(code)).collect());
    let integers = || tensor::to_i64(tensor).map(|numbers| numbers.into_iter().map(|x| x as f32).collect());
    let numbers = floats.or_else(|_| codes()).or_else(|_| integers()).expect("a tensor of numbers");
    ArrayD::from_shape_vec(tensor::shape(tensor).unwrap(), numbers).unwrap()
}

pub(crate) fn constant_named<'a>(graph: &'a Graph, name: &str) -> &'a TensorProto {
    graph.find(name).and_then(|id: ValueId| graph.value(id).constant()).expect("the initializer is there")
}

fn evaluate(node: &Node, inputs: &[Option<&ArrayD<f32>>]) -> ArrayD<f32> {
    let given = |slot: usize| inputs.get(slot).copied().flatten();
    let input = |slot: usize| given(slot).expect("a needed input");
    let integers = |slot: usize| input(slot).iter().map(|&x| x as i64).collect::<Vec<_>>();
    let x = input(0);
    match node.op_type() {
        "Identity" | "Dropout" => x.clone(),
        "Cast" => {
            let to = DataType::try_from(node.int("to", 0) as i32).unwrap();
            array(&tensor::from_f32_as(to, x.shape(), &x.iter().copied().collect::<Vec<_>>()))
        }
        "Relu" => x.mapv(|x| x.max(0.0)),
        "LeakyRelu" => x.mapv(|x| if x < 0.0 { x * node.float("alpha", 0.01) } else { x }),
        "PRelu" => broadcast(x, input(1), |x, slope| if x < 0.0 { x * slope } else { x }),
        "Sigmoid" => x.mapv(|x| 1.0 / (1.0 + (-x).exp())),
        "HardSigmoid" => x.mapv(|x| (x * node.float("alpha", 0.2) + node.float("beta", 0.5)).clamp(0.0, 1.0)),
        "HardSwish" => x.mapv(|x| x * (x / 6.0 + 0.5).clamp(0.0, 1.0)),
        "Clip" => {
            let bound = |slot: usize, name: &str, default: f32| {
                given(slot).map_or_else(|| node.float(name, default), |bound| *bound.iter().next().unwrap())
            };
            let (low, high) = (bound(1, "min", f32::NEG_INFINITY), bound(2, "max", f32::INFINITY));
            x.mapv(|x| x.max(low).min(high))
        }
        "Add" => broadcast(x, input(1), |a, b| a + b),
        "Sub" => broadcast(x, input(1), |a, b| a - b),
        "Mul" => broadcast(x, input(1), |a, b| a * b),
        "Div" => broadcast(x, input(1), |a, b| a / b),
        "Round" => x.mapv(f32::round_ties_even),
        "ReduceMin" => scalar(x.iter().copied().fold(f32::INFINITY, f32::min)),
        "Abs" => x.mapv(f32::abs),
        "Shape" => ArrayD::from_shape_vec(vec![x.ndim()], x.shape().iter().map(|&dim| dim as f32).collect()).unwrap(),
        "Slice" if integers(3) == [-1] => {
            let (from, to) = (integers(1)[0] as usize, integers(2)[0] as usize);
            x.slice_axis(Axis(x.ndim() - 1), (from..to).into()).to_owned()
        }
        "ReduceMax" if given(1).is_some() || node.ints("axes").is_some() => {
            let axis = node.ints("axes").map_or_else(|| integers(1)[0], |axes| axes[0]) as usize;
            x.map_axis(Axis(axis), |run| run.iter().copied().fold(f32::NEG_INFINITY, f32::max)).insert_axis(Axis(axis))
        }
        "ReduceMax" => scalar(x.iter().copied().fold(f32::NEG_INFINITY, f32::max)),
        "Max" => broadcast(x, input(1), f32::max),
        "Min" => broadcast(x, input(1), f32::min),
        "MatMul" => matmul(x, input(1)),
        "MatMulInteger" => matmul(&broadcast(x, input(2), |a, b| a - b), input(1)),
        "Gemm" => {
            let turned =
                |array: &ArrayD<f32>, name| if node.int(name, 0) != 0 { array.t().to_owned() } else { array.clone() };
            let product = matmul(&turned(x, "transA"), &turned(input(1), "transB")) * node.float("alpha", 1.0);
            given(2).map_or(product.clone(), |c| broadcast(&product, &(c * node.float("beta", 1.0)), |a, b| a + b))
        }
        "Conv" => conv(node, x, input(1), given(2)),
        "BatchNormalization" => {
            let channel = |slot: usize| {
                let ones = vec![1; x.ndim().saturating_sub(2)];
                let shape = [vec![input(slot).len()], ones].concat();
                input(slot).to_shape(shape).unwrap().to_owned()
            };
            let factor = channel(1) / (channel(4) + node.float("epsilon", 1e-5)).mapv(f32::sqrt);
            let centred = broadcast(x, &channel(3), |a, b| a - b);
            broadcast(&broadcast(&centred, &factor, |a, b| a * b), &channel(2), |a, b| a + b)
        }
        "InstanceNormalization" => {
            let axes = (2..x.ndim()).collect::<Vec<_>>();
            let channel = |slot: usize| {
                let shape = [vec![input(slot).len()], vec![1; axes.len()]].concat();
                input(slot).to_shape(shape).unwrap().to_owned()
            };
            let normalized = normalize(x, &axes, true);
            broadcast(&broadcast(&normalized, &channel(1), |a, b| a * b), &channel(2), |a, b| a + b)
        }
        "LayerNormalization" | "RMSNormalization" => {
            let normalized = normalize(x, &[x.ndim() - 1], node.op_type() == "LayerNormalization");
            let scaled = broadcast(&normalized, input(1), |a, b| a * b);
            given(2).map_or(scaled.clone(), |bias| broadcast(&scaled, bias, |a, b| a + b))
        }
        "MaxPool" | "AveragePool" | "GlobalMaxPool" | "GlobalAveragePool" => pool(node, x),
        "Flatten" => {
            let rows = x.shape()[..node.int("axis", 1) as usize].iter().product::<usize>();
            x.to_shape(vec![rows, x.len() / rows]).unwrap().to_owned()
        }
        "Squeeze" => {
            let kept = x.shape().iter().copied().filter(|&dim| dim != 1).collect::<Vec<_>>();
            x.to_shape(kept).unwrap().to_owned()
        }
        "DequantizeLinear" => dequantize(node, x, input(1), given(2)),
        "Transpose" => match node.ints("perm") {
            Some(perm) => x.clone().permuted_axes(perm.iter().map(|&a| a as usize).collect::<Vec<_>>()),
            None => x.t().to_owned(),
        },
        "Reshape" => {
            let mut dims = integers(1);
            dims.iter_mut().enumerate().filter(|(_, dim)| **dim == 0).for_each(|(i, dim)| *dim = x.shape()[i] as i64);
            let known = dims.iter().filter(|&&dim| dim > 0).product::<i64>();
            let dims = dims.iter().map(|&dim| if dim < 0 { x.len() as i64 / known } else { dim } as usize);
            ArrayD::from_shape_vec(dims.collect::<Vec<_>>(), x.iter().copied().collect()).unwrap()
        }
        "Pad" => pad(node, x, given(1), given(3)),
        other => panic!("no interpreter for {other}"),
    }
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
