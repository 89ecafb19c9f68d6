//! Folds multiplications and additions of constants into the layer beside them.
//!
//! # Problem
//!
//! Networks scale and shift channels with operators of their own. Each is a pass over the whole tensor, keeps the runtime
//! from fusing the activation behind a Conv, and on 8-bit codes costs a rounding.
//!
//! # Method
//!
//! | found | becomes |
//! |---|---|
//! | layer -> Mul, Div, Add or Sub by a constant | the layer with other weights and bias |
//! | Mul or Div by a number -> Convs, ConvTransposes, Gemms | the layers with other weights |
//! | Add or Sub of a number -> Convs without padding, Gemms | the layers with other biases |
//! | Mul or Div by a number -> Add or Sub of a number -> Convs with padding | `s x + b = s (x + b / s)`: the Add alone |
//!
//! Behind a layer the constant may have one number a channel. What stands behind is folded first: only what is left
//! there goes ahead.
//!
//! # Guarantee
//!
//! Exact in real arithmetic; results change by rounding only.
//!
//! # Failure
//!
//! Left alone: values with other readers or that are graph outputs, weights and constants that are shared, computed or
//! overridable, types other than f32, results that would not be finite, factors of 0 before an Add, Convs that choose
//! their padding themselves (`auto_pad` of `SAME_*`) behind an addition. Subgraphs are not entered.

use onnxquant_ir::onnx::TensorProto;
use onnxquant_ir::onnx::tensor_proto::DataType;
use onnxquant_ir::{Graph, GraphError, Model, Node, NodeId, Use, ValueId, tensor};
use onnxquant_quant::MatrixView;

use crate::layers::{self, Bias, Layer};
use crate::prepare::scaled_layer::{Scaled, ScaledLayer, numbers, own_shape, row};

/// Folds wherever it is exact; returns the number of nodes removed.
pub fn fold_affine(model: &mut Model) -> Result<usize, GraphError> {
    let graph = model.graph_mut();
    let nodes = graph.nodes().filter(|(_, node)| is_affine(node)).map(|(id, _)| id).collect::<Vec<_>>();
    let (mut removed, mut left) = (0, Vec::new());
    for node in nodes {
        match behind(graph, node) {
            Some((scaled, data)) => {
                scaled.replace(graph, node, data)?;
                removed += 1;
            }
            None => left.push(node),
        }
    }
    // From the last to the first: what reads a Mul is a layer when the Add between is gone.
    for node in left.into_iter().rev() {
        if let Some(fold) = ahead(graph, node) {
            fold.apply(graph, node)?;
            removed += 1;
        }
    }
    Ok(removed)
}

fn is_affine(node: &Node) -> bool {
    ["Mul", "Div", "Add", "Sub"].iter().any(|op_type| node.is(op_type))
}

/// A Mul, Div, Add or Sub with one constant operand: `x * factor + offset`, one number or one a channel.
struct Affine {
    /// The slot of the other operand.
    data: usize,
    factors: Vec<f64>,
    offsets: Vec<f64>,
}

impl Affine {
    /// What `node` does to a value of `rank` dimensions whose second one counts `channels`.
    fn new(graph: &Graph, node: &Node, rank: usize, channels: usize) -> Option<Self> {
        let plain = node.attribute("axis").is_none() && node.attribute("broadcast").is_none();
        if !is_affine(node) || !plain || node.inputs().len() != 2 {
            return None;
        }
        let (data, constant) = (0..2)
            .map(|slot| (slot, node.input(1 - slot)))
            .find_map(|(slot, other)| Some((slot, channel_numbers(graph, other?, rank, channels)?)))?;
        let (ones, zeros): (Vec<f64>, Vec<f64>) = (vec![1.0; constant.len()], vec![0.0; constant.len()]);
        let negative = || constant.iter().map(|c| -c).collect::<Vec<f64>>();
        let (factors, offsets) = match (node.op_type(), data) {
            ("Mul", _) => (constant, zeros),
            ("Div", 0) => (constant.iter().map(|c| 1.0 / c).collect(), zeros),
            ("Add", _) => (ones, constant),
            ("Sub", 0) => (ones, negative()),
            ("Sub", _) => (vec![-1.0; constant.len()], constant),
            _ => return None,
        };
        Some(Self { data, factors, offsets })
    }

