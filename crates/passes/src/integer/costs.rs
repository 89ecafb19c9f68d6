//! How long operators take in ONNX Runtime, in float and on codes: what the choice of regions weighs.
//!
//! Times are nanoseconds on one core, from the sizes of tensors alone. They were fitted to ONNX Runtime 1.32 on x86-64
//! with VNNI; only their ratios matter, and those differ less between machines than the times do.

use std::collections::HashMap;

use onnxquant_ir::{Graph, Node, NodeId, ValueId};

use super::kernels::{Kernel, Unit};
use crate::find::sites::Site;
use crate::prepare::hard_sigmoid;
use crate::runtime::convolution::Convolution;

/// What a MatMul or Gemm with a constant weight is, where it is not in a region.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Alternative {
    /// Weight codes in blocks, activations rounded inside the kernel (`MatMulNBits`).
    #[default]
    WeightOnly,
    /// Activations quantized at run time (`DynamicQuantizeMatMul`).
    Dynamic,
}

/// Times of the nodes of one graph.
#[derive(Clone, Debug, Default)]
pub struct Costs {
    /// Elements of every float value.
    sizes: HashMap<ValueId, usize>,
    layers: HashMap<NodeId, Layer>,
    alternative: Alternative,
}

/// A Conv, Gemm or MatMul with a constant weight.
#[derive(Clone, Copy, Debug)]
struct Layer {
    macs: f64,
    weights: f64,
    outputs: f64,
    kind: Kind,
}

/// Layers that the runtime computes by kernels of their own.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Dense,
    Conv(Convolution),
    Depthwise,
    /// The runtime's integer kernel takes 16 channels at a time.
    RaggedDepthwise,
    Grouped,
}

/// A kernel's time: a start, a multiply-add, a weight (reading it, where there are few rows), an element of the result.
struct Kernels {
    start: f64,
    mac: f64,
    weight: f64,
    output: f64,
}

const fn kernels(start: f64, mac: f64, weight: f64, output: f64) -> Kernels {
    Kernels { start, mac, weight, output }
}

const DENSE_FLOAT: Kernels = kernels(1500.0, 0.0175, 0.19, 0.0);
const DENSE_WEIGHT_ONLY: Kernels = kernels(3000.0, 0.0225, 0.060, 0.0);
const DENSE_DYNAMIC: Kernels = kernels(4500.0, 0.0060, 0.065, 0.0);
const DENSE_CODES: Kernels = kernels(3500.0, 0.0059, 0.065, 0.0);
const DEPTHWISE_FLOAT: Kernels = kernels(3000.0, 0.040, 0.0, 0.15);
const DEPTHWISE_CODES: Kernels = kernels(5000.0, 0.050, 0.0, 0.60);
const RAGGED_DEPTHWISE_CODES: Kernels = kernels(5000.0, 0.250, 0.0, 0.60);
const GROUPED: Kernels = kernels(3000.0, 0.150, 0.0, 0.20);

impl Kernels {
    fn time(&self, layer: &Layer) -> f64 {
        self.start + self.mac * layer.macs + self.weight * layer.weights + self.output * layer.outputs
    }
}

// An element of the result.
const FLOAT_ELEMENTWISE: f64 = 0.35;
const CODES_ELEMENTWISE: f64 = 0.30;
const CODES_MUL: f64 = 0.75;
/// A run of elements that an operand of fewer elements is spread over.
const CODES_SPREAD: f64 = 57.0;
const CODES_MAX_POOL: f64 = 4.0;
const FLOAT_SIGMOID: f64 = 0.57;
const CODES_LOOKUP: f64 = 0.65;
const FLOAT_MOVEMENT: f64 = 0.25;
const CODES_MOVEMENT: f64 = 0.10;
/// Elements between codes and floats; with the change of layout that goes with it in convolution networks.
const QUANTIZE: f64 = 0.40;
const DEQUANTIZE: f64 = 0.35;
const OTHER: f64 = 0.60;
/// Starting a node.
const NODE: f64 = 1000.0;
const DEPTHWISE_CHANNELS: usize = 16;

