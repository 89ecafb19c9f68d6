//! Finds every constant that is stored as floats, whatever operator reads it, in functions too and in bodies that cannot be
//! opened. Those that can are models of their own.
//!
//! | constant | reason |
//! |---|---|
//! | the weight of a layer | why the layer is not quantized |
//! | at most one dimension longer than 1; a scale of codes | it is a bias or another vector |
//! | a table that a Gather reads | it is small, others read it as well, or tables are left alone |
//! | what other operators read (LSTM, Add, ...) | they have no quantized form |
//!
//! A constant without readers that is no output counts as well: it is in the file.

use std::collections::BTreeSet;

use onnxquant_ir::onnx::{GraphProto, NodeProto, TensorProto};
use onnxquant_ir::{BodyId, Graph, Model, NodeId, Origin, Use, ValueId, tensor};
use onnxquant_proto::{bodies, data_type_bits};

use super::sites::{examine, is_layer};
use crate::decode::decode_weights::decodes_constant;
use crate::graph::constant_chain;
use crate::layers::{self, SkipReason};
use crate::prepare::inline_layers::version_difference;
use crate::runtime::nbits::is_nbits;

/// Dimensions longer than 1 of a bias or another vector, at most.
const OF_VECTORS: usize = 1;

/// A constant that is stored as floats.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FloatWeight {
    /// Its name.
    pub name: String,
    /// The operators that read it, sorted.
    pub operators: Vec<String>,
    /// Bytes of its elements.
    pub bytes: usize,
    /// Why it is not stored as codes.
    pub reason: FloatReason,
}

/// Why a constant is stored as floats.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FloatReason {
    /// It has at most one dimension longer than 1, or holds the scales of codes.
    Vector,
    /// It is the weight of this layer, which could be quantized.
    OfLayer(NodeId),
    /// It is the weight of a layer that cannot be quantized.
    Skipped(SkipReason),
    /// It is a table of embeddings, which could be quantized.
    Table,
    /// No operator that reads it has a form for codes.
    NoForm,
}

/// Every constant of `model` that is stored as floats: those of the main graph in its order, then those in functions and in
/// bodies that cannot be opened ([`Graph::bodies`]).
pub fn float_weights(model: &Model) -> Vec<FloatWeight> {
    let graph = model.graph();
    let main = graph.initializers().iter().filter_map(|&value| of_main_graph(graph, value));
    let opened: BTreeSet<NodeId> = graph.bodies().iter().map(BodyId::node).collect();
    let inner = graph.nodes().filter(|(id, _)| !opened.contains(id)).flat_map(|(id, node)| {
        let of = graph.describe(id);
        let graphs = node.attributes().iter().flat_map(|found| found.g.as_deref().into_iter().chain(&found.graphs));
        let reason = move || SkipReason::InsideSubgraph { of: of.clone() };
        graphs.flat_map(move |body| of_body(body, &reason)).collect::<Vec<_>>()
    });
    let functions = model.functions().iter().flat_map(|function| {
        let because = version_difference(model, function);
        let reason = || SkipReason::InsideFunction { name: function.name().to_owned(), because: because.clone() };
        of_nodes(&function.node, &[], &reason)
    });
    main.chain(inner).chain(functions).collect()
}

/// The same of a body that is no valid graph by itself.
pub fn closed_float_weights(graph: &Graph, body: &BodyId) -> Vec<FloatWeight> {
    let reason = || SkipReason::InsideSubgraph { of: graph.describe(body.node()) };
    graph.body(body).map_or_else(Vec::new, |body| of_body(body, &reason))
}

fn of_main_graph(graph: &Graph, value: ValueId) -> Option<FloatWeight> {
    let found = graph.value(value);
    let tensor = found.tensor()?;
    let bytes = float_bytes(tensor)?;
    let readers = Readers::of(graph, value);
    let reason =
        if is_vector(tensor) || readers.has_scales { FloatReason::Vector } else { readers.reason(graph, value) };
    Some(FloatWeight { name: found.name().to_owned(), operators: readers.operators(graph), bytes, reason })
}

/// Who reads a constant, behind operators that only change its form.
#[derive(Default)]
struct Readers {
    inputs: Vec<(NodeId, usize)>,
    has_body: bool,
    /// One of them reads it as the scales of codes.
    has_scales: bool,
}

