//! Hands values of bodies out, so that an engine that shows values of the main graph alone shows them too.
//!
//! # Problem
//!
//! What a layer in the body of an If, Loop or Scan reads is known inside only, and there for every step anew.
//!
//! # Method
//!
//! Level by level, from the body outwards, its node gets one more output. The rows of a Gemm or MatMul (`[rows, K]`, by a
//! `Reshape`) and the pictures of a Conv (`[pictures, channels, ...]`) of all steps follow one another:
//!
//! | node | rows | pictures |
//! |---|---|---|
//! | If | the other branch gives none | the same |
//! | Loop | a further state, to which every step appends | the steps are stacked, and `[steps, pictures, ...]` becomes one batch |
//! | Scan | the steps are stacked | the same |
//!
//! # Guarantee
//!
//! What the model computed before it computes still, for the nodes that made it are as they were.
//!
//! # Cost
//!
//! All rows of a sample are in memory at once.
//!
//! # Failure
//!
//! Not where steps have to be stacked below opset 10, in whose first versions a Scan has a batch of its own, nor where a
//! node has no such body. An engine may fail where
//! what is stacked has another shape in another step; so the caller asks for few values at a time when it has to.

use std::collections::HashSet;

use onnxquant_ir::onnx::attribute_proto::AttributeType;
use onnxquant_ir::onnx::tensor_proto::DataType;
use onnxquant_ir::onnx::{
    AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, TypeProto, ValueInfoProto, type_proto,
};
use onnxquant_ir::{int_attribute, tensor};
use onnxquant_proto::{all_nodes, bodies, given_names, made_names};
use onnxquant_quant::MatrixView;

/// The opset from which on the bounds of a Slice are inputs; a Scan has no batch of its own then.
const STACKS: i64 = 10;

/// A step into a body.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct BodyStep {
    /// An output of the If, Loop or Scan.
    pub output: String,
    /// The attribute that holds the body.
    pub attribute: String,
}

/// What a layer in a body reads.
#[derive(Clone, Copy, Debug)]
pub struct InnerValue<'a> {
    /// From the main graph to the body.
    pub path: &'a [BodyStep],
    /// Its name there.
    pub name: &'a str,
    /// How the layer reads it.
    pub view: &'a MatrixView,
    /// Its type.
    pub dtype: DataType,
}

/// Lets the main graph make a value with all rows of `value`; returns its name, or nothing where that cannot be.
pub fn expose(model: &mut ModelProto, value: InnerValue<'_>) -> Option<String> {
    let opset = model.opset_import.iter().filter(|import| matches!(import.domain(), "" | "ai.onnx"));
    let opset = opset.map(|import| import.version()).max()?;
    let graph = model.graph.as_mut()?;
    let taken = names(graph).into_iter().map(str::to_owned).collect();
    let shape = match value.view.conv() {
        None => vec![value.view.inputs()],
        // As many pixels as one result needs.
        Some(conv) => {
            let pixels = conv.kernel.iter().zip(&conv.dilations).map(|(&kernel, &step)| (kernel - 1) * step + 1);
            std::iter::once(conv.in_channels).chain(pixels).collect()
        }
    };
    let mut exposing = Exposing { value, shape, opset, taken };
    exposing.from(graph, value.path)
}

/// Every name in a graph.
fn names(graph: &GraphProto) -> HashSet<&str> {
    let of_body = |body| given_names(body).chain(made_names(body));
    let inner = all_nodes(&graph.node).into_iter().flat_map(bodies).flat_map(of_body);
    let nodes = all_nodes(&graph.node).into_iter().map(NodeProto::name);
    of_body(graph).chain(inner).chain(nodes).collect()
}

struct Exposing<'a> {
    value: InnerValue<'a>,
    /// Dimensions behind the first of what is handed out where there are no rows.
    shape: Vec<usize>,
    opset: i64,
    taken: HashSet<String>,
}

