//! Moves a scale a channel from a layer's input into its weights.
//!
//! # Problem
//!
//! A few channels of an activation are often far larger than the rest, which costs precision where the activation
//! is quantized; channels of a weight differ likewise. For positive factors `d`, one a channel,
//!
//! ```text
//! X W = (X diag(d)^-1) (diag(d) W)
//! ```
//!
//! so that what one side has too much of can be moved to the other.
//!
//! # Method
//!
//! Every layer gets a weight of its own whose input rows are multiplied by `d`. The division goes, in this order,
//!
//! - into the producer, where nothing else reads the value: the weight and bias of a Conv, Gemm or MatMul, the
//!   scale and bias of a normalization, or the constants of a `Mul` and `Add` that stand for one. On the way
//!   there may be operators that a positive scale a channel passes unchanged (see the module `absorb`); each
//!   has to be read by the next alone. No node is added.
//! - into a `Mul` by `1 / d` that only these layers read.
//!
//! # Guarantee
//!
//! In exact arithmetic every output of the model is the same, and so is every value other than those between the
//! place of absorption and the layers.
//!
//! # Numerics
//!
//! Products are formed in f64 and rounded once to the type of the tensor. The `1 / d` of a `Mul` is rounded first
//! and the weights are multiplied by the reciprocal of what is stored. In f16 a small weight loses bits
//! when it is divided by a large factor. Whether `x / d` stays in the range of its type depends on the data.
//!
//! # Failure
//!
//! A [`MigrateError`], and the graph is as it was. A `Mul` needs opset 7, which is the caller's to check.
//!
//! # References
//!
//! Xiao et al., SmoothQuant, arXiv 2211.10438. Nagel et al., Data-Free Quantization Through Weight Equalization and
//! Bias Correction, arXiv 1906.04721.

use onnxquant_ir::onnx::TensorProto;
use onnxquant_ir::onnx::tensor_proto::DataType;
use onnxquant_ir::{Graph, NewNode, NodeId, TensorError, Use, ValueId, tensor};

use super::absorb::{self, Place};
use super::change::{Change, stored};
use crate::find::sites::Site;
use crate::graph::constant_chain;
use crate::layers::Channels;

/// Where the division went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Absorbed {
    /// Into constants of the nodes that make the value; no node was added.
    IntoProducer,
    /// Into a new `Mul` before the layers.
    ByMul,
}

