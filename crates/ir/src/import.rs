//! Turns a decoded message into a [`Model`], and lists everything that is wrong with its structure.
//!
//! Nodes are put in order first ([`crate::sort`]). Names become ids; tensors and attributes are moved, not copied. The import itself accepts only graphs
//! whose names resolve (each name written once, each read name written by somebody); everything else is the
//! verifier's business and is checked right after.
//!
//! An initializer or input of a subgraph of a file may have a name of the outer graph, as runtimes take it: inside, the
//! inner value is meant. What a node makes there may have the name of a value that is not made before the subgraph's node.

use std::collections::HashSet;

use onnxquant_proto::onnx::{GraphProto, ModelProto, NodeProto, SparseTensorProto, TensorProto, ValueInfoProto};
use onnxquant_proto::{captured_names, given_names, made_names};

use crate::graph::{Graph, Node, Origin, Port, Use};
use crate::ids::{NodeId, ValueId};
use crate::model::{IR_WITH_PLAIN_INITIALIZERS, Model};
use crate::sort::sort;
use crate::subgraph;
use crate::verify::verify;
use crate::violation::Violation;

impl Model {
    /// Imports a decoded message whose external data, if any, is already attached.
    ///
    /// # Errors
    /// All violations found.
    pub fn from_proto(mut proto: ModelProto) -> Result<Self, Vec<Violation>> {
        let sorted = sort(&mut proto);
        let Some(graph) = proto.graph.take() else {
            return Err(vec![Violation::NoGraph]);
        };
        let lists_constants = proto.ir_version() < IR_WITH_PLAIN_INITIALIZERS;
        let violations = sorted.as_ref().err().cloned().into_iter().collect();
        let mut import = Import { graph: Graph::default(), violations, lists_constants };
        import.run(graph);
        if !import.violations.is_empty() {
            return Err(import.violations);
        }
        let nodes_sorted = sorted.unwrap_or(0);
        let model = Self { graph: import.graph, rest: proto, external_files: Vec::new(), nodes_sorted };
        let violations = verify(&model);
        if violations.is_empty() { Ok(model) } else { Err(violations) }
    }

    /// Imports `proto`, a rewritten form of this model's message; the files beside the model stay known.
    ///
    /// # Errors
    /// All violations found; names that were not shadowed in this model must not be so in `proto`.
    pub fn with_message(&self, proto: ModelProto) -> Result<Self, Vec<Violation>> {
        let mut model = Self::from_proto(proto)?;
        model.external_files.clone_from(&self.external_files);
        model.nodes_sorted = self.nodes_sorted;
        model.graph.shadowed.clone_from(&self.graph.shadowed);
        let violations = verify(&model);
        if violations.is_empty() { Ok(model) } else { Err(violations) }
    }
}

struct Import {
    graph: Graph,
    violations: Vec<Violation>,
    lists_constants: bool,
}

impl Import {
    fn run(&mut self, mut proto: GraphProto) {
        self.inputs(std::mem::take(&mut proto.input));
        self.initializers(std::mem::take(&mut proto.initializer));
        for (index, sparse) in proto.sparse_initializer.iter().enumerate() {
            self.sparse_initializer(index, sparse);
        }
        let nodes = std::mem::take(&mut proto.node);
        let ids = nodes.into_iter().map(|node| self.node_outputs(node)).collect::<Vec<_>>();
        for (id, inputs) in ids {
            self.node_inputs(id, inputs);
        }
        self.outputs(std::mem::take(&mut proto.output));
        self.graph.rest = proto;
        let inner = |body| given_names(body).chain(made_names(body));
        self.graph.shadowed =
            subgraph::shadowed_names(&self.graph, inner).into_iter().map(|(_, name)| name.to_owned()).collect();
    }

    fn inputs(&mut self, infos: Vec<ValueInfoProto>) {
        for info in infos {
            let value = self.define(info.name(), Origin::Input, None);
            self.graph.inputs.push(Port { value, info });
        }
    }

