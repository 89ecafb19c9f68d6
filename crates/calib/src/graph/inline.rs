//! Expands local functions, for engines that do not know them.
//!
//! A node that calls a function of the model is replaced by the function's nodes:
//!
//! - formal inputs and outputs become the caller's names, all other names get the prefix
//!   `<node>.<number>/`, so that they stay unique;
//! - an attribute that refers to one of the function's becomes the caller's value, else the
//!   function's default, else it is left out;
//! - calls inside functions and inside the bodies of If, Loop and Scan are expanded too.
//!
//! Values of the main graph keep their names. Not expanded: a function written for another
//! version of the default operator set than the model (an error), and functions that call
//! themselves (an error; ONNX forbids them).

use std::collections::HashMap;

use onnxquant_proto::onnx::{AttributeProto, FunctionProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto};

use crate::error::CalibError;

/// Calls nested deeper than this are taken for a function that calls itself.
const MAX_DEPTH: usize = 32;
/// More nodes than any real model has: a few small functions can multiply to more.
const MAX_NODES: usize = 2_000_000;

/// The model without local functions; it computes the same values. For running a model: the
/// weights are shared with `model`.
pub fn inline_functions(model: &ModelProto) -> Result<ModelProto, CalibError> {
    let mut result = model.clone();
    if result.functions.is_empty() {
        return Ok(result);
    }
    let mut inliner = Inliner { functions: HashMap::new(), calls: 0, nodes: 0 };
    for function in &model.functions {
        check_opset(model, function)?;
        inliner.functions.insert(key(function.domain(), function.name(), function.overload()), function);
        add_opsets(&mut result.opset_import, &function.opset_import);
    }
    result.functions.clear();
    if let Some(graph) = &mut result.graph {
        inliner.expand_graph(graph, 0)?;
    }
    Ok(result)
}

type Key = (String, String, String);

fn key(domain: &str, name: &str, overload: &str) -> Key {
    let domain = if domain == "ai.onnx" { "" } else { domain };
    (domain.into(), name.into(), overload.into())
}

fn default_opset(imports: &[OperatorSetIdProto]) -> Option<i64> {
    imports.iter().find(|i| matches!(i.domain(), "" | "ai.onnx")).and_then(|i| i.version)
}

fn check_opset(model: &ModelProto, function: &FunctionProto) -> Result<(), CalibError> {
    match (default_opset(&model.opset_import), default_opset(&function.opset_import)) {
        (Some(model), Some(own)) if model != own => Err(CalibError::BadModel(format!(
            "its function `{}` is written for operator set {own}, the model for {model}",
            function.name()
        ))),
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
    calls: usize,
    nodes: usize,
}

impl Inliner<'_> {
    fn expand_graph(&mut self, graph: &mut GraphProto, depth: usize) -> Result<(), CalibError> {
        graph.node = self.expand_nodes(std::mem::take(&mut graph.node), depth)?;
        Ok(())
    }

    fn expand_nodes(&mut self, nodes: Vec<NodeProto>, depth: usize) -> Result<Vec<NodeProto>, CalibError> {
        let mut expanded = Vec::with_capacity(nodes.len());
        for mut node in nodes {
            self.nodes += 1;
            if self.nodes > MAX_NODES {
                return Err(CalibError::BadModel(format!("its functions expand to more than {MAX_NODES} nodes")));
            }
            let function = self.functions.get(&key(node.domain(), node.op_type(), node.overload())).copied();
            if let Some(function) = function {
                if depth >= MAX_DEPTH {
                    return Err(CalibError::BadModel(format!(
                        "its function `{}` seems to call itself",
                        function.name()
                    )));
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
        self.calls += 1;
        let label = if call.name().is_empty() { function.name() } else { call.name() };
        let mut scope = Scope { names: HashMap::new(), prefix: format!("{label}.{}/", self.calls), function, call };
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
        let mut nodes: Vec<NodeProto> = function.node.clone();
        nodes.iter_mut().for_each(|node| scope.rename_node(node));
        nodes.extend(copies);
        nodes
    }
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
        let inlined = inline_functions(&model(vec![twice, inc], vec![node("Twice", "local", &["x"], &["y"])])).unwrap();
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
        let inlined = inline_functions(&model(vec![f], vec![call])).unwrap();
        let attributes = &inlined.graph.as_ref().unwrap().node[0].attribute;
        let found: Vec<_> = attributes.iter().map(|a| (a.name(), a.f())).collect();
        assert_eq!(found, [("alpha", 3.0), ("beta", 2.0)]);
    }

    #[test]
    fn inputs_handed_through_become_identities() {
        let f = function("F", &["a"], &["a", "b"], vec![node("Relu", "", &["a"], &["b"])]);
        let inlined = inline_functions(&model(vec![f], vec![node("F", "local", &["x"], &["y", "z"])])).unwrap();
        assert_eq!(text(&inlined), ["Relu(x) -> z", "Identity(x) -> y"]);
    }

    #[test]
    fn recursion_and_other_opsets_are_errors() {
        let f = function("F", &["a"], &["b"], vec![node("F", "local", &["a"], &["b"])]);
        let error = inline_functions(&model(vec![f], vec![node("F", "local", &["x"], &["y"])])).unwrap_err();
        assert!(error.to_string().contains("call itself"), "{error}");
        let opset = |version| vec![OperatorSetIdProto { version: Some(version), ..OperatorSetIdProto::default() }];
        let mut f = function("F", &["a"], &["b"], vec![]);
        f.opset_import = opset(12);
        let mut other = model(vec![f], vec![]);
        other.opset_import = opset(13);
        assert!(inline_functions(&other).unwrap_err().to_string().contains("operator set 12, the model for 13"));
    }
}