    /// One number each.
    fn scalar(graph: &Graph, node: &Node) -> Option<(usize, f64, f64)> {
        // The constant must not add dimensions to the value, which has as many as a layer takes at least.
        let affine = Self::new(graph, node, 2, 1)?;
        let finite = affine.factors[0].is_finite() && affine.offsets[0].is_finite();
        finite.then_some((affine.data, affine.factors[0], affine.offsets[0]))
    }
}

/// The numbers of an f32 constant that acts on channels alone: `channels` of them.
fn channel_numbers(graph: &Graph, value: ValueId, rank: usize, channels: usize) -> Option<Vec<f64>> {
    let tensor = graph.value(value).constant().filter(|tensor| tensor.data_type() == DataType::Float as i32)?;
    let dims = tensor::shape(tensor).ok().filter(|dims| dims.len() <= rank)?;
    let numbers = tensor::to_f32(tensor).ok()?;
    let axis = (dims.len() + 1).checked_sub(rank);
    match numbers.len() {
        1 => Some(vec![f64::from(numbers[0]); channels]),
        count if count == channels && axis.and_then(|axis| dims.get(axis)) == Some(&channels) => {
            Some(numbers.iter().map(|&number| f64::from(number)).collect())
        }
        _ => None,
    }
}

/// The layer before `node` with what `node` does in its weights, and the slot in which `node` reads it.
fn behind(graph: &Graph, node: NodeId) -> Option<(Scaled, usize)> {
    let found = graph.node(node);
    (0..2).find_map(|slot| {
        let layer = ScaledLayer::before(graph, found.input(slot)?)?;
        let affine = Affine::new(graph, found, layer.rank(), layer.channels()).filter(|affine| affine.data == slot)?;
        Some((layer.scaled(graph, &affine.factors, &affine.offsets)?, slot))
    })
}

/// What the readers of a node get instead, computed before anything is changed.
struct Ahead {
    /// The slot in which the node reads its data.
    data: usize,
    constants: Constants,
    /// Readers and their slots.
    readers: Vec<(NodeId, usize)>,
}

fn ahead(graph: &Graph, node: NodeId) -> Option<Ahead> {
    let found = graph.node(node);
    let (data, factor, offset) = Affine::scalar(graph, found)?;
    let result = found.output(0)?;
    if found.input(data).is_none() || graph.is_output(result) {
        return None;
    }
    if factor == 1.0 {
        let (constants, readers) = to_readers(graph, result, |reader| shifted(graph, reader, offset))?;
        return Some(Ahead { data, constants, readers });
    }
    let scale_all = |value: ValueId| to_readers(graph, value, |reader| scaled(graph, reader, factor));
    if offset != 0.0 {
        return None;
    }
    if let Some((constants, readers)) = scale_all(result) {
        return Some(Ahead { data, constants, readers });
    }
    // s x + b = s (x + b / s)
    let [Use::Input(add, slot)] = graph.value(result).uses() else { return None };
    let sum = graph.node(*add);
    let (add_data, 1.0, b) = Affine::scalar(graph, sum)? else { return None };
    let constant_slot = 1 - add_data;
    let own = graph.value(sum.input(constant_slot)?).uses().len() == 1;
    let shifted = (b / factor) as f32;
    let total = sum.output(0).filter(|total| !graph.is_output(*total) && *slot == add_data && own)?;
    let (mut constants, _) = scale_all(total)?;
    let shape = tensor::shape(graph.value(sum.input(constant_slot)?).constant()?).ok()?;
    // Sub subtracts its constant.
    let shifted = if sum.is("Sub") { -shifted } else { shifted };
    constants.push((*add, constant_slot, vec![shifted], shape));
    shifted.is_finite().then_some(Ahead { data, constants, readers: vec![(*add, *slot)] })
}

/// Constants of the readers: node, slot, numbers, shape.
type Constants = Vec<(NodeId, usize, Vec<f32>, Vec<usize>)>;