/// Why scales cannot be migrated; the graph was not changed.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[allow(missing_docs, reason = "the fields are what the message names")]
pub enum MigrateError {
    /// There is nothing to migrate into.
    #[error("cannot migrate scales of `{value}`: no layer is given")]
    NoLayer { value: String },
    /// The site was found in another graph, or before the layer was changed.
    #[error("cannot migrate scales of `{value}`: {layer} no longer reads it with the weight it was found with")]
    Stale { value: String, layer: String },
    /// Its weight would be scaled twice.
    #[error("cannot migrate scales of `{value}`: {layer} is given twice")]
    Twice { value: String, layer: String },
    /// The layers disagree on what the channels of the value are, or on its type.
    #[error("cannot migrate scales of `{value}`: {layer} reads other channels or another type than {first}")]
    Mixed { value: String, layer: String, first: String },
    /// There is not one factor a channel.
    #[error("cannot migrate scales of `{value}`: found {found} factors, expected {expected} for the inputs of {layer}")]
    Count { value: String, layer: String, found: usize, expected: usize },
    /// A factor is not positive and finite.
    #[error("cannot migrate scales of `{value}`: factor {index} is {factor}, expected a positive finite number")]
    Factor { value: String, index: usize, factor: f32 },
    /// A number would be infinite, or a reciprocal too small.
    #[error("cannot migrate scales of `{value}`: {what} leaves the range of {dtype}")]
    Range { value: String, what: String, dtype: &'static str },
    /// A weight cannot be read.
    #[error(transparent)]
    Weight(#[from] TensorError),
}

/// Lets `sites` read `value` divided by `factors`, and multiplies the input rows of their weights by them.
///
/// The channels of `value` are its last axis for MatMul and Gemm and axis 1 for convolutions. The layers have to be found
/// again afterwards (see [`crate::sites::find_sites`]): weights, and inputs behind a `Mul`, are other values.
pub fn migrate(graph: &mut Graph, value: ValueId, sites: &[Site], factors: &[f32]) -> Result<Absorbed, MigrateError> {
    let place = check(graph, value, sites, factors)?;
    let wide = factors.iter().copied().map(f64::from).collect::<Vec<_>>();
    let reciprocals = wide.iter().map(|d| d.recip()).collect::<Vec<_>>();
    let upstream = only_read_by(graph, value, sites).then(|| absorb::plan(graph, value, place, &reciprocals));
    if let Some(mut changes) = upstream.flatten() {
        changes.extend(scaled_weights(graph, value, sites, &wide)?);
        apply(graph, changes);
        return Ok(Absorbed::IntoProducer);
    }
    let divisor = stored_reciprocals(graph, value, sites, &reciprocals)?;
    let stored = tensor::to_f32(&divisor)?.iter().map(|&r| f64::from(r).recip()).collect::<Vec<_>>();
    let changes = scaled_weights(graph, value, sites, &stored)?;
    insert_mul(graph, value, sites, divisor);
    apply(graph, changes);
    Ok(Absorbed::ByMul)
}

/// Whether [`migrate`] would add no node: what makes `value` can take any factors.
pub fn can_absorb(graph: &Graph, value: ValueId, sites: &[Site]) -> bool {
    let Some(channels) = sites.first().map(|site| site.view.in_channels()) else { return false };
    let ones = vec![1.0; channels];
    let place = check(graph, value, sites, &vec![1.0; channels]);
    place.is_ok_and(|place| only_read_by(graph, value, sites) && absorb::plan(graph, value, place, &ones).is_some())
}

fn check(graph: &Graph, value: ValueId, sites: &[Site], factors: &[f32]) -> Result<Place, MigrateError> {
    let name = || graph.value(value).name().to_owned();
    let first = sites.first().ok_or_else(|| MigrateError::NoLayer { value: name() })?;
    let mut place = place(first);
    for (index, site) in sites.iter().enumerate() {
        let layer = || graph.describe(site.node);
        let node = graph.node(site.node);
        if node.input(0) != Some(value) || node.input(1) != Some(site.weight) {
            return Err(MigrateError::Stale { value: name(), layer: layer() });
        }
        if sites[..index].iter().any(|other| other.node == site.node) {
            return Err(MigrateError::Twice { value: name(), layer: layer() });
        }
        let joint = place.and(self::place(site)).filter(|_| site.dtype == first.dtype);
        let mixed = || MigrateError::Mixed { value: name(), layer: layer(), first: graph.describe(first.node) };
        place = joint.ok_or_else(mixed)?;
        let expected = site.view.in_channels();
        if factors.len() != expected {
            return Err(MigrateError::Count { value: name(), layer: layer(), found: factors.len(), expected });
        }
    }
    let wrong = factors.iter().position(|d| !(d.is_finite() && *d > 0.0));
    wrong.map_or(Ok(place), |index| Err(MigrateError::Factor { value: name(), index, factor: factors[index] }))
}

/// Where the channels of the layer's input stand.
fn place(site: &Site) -> Place {
    match site.layer.channels() {
        Channels::Second => Place::second_of(site.view.spatial_rank() + 2),
        Channels::Columns => Place::columns(),
        Channels::Last => Place::last(),
    }
}

/// Whether every reader of `value` is the data slot of one of the layers.
fn only_read_by(graph: &Graph, value: ValueId, sites: &[Site]) -> bool {
    let is_site = |user: &Use| matches!(*user, Use::Input(node, 0) if sites.iter().any(|site| site.node == node));
    graph.value(value).uses().iter().all(is_site)
}

fn scaled_weights(graph: &Graph, value: ValueId, sites: &[Site], factors: &[f64]) -> Result<Vec<Change>, MigrateError> {
    let scaled = |site: &Site| {
        let layer = || graph.describe(site.node);
        let value = || graph.value(value).name().to_owned();
        let (tensor, shape) = (site.weight_tensor(graph)?, site.view.weight_shape());
        if tensor::shape(&tensor)? != shape {
            return Err(MigrateError::Stale { value: value(), layer: layer() });
        }
        let numbers = tensor::to_f32(&tensor)?;
        let product = |(index, &w): (usize, &f32)| f64::from(w) * factors[site.view.channel_and_output(index).0];
        let tensor = stored(site.dtype, &shape, numbers.iter().enumerate().map(product));
        let range = || range_error(value(), format!("the weight of {}", layer()), site.dtype);
        Ok(Change { node: site.node, slot: 1, tensor: tensor.ok_or_else(range)? })
    };
    sites.iter().map(scaled).collect()
}

fn range_error(value: String, what: String, dtype: DataType) -> MigrateError {
    MigrateError::Range { value, what, dtype: dtype.as_str_name() }
}

/// The second operand of the `Mul`: `[K]`, or `[1, C, 1, ...]` for a convolution.
fn stored_reciprocals(
    graph: &Graph,
    value: ValueId,
    sites: &[Site],
    reciprocals: &[f64],
) -> Result<TensorProto, MigrateError> {
    const SMALLEST_F16: f32 = 6.103_515_6e-5;
    let (dims, dtype) = match sites.first() {
        Some(site) if site.layer.channels() == Channels::Second => {
            ([vec![1, reciprocals.len()], vec![1; site.view.spatial_rank()]].concat(), site.dtype)
        }
        Some(site) => (vec![reciprocals.len()], site.dtype),
        None => (vec![reciprocals.len()], DataType::Float),
    };
    let smallest = if dtype == DataType::Float16 { SMALLEST_F16 } else { f32::MIN_POSITIVE };
    let normal = |tensor: &TensorProto| tensor::to_f32(tensor).is_ok_and(|all| all.iter().all(|&r| r >= smallest));
    let tensor = stored(dtype, &dims, reciprocals.iter().copied()).filter(normal);
    let name = || graph.value(value).name().to_owned();
    tensor.ok_or_else(|| range_error(name(), "the reciprocal of a factor".to_owned(), dtype))
}

/// Lets the layers, and nothing else, read the product of `value` and `factor`.
fn insert_mul(graph: &mut Graph, value: ValueId, sites: &[Site], factor: TensorProto) {
    let is_site = |id: &NodeId| sites.iter().any(|site| site.node == *id);
    let first = graph.order().iter().copied().find(is_site).expect("the layers were found in the graph");
    let name = graph.value(value).name().to_owned();
    let factor = graph.add_constant(&format!("{name}_factors"), factor);
    let new = NewNode {
        op_type: "Mul",
        name: format!("{name}_scaled_Mul"),
        inputs: vec![Some(value), Some(factor)],
        outputs: vec![format!("{name}_scaled")],
        attributes: vec![],
    };
    let product = graph.insert_before(first, new);
    let product = graph.node(product).output(0);
    sites.iter().for_each(|site| graph.set_input(site.node, 0, product));
}

/// Gives every changed input an initializer of its own; the old ones go when nothing reads them any more.
fn apply(graph: &mut Graph, changes: Vec<Change>) {
    let mut replaced = Vec::new();
    for Change { node, slot, tensor } in changes {
        let Some(old) = graph.node(node).input(slot) else { continue };
        let source = constant_chain::source(graph, old).unwrap_or(old);
        let name = format!("{}_scaled", graph.value(source).name());
        let new = graph.add_constant(&name, tensor);
        graph.set_input(node, slot, Some(new));
        replaced.push(old);
    }
    replaced.into_iter().for_each(|value| graph.remove_if_unused(value));
}

#[cfg(test)]
#[path = "migrate_scale_tests.rs"]
mod tests;
