//! Folds a BatchNormalization into the Conv or Gemm that feeds it.
//!
//! The fold is exact in real arithmetic and changes results only by rounding:
//!
//! ```text
//! W' = W * g / sqrt(v + eps)              (per output channel)
//! b' = (b - m) * g / sqrt(v + eps) + beta
//! ```
//!
//! Not folded: a layer whose output has another user or is a graph output; weights, biases or statistics
//! that are not plain constants of their own (shared, graph inputs, made by nodes); types other than f32;
//! nodes in training mode (or with more than one output); layers without weights; a Gemm with alpha or beta other than 1 or a bias that is
//! not one number a column. Subgraphs are not entered.

use onnxquant_ir::onnx::tensor_proto::DataType;
use onnxquant_ir::{Graph, GraphError, Model, Node, NodeId, ValueId, tensor};

/// Default of the operator's `epsilon`.
const EPSILON: f32 = 1e-5;

/// Folds wherever it is exact; returns the number of nodes folded.
pub fn fold_batchnorm(model: &mut Model) -> Result<usize, GraphError> {
    let graph = model.graph_mut();
    let norms = graph.nodes().filter(|(_, node)| node.is("BatchNormalization")).map(|(id, _)| id).collect::<Vec<_>>();
    let mut folded = 0;
    for norm in norms {
        if let Some(fold) = plan(graph, norm) {
            apply(graph, norm, fold)?;
            folded += 1;
        }
    }
    Ok(folded)
}

/// Everything the fold writes, computed before anything is changed.
struct Fold {
    layer: NodeId,
    weight: ValueId,
    weights: Vec<f32>,
    bias: Vec<f32>,
}

fn plan(graph: &Graph, norm: NodeId) -> Option<Fold> {
    let node = graph.node(norm);
    let inference = node.outputs().iter().flatten().count() == 1
        && node.int("training_mode", 0) == 0
        && node.int("is_test", 1) != 0
        && node.int("spatial", 1) != 0
        && node.output(0).is_some();
    let between = node.input(0).filter(|_| inference)?;
    let (layer, found) = graph.producer(between)?;
    if graph.value(between).uses().len() != 1 || found.outputs().len() != 1 {
        return None;
    }
    let weight = found.input(1)?;
    let shape = own_shape(graph, weight)?;
    let channel_axis = channel_axis(found, &shape)?;
    let (channels, run) = (*shape.get(channel_axis)?, shape.get(channel_axis + 1..)?);
    if shape.contains(&0) {
        return None;
    }
    let parameter = |slot| numbers(graph, node.input(slot)?, channels);
    let (gamma, beta, mean, variance) = (parameter(1)?, parameter(2)?, parameter(3)?, parameter(4)?);
    let epsilon = f64::from(node.float("epsilon", EPSILON));
    let factor = |c: usize| f64::from(gamma[c]) / (f64::from(variance[c]) + epsilon).sqrt();
    let factors = (0..channels).map(factor).collect::<Vec<f64>>();

    let old_bias = match found.input(2) {
        Some(bias) => row(graph, bias, channels)?,
        None => vec![0.0; channels],
    };
    let bias = |c: usize| (f64::from(old_bias[c]) - f64::from(mean[c])) * factors[c] + f64::from(beta[c]);
    let bias = (0..channels).map(|c| bias(c) as f32).collect::<Vec<f32>>();
    let old = tensor::to_f32(graph.value(weight).constant()?).ok()?;
    let run = run.iter().product::<usize>();
    let scaled = |(index, &w): (usize, &f32)| (f64::from(w) * factors[index / run % channels]) as f32;
    let weights = old.iter().enumerate().map(scaled).collect::<Vec<f32>>();
    let finite = weights.iter().chain(&bias).all(|x| x.is_finite());
    finite.then_some(Fold { layer, weight, weights, bias })
}

/// The axis of the weight that numbers output channels, for the layers that can be folded into.
fn channel_axis(layer: &Node, shape: &[usize]) -> Option<usize> {
    if layer.is("Conv") && shape.len() >= 3 {
        return Some(0);
    }
    let plain = layer.float("alpha", 1.0) == 1.0 && (layer.float("beta", 1.0) == 1.0 || layer.input(2).is_none());
    let gemm = layer.is("Gemm") && shape.len() == 2 && plain;
    gemm.then(|| if layer.int("transB", 0) != 0 { 0 } else { 1 })
}

/// The shape of an f32 constant that only one node reads.
fn own_shape(graph: &Graph, value: ValueId) -> Option<Vec<usize>> {
    let found = graph.value(value);
    let tensor = found.constant().filter(|tensor| tensor.data_type() == DataType::Float as i32)?;
    (found.uses().len() == 1).then(|| tensor::shape(tensor).ok())?
}

/// The numbers of an f32 constant with one entry a channel.
fn numbers(graph: &Graph, value: ValueId, channels: usize) -> Option<Vec<f32>> {
    let tensor = graph.value(value).constant().filter(|tensor| tensor.data_type() == DataType::Float as i32)?;
    let numbers = tensor::to_f32(tensor).ok()?;
    (numbers.len() == channels).then(|| numbers.into_owned())
}

/// Likewise, and no column, which a Gemm would add to every output alike.
fn row(graph: &Graph, value: ValueId, channels: usize) -> Option<Vec<f32>> {
    let dims = &graph.value(value).constant()?.dims;
    dims.iter().rev().skip(1).all(|&dim| dim == 1).then(|| numbers(graph, value, channels))?
}

fn apply(graph: &mut Graph, norm: NodeId, fold: Fold) -> Result<(), GraphError> {
    let Fold { layer, weight, weights, bias } = fold;
    let shape =
        graph.value(weight).tensor().map(|tensor| tensor::shape(tensor).unwrap_or_default()).unwrap_or_default();
    graph.set_tensor(weight, tensor::from_f32(&shape, &weights));
    let old_bias = graph.node(layer).input(2);
    let base = format!("{}_folded_bias", graph.value(weight).name());
    let new_bias = graph.add_constant(&base, tensor::from_f32(&[bias.len()], &bias));
    graph.set_input(layer, 2, Some(new_bias));
    // A Gemm without bias may have any beta, which meant nothing until now.
    graph.remove_attribute(layer, "beta");
    let orphans = graph.node(norm).inputs().iter().skip(1).copied().flatten().chain(old_bias).collect::<Vec<_>>();
    let result = graph.node(norm).output(0);
    graph.set_input(norm, 0, None);
    if let Some(result) = result {
        graph.take_over_output(layer, 0, result)?;
    }
    graph.remove_node(norm)?;
    orphans.into_iter().for_each(|value| graph.remove_if_unused(value));
    Ok(())
}

#[cfg(test)]
#[path = "fold_batchnorm_tests.rs"]
mod tests;
