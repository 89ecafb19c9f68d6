//! Expands the local functions that hold layers, so that these are found.
//!
//! # Method
//!
//! A function holds layers where one of its nodes could be one, or calls a function that holds layers. Such functions are
//! expanded wherever they are called ([`onnxquant_proto::inline_functions`]); others stay as they are.
//!
//! The nodes of a function are of the opsets that it imports. Where that of the default domain is older than the model's the
//! function is raised, where it is newer the model.
//!
//! # Failure
//!
//! Functions that cannot be raised, or that import another version of a further domain, stay as they are, with their
//! layers ([`version_difference`] says why); so do all where the expanded model would be invalid.

use std::collections::{HashMap, HashSet};

use onnxquant_ir::Model;
use onnxquant_ir::onnx::{FunctionProto, OperatorSetIdProto};
use onnxquant_proto::{all_nodes, inline_functions};

use crate::layers::could_be_layer;
use crate::raise_opset::{raise_functions, raise_opset};

/// Expands the functions of `model` that hold layers; returns how many.
pub fn inline_layers(model: &mut Model) -> usize {
    let holding = holding_layers(model.functions());
    if holding.is_empty() {
        return 0;
    }
    let is_holding = |function: &FunctionProto| holding.contains(&key(function));
    let newest = model.functions().iter().filter(|function| is_holding(function)).filter_map(default_opset).max();
    let raised = match newest.filter(|newest| model.opset("").is_some_and(|own| own < *newest)) {
        Some(newest) => raise_opset(model.clone(), newest).map_or_else(|_| model.clone(), |(raised, _)| raised),
        None => model.clone(),
    };
    let proto = raise_functions(raised.to_proto());
    let differs = |function: &FunctionProto| difference(&proto.opset_import, function).is_some();
    let wanted = |function: &FunctionProto| is_holding(function) && !differs(function);
    let count = proto.functions.iter().filter(|function| wanted(function)).count();
    let inlined = inline_functions(&proto, wanted).ok().and_then(|inlined| raised.with_message(inlined).ok());
    match inlined.filter(|_| count > 0) {
        Some(inlined) => {
            *model = inlined;
            count
        }
        None => 0,
    }
}

/// How the opsets that a function imports differ from those of its model, where they do.
pub fn version_difference(model: &Model, function: &FunctionProto) -> Option<String> {
    difference(model.opsets(), function)
}

fn difference(imports: &[OperatorSetIdProto], function: &FunctionProto) -> Option<String> {
    let plain = |import: &OperatorSetIdProto| match import.domain() {
        "ai.onnx" => String::new(),
        domain => domain.to_owned(),
    };
    let of_model: HashMap<String, i64> = imports.iter().map(|it| (plain(it), it.version())).collect();
    function.opset_import.iter().find_map(|import| {
        let domain = plain(import);
        let (own, known) = (import.version(), *of_model.get(&domain)?);
        let domain = if domain.is_empty() { String::new() } else { format!(" of `{domain}`") };
        (own != known).then(|| format!("it is written for opset {own}{domain}, the model for {known}"))
    })
}

type Key = (String, String, String);

fn plain_key(domain: &str, name: &str, overload: &str) -> Key {
    (if domain == "ai.onnx" { "" } else { domain }.to_owned(), name.to_owned(), overload.to_owned())
}

fn key(function: &FunctionProto) -> Key {
    plain_key(function.domain(), function.name(), function.overload())
}

/// The functions that hold layers, by themselves or in what they call.
fn holding_layers(functions: &[FunctionProto]) -> HashSet<Key> {
    let known: HashSet<Key> = functions.iter().map(key).collect();
    let mut holding = HashSet::new();
    loop {
        let before = holding.len();
        for function in functions {
            let holds = all_nodes(&function.node).into_iter().any(|node| {
                let called = plain_key(node.domain(), node.op_type(), node.overload());
                if known.contains(&called) { holding.contains(&called) } else { could_be_layer(node) }
            });
            if holds {
                holding.insert(key(function));
            }
        }
        if holding.len() == before {
            return holding;
        }
    }
}

fn default_opset(function: &FunctionProto) -> Option<i64> {
    let of_default = |import: &&OperatorSetIdProto| matches!(import.domain(), "" | "ai.onnx");
    function.opset_import.iter().find(of_default).map(OperatorSetIdProto::version)
}

#[cfg(test)]
#[path = "inline_layers_tests.rs"]
mod tests;