impl Layer {
    fn new(site: &Site, outputs: usize) -> Layer {
        let kind = match site.view.conv() {
            None => Kind::Dense,
            // It is never one of a region.
            Some(_) if site.layer.on_codes().is_none() => Kind::Grouped,
            Some(conv) if conv.groups == 1 => Kind::Conv(Convolution::new(conv)),
            Some(conv) if conv.groups == conv.in_channels => match conv.groups % DEPTHWISE_CHANNELS {
                0 => Kind::Depthwise,
                _ => Kind::RaggedDepthwise,
            },
            Some(_) => Kind::Grouped,
        };
        let outputs = outputs as f64;
        Layer { macs: outputs * site.view.inputs() as f64, weights: site.parameters() as f64, outputs, kind }
    }
}

impl Costs {
    /// Times for tensors of these sizes (in elements, of one sample).
    pub fn new(
        graph: &Graph,
        sites: &HashMap<NodeId, Site>,
        sizes: HashMap<ValueId, usize>,
        alternative: Alternative,
    ) -> Costs {
        let layer = |(&node, site): (&NodeId, &Site)| {
            let outputs = graph.node(node).output(0).and_then(|value| sizes.get(&value).copied())?;
            Some((node, Layer::new(site, outputs)))
        };
        let layers = sites.iter().filter_map(layer).collect();
        Costs { sizes, layers, alternative }
    }

    /// Whether quantizing the input of a MatMul or Gemm at run time takes less time than floats.
    pub fn dynamic_pays(&self, graph: &Graph, layer: NodeId) -> bool {
        let unknown = !self.layers.contains_key(&layer);
        unknown || self.saved_dynamic(graph, layer) > 0.0
    }

    /// Time that a MatMul or Gemm saves by quantizing its input at run time, in nanoseconds; 0 for a layer of unknown
    /// size.
    pub fn saved_dynamic(&self, graph: &Graph, layer: NodeId) -> f64 {
        let Some(found) = self.layers.get(&layer) else { return 0.0 };
        let input = QUANTIZE * self.input_size(graph.node(layer));
        DENSE_FLOAT.time(found).min(DENSE_WEIGHT_ONLY.time(found)) - DENSE_DYNAMIC.time(found) - input
    }

    /// Time that a unit saves on codes, in nanoseconds, without conversions.
    pub fn saved_on_codes(&self, graph: &Graph, unit: &Unit) -> f64 {
        self.in_float(graph, unit) as f64 - self.on_codes(graph, unit) as f64
    }

    fn size(&self, value: ValueId) -> f64 {
        self.sizes.get(&value).map_or(0.0, |&size| size as f64)
    }

    fn output_size(&self, node: &Node) -> f64 {
        node.outputs().iter().flatten().map(|&value| self.size(value)).sum()
    }

    /// The unit in float, or quantized otherwise.
    pub(crate) fn in_float(&self, graph: &Graph, unit: &Unit) -> u64 {
        let node = graph.node(unit.node);
        let tail = unit.tail.map_or(0.0, |tail| FLOAT_ELEMENTWISE * self.output_size(graph.node(tail)));
        // The runtime fuses the activation after a Conv, and what is left of a hard sigmoid is one operator.
        let is_conv = self.layers.get(&unit.node).is_some_and(|layer| !matches!(layer.kind, Kind::Dense));
        let fused = is_conv || unit.tail.is_some_and(|tail| hard_sigmoid::is_clip(graph, tail));
        let tail = if fused { 0.0 } else { tail };
        if hard_sigmoid::is_scaled_clip(graph, unit.node) {
            return 0;
        }
        whole(self.float_node(unit.node, node, unit.kernel) + tail)
    }

    fn float_node(&self, id: NodeId, node: &Node, kernel: Kernel) -> f64 {
        let outputs = self.output_size(node);
        match (kernel, self.layers.get(&id)) {
            (Kernel::Linear, Some(layer)) => match (layer.kind, self.alternative) {
                (Kind::Conv(conv), _) => conv.in_float(layer.outputs),
                (Kind::Depthwise | Kind::RaggedDepthwise, _) => DEPTHWISE_FLOAT.time(layer),
                (Kind::Grouped, _) => GROUPED.time(layer),
                (Kind::Dense, Alternative::WeightOnly) => DENSE_WEIGHT_ONLY.time(layer).min(DENSE_FLOAT.time(layer)),
                (Kind::Dense, Alternative::Dynamic) => DENSE_DYNAMIC.time(layer) + self.input_size(node) * QUANTIZE,
            },
            (Kernel::Product, _) => NODE + self.product_macs(node) * DENSE_FLOAT.mac,
            (Kernel::Unary, _) if node.is("Sigmoid") => NODE + outputs * FLOAT_SIGMOID,
            (Kernel::Unary, _) => NODE + self.input_size(node) * FLOAT_ELEMENTWISE,
            (Kernel::Movement, _) if is_free(node) => NODE,
            (Kernel::Movement, _) => NODE + self.input_size(node).max(outputs) * FLOAT_MOVEMENT,
            _ => NODE + outputs * FLOAT_ELEMENTWISE,
        }
    }