impl Exposing<'_> {
    /// Makes a value of `graph` with the rows of what lies at the end of `path`.
    fn from(&mut self, graph: &mut GraphProto, path: &[BodyStep]) -> Option<String> {
        let Some((step, rest)) = path.split_first() else { return Some(self.rows(graph)) };
        let at = graph.node.iter().position(|node| node.output.contains(&step.output))?;
        let node = graph.node.get_mut(at)?;
        let is_default = matches!(node.domain(), "" | "ai.onnx");
        let op_type = node.op_type().to_owned();
        let inner = self.from(body_mut(node, &step.attribute)?, rest)?;
        let (before, behind, made) = match op_type.as_str() {
            "If" if is_default => (vec![], vec![], self.out_of_branch(node, &step.attribute, inner)?),
            "Loop" if is_default && self.is_dense() => {
                let (before, made) = self.out_of_loop(node, inner)?;
                (vec![before], vec![], made)
            }
            "Loop" if is_default && self.opset >= STACKS => {
                let places = node.input.len().saturating_sub(2);
                let stacked = self.stacked(node, inner, places, 1)?;
                let (behind, made) = self.joined(stacked);
                (vec![], behind, made)
            }
            "Scan" if is_default && self.opset >= STACKS => {
                let stacked = self.stacked(node, inner, 0, 0)?;
                for name in ["scan_output_axes", "scan_output_directions"] {
                    let listed = node.attribute.iter_mut().find(|attribute| attribute.name() == name);
                    listed.into_iter().for_each(|attribute| attribute.ints.push(0));
                }
                let (behind, made) = self.joined(stacked);
                (vec![], behind, made)
            }
            _ => return None,
        };
        graph.node.splice(at + 1..at + 1, behind);
        graph.node.splice(at..at, before);
        Some(made)
    }

    fn is_dense(&self) -> bool {
        self.value.view.is_dense()
    }

    /// The value in its own graph, as rows or pictures.
    fn rows(&mut self, graph: &mut GraphProto) -> String {
        if !self.is_dense() {
            let same = self.fresh("value");
            graph.node.push(node("Identity", &[self.value.name], &same, vec![]));
            return same;
        }
        let (sizes, rows) = (self.fresh("sizes"), self.fresh("rows"));
        let columns = self.shape.iter().map(|&dim| i64::try_from(dim).unwrap_or(0));
        let wanted: Vec<i64> = std::iter::once(-1).chain(columns).collect();
        graph.node.push(constant(&sizes, tensor::from_i64(&[wanted.len()], &wanted)));
        graph.node.push(node("Reshape", &[self.value.name, &sizes], &rows, vec![]));
        rows
    }

    /// The other branch gives no rows.
    fn out_of_branch(&mut self, choice: &mut NodeProto, attribute: &str, inner: String) -> Option<String> {
        let other = if attribute == "then_branch" { "else_branch" } else { "then_branch" };
        let nothing = self.fresh("nothing");
        let empty = self.nothing();
        let branch = body_mut(choice, other)?;
        branch.node.push(constant(&nothing, empty));
        branch.output.push(self.info(&nothing));
        let info = self.info(&inner);
        body_mut(choice, attribute)?.output.push(info);
        let made = self.fresh("branch");
        choice.output.push(made.clone());
        Some(made)
    }

    /// Every step appends its rows to a further state; returns what makes the first one.
    fn out_of_loop(&mut self, repeat: &mut NodeProto, inner: String) -> Option<(NodeProto, String)> {
        let [first, before, behind, made] = ["first", "before", "behind", "all"].map(|what| self.fresh(what));
        repeat.input.resize(repeat.input.len().max(2), String::new());
        let states = repeat.input.len() - 2;
        let (taken_in, given) = (self.info(&before), self.info(&behind));
        let body = body_mut(repeat, "body")?;
        body.node.push(node("Concat", &[&before, &inner], &behind, vec![int_attribute("axis", 0)]));
        body.input.push(taken_in);
        body.output.insert((states + 1).min(body.output.len()), given);
        repeat.input.push(first.clone());
        repeat.output.resize(repeat.output.len().max(states), String::new());
        repeat.output.insert(states, made.clone());
        Some((constant(&first, self.nothing()), made))
    }

    /// One more output of `repeat`, which has `states` before those that stack the steps; `first` outputs of its body have
    /// no output of the node.
    fn stacked(&mut self, repeat: &mut NodeProto, inner: String, states: usize, first: usize) -> Option<String> {
        let info = self.info(&inner);
        let body = body_mut(repeat, "body")?;
        let outputs = body.output.len().checked_sub(first)?.max(states);
        body.output.push(info);
        let made = self.fresh("steps");
        repeat.output.resize(repeat.output.len().max(outputs), String::new());
        repeat.output.push(made.clone());
        Some(made)
    }

    /// Rows of all steps one after the other, from `[steps, rows, ...]`.
    fn joined(&mut self, stacked: String) -> (Vec<NodeProto>, String) {
        let [shape, from, to, end, heads, count, rest, sizes, made] =
            ["shape", "from", "to", "end", "heads", "count", "rest", "sizes", "joined"].map(|what| self.fresh(what));
        let number = |name: &str, value: i64| constant(name, tensor::from_i64(&[1], &[value]));
        // Axes are an attribute below opset 18 and an input from there on: all of them together are the default.
        let nodes = vec![
            node("Shape", &[&stacked], &shape, vec![]),
            number(&from, 0),
            number(&to, 2),
            number(&end, i64::from(i32::MAX)),
            node("Slice", &[&shape, &from, &to], &heads, vec![]),
            node("ReduceProd", &[&heads], &count, vec![int_attribute("keepdims", 1)]),
            node("Slice", &[&shape, &to, &end], &rest, vec![]),
            node("Concat", &[&count, &rest], &sizes, vec![int_attribute("axis", 0)]),
            node("Reshape", &[&stacked, &sizes], &made, vec![]),
        ];
        (nodes, made)
    }

    /// No rows.
    fn nothing(&self) -> TensorProto {
        tensor::from_f32_as(self.value.dtype, &[&[0], &self.shape[..]].concat(), &[])
    }

    fn info(&self, name: &str) -> ValueInfoProto {
        let kind = type_proto::Tensor { elem_type: Some(self.value.dtype as i32), shape: None };
        let kind = TypeProto { value: Some(type_proto::Value::TensorType(kind)), ..TypeProto::default() };
        ValueInfoProto { name: Some(name.to_owned()), r#type: Some(kind), ..ValueInfoProto::default() }
    }

    fn fresh(&mut self, what: &str) -> String {
        let name = (0u64..).map(|number| format!("exposed.{what}.{number}")).find(|name| !self.taken.contains(name));
        let name = name.unwrap_or_default();
        self.taken.insert(name.clone());
        name
    }
}

fn body_mut<'a>(node: &'a mut NodeProto, attribute: &str) -> Option<&'a mut GraphProto> {
    node.attribute.iter_mut().find(|found| found.name() == attribute)?.g.as_deref_mut()
}

fn node(op_type: &str, inputs: &[&str], output: &str, attribute: Vec<AttributeProto>) -> NodeProto {
    NodeProto {
        op_type: Some(op_type.to_owned()),
        input: inputs.iter().map(|&input| input.to_owned()).collect(),
        output: vec![output.to_owned()],
        attribute,
        ..NodeProto::default()
    }
}

fn constant(output: &str, tensor: TensorProto) -> NodeProto {
    let value = AttributeProto {
        name: Some("value".to_owned()),
        r#type: Some(AttributeType::Tensor as i32),
        t: Some(Box::new(tensor)),
        ..AttributeProto::default()
    };
    node("Constant", &[], output, vec![value])
}

#[cfg(test)]
#[path = "expose_tests.rs"]
mod tests;
