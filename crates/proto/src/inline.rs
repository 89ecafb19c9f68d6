//! Expands local functions.
//!
//! A node that calls a function of the model is replaced by the function's nodes:
//!
//! - formal inputs and outputs become the caller's names, all other names get the prefix
//!   `<node>.<number>/`, with which no name of the model begins, so that they stay unique;
//! - an attribute that refers to one of the function's becomes the caller's value, else the
//!   function's default, else it is left out;
//! - a large constant becomes an initializer of the main graph, one for all calls of its function;
//! - calls inside functions and inside the bodies of If, Loop and Scan are expanded too.
//!
//! Values of the main graph keep their names. Not expanded: a function written for another
//! version of the default operator set than the model (an error), and functions that call
//! themselves (an error; ONNX forbids them).

use std::collections::{BTreeSet, HashMap, HashSet};

use crate::onnx::{AttributeProto, FunctionProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorProto};
use crate::{all_nodes, bodies, given_names, made_names};

/// Calls nested deeper than this are taken for a function that calls itself.
const MAX_DEPTH: usize = 32;
/// More nodes than any real model has: a few small functions can multiply to more.
const MAX_NODES: usize = 2_000_000;
/// Constants of a function from so many bytes on are stored once for all its calls.
const SHARED_BYTES: usize = 1024;

/// Why functions cannot be expanded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InlineError {
    /// A function is written for another version of the default operator set.
    #[error("its function `{function}` is written for operator set {own}, the model for {model}")]
    Opset {
        /// Its name.
        function: String,
        /// Its version.
        own: i64,
        /// That of the model.
        model: i64,
    },
    /// A function that seems to call itself.
    #[error("its function `{function}` seems to call itself")]
    Recursion {
        /// Its name.
        function: String,
    },
    /// They multiply to too many nodes.
    #[error("its functions expand to more than {MAX_NODES} nodes")]
    TooMany,
}

/// The model with the functions that are `wanted` expanded, and without them; it computes the same values. Weights are
/// shared with `model`.
pub fn inline_functions(
    model: &ModelProto,
    wanted: impl Fn(&FunctionProto) -> bool,
) -> Result<ModelProto, InlineError> {
    let mut result = model.clone();
    let (expanded, kept): (Vec<&FunctionProto>, Vec<_>) = model.functions.iter().partition(|function| wanted(function));
    if expanded.is_empty() {
        return Ok(result);
    }
    let mut inliner = Inliner {
        functions: HashMap::new(),
        taken: model.graph.iter().flat_map(names).collect(),
        constants: Vec::new(),
        shared: HashMap::new(),
        calls: 0,
        nodes: 0,
    };
    for function in expanded {
        check_opset(model, function)?;
        inliner.functions.insert(key(function.domain(), function.name(), function.overload()), function);
        add_opsets(&mut result.opset_import, &function.opset_import);
    }
    result.functions = still_called(&model.functions, kept);
    if let Some(graph) = &mut result.graph {
        inliner.expand_graph(graph, 0)?;
        graph.initializer.append(&mut inliner.constants);
    }
    Ok(result)
}

/// Those of `functions` that are `kept` or that one of these calls.
fn still_called(functions: &[FunctionProto], kept: Vec<&FunctionProto>) -> Vec<FunctionProto> {
    let own_key = |function: &FunctionProto| key(function.domain(), function.name(), function.overload());
    let mut known: HashSet<Key> = kept.iter().copied().map(own_key).collect();
    let mut waiting = kept;
    while let Some(function) = waiting.pop() {
        for node in all_nodes(&function.node) {
            let called = key(node.domain(), node.op_type(), node.overload());
            if let Some(callee) = functions.iter().find(|function| own_key(function) == called)
                && known.insert(called)
            {
                waiting.push(callee);
            }
        }
    }
    functions.iter().filter(|function| known.contains(&own_key(function))).cloned().collect()
}

/// Every name of a value or node of a graph, bodies included.
fn names(graph: &GraphProto) -> BTreeSet<String> {
    let mut found: BTreeSet<String> = given_names(graph).chain(made_names(graph)).map(str::to_owned).collect();
    for node in &graph.node {
        found.insert(node.name().to_owned());
        found.extend(bodies(node).flat_map(names));
    }
    found
}