    fn initializers(&mut self, tensors: Vec<TensorProto>) {
        for (index, tensor) in tensors.into_iter().enumerate() {
            if tensor.name().is_empty() {
                self.violations.push(Violation::UnnamedInitializer { index });
            }
            let listed = self.graph.find(tensor.name()).filter(|&id| self.graph.value(id).origin() == Origin::Input);
            let value = match listed {
                Some(value) => {
                    let origin = if self.lists_constants { Origin::Constant } else { Origin::Overridable };
                    let slot = self.graph.value_mut(value);
                    (slot.origin, slot.tensor) = (origin, Some(tensor));
                    value
                }
                None => {
                    let name = tensor.name().to_owned();
                    self.define(&name, Origin::Constant, Some(tensor))
                }
            };
            self.graph.initializers.push(value);
        }
    }

    /// A sparse initializer is named by its values; it stays in the message and has no dense tensor here.
    ///
    /// One that is listed as a graph input stays an input: nothing takes it for a constant.
    fn sparse_initializer(&mut self, index: usize, sparse: &SparseTensorProto) {
        let name = sparse.values.as_ref().map_or("", TensorProto::name);
        if name.is_empty() {
            self.violations.push(Violation::UnnamedInitializer { index });
        }
        let listed = self.graph.find(name).is_some_and(|id| self.graph.value(id).origin() == Origin::Input);
        if !listed {
            self.define(name, Origin::Constant, None);
        }
    }

    fn node_outputs(&mut self, mut proto: NodeProto) -> (NodeId, Vec<String>) {
        let inputs = std::mem::take(&mut proto.input);
        let outputs = std::mem::take(&mut proto.output);
        let mut inner = HashSet::new();
        subgraph::defined_names(&proto, &mut inner);
        self.graph.taken.extend(inner);
        self.graph.taken.extend(proto.name.clone().filter(|name| !name.is_empty()));
        let node = Node { inputs: Vec::new(), outputs: Vec::new(), captures: Vec::new(), proto };
        let id = self.graph.nodes.push(node);
        self.graph.order.push(id);
        let define = |(slot, name): (usize, &String)| {
            (!name.is_empty()).then(|| self.define(name, Origin::Output(id, slot), None))
        };
        let values = outputs.iter().enumerate().map(define).collect();
        self.graph.node_mut(id).outputs = values;
        (id, inputs)
    }

    fn node_inputs(&mut self, id: NodeId, names: Vec<String>) {
        let captured = captured_names(&self.graph.node(id).proto);
        let captured = captured.into_iter().map(str::to_owned).collect::<Vec<_>>();
        let inputs = names.iter().map(|name| self.resolve(name, id)).collect::<Vec<_>>();
        let captures = captured.iter().filter_map(|name| self.resolve(name, id)).collect::<Vec<_>>();
        for (slot, &value) in inputs.iter().enumerate() {
            self.graph.add_use(value, Use::Input(id, slot));
        }
        for &value in &captures {
            self.graph.add_use(Some(value), Use::Capture(id));
        }
        let node = self.graph.node_mut(id);
        (node.inputs, node.captures) = (inputs, captures);
    }

    fn outputs(&mut self, infos: Vec<ValueInfoProto>) {
        for (index, info) in infos.into_iter().enumerate() {
            match self.graph.find(info.name()) {
                Some(value) => {
                    self.graph.add_use(Some(value), Use::GraphOutput(index));
                    self.graph.outputs.push(Port { value, info });
                }
                None => self.violations.push(Violation::UnknownOutput { name: info.name().to_owned() }),
            }
        }
    }

    fn resolve(&mut self, name: &str, node: NodeId) -> Option<ValueId> {
        if name.is_empty() {
            return None;
        }
        let found = self.graph.find(name);
        if found.is_none() {
            let node = self.graph.describe(node);
            self.violations.push(Violation::UnknownValue { node, name: name.to_owned() });
        }
        found
    }

    fn define(&mut self, name: &str, origin: Origin, tensor: Option<TensorProto>) -> ValueId {
        if self.graph.find(name).is_some() {
            self.violations.push(Violation::DuplicateName { name: name.to_owned() });
        }
        self.graph.new_value(name.to_owned(), origin, tensor)
    }
}
