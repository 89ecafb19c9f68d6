//! Finds constants upstream of a value that can take a positive factor a channel, exactly.
//!
//! | taken by | where |
//! |---|---|
//! | Conv, ConvTranspose of one group, Gemm, MatMul with a constant weight | weight and bias |
//! | LayerNormalization, RMSNormalization, BatchNormalization, InstanceNormalization | scale and bias |
//! | Mul by a constant with one number a channel | the constant |
//!
//! | passed on the way | why |
//! |---|---|
//! | Relu, LeakyRelu, PRelu with a constant slope | `f(c x) = c f(x)` for c > 0 |
//! | MaxPool, AveragePool, GlobalMaxPool, GlobalAveragePool | likewise; channels stay apart |
//! | Identity, Dropout | likewise, whatever Dropout drops |
//! | Add of a constant, which takes the factor too | `c (x + b) = c x + c b` |
//! | Mul by anything else, through one of its operands | `c (x y) = (c x) y` |
//! | Flatten, Reshape, Squeeze right behind a global pool | the only axes left are batch and channels |
//!
//! Every value on the way has one reader and is no graph output. Everything else ends the search: Clip (and
//! with it Relu6) is not homogeneous, a residual Add has two activations, and through other changes of shape
//! channels are not followed.

use onnxquant_ir::onnx::TensorProto;
use onnxquant_ir::onnx::tensor_proto::DataType;
use onnxquant_ir::{Graph, Node, NodeId, Use, ValueId, tensor};

use super::change::{Change, stored};
use crate::graph::constant_chain;
use crate::layers::{self, Bias, Channels};

/// Longest chain followed.
const MAX_LINKS: usize = 16;

/// Where the channels of a value stand.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    /// On the last axis.
    last: bool,
    /// On axis 1.
    second: bool,
    /// Number of axes, where it shows.
    rank: Option<usize>,
    /// Whether the value is known to have these axes; broadcasting may have added the foremost ones later.
    whole: bool,
}

impl Place {
    /// The last axis of any number.
    pub(super) fn last() -> Self {
        Self { last: true, second: false, rank: None, whole: true }
    }

    /// Columns of a matrix.
    pub(super) fn columns() -> Self {
        Self { last: true, second: true, rank: Some(2), whole: true }
    }

    /// Axis 1 of `rank`, which is at least 3.
    pub(super) fn second_of(rank: usize) -> Self {
        Self { last: false, second: true, rank: Some(rank), whole: true }
    }

    /// Both at once; `None` where they are different axes.
    pub(super) fn and(self, other: Self) -> Option<Self> {
        let same = self.last == other.last && (self.last || self.rank == other.rank);
        same.then_some(if self.second { self } else { other })
    }

    /// How many axes lie behind that of the channels: how broadcasting finds it.
    fn axes_behind(self) -> Option<usize> {
        if self.last { Some(0) } else { self.rank?.checked_sub(2) }
    }

    /// Of an operand, which may have fewer axes than the result.
    fn of_operand(self) -> Self {
        Self { whole: false, ..self }
    }
}

/// New constants that multiply `value` by `factors`; the caller vouches for its readers.
pub(super) fn plan(graph: &Graph, value: ValueId, place: Place, factors: &[f64]) -> Option<Vec<Change>> {
    Search { graph, factors }.at(value, place, MAX_LINKS)
}

struct Search<'a> {
    graph: &'a Graph,
    factors: &'a [f64],
}