type Key = (String, String, String);

fn key(domain: &str, name: &str, overload: &str) -> Key {
    let domain = if domain == "ai.onnx" { "" } else { domain };
    (domain.into(), name.into(), overload.into())
}

fn default_opset(imports: &[OperatorSetIdProto]) -> Option<i64> {
    imports.iter().find(|i| matches!(i.domain(), "" | "ai.onnx")).and_then(|i| i.version)
}

fn check_opset(model: &ModelProto, function: &FunctionProto) -> Result<(), InlineError> {
    match (default_opset(&model.opset_import), default_opset(&function.opset_import)) {
        (Some(model), Some(own)) if model != own => {
            Err(InlineError::Opset { function: function.name().to_owned(), own, model })
        }
        _ => Ok(()),
    }
}

fn add_opsets(imports: &mut Vec<OperatorSetIdProto>, more: &[OperatorSetIdProto]) {
    for import in more {
        if !imports.iter().any(|i| key(i.domain(), "", "") == key(import.domain(), "", "")) {
            imports.push(import.clone());
        }
    }
}

struct Inliner<'a> {
    functions: HashMap<Key, &'a FunctionProto>,
    /// Names that the model has already.
    taken: BTreeSet<String>,
    /// New initializers of the main graph.
    constants: Vec<TensorProto>,
    /// Their names, by function and name in it.
    shared: HashMap<(Key, String), String>,
    calls: usize,
    nodes: usize,
}

impl Inliner<'_> {
    fn expand_graph(&mut self, graph: &mut GraphProto, depth: usize) -> Result<(), InlineError> {
        graph.node = self.expand_nodes(std::mem::take(&mut graph.node), depth)?;
        Ok(())
    }

    fn expand_nodes(&mut self, nodes: Vec<NodeProto>, depth: usize) -> Result<Vec<NodeProto>, InlineError> {
        let mut expanded = Vec::with_capacity(nodes.len());
        for mut node in nodes {
            self.nodes += 1;
            if self.nodes > MAX_NODES {
                return Err(InlineError::TooMany);
            }
            let function = self.functions.get(&key(node.domain(), node.op_type(), node.overload())).copied();
            if let Some(function) = function {
                if depth >= MAX_DEPTH {
                    return Err(InlineError::Recursion { function: function.name().to_owned() });
                }
                let body = self.instantiate(function, &node);
                expanded.extend(self.expand_nodes(body, depth + 1)?);
                continue;
            }
            for attribute in &mut node.attribute {
                for graph in attribute.g.iter_mut().map(AsMut::as_mut).chain(&mut attribute.graphs) {
                    self.expand_graph(graph, depth)?;
                }
            }
            expanded.push(node);
        }
        Ok(expanded)
    }

    /// The function's nodes with the caller's names and attributes.
    fn instantiate(&mut self, function: &FunctionProto, call: &NodeProto) -> Vec<NodeProto> {
        let label = if call.name().is_empty() { function.name() } else { call.name() };
        let prefix = self.fresh_prefix(label);
        let mut scope = Scope { names: HashMap::new(), prefix, function, call };
        let mut copies = Vec::new();
        for (index, formal) in function.input.iter().enumerate() {
            let actual = call.input.get(index).cloned().unwrap_or_default();
            scope.names.insert(formal.clone(), actual);
        }
        for (formal, actual) in function.output.iter().zip(&call.output).filter(|(_, actual)| !actual.is_empty()) {
            match scope.names.get(formal) {
                // An input, or an output listed twice, handed through.
                Some(known) => copies.push(identity(known, actual)),
                None => {
                    scope.names.insert(formal.clone(), actual.clone());
                }
            }
        }
        let mut nodes = Vec::with_capacity(function.node.len());
        for node in &function.node {
            match large_constant(node).filter(|(output, _)| !scope.names.contains_key(*output)) {
                Some((output, tensor)) => {
                    let shared = self.share(function, output, tensor);
                    scope.names.insert(output.to_owned(), shared);
                }
                None => nodes.push(node.clone()),
            }
        }
        nodes.iter_mut().for_each(|node| scope.rename_node(node));
        nodes.extend(copies);
        nodes
    }

    /// `<label>.<number>/`, with which no name of the model begins.
    fn fresh_prefix(&mut self, label: &str) -> String {
        loop {
            self.calls += 1;
            let prefix = format!("{label}.{}/", self.calls);
            if self.taken.range(prefix.clone()..).next().is_none_or(|name| !name.starts_with(&prefix)) {
                return prefix;
            }
        }
    }

    /// The initializer for a constant of a function, the same for every call.
    fn share(&mut self, function: &FunctionProto, output: &str, tensor: &TensorProto) -> String {
        let of_function = key(function.domain(), function.name(), function.overload());
        let place = (of_function, output.to_owned());
        if let Some(shared) = self.shared.get(&place) {
            return shared.clone();
        }
        let mut shared = format!("{}/{output}", function.name());
        while !self.taken.insert(shared.clone()) {
            shared.push('_');
        }
        self.constants.push(TensorProto { name: Some(shared.clone()), ..tensor.clone() });
        self.shared.insert(place, shared.clone());
        shared
    }
}

