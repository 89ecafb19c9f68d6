//! Finds the layers to quantize: every Gemm, MatMul, Conv and ConvTranspose with a constant weight.
//!
//! Each of these ([`crate::layers`]) in the model comes back, either as a [`Site`] or with the reason why it stays
//! in float; a `MatMulNBits` is one that is quantized already. Nothing is guessed: a form that is not listed under
//! [`SkipReason`] is not left out, and a form that is listed is never quantized.

use std::collections::{HashMap, HashSet};

use onnxquant_ir::onnx::tensor_proto::DataType;
use onnxquant_ir::onnx::{AttributeProto, GraphProto, NodeProto, TensorProto};
use onnxquant_ir::{BodyId, Graph, Model, Node, NodeId, Origin, TensorError, Use, ValueId};
use onnxquant_proto::{given_names, made_names};
use onnxquant_quant::MatrixView;

use crate::decode::decode_weights::decodes_constant;
use crate::graph::constant_chain::{self, Declared};
pub use crate::layers::SkipReason;
use crate::layers::{self, Layer};
use crate::prepare::inline_layers::version_difference;
use crate::runtime::nbits::is_nbits;

/// Which layer, in the model where it was found and in every copy made of it: in float, partly quantized, written.
///
/// Edits of a graph never number its nodes anew. What does so, [`crate::raise_opset`], takes the model away, so that a
/// layer's id cannot be used with what comes of it. Names are no ids: nodes may have none, or one that others have too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LayerId(NodeId);

impl LayerId {
    /// The layer's node in any of the copies.
    pub fn node(self) -> NodeId {
        self.0
    }
}

/// A layer that can be quantized.
#[derive(Clone, Debug)]
pub struct Site {
    /// The operator's node.
    pub node: NodeId,
    /// What depends on the operator.
    pub layer: &'static dyn Layer,
    /// The value in the weight slot.
    pub weight: ValueId,
    /// The value in the data slot, whose captured content is the layer's `X`.
    pub input: ValueId,
    /// How weight and input are read as matrices.
    pub view: MatrixView,
    /// The weight's expressed type.
    pub dtype: DataType,
}

impl Site {
    /// Which layer it is.
    pub fn id(&self) -> LayerId {
        LayerId(self.node)
    }

    /// The float weight as the operator sees it.
    pub fn weight_tensor(&self, graph: &Graph) -> Result<TensorProto, TensorError> {
        let resolved = constant_chain::resolve(graph, self.weight);
        resolved.map(|resolved| resolved.tensor).ok_or_else(|| TensorError {
            tensor: graph.value(self.weight).name().to_owned(),
            problem: "the constant behind it is gone".to_owned(),
        })
    }

    /// Number of weights.
    pub fn parameters(&self) -> usize {
        self.view.weight_shape().iter().product()
    }
}

/// A layer of the model.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// Its node, where that is one of the main graph.
    pub node: Option<NodeId>,
    /// What people call it: the node's name, or its first output's where it has none or one that is not its own. No two
    /// layers of the main graph have the same.
    pub label: String,
    /// Its operator.
    pub op_type: String,
    /// Shape of the constant operand, where there is one.
    pub weight_shape: Option<Vec<usize>>,
    /// What can be done.
    pub outcome: Result<Site, SkipReason>,
}

/// Every layer: the main graph's in topological order, then those of functions and of bodies that cannot be opened
/// ([`Graph::bodies`]). Those that can are models of their own.
pub fn find_sites(model: &Model) -> Vec<Candidate> {
    let graph = model.graph();
    let layers: Vec<(NodeId, &Node)> = graph.nodes().filter(|(_, node)| is_layer(node) || is_nbits(node)).collect();
    let claims = Claims::new(graph, &layers);
    let main = layers.iter().map(|&(id, node)| Candidate {
        node: Some(id),
        label: claims.label(graph, id).to_owned(),
        op_type: node.op_type().to_owned(),
        weight_shape: weight_shape(graph, node),
        outcome: examine(graph, id, node),
    });
    let opened: HashSet<NodeId> = graph.bodies().iter().map(BodyId::node).collect();
    let closed = graph.nodes().filter(|(id, _)| !opened.contains(id)).flat_map(|(id, node)| {
        let reason = SkipReason::InsideSubgraph { of: graph.describe(id) };
        inner_layers(node.attributes()).into_iter().map(move |inner| skipped(inner, reason.clone()))
    });
    let functions = model.functions().iter().flat_map(|function| {
        let because = version_difference(model, function);
        let reason = SkipReason::InsideFunction { name: function.name().to_owned(), because };
        layers_of(&function.node).into_iter().map(move |inner| skipped(inner, reason.clone()))
    });
    main.chain(closed).chain(functions).collect()
}