impl Readers {
    fn of(graph: &Graph, source: ValueId) -> Self {
        let mut readers = Self::default();
        for (_, user) in constant_chain::readers(graph, source) {
            match user {
                Use::Input(node, slot) => readers.inputs.push((node, slot)),
                user => readers.has_body |= matches!(user, Use::Capture(_)),
            }
        }
        let is_scale = |&(node, slot): &(NodeId, usize)| {
            let reader = graph.node(node);
            let of_codes = reader.is("DequantizeLinear") || reader.is("QuantizeLinear");
            slot > 0 && (of_codes || is_nbits(reader) || decodes_constant(graph, reader))
        };
        readers.has_scales = readers.inputs.iter().any(is_scale);
        readers
    }

    fn operators(&self, graph: &Graph) -> Vec<String> {
        let inputs =
            self.inputs.iter().map(|&(node, _)| operator(graph.node(node).domain(), graph.node(node).op_type()));
        inputs.chain(self.has_body.then(|| "a body".to_owned())).collect::<BTreeSet<String>>().into_iter().collect()
    }

    fn reason(&self, graph: &Graph, value: ValueId) -> FloatReason {
        let layer = self.inputs.iter().find(|&&(node, slot)| slot < 2 && is_layer(graph.node(node)));
        match layer {
            Some(&(node, _)) => match examine(graph, node, graph.node(node)) {
                Ok(_) => FloatReason::OfLayer(node),
                Err(reason) => FloatReason::Skipped(reason),
            },
            None if self.has_body => FloatReason::Skipped(SkipReason::ReadBySubgraph),
            None if graph.value(value).origin() == Origin::Overridable => FloatReason::Skipped(SkipReason::Overridable),
            None if self.is_table(graph) => FloatReason::Table,
            None => FloatReason::NoForm,
        }
    }

    fn is_table(&self, graph: &Graph) -> bool {
        let is_gather = |&(node, slot): &(NodeId, usize)| slot == 0 && graph.node(node).is("Gather");
        !self.inputs.is_empty() && self.inputs.iter().all(is_gather)
    }
}

/// The constants of a graph inside a node.
fn of_body(body: &GraphProto, reason: &dyn Fn() -> SkipReason) -> Vec<FloatWeight> {
    of_nodes(&body.node, &body.initializer, reason)
}

/// The constants of these nodes and those in their bodies.
fn of_nodes(nodes: &[NodeProto], initializers: &[TensorProto], reason: &dyn Fn() -> SkipReason) -> Vec<FloatWeight> {
    let made = nodes.iter().filter(|node| node.op_type() == "Constant").filter_map(|node| {
        let tensor = node.attribute.iter().find(|attribute| attribute.name() == "value")?.t.as_deref()?;
        Some((node.output.first()?.as_str(), tensor))
    });
    let named = initializers.iter().map(|tensor| (tensor.name(), tensor));
    let own = named.chain(made).filter_map(|(name, tensor)| of_inner(name, tensor, nodes, reason));
    own.chain(nodes.iter().flat_map(bodies).flat_map(|body| of_body(body, reason))).collect()
}

fn of_inner(
    name: &str,
    tensor: &TensorProto,
    nodes: &[NodeProto],
    reason: &dyn Fn() -> SkipReason,
) -> Option<FloatWeight> {
    let bytes = float_bytes(tensor)?;
    let reads = |node: &&NodeProto| node.input.iter().any(|input| input == name);
    let readers: Vec<&NodeProto> = nodes.iter().filter(reads).collect();
    let is_weight =
        |node: &&NodeProto| matches!(node.domain(), "" | "ai.onnx") && layers::named(node.op_type()).is_some();
    let reason = match () {
        () if is_vector(tensor) => FloatReason::Vector,
        () if readers.iter().any(is_weight) => FloatReason::Skipped(reason()),
        () => FloatReason::NoForm,
    };
    let operators: BTreeSet<String> = readers.iter().map(|node| operator(node.domain(), node.op_type())).collect();
    Some(FloatWeight { name: name.to_owned(), operators: operators.into_iter().collect(), bytes, reason })
}

/// An operator with its domain, where that is not the default one.
fn operator(domain: &str, op_type: &str) -> String {
    match domain {
        "" | "ai.onnx" => op_type.to_owned(),
        domain => format!("{domain}.{op_type}"),
    }
}

/// Bytes of the elements of a tensor of floats of 16 bits and more.
fn float_bytes(tensor: &TensorProto) -> Option<usize> {
    let bits = data_type_bits(tensor::data_type(tensor).ok()?).filter(|_| tensor::is_float(tensor))?;
    tensor::packed_len(tensor::element_count(tensor).ok()?, bits)
}

fn is_vector(tensor: &TensorProto) -> bool {
    tensor.dims.iter().filter(|&&dim| dim > 1).count() <= OF_VECTORS
}

#[cfg(test)]
#[path = "float_weights_tests.rs"]
mod tests;