/// New constants for every reader of `value`; `None` where one cannot take them.
fn to_readers(
    graph: &Graph,
    value: ValueId,
    change: impl Fn(NodeId) -> Option<(usize, Vec<f32>, Vec<usize>)>,
) -> Option<(Constants, Vec<(NodeId, usize)>)> {
    let (mut constants, mut readers) = (Vec::new(), Vec::new());
    for user in graph.value(value).uses() {
        let Use::Input(reader, 0) = *user else { return None };
        let (slot, numbers, shape) = change(reader)?;
        if !numbers.iter().all(|x| x.is_finite()) {
            return None;
        }
        constants.push((reader, slot, numbers, shape));
        readers.push((reader, 0));
    }
    (!readers.is_empty()).then_some((constants, readers))
}

/// The weight of a layer whose input is not multiplied by `factor` any more.
fn scaled(graph: &Graph, reader: NodeId, factor: f64) -> Option<(usize, Vec<f32>, Vec<usize>)> {
    let found = Reader::new(graph, reader)?;
    let numbers = found.weights.iter().map(|&w| (f64::from(w) * factor) as f32).collect();
    Some((1, numbers, found.view.weight_shape()))
}

/// The bias of a layer whose input is not raised by `offset` any more.
fn shifted(graph: &Graph, reader: NodeId, offset: f64) -> Option<(usize, Vec<f32>, Vec<usize>)> {
    let node = graph.node(reader);
    let found = Reader::new(graph, reader).filter(|found| found.layer.sums_all_weights(node))?;
    let outputs = found.view.groups() * found.view.outputs();
    let mut sums = vec![0.0; outputs];
    let weights = found.weights.iter().enumerate();
    weights.for_each(|(index, &w)| sums[found.view.channel_and_output(index).1] += f64::from(w));
    let old = match node.input(found.bias) {
        Some(bias) => row(graph, bias, outputs)?,
        None => vec![0.0; outputs],
    };
    let bias = old.iter().zip(&sums).map(|(&b, sum)| (f64::from(b) + offset * sum) as f32).collect();
    Some((found.bias, bias, vec![outputs]))
}

/// A layer without factors, with a bias of its own and a weight that nothing else reads.
struct Reader {
    layer: &'static dyn Layer,
    weights: Vec<f32>,
    view: MatrixView,
    /// The slot of the bias.
    bias: usize,
}

impl Reader {
    fn new(graph: &Graph, reader: NodeId) -> Option<Self> {
        let node = graph.node(reader);
        let layer = layers::layer(node)?;
        let Bias::Input(bias) = layer.bias() else { return None };
        let value = node.input(1)?;
        let shape = own_shape(graph, value).filter(|shape| !shape.contains(&0))?;
        let view = layer.view(node, &shape).ok()?;
        let weights = numbers(graph, value, shape.iter().product())?;
        Some(Self { layer, weights, view, bias })
    }
}

impl Ahead {
    fn apply(self, graph: &mut Graph, node: NodeId) -> Result<(), GraphError> {
        let source = graph.node(node).input(self.data);
        let constant = graph.node(node).input(1 - self.data);
        for (reader, slot, numbers, shape) in self.constants {
            write(graph, reader, slot, tensor::from_f32(&shape, &numbers));
        }
        self.readers.iter().for_each(|&(reader, slot)| graph.set_input(reader, slot, source));
        graph.remove_node(node)?;
        constant.into_iter().for_each(|constant| graph.remove_if_unused(constant));
        Ok(())
    }
}

/// Lets `reader` read other numbers; whatever else reads the old ones sees no change.
fn write(graph: &mut Graph, reader: NodeId, slot: usize, tensor: TensorProto) {
    let old = graph.node(reader).input(slot);
    if layers::layer(graph.node(reader)).is_some_and(|layer| layer.bias() == Bias::Input(slot)) {
        // Of a Gemm: 1 where there was a bias, and without meaning where there was none.
        graph.remove_attribute(reader, "beta");
    }
    match old.filter(|&old| graph.value(old).uses().len() == 1) {
        Some(own) => graph.set_tensor(own, tensor),
        None => {
            let label = graph.label(reader).to_owned();
            let new = graph.add_constant(&format!("{label}_bias"), tensor);
            graph.set_input(reader, slot, Some(new));
        }
    }
}

#[cfg(test)]
#[path = "fold_affine_tests.rs"]
mod tests;
