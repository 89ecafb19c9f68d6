//! Folds a BatchNormalization into the Conv, ConvTranspose of one group or Gemm that feeds it.
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

use onnxquant_ir::{Graph, GraphError, Model, NodeId};

use crate::prepare::scaled_layer::{Scaled, ScaledLayer, numbers};

/// Default of the operator's `epsilon`.
const EPSILON: f32 = 1e-5;

/// Folds wherever it is exact; returns the number of nodes folded.
pub fn fold_batchnorm(model: &mut Model) -> Result<usize, GraphError> {
    let graph = model.graph_mut();
    let norms = graph.nodes().filter(|(_, node)| node.is("BatchNormalization")).map(|(id, _)| id).collect::<Vec<_>>();
    let mut folded = 0;
    for norm in norms {
        if let Some(scaled) = plan(graph, norm) {
            scaled.replace(graph, norm, 0)?;
            folded += 1;
        }
    }
    Ok(folded)
}

fn plan(graph: &Graph, norm: NodeId) -> Option<Scaled> {
    let node = graph.node(norm);
    let inference = node.outputs().iter().flatten().count() == 1
        && node.int("training_mode", 0) == 0
        && node.int("is_test", 1) != 0
        && node.int("spatial", 1) != 0
        && node.output(0).is_some();
    let layer = ScaledLayer::before(graph, node.input(0).filter(|_| inference)?)?;
    let channels = layer.channels();
    let parameter = |slot| numbers(graph, node.input(slot)?, channels);
    let (gamma, beta, mean, variance) = (parameter(1)?, parameter(2)?, parameter(3)?, parameter(4)?);
    let epsilon = f64::from(node.float("epsilon", EPSILON));
    let factor = |c: usize| f64::from(gamma[c]) / (f64::from(variance[c]) + epsilon).sqrt();
    let factors = (0..channels).map(factor).collect::<Vec<f64>>();
    let offset = |c: usize| f64::from(beta[c]) - f64::from(mean[c]) * factors[c];
    let offsets = (0..channels).map(offset).collect::<Vec<f64>>();
    layer.scaled(graph, &factors, &offsets)
}

#[cfg(test)]
#[path = "fold_batchnorm_tests.rs"]
mod tests;
