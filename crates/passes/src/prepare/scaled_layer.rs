//! Gives a Conv, a ConvTranspose of one group or a Gemm other weights, so that its result is scaled and shifted a channel.
//!
//! ```text
//! W' = W * factor            (per output channel)
//! b' = b * factor + offset
//! ```
//!
//! The layer must have plain f32 constants: a weight that nothing else reads, and a bias of one number a channel or none.
//! A Gemm must have alpha and beta of 1.

use onnxquant_ir::onnx::tensor_proto::DataType;
use onnxquant_ir::{Graph, GraphError, NodeId, ValueId, tensor};

use crate::layers::{self, Bias};

/// A layer whose weights can be changed.
pub(crate) struct ScaledLayer {
    pub(crate) node: NodeId,
    weight: ValueId,
    shape: Vec<usize>,
    channel_axis: usize,
    bias_slot: usize,
    bias: Vec<f32>,
}

/// What is written, computed before anything is changed.
pub(crate) struct Scaled {
    layer: ScaledLayer,
    weights: Vec<f32>,
    bias: Vec<f32>,
}

impl ScaledLayer {
    /// The layer that makes `value`, of which `value` is the only result and which nothing but one node reads.
    pub(crate) fn before(graph: &Graph, value: ValueId) -> Option<Self> {
        let (node, found) = graph.producer(value)?;
        let alone = graph.value(value).uses().len() == 1 && found.outputs().len() == 1;
        alone.then(|| Self::new(graph, node))?
    }

    fn new(graph: &Graph, node: NodeId) -> Option<Self> {
        let found = graph.node(node);
        let weight = found.input(1)?;
        let shape = own_shape(graph, weight)?;
        let layer = layers::layer(found).filter(|layer| layer.is_plain(found))?;
        let Bias::Input(bias_slot) = layer.bias() else { return None };
        let channel_axis = layer.output_axis(found, shape.len())?;
        let channels = *shape.get(channel_axis).filter(|_| !shape.contains(&0))?;
        let bias = match found.input(bias_slot) {
            Some(bias) => row(graph, bias, channels)?,
            None => vec![0.0; channels],
        };
        Some(Self { node, weight, shape, channel_axis, bias_slot, bias })
    }

    pub(crate) fn channels(&self) -> usize {
        self.bias.len()
    }

    /// Dimensions of the result.
    pub(crate) fn rank(&self) -> usize {
        self.shape.len()
    }

    /// The layer with its result multiplied by `factors`, then `offsets` added, one number a channel each.
    ///
    /// `None` where a number would not be finite.
    pub(crate) fn scaled(self, graph: &Graph, factors: &[f64], offsets: &[f64]) -> Option<Scaled> {
        let old = tensor::to_f32(graph.value(self.weight).constant()?).ok()?;
        let run = self.shape[self.channel_axis + 1..].iter().product::<usize>();
        let channels = self.channels();
        let weight = |(index, &w): (usize, &f32)| (f64::from(w) * factors[index / run % channels]) as f32;
        let weights = old.iter().enumerate().map(weight).collect::<Vec<f32>>();
        let bias = |c: usize| (f64::from(self.bias[c]) * factors[c] + offsets[c]) as f32;
        let bias = (0..channels).map(bias).collect::<Vec<f32>>();
        let finite = weights.iter().chain(&bias).all(|x| x.is_finite());
        finite.then_some(Scaled { layer: self, weights, bias })
    }
}

impl Scaled {
    /// Writes the new weights; `after`, the only reader of the layer, goes, and the layer makes what it made.
    ///
    /// `data` is the slot in which `after` reads the layer.
    pub(crate) fn replace(self, graph: &mut Graph, after: NodeId, data: usize) -> Result<(), GraphError> {
        let ScaledLayer { node, weight, shape, bias_slot, .. } = self.layer;
        graph.set_tensor(weight, tensor::from_f32(&shape, &self.weights));
        let old_bias = graph.node(node).input(bias_slot);
        let base = format!("{}_folded_bias", graph.value(weight).name());
        let new_bias = graph.add_constant(&base, tensor::from_f32(&[self.bias.len()], &self.bias));
        graph.set_input(node, bias_slot, Some(new_bias));
        // A Gemm without bias may have any beta, which meant nothing until now.
        graph.remove_attribute(node, "beta");
        let result = graph.node(after).output(0);
        graph.set_input(after, data, None);
        let orphans = graph.node(after).inputs().iter().copied().flatten().chain(old_bias).collect::<Vec<_>>();
        if let Some(result) = result {
            graph.take_over_output(node, 0, result)?;
        }
        graph.remove_node(after)?;
        orphans.into_iter().for_each(|value| graph.remove_if_unused(value));
        Ok(())
    }
}

/// The shape of an f32 constant that only one node reads.
pub(crate) fn own_shape(graph: &Graph, value: ValueId) -> Option<Vec<usize>> {
    let found = graph.value(value);
    let tensor = found.constant().filter(|tensor| tensor.data_type() == DataType::Float as i32)?;
    (found.uses().len() == 1).then(|| tensor::shape(tensor).ok())?
}

/// The numbers of an f32 constant with one entry a channel.
pub(crate) fn numbers(graph: &Graph, value: ValueId, channels: usize) -> Option<Vec<f32>> {
    let tensor = graph.value(value).constant().filter(|tensor| tensor.data_type() == DataType::Float as i32)?;
    let numbers = tensor::to_f32(tensor).ok()?;
    (numbers.len() == channels).then(|| numbers.into_owned())
}

/// Likewise, and no column, which a Gemm would add to every output alike.
pub(crate) fn row(graph: &Graph, value: ValueId, channels: usize) -> Option<Vec<f32>> {
    let dims = &graph.value(value).constant()?.dims;
    dims.iter().rev().skip(1).all(|&dim| dim == 1).then(|| numbers(graph, value, channels))?
}
