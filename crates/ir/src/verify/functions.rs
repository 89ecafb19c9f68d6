//! Local functions must not call themselves.

use std::collections::{HashMap, HashSet};

use onnxquant_proto::all_nodes;
use onnxquant_proto::onnx::FunctionProto;

use crate::domain::plain_domain;
use crate::model::Model;
use crate::violation::Violation;

type Key<'a> = (&'a str, &'a str);

/// Adds a violation for every function from which a chain of calls leads back to itself.
pub(super) fn recursion(model: &Model, violations: &mut Vec<Violation>) {
    let functions = model.functions().iter().map(|function| (key(function), function)).collect::<HashMap<_, _>>();
    for function in model.functions() {
        if reached(function, &functions).contains(&key(function)) {
            violations.push(Violation::Recursion { function: function.name().to_owned() });
        }
    }
}

fn key(function: &FunctionProto) -> Key<'_> {
    (plain_domain(function.domain()), function.name())
}

/// Every function that `start` calls, directly or through others.
fn reached<'a>(start: &'a FunctionProto, functions: &HashMap<Key<'a>, &'a FunctionProto>) -> HashSet<Key<'a>> {
    let mut found = HashSet::new();
    let mut waiting = vec![start];
    while let Some(function) = waiting.pop() {
        for node in all_nodes(&function.node) {
            let called = (plain_domain(node.domain()), node.op_type());
            if let Some(callee) = functions.get(&called).filter(|_| found.insert(called)) {
                waiting.push(callee);
            }
        }
    }
    found
}
