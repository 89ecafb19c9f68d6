//! What there is to do in a graph, and how long it takes on one class of processors.

use std::collections::HashMap;

use onnxquant_ir::{Graph, Node, NodeId, ValueId};

use super::times::{Size, Table, Times};
use crate::find::sites::Site;
use crate::integer::kernels::{Kernel, Unit};
use crate::prepare::hard_sigmoid;
use crate::runtime::convolution::Convolution;
use crate::runtime::cpu::Cpu;

/// The runtime's integer kernel of a depthwise Conv takes so many channels at a time.
const DEPTHWISE_CHANNELS: usize = 16;
/// Up to so many rows a product takes what reading its weights takes.
const FEW_ROWS: f64 = 2.0;
/// Models whose weights take so many bytes as floats at most stay in a cache between two runs, and what reading a weight
/// takes from there, as a part of what it takes from memory: in the cache of every core and in that of several cores.
/// (A product of one row with 2 to 16 MiB took 0.09 to 0.16 ns a weight on an EPYC with AVX2, with 32 and 64 MiB 0.33 and
/// 0.38.)
const CACHES: [(usize, f64); 2] = [(1 << 20, 0.0), (16 << 20, 0.3)];

/// What a MatMul or Gemm with a constant weight is, where it is not in a region.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Alternative {
    /// Codes of weights alone: in `MatMulNBits`, or floats from the loading on where that would be slower.
    #[default]
    WeightOnly,
    /// Activations quantized at run time (`DynamicQuantizeMatMul`).
    Dynamic,
    /// Floats: what speed is told against.
    Float,
}

/// How a layer is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Served {
    /// Its weight becomes floats when the model loads, or is so already.
    Float,
    /// `MatMulNBits` of so many bits, 4 or 8.
    NBits(u32),
    /// On codes of its input that are made at run time.
    Dynamic,
    /// In a region.
    Codes,
}

/// The sizes of one graph.
#[derive(Clone, Debug, Default)]
pub(crate) struct Work {
    /// Elements of every float value.
    sizes: HashMap<ValueId, usize>,
    layers: HashMap<NodeId, Layer>,
    /// Elements in the windows of every MaxPool that reads a value.
    pooled: HashMap<ValueId, f64>,
    alternative: Alternative,
}

/// Its times on one class of processors.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ClassCosts<'a> {
    work: &'a Work,
    cpu: Cpu,
    times: &'a Times,
    alternative: Alternative,
}

/// Nanoseconds of one choice, and of what it stands for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Choice {
    pub(crate) float: f64,
    pub(crate) codes: f64,
}

/// A Conv, Gemm or MatMul with a constant weight.
#[derive(Clone, Copy, Debug)]
struct Layer {
    size: Size,
    kind: Kind,
    /// Codes of 8 bits in `MatMulNBits` are as fast as floats on every class that counts.
    nbits_pays: bool,
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

impl Choice {
    /// Nanoseconds that it saves.
    pub(crate) fn saved(&self) -> f64 {
        self.float - self.codes
    }

    /// How many times as fast it is.
    pub(crate) fn ratio(&self) -> f64 {
        self.float / self.codes.max(1.0)
    }
}

impl Layer {
    /// `read` tells what reading a weight takes, as a part of what it takes from memory.
    fn new(site: &Site, outputs: usize, read: f64, tables: &[Table]) -> Layer {
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
        let macs = outputs * site.view.inputs() as f64;
        let pointers = site.view.conv().map_or(0.0, |conv| macs / conv.out_channels.max(1) as f64);
        let weights = site.parameters() as f64;
        let in_cache = Size { macs, weights: 0.0, outputs, pointers };
        let size = Size { weights: read * weights, ..in_cache };
        // Starts take less than the figures for them are sure. Whether the weights of a larger model lie in a cache, nobody
        // knows; for one row or two codes pay in both.
        let has_few_rows = macs <= FEW_ROWS * weights;
        let pays = |(_, times): &Table| {
            let saves = |size: &Size| times.dense_nbits8.work(size) <= times.dense_float.work(size);
            saves(&size) && (has_few_rows || saves(&in_cache))
        };
        Layer { size, kind, nbits_pays: tables.iter().all(pays) }
    }
}

impl Work {
    /// That of tensors of these sizes (in elements, of one sample).
    pub(crate) fn new(
        graph: &Graph,
        sites: &HashMap<NodeId, Site>,
        sizes: HashMap<ValueId, usize>,
        alternative: Alternative,
        tables: &[Table],
    ) -> Self {
        let bytes = sites.values().map(Site::parameters).sum::<usize>() * size_of::<f32>();
        let read = CACHES.iter().find(|(most, _)| bytes <= *most).map_or(1.0, |&(_, read)| read);
        let layer = |(&node, site): (&NodeId, &Site)| {
            let outputs = graph.node(node).output(0).and_then(|value| sizes.get(&value).copied())?;
            Some((node, Layer::new(site, outputs, read, tables)))
        };
        let layers = sites.iter().filter_map(layer).collect();
        let mut pooled = HashMap::new();
        for (_, node) in graph.nodes().filter(|(_, node)| node.is("MaxPool")) {
            let outputs = node.output(0).and_then(|value| sizes.get(&value)).map_or(0.0, |&size| size as f64);
            // The runtime moves a QuantizeLinear from behind a MaxPool to before it.
            for value in [node.input(0), node.output(0)].into_iter().flatten() {
                *pooled.entry(value).or_insert(0.0) += outputs * window(node);
            }
        }
        Self { sizes, layers, pooled, alternative }
    }