impl Search<'_> {
    fn at(&self, value: ValueId, place: Place, links: usize) -> Option<Vec<Change>> {
        let (id, node) = self.graph.producer(value)?;
        if !node.domain().is_empty() || node.output(0) != Some(value) {
            return None;
        }
        match node.op_type() {
            "Relu" | "LeakyRelu" | "Identity" | "Dropout" => self.before(node, 0, place, links),
            "PRelu" if self.constant(node, 1).is_some() => self.before(node, 0, place, links),
            "MaxPool" | "AveragePool" | "GlobalMaxPool" | "GlobalAveragePool" if place.second => {
                self.before(node, 0, place, links)
            }
            "Flatten" | "Reshape" | "Squeeze" if place.last && self.follows_global_pool(node) => {
                // Row-major [batch, channels, 1, ...]: as many channels as the result has columns, or nothing takes
                // the factors in the end.
                let place = Place { last: false, second: true, rank: None, whole: true };
                self.before(node, 0, place, links)
            }
            "Add" => self.add(id, node, place, links),
            "Mul" => self
                .vector(id, node, place)
                .or_else(|| (0..2).find_map(|slot| self.before(node, slot, place.of_operand(), links))),
            "LayerNormalization" | "RMSNormalization" if place.last => self.parameters(id, node),
            "BatchNormalization" if node.int("spatial", 1) == 0 => None,
            "BatchNormalization" | "InstanceNormalization" if place.second && (place.whole || place.last) => {
                self.parameters(id, node).filter(|changes| changes.iter().all(|change| change.tensor.dims.len() == 1))
            }
            _ => self.layer(id, node, place),
        }
    }

    /// Goes on at an input that nothing else reads.
    fn before(&self, node: &Node, slot: usize, place: Place, links: usize) -> Option<Vec<Change>> {
        let value = node.input(slot)?;
        match self.graph.value(value).uses() {
            [Use::Input(..)] => self.at(value, place, links.checked_sub(1)?),
            _ => None,
        }
    }

    fn follows_global_pool(&self, node: &Node) -> bool {
        let producer = node.input(0).and_then(|value| self.graph.producer(value));
        producer.is_some_and(|(_, node)| node.is("GlobalAveragePool") || node.is("GlobalMaxPool"))
    }

    fn constant(&self, node: &Node, slot: usize) -> Option<TensorProto> {
        Some(constant_chain::resolve(self.graph, node.input(slot)?)?.tensor)
    }

    /// The attribute `axis` belongs to the broadcasting of opsets below 7.
    fn add(&self, id: NodeId, node: &Node, place: Place, links: usize) -> Option<Vec<Change>> {
        let slot = (0..2).find(|&slot| self.constant(node, slot).is_some())?;
        let place = Some(place).filter(|_| node.attribute("axis").is_none())?;
        let change = self.change(id, slot, place.axes_behind()?, true)?;
        let mut changes = self.before(node, 1 - slot, place.of_operand(), links)?;
        changes.push(change);
        Some(changes)
    }

    /// A Mul by a constant with a number for every channel takes the factors itself.
    fn vector(&self, id: NodeId, node: &Node, place: Place) -> Option<Vec<Change>> {
        let behind = place.axes_behind().filter(|_| node.attribute("axis").is_none())?;
        (0..2).find_map(|slot| self.change(id, slot, behind, false)).map(|change| vec![change])
    }

    fn layer(&self, id: NodeId, node: &Node, place: Place) -> Option<Vec<Change>> {
        let layer = layers::layer(node)?;
        let rank = self.constant(node, 1)?.dims.len();
        let axis = layer.output_axis(node, rank)?;
        // Its result has its channels where its input has them.
        let fits = match layer.channels() {
            Channels::Second => place.second && place.rank.map_or(place.whole, |known| known == rank),
            Channels::Columns | Channels::Last => place.last,
        };
        let weight = self.change(id, 1, rank - 1 - axis, false).filter(|_| fits)?;
        match layer.bias() {
            Bias::Input(slot) if node.input(slot).is_some() => Some(vec![weight, self.change(id, slot, 0, true)?]),
            _ => Some(vec![weight]),
        }
    }

    /// Scale and bias of a normalization.
    fn parameters(&self, id: NodeId, node: &Node) -> Option<Vec<Change>> {
        let scale = self.change(id, 1, 0, false)?;
        match node.input(2) {
            Some(_) => Some(vec![scale, self.change(id, 2, 0, false)?]),
            None => Some(vec![scale]),
        }
    }

    /// Input `slot` multiplied by the factors along the axis with `behind` more behind it.
    ///
    /// A dimension of 1 there, given or implied by broadcasting, is stretched only where that is asked for.
    fn change(&self, node: NodeId, slot: usize, behind: usize, stretch: bool) -> Option<Change> {
        let tensor = self.constant(self.graph.node(node), slot)?;
        let dtype = tensor::data_type(&tensor).ok()?;
        let known = matches!(dtype, DataType::Float | DataType::Float16 | DataType::Bfloat16);
        let mut dims = tensor::shape(&tensor).ok().filter(|_| known)?;
        if stretch && dims.len() <= behind {
            dims = [vec![1; behind + 1 - dims.len()], dims].concat();
        }
        let axis = dims.len().checked_sub(behind + 1)?;
        let (old, channels) = (dims[axis], self.factors.len());
        let fits = old == channels || (stretch && old == 1);
        if !fits || dims.contains(&0) {
            return None;
        }
        dims[axis] = channels;
        let run = dims[axis + 1..].iter().product::<usize>();
        let numbers = tensor::to_f32(&tensor).ok()?;
        let product = |index: usize| {
            let (outer, channel, inner) = (index / run / channels, index / run % channels, index % run);
            let source = (outer * old + channel.min(old - 1)) * run + inner;
            f64::from(numbers[source]) * self.factors[channel]
        };
        let count = numbers.len() / old * channels;
        let tensor = stored(dtype, &dims, (0..count).map(product))?;
        Some(Change { node, slot, tensor })
    }
}