/// The layers of a body that is no valid graph by itself.
pub fn closed_sites(graph: &Graph, body: &BodyId) -> Vec<Candidate> {
    let reason = SkipReason::InsideSubgraph { of: graph.describe(body.node()) };
    let inner = graph.body(body).map_or_else(Vec::new, |body| layers_of(&body.node));
    inner.into_iter().map(|inner| skipped(inner, reason.clone())).collect()
}

/// How many layers could be called so: by the name of the node, or of its result.
struct Claims<'a>(HashMap<&'a str, usize>);

impl<'a> Claims<'a> {
    fn new(graph: &'a Graph, layers: &[(NodeId, &'a Node)]) -> Self {
        let mut claims = HashMap::new();
        for &(_, node) in layers {
            let names = [node.name(), result_name(graph, node)];
            let distinct = if names[0] == names[1] { &names[..1] } else { &names[..] };
            distinct.iter().for_each(|&name| *claims.entry(name).or_insert(0) += 1);
        }
        Self(claims)
    }

    /// The node's name where no other layer could have it, else that of its result, which is nobody else's.
    fn label<'g>(&self, graph: &'g Graph, id: NodeId) -> &'g str {
        let node = graph.node(id);
        let is_its_own = self.0.get(node.name()).is_some_and(|&count| count == 1);
        if is_its_own && !node.name().is_empty() { node.name() } else { result_name(graph, node) }
    }
}

/// The name of a node's first output.
fn result_name<'g>(graph: &'g Graph, node: &Node) -> &'g str {
    node.outputs().iter().flatten().next().map_or("", |&output| graph.value(output).name())
}

pub(crate) fn is_layer(node: &Node) -> bool {
    layers::layer(node).is_some()
}

fn skipped(node: &NodeProto, reason: SkipReason) -> Candidate {
    let label = match node.name() {
        "" => node.output.first().cloned().unwrap_or_default(),
        name => name.to_owned(),
    };
    Candidate { node: None, label, op_type: node.op_type().to_owned(), weight_shape: None, outcome: Err(reason) }
}

fn layers_of(nodes: &[NodeProto]) -> Vec<&NodeProto> {
    let is_layer =
        |node: &NodeProto| matches!(node.domain(), "" | "ai.onnx") && layers::named(node.op_type()).is_some();
    let own = |node| is_layer(node).then_some(node).into_iter();
    nodes.iter().flat_map(|node| own(node).chain(inner_layers(&node.attribute))).collect()
}

fn inner_layers(attributes: &[AttributeProto]) -> Vec<&NodeProto> {
    let graphs = attributes.iter().flat_map(|attribute| attribute.g.as_deref().into_iter().chain(&attribute.graphs));
    graphs.flat_map(|graph| layers_of(&graph.node)).collect()
}

/// The shape of the weight slot's constant, or of the left operand's.
fn weight_shape(graph: &Graph, node: &Node) -> Option<Vec<usize>> {
    let constant = |slot| constant_chain::declared(graph, node.input(slot)?);
    Some(constant(1).or_else(|| constant(0))?.shape)
}

/// What can be done with one layer of the main graph.
pub(super) fn examine(graph: &Graph, id: NodeId, node: &Node) -> Result<Site, SkipReason> {
    let site = site(graph, id, node)?;
    sharing(graph, constant_chain::source(graph, site.weight).ok_or(SkipReason::NoConstantWeight)?)?;
    Ok(site)
}