    /// The unit on codes, without conversions.
    pub(crate) fn on_codes(&self, graph: &Graph, unit: &Unit) -> u64 {
        let node = graph.node(unit.node);
        let outputs = self.output_size(node);
        whole(match (unit.kernel, self.layers.get(&unit.node)) {
            (Kernel::Linear, Some(layer)) => match layer.kind {
                Kind::Dense => DENSE_CODES.time(layer),
                Kind::Conv(conv) => conv.on_codes(layer.outputs),
                Kind::Depthwise => DEPTHWISE_CODES.time(layer),
                Kind::RaggedDepthwise => RAGGED_DEPTHWISE_CODES.time(layer),
                Kind::Grouped => GROUPED.time(layer),
            },
            (Kernel::Product, _) => NODE + self.product_macs(node) * DENSE_CODES.mac + outputs * QUANTIZE,
            (Kernel::Unary, _) if node.is("Sigmoid") || node.is("LeakyRelu") => NODE + outputs * CODES_LOOKUP,
            (Kernel::Unary, _) => NODE + self.input_size(node) * CODES_ELEMENTWISE,
            (Kernel::Rescale(_), _) => 0.0,
            (Kernel::Movement, _) if is_free(node) => NODE,
            (Kernel::Movement, _) if node.is("MaxPool") => NODE + outputs * CODES_MAX_POOL,
            (Kernel::Movement, _) => NODE + self.input_size(node).max(outputs) * CODES_MOVEMENT,
            _ if node.is("Mul") => NODE + outputs * CODES_MUL + self.spread(unit, outputs),
            _ if node.is("Add") => NODE + outputs * CODES_ELEMENTWISE + self.spread(unit, outputs),
            _ => NODE + outputs * CODES_ELEMENTWISE,
        })
    }

    /// What it takes to spread the smaller activation of an Add or Mul over the result.
    fn spread(&self, unit: &Unit, outputs: f64) -> f64 {
        let smallest = unit.inputs.iter().map(|(_, value)| self.size(*value)).filter(|&size| size > 1.0);
        let smallest = smallest.fold(outputs, f64::min);
        if smallest < outputs { CODES_SPREAD * outputs / smallest } else { 0.0 }
    }

    /// Multiply-adds of a MatMul of two activations: sizes alone do not tell the inner dimension exactly.
    fn product_macs(&self, node: &Node) -> f64 {
        let input = |slot| node.input(slot).map_or(0.0, |value| self.size(value));
        // [b, m, k] x [b, k, n] -> [b, m, n]: sqrt(bmk * bkn * bmn / b) = m k n sqrt(b).
        (input(0) * input(1) * self.output_size(node)).sqrt()
    }

    fn input_size(&self, node: &Node) -> f64 {
        node.input(0).map_or(0.0, |value| self.size(value))
    }

    pub(crate) fn quantize(&self, value: ValueId) -> u64 {
        whole(NODE + self.size(value) * QUANTIZE)
    }

    pub(crate) fn dequantize(&self, value: ValueId) -> u64 {
        whole(NODE + self.size(value) * DEQUANTIZE)
    }

    /// A node that never runs on codes.
    pub(crate) fn other(&self, node: &Node) -> f64 {
        NODE + self.output_size(node) * OTHER
    }
}

/// Only the shape changes.
fn is_free(node: &Node) -> bool {
    ["Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity"].iter().any(|op_type| node.is(op_type))
}

fn whole(time: f64) -> u64 {
    // Sizes are those of tensors in memory: far below the range of u64.
    time.round() as u64
}