/// The output and tensor of a `Constant` that is large and does not depend on the call.
fn large_constant(node: &NodeProto) -> Option<(&str, &TensorProto)> {
    let is_constant = node.op_type() == "Constant" && matches!(node.domain(), "" | "ai.onnx");
    let ([attribute], [output]) = (&node.attribute[..], &node.output[..]) else { return None };
    let tensor = attribute.t.as_deref().filter(|_| is_constant && attribute.ref_attr_name().is_empty())?;
    (tensor.raw_data().len() >= SHARED_BYTES || tensor.float_data.len() * 4 >= SHARED_BYTES)
        .then_some((output.as_str(), tensor))
}

fn identity(from: &str, to: &str) -> NodeProto {
    NodeProto {
        op_type: Some("Identity".into()),
        input: vec![from.into()],
        output: vec![to.into()],
        ..NodeProto::default()
    }
}

struct Scope<'a> {
    /// Formal to actual names.
    names: HashMap<String, String>,
    prefix: String,
    function: &'a FunctionProto,
    call: &'a NodeProto,
}

impl Scope<'_> {
    fn rename(&self, name: &mut String) {
        if name.is_empty() {
            return;
        }
        *name = match self.names.get(name.as_str()) {
            Some(actual) => actual.clone(),
            None => format!("{}{name}", self.prefix),
        };
    }

    fn rename_node(&self, node: &mut NodeProto) {
        node.input.iter_mut().chain(&mut node.output).for_each(|name| self.rename(name));
        if let Some(name) = node.name.as_mut().filter(|n| !n.is_empty()) {
            *name = format!("{}{name}", self.prefix);
        }
        let attributes = std::mem::take(&mut node.attribute);
        node.attribute = attributes.into_iter().filter_map(|a| self.resolve(a)).collect();
        for attribute in &mut node.attribute {
            attribute.g.iter_mut().map(AsMut::as_mut).chain(&mut attribute.graphs).for_each(|g| self.rename_graph(g));
        }
    }

    /// Functions see no names from outside, so every name in a body is the function's.
    fn rename_graph(&self, graph: &mut GraphProto) {
        let infos = graph.input.iter_mut().chain(&mut graph.output).chain(&mut graph.value_info);
        infos.filter_map(|i| i.name.as_mut()).for_each(|name| self.rename(name));
        graph.initializer.iter_mut().filter_map(|t| t.name.as_mut()).for_each(|name| self.rename(name));
        graph.node.iter_mut().for_each(|node| self.rename_node(node));
    }

    fn resolve(&self, attribute: AttributeProto) -> Option<AttributeProto> {
        if attribute.ref_attr_name().is_empty() {
            return Some(attribute);
        }
        let wanted = attribute.ref_attr_name();
        let given = self.call.attribute.iter().chain(&self.function.attribute_proto);
        let mut value = given.into_iter().find(|a| a.name() == wanted)?.clone();
        value.name = attribute.name;
        Some(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(op: &str, domain: &str, inputs: &[&str], outputs: &[&str]) -> NodeProto {
        NodeProto {
            op_type: Some(op.into()),
            domain: Some(domain.into()),
            input: inputs.iter().map(|s| (*s).into()).collect(),
            output: outputs.iter().map(|s| (*s).into()).collect(),
            ..NodeProto::default()
        }
    }

    fn function(name: &str, inputs: &[&str], outputs: &[&str], node: Vec<NodeProto>) -> FunctionProto {
        FunctionProto {
            name: Some(name.into()),
            domain: Some("local".into()),
            input: inputs.iter().map(|s| (*s).into()).collect(),
            output: outputs.iter().map(|s| (*s).into()).collect(),
            node,
            ..FunctionProto::default()
        }
    }

    fn model(functions: Vec<FunctionProto>, nodes: Vec<NodeProto>) -> ModelProto {
        ModelProto {
            functions,
            graph: Some(GraphProto { node: nodes, ..GraphProto::default() }),
            ..ModelProto::default()
        }
    }

    fn all(model: &ModelProto) -> Result<ModelProto, InlineError> {
        inline_functions(model, |_| true)
    }

    fn text(model: &ModelProto) -> Vec<String> {
        let nodes = &model.graph.as_ref().unwrap().node;
        nodes.iter().map(|n| format!("{}({}) -> {}", n.op_type(), n.input.join(" "), n.output.join(" "))).collect()
    }

    #[test]
    fn nested_calls_become_plain_nodes_with_unique_names() {
        let twice = function(
            "Twice",
            &["a"],
            &["c"],
            vec![node("Inc", "local", &["a"], &["b"]), node("Inc", "local", &["b"], &["c"])],
        );
        let inc = function(
            "Inc",
            &["a", "unused"],
            &["b"],
            vec![node("One", "", &[], &["one"]), node("Add", "", &["a", "one"], &["b"])],
        );
        let inlined = all(&model(vec![twice, inc], vec![node("Twice", "local", &["x"], &["y"])])).unwrap();
        let expected = [
            "One() -> Inc.2/one",
            "Add(x Inc.2/one) -> Twice.1/b",
            "One() -> Inc.3/one",
            "Add(Twice.1/b Inc.3/one) -> y",
        ];
        assert_eq!(text(&inlined), expected);
        assert!(inlined.functions.is_empty());
    }

    #[test]
    fn attributes_come_from_the_caller_or_the_default() {
        let mut inner = node("Scale", "", &["a"], &["b"]);
        for name in ["alpha", "beta", "gamma"] {
            inner.attribute.push(AttributeProto {
                name: Some(name.into()),
                ref_attr_name: Some(format!("f_{name}")),
                ..AttributeProto::default()
            });
        }
        let mut f = function("F", &["a"], &["b"], vec![inner]);
        let value =
            |name: &str, x: f32| AttributeProto { name: Some(name.into()), f: Some(x), ..AttributeProto::default() };
        f.attribute_proto = vec![value("f_alpha", 1.0), value("f_beta", 2.0)];
        let mut call = node("F", "local", &["x"], &["y"]);
        call.attribute.push(value("f_alpha", 3.0));
        let inlined = all(&model(vec![f], vec![call])).unwrap();
        let attributes = &inlined.graph.as_ref().unwrap().node[0].attribute;
        let found: Vec<_> = attributes.iter().map(|a| (a.name(), a.f())).collect();
        assert_eq!(found, [("alpha", 3.0), ("beta", 2.0)]);
    }

    #[test]
    fn inputs_handed_through_become_identities() {
        let f = function("F", &["a"], &["a", "b"], vec![node("Relu", "", &["a"], &["b"])]);
        let inlined = all(&model(vec![f], vec![node("F", "local", &["x"], &["y", "z"])])).unwrap();
        assert_eq!(text(&inlined), ["Relu(x) -> z", "Identity(x) -> y"]);
    }

    #[test]
    fn recursion_and_other_opsets_are_errors() {
        let f = function("F", &["a"], &["b"], vec![node("F", "local", &["a"], &["b"])]);
        let error = all(&model(vec![f], vec![node("F", "local", &["x"], &["y"])])).unwrap_err();
        assert!(error.to_string().contains("call itself"), "{error}");
        let opset = |version| vec![OperatorSetIdProto { version: Some(version), ..OperatorSetIdProto::default() }];
        let mut f = function("F", &["a"], &["b"], vec![]);
        f.opset_import = opset(12);
        let mut other = model(vec![f], vec![]);
        other.opset_import = opset(13);
        assert!(all(&other).unwrap_err().to_string().contains("operator set 12, the model for 13"));
    }
}