/// The same whoever else reads the weight.
pub(crate) fn site(graph: &Graph, id: NodeId, node: &Node) -> Result<Site, SkipReason> {
    // What is found besides the layers is a MatMulNBits.
    let Some(layer) = layers::layer(node) else { return Err(SkipReason::AlreadyQuantized) };
    let (Some(input), Some(weight)) = (node.input(0), node.input(1)) else {
        return Err(SkipReason::NoConstantWeight);
    };
    let Some(source) = constant_chain::source(graph, weight) else {
        return Err(not_constant(graph, input, weight));
    };
    if graph.value(source).origin() == Origin::Overridable {
        return Err(SkipReason::Overridable);
    }
    let Declared { dtype, shape } = constant_chain::declared(graph, weight).ok_or(SkipReason::NoConstantWeight)?;
    if !matches!(dtype, DataType::Float | DataType::Float16 | DataType::Bfloat16) {
        return Err(SkipReason::UnsupportedType { dtype: dtype.as_str_name() });
    }
    if shape.contains(&0) {
        return Err(SkipReason::Empty);
    }
    let view = layer.view(node, &shape)?;
    Ok(Site { node: id, layer, weight, input, view, dtype })
}

fn not_constant(graph: &Graph, input: ValueId, weight: ValueId) -> SkipReason {
    match graph.producer(constant_chain::start(graph, weight)) {
        Some((_, node)) if node.is("DequantizeLinear") || decodes_constant(graph, node) => SkipReason::AlreadyQuantized,
        Some((id, _)) if follows_from_constants(graph, id) => SkipReason::Computed { by: graph.describe(id) },
        _ if constant_chain::source(graph, input).is_some() => SkipReason::ConstantOnTheLeft,
        _ => SkipReason::NoConstantWeight,
    }
}

/// Whether a node computes the same for every input of the graph, as far as a walk over few nodes shows.
fn follows_from_constants(graph: &Graph, node: NodeId) -> bool {
    const MOST_NODES: usize = 256;
    let (mut seen, mut waiting) = (HashSet::new(), vec![node]);
    while let Some(id) = waiting.pop() {
        let node = graph.node(id);
        let is_open = |value: &ValueId| matches!(graph.value(*value).origin(), Origin::Input | Origin::Overridable);
        let reads = || node.inputs().iter().flatten().chain(node.captures());
        let is_random = node.op_type().starts_with("Random") || ["Bernoulli", "Multinomial"].contains(&node.op_type());
        if seen.len() >= MOST_NODES || is_random || reads().any(is_open) {
            return false;
        }
        if seen.insert(id) {
            waiting.extend(reads().filter_map(|&value| graph.producer(value)).map(|(before, _)| before));
        }
    }
    true
}

/// The weight may be shared, but only among layers, in bodies too: then each gets its own codes.
pub fn sharing(graph: &Graph, source: ValueId) -> Result<(), SkipReason> {
    for (value, user) in constant_chain::readers(graph, source) {
        match user {
            Use::GraphOutput(_) => return Err(SkipReason::WeightIsOutput),
            Use::Capture(node) if reads_weights_only(graph.node(node).attributes(), graph.value(value).name()) => {}
            Use::Capture(_) => return Err(SkipReason::ReadBySubgraph),
            Use::Input(node, slot) if !(is_layer(graph.node(node)) && slot == 1) => {
                return Err(SkipReason::SharedWithOther { user: graph.describe(node) });
            }
            Use::Input(..) => {}
        }
    }
    Ok(())
}

/// Whether the bodies in these attributes read an outer value as the weight of layers alone.
fn reads_weights_only(attributes: &[AttributeProto], name: &str) -> bool {
    let mut bodies =
        attributes.iter().flat_map(|attribute| attribute.g.as_deref().into_iter().chain(&attribute.graphs));
    bodies.all(|body| {
        let is_another = given_names(body).chain(made_names(body)).any(|own| own == name);
        is_another || is_weight_only(body, name)
    })
}

/// The same of a body and a value that it reads or makes.
fn is_weight_only(body: &GraphProto, name: &str) -> bool {
    let reads = |node: &NodeProto| {
        node.input.iter().enumerate().filter(|(_, input)| *input == name).all(|(slot, _)| {
            let is_default = matches!(node.domain(), "" | "ai.onnx");
            let is_weight = is_default && slot == 1 && layers::named(node.op_type()).is_some();
            let leads_on = is_default && slot == 0 && constant_chain::is_link_type(node.op_type());
            is_weight || (leads_on && node.output.iter().all(|made| is_weight_only(body, made)))
        })
    };
    !body.output.iter().any(|output| output.name() == name)
        && body.node.iter().all(|node| reads(node) && reads_weights_only(&node.attribute, name))
}

#[cfg(test)]
#[path = "sites_tests.rs"]
mod tests;
