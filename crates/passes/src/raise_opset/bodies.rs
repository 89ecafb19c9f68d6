//! Takes the nodes of every body through the opsets, one after the other.

use std::collections::HashSet;

use onnxquant_ir::IR_WITH_PLAIN_INITIALIZERS;
use onnxquant_ir::onnx::attribute_proto::AttributeType;
use onnxquant_ir::onnx::{AttributeProto, FunctionProto, GraphProto, ModelProto, NodeProto};
use onnxquant_ir::onnx::{OperatorSetIdProto, TensorProto};

use super::change::Change;
use super::context::Context;
use super::error::{RaiseError, Refusal};
use super::facts::Facts;
use super::known::Scope;
use super::message::label;
use super::span::Span;
use super::steps;
use super::table::{OPERATORS, Operator};

/// One run of the pass over a message.
pub(super) struct Raise {
    facts: Facts,
    /// Local functions of the default domain: nodes of these names are calls.
    functions: HashSet<String>,
    /// Whether an initializer that is listed as an input may be replaced by callers.
    overridable: bool,
    changes: Vec<Change>,
}

impl Raise {
    pub(super) fn new(model: &ModelProto) -> Self {
        let local = model.functions.iter().filter(|function| is_default(function.domain()));
        let functions = local.map(|function| function.name().to_owned()).collect();
        let overridable = model.ir_version() >= IR_WITH_PLAIN_INITIALIZERS;
        Self { facts: Facts::of(model), functions, overridable, changes: Vec::new() }
    }

    /// Rewrites the message, imports included.
    pub(super) fn model(mut self, model: &mut ModelProto, span: Span) -> Result<Vec<Change>, RaiseError> {
        if let Some(graph) = &mut model.graph {
            self.graph(graph, &Scope::default(), span)?;
        }
        model.functions.iter_mut().try_for_each(|function| self.function(function, span.to))?;
        set_import(&mut model.opset_import, span.to);
        Ok(self.changes)
    }

    fn graph(&mut self, graph: &mut GraphProto, outer: &Scope<'_>, span: Span) -> Result<(), RaiseError> {
        let scope = Scope::of_graph(graph, outer, self.overridable);
        let nodes = std::mem::take(&mut graph.node);
        let body = self.nodes(nodes, &scope, span)?;
        graph.node = body.nodes;
        graph.initializer.extend(body.constants);
        graph.value_info.retain(|info| !body.dropped.contains(info.name()));
        Ok(())
    }

    /// A function has no initializers: its constants are nodes.
    pub(super) fn function(&mut self, function: &mut FunctionProto, to: i64) -> Result<(), RaiseError> {
        let imports = function.opset_import.iter().find(|import| is_default(import.domain()));
        let Some(from) = imports.map(OperatorSetIdProto::version).filter(|&from| from < to) else {
            return Ok(());
        };
        let outer = Scope::default();
        let scope = Scope::of_nodes(&function.node, &outer);
        let body = self.nodes(std::mem::take(&mut function.node), &scope, Span { from, to })?;
        function.node = body.constants.into_iter().map(constant_node).chain(body.nodes).collect();
        function.value_info.retain(|info| !body.dropped.contains(info.name()));
        set_import(&mut function.opset_import, to);
        Ok(())
    }

    fn nodes(&mut self, mut nodes: Vec<NodeProto>, scope: &Scope<'_>, span: Span) -> Result<Body, RaiseError> {
        for node in &mut nodes {
            self.check(node, span)?;
            for attribute in &mut node.attribute {
                let graphs = attribute.g.iter_mut().map(|graph| &mut **graph).chain(&mut attribute.graphs);
                graphs.into_iter().try_for_each(|graph| self.graph(graph, scope, span))?;
            }
        }
        let mut context = Context::new(&mut self.facts, scope);
        for opset in span.from + 1..=span.to {
            let mut next = Vec::with_capacity(nodes.len());
            for node in nodes {
                let operator = is_default(node.domain()) && !self.functions.contains(node.op_type());
                let Some(step) = steps::find(node.op_type(), opset).filter(|_| operator) else {
                    next.push(node);
                    continue;
                };
                let before = node.clone();
                let after = step(node, &mut context).map_err(|refusal| refused(&before, span, refusal))?;
                if after.as_slice() != std::slice::from_ref(&before) {
                    let (node, op_type) = (label(&before).to_owned(), before.op_type().to_owned());
                    self.changes.push(Change { node, op_type, opset });
                }
                next.extend(after);
            }
            nodes = next;
        }
        let (constants, dropped) = context.finish();
        Ok(Body { nodes, constants, dropped })
    }

    /// Whether the default domain has the operator at the opset the body comes from.
    fn check(&self, node: &NodeProto, span: Span) -> Result<(), RaiseError> {
        if !is_default(node.domain()) || self.functions.contains(node.op_type()) {
            return Ok(());
        }
        let refusal = match find_operator(node.op_type()) {
            Some(Operator { withdrawn: Some(opset), .. }) if *opset <= span.from => {
                Refusal::Withdrawn { opset: *opset }
            }
            Some(operator) if operator.versions.first().is_some_and(|&first| first <= span.from) => return Ok(()),
            _ if OF_RUNTIME.contains(&node.op_type()) => return Ok(()),
            _ => Refusal::UnknownOperator { opset: span.from },
        };
        Err(refused(node, span, refusal))
    }
}

/// ONNX Runtime has these in the default domain at every opset, as its optimizer writes them; where ONNX has them, too,
/// they mean the same.
const OF_RUNTIME: [&str; 2] = ["LayerNormalization", "SimplifiedLayerNormalization"];

/// The table's entry of an operator.
pub(super) fn find_operator(name: &str) -> Option<&'static Operator> {
    OPERATORS.binary_search_by(|operator| operator.name.cmp(name)).ok().and_then(|index| OPERATORS.get(index))
}

/// What becomes of the nodes of one graph or function.
struct Body {
    nodes: Vec<NodeProto>,
    constants: Vec<TensorProto>,
    dropped: HashSet<String>,
}

fn refused(node: &NodeProto, span: Span, refusal: Refusal) -> RaiseError {
    RaiseError::Node { span, node: label(node).to_owned(), op_type: node.op_type().to_owned(), refusal }
}

/// `ai.onnx` is another name of the default domain.
fn is_default(domain: &str) -> bool {
    matches!(domain, "" | "ai.onnx")
}

fn set_import(imports: &mut Vec<OperatorSetIdProto>, version: i64) {
    match imports.iter_mut().find(|import| is_default(import.domain())) {
        Some(import) => import.version = Some(version),
        None => imports.push(OperatorSetIdProto { domain: Some(String::new()), version: Some(version) }),
    }
}

fn constant_node(mut tensor: TensorProto) -> NodeProto {
    let output = tensor.name.take().unwrap_or_default();
    let value = AttributeProto {
        name: Some("value".to_owned()),
        r#type: Some(AttributeType::Tensor as i32),
        t: Some(Box::new(tensor)),
        ..AttributeProto::default()
    };
    NodeProto {
        op_type: Some("Constant".to_owned()),
        output: vec![output],
        attribute: vec![value],
        ..NodeProto::default()
    }
}