    /// How long it takes.
    pub(crate) fn on<'a>(&'a self, (cpu, times): Table) -> ClassCosts<'a> {
        ClassCosts { work: self, cpu, times, alternative: self.alternative }
    }

    /// Whether codes of 8 bits in `MatMulNBits` are as fast as floats on every class; so they are for a layer of unknown
    /// size.
    pub(crate) fn nbits_pays(&self, layer: NodeId) -> bool {
        self.layers.get(&layer).is_none_or(|layer| layer.nbits_pays)
    }

    /// Whether this is a layer of known size.
    pub(crate) fn knows(&self, layer: NodeId) -> bool {
        self.layers.contains_key(&layer)
    }
}

impl ClassCosts<'_> {
    /// The class.
    pub(crate) fn cpu(&self) -> Cpu {
        self.cpu
    }

    /// The same with floats where nothing runs on codes.
    pub(crate) fn against_floats(self) -> Self {
        Self { alternative: Alternative::Float, ..self }
    }

    /// A MatMul or Gemm that quantizes its input at run time, against floats or codes of weights alone; none for a layer
    /// of unknown size.
    pub(crate) fn dynamic(&self, graph: &Graph, layer: NodeId) -> Option<Choice> {
        let known = self.work.layers.get(&layer)?;
        Some(Choice { float: self.weights_only(known), codes: self.dense(known, Served::Dynamic, graph.node(layer)) })
    }

    /// What a MatMul or Gemm saves where it is written so, against floats; nothing for a layer of unknown size.
    pub(crate) fn saved_as(&self, graph: &Graph, layer: NodeId, served: Served) -> f64 {
        let known = self.work.layers.get(&layer).filter(|known| matches!(known.kind, Kind::Dense));
        let time = |known, served| self.dense(known, served, graph.node(layer));
        known.map_or(0.0, |known| time(known, Served::Float) - time(known, served))
    }

    fn dense(&self, layer: &Layer, served: Served, node: &Node) -> f64 {
        let (times, size) = (self.times, &layer.size);
        match served {
            Served::Float => times.dense_float.time(size),
            Served::NBits(..=4) => times.dense_nbits4.time(size),
            Served::NBits(_) => times.dense_nbits8.time(size),
            Served::Dynamic => times.dense_dynamic.time(size) + times.quantize * self.input_size(node),
            Served::Codes => times.dense_codes.time(size),
        }
    }

    /// With codes of weights alone, in the form that is chosen for them.
    fn weights_only(&self, layer: &Layer) -> f64 {
        let times = self.times;
        let kernel = if layer.nbits_pays { &times.dense_nbits8 } else { &times.dense_float };
        kernel.time(&layer.size)
    }

    /// A unit on codes, without conversions.
    pub(crate) fn unit(&self, graph: &Graph, unit: &Unit) -> Choice {
        Choice { float: self.in_float(graph, unit) as f64, codes: self.on_codes(graph, unit) as f64 }
    }

    fn size(&self, value: ValueId) -> f64 {
        self.work.sizes.get(&value).map_or(0.0, |&size| size as f64)
    }

    fn output_size(&self, node: &Node) -> f64 {
        node.outputs().iter().flatten().map(|&value| self.size(value)).sum()
    }

    /// The unit in float, or quantized otherwise.
    pub(crate) fn in_float(&self, graph: &Graph, unit: &Unit) -> u64 {
        let node = graph.node(unit.node);
        let tail = unit.tail.map_or(0.0, |tail| self.times.float_elementwise * self.output_size(graph.node(tail)));
        // The runtime fuses the activation after a Conv, and what is left of a hard sigmoid is one operator.
        let is_conv = self.work.layers.get(&unit.node).is_some_and(|layer| !matches!(layer.kind, Kind::Dense));
        let fused = is_conv || unit.tail.is_some_and(|tail| hard_sigmoid::is_clip(graph, tail));
        let tail = if fused { 0.0 } else { tail };
        if hard_sigmoid::is_scaled_clip(graph, unit.node) {
            return 0;
        }
        whole(self.float_node(unit.node, node, unit.kernel) + tail)
    }

    fn float_node(&self, id: NodeId, node: &Node, kernel: Kernel) -> f64 {
        let times = self.times;
        let outputs = self.output_size(node);
        match (kernel, self.work.layers.get(&id)) {
            (Kernel::Linear, Some(layer)) => match (layer.kind, self.alternative) {
                (Kind::Conv(conv), _) => conv.in_float(&times.convolution, layer.size.outputs),
                (Kind::Depthwise | Kind::RaggedDepthwise, _) => times.depthwise_float.time(&layer.size),
                (Kind::Grouped, _) => times.grouped.time(&layer.size),
                (Kind::Dense, Alternative::WeightOnly) => self.weights_only(layer),
                (Kind::Dense, Alternative::Dynamic) => self.dense(layer, Served::Dynamic, node),
                (Kind::Dense, Alternative::Float) => self.dense(layer, Served::Float, node),
            },
            (Kernel::Product, _) => times.node + self.product_macs(node) * times.dense_float.mac,
            (Kernel::Unary, _) if node.is("Sigmoid") => times.node + outputs * times.float_sigmoid,
            (Kernel::Unary, _) => times.node + self.input_size(node) * times.float_elementwise,
            (Kernel::Movement, _) if is_free(node) => times.node,
            (Kernel::Movement, _) if node.is("MaxPool") => times.node + outputs * window(node) * times.float_max_pool,
            (Kernel::Movement, _) => times.node + self.input_size(node).max(outputs) * times.float_movement,
            _ => times.node + outputs * times.float_elementwise,
        }
    }

    /// The unit on codes, without conversions.
    pub(crate) fn on_codes(&self, graph: &Graph, unit: &Unit) -> u64 {
        let times = self.times;
        let node = graph.node(unit.node);
        let outputs = self.output_size(node);
        whole(match (unit.kernel, self.work.layers.get(&unit.node)) {
            (Kernel::Linear, Some(layer)) => match layer.kind {
                Kind::Dense => self.dense(layer, Served::Codes, node),
                Kind::Conv(conv) => conv.on_codes(&times.convolution, layer.size.outputs),
                Kind::Depthwise => times.depthwise_codes.time(&layer.size),
                Kind::RaggedDepthwise => times.ragged_depthwise_codes.time(&layer.size),
                Kind::Grouped => times.grouped.time(&layer.size),
            },
            (Kernel::Product, _) => {
                times.node + self.product_macs(node) * times.dense_codes.mac + outputs * times.quantize
            }
            (Kernel::Unary, _) if node.is("Sigmoid") || node.is("LeakyRelu") => {
                times.node + outputs * times.codes_lookup
            }
            (Kernel::Unary, _) => times.node + self.input_size(node) * times.codes_elementwise,
            (Kernel::Rescale(_), _) => 0.0,
            (Kernel::Movement, _) if is_free(node) => times.node,
            (Kernel::Movement, _) if node.is("MaxPool") => times.node + outputs * window(node) * times.codes_max_pool,
            (Kernel::Movement, _) => times.node + self.input_size(node).max(outputs) * times.codes_movement,
            _ if node.is("Mul") => times.node + outputs * times.codes_mul + self.spread(unit, outputs),
            _ if node.is("Add") => times.node + outputs * times.codes_elementwise + self.spread(unit, outputs),
            _ => times.node + outputs * times.codes_elementwise,
        })
    }

    /// What it takes to spread the smaller activation of an Add or Mul over the result.
    fn spread(&self, unit: &Unit, outputs: f64) -> f64 {
        let smallest = unit.inputs.iter().map(|(_, value)| self.size(*value)).filter(|&size| size > 1.0);
        let smallest = smallest.fold(outputs, f64::min);
        if smallest < outputs { self.times.codes_spread * outputs / smallest } else { 0.0 }
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

    /// A MaxPool of what was floats before has a slow kernel.
    pub(crate) fn quantize(&self, value: ValueId) -> u64 {
        let pooled = self.work.pooled.get(&value).copied().unwrap_or(0.0);
        whole(self.times.node + self.size(value) * self.times.quantize + pooled * self.times.first_max_pool)
    }

    pub(crate) fn dequantize(&self, value: ValueId) -> u64 {
        whole(self.times.node + self.size(value) * self.times.dequantize)
    }

    /// A node that never runs on codes.
    pub(crate) fn other(&self, node: &Node) -> f64 {
        self.times.node + self.output_size(node) * self.times.other
    }
}

/// Elements of the window of a pool.
fn window(node: &Node) -> f64 {
    node.ints("kernel_shape").map_or(1.0, |lengths| lengths.iter().map(|&length| length as f64).product())
}

/// Only the shape changes.
fn is_free(node: &Node) -> bool {
    ["Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity"].iter().any(|op_type| node.is(op_type))
}

fn whole(time: f64) -> u64 {
    // Sizes are those of tensors in memory: far below the range of u64.
    time.round() as u64
}
