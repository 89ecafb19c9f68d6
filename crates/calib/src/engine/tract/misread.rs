//! What the engine would run as something else than it is.
//!
//! # Problem
//!
//! It looks at an operator's name only, whatever its domain, and passes over attributes that it does not know. So it
//! computes some operators otherwise than the standard says, without a word.
//!
//! # Method
//!
//! A table of rules, each as narrow as the fault: by domain, operator and attributes. What is easy to express otherwise
//! is rewritten instead, see [`contrib`], [`super::lower`], [`super::mend`] and [`super::attention`].
//!
//! # Guarantee
//!
//! The ONNX backend tests that the engine accepts come out right. The tests beside this file run them all, and show for
//! each rule that the engine is wrong without it.

use onnxquant_proto::onnx::{AttributeProto, ModelProto, NodeProto};

use super::contrib;
use crate::engine::blocked::{BlockedNode, Fault};
use crate::error::CalibError;
use crate::graph::all_nodes;

/// Domains whose operators the engine has under their own names.
const KNOWN_DOMAINS: [&str; 4] = ["", "ai.onnx", "ai.onnx.ml", "com.microsoft"];
const STANDARD: &[&str] = &["", "ai.onnx"];
const RECURRENT: &[&str] = &["GRU", "LSTM", "RNN"];
/// Operators that took an axis in the first opsets, from which the second input is broadcast.
const ALIGNED: &[&str] = &["Add", "And", "Div", "Equal", "Greater", "Less", "Mul", "Or", "Pow", "Sub", "Xor"];

/// When the engine would misread a node.
pub(super) struct Rule {
    domains: &'static [&'static str],
    op_types: &'static [&'static str],
    applies: fn(&NodeProto) -> bool,
    /// What is said to users.
    pub(super) reason: &'static str,
}

pub(super) const RULES: [Rule; 9] = [
    Rule {
        domains: STANDARD,
        op_types: &["ConvTranspose"],
        applies: |node| has_numbers(node, "output_shape"),
        reason: "it cuts off other parts of a result whose size is given",
    },
    Rule {
        domains: STANDARD,
        op_types: &["ConvTranspose"],
        applies: |node| text(node, "auto_pad").starts_with("SAME") && has_numbers(node, "output_padding"),
        reason: "it cuts off other parts of a padded result",
    },
    Rule {
        domains: STANDARD,
        op_types: &["GlobalLpPool"],
        applies: |_| true,
        reason: "it computes this norm otherwise, as one of means",
    },
    Rule {
        domains: STANDARD,
        op_types: &["Resize"],
        applies: |node| text(node, "coordinate_transformation_mode") == "tf_crop_and_resize" && !has_input(node, 3),
        reason: "it computes the size of a scaled crop otherwise, as that of the whole",
    },
    Rule {
        domains: STANDARD,
        op_types: &["SpaceToDepth"],
        applies: |node| text(node, "mode") == "CRD",
        reason: "it computes the order of depths otherwise, as in the mode DCR",
    },
    Rule {
        domains: STANDARD,
        op_types: RECURRENT,
        applies: has_other_activations,
        reason: "it computes activation functions other than the default ones otherwise, as these",
    },
    Rule {
        domains: STANDARD,
        op_types: RECURRENT,
        applies: |node| attribute(node, "clip").is_some(),
        reason: "it computes clipped activations otherwise, without clipping",
    },
    Rule {
        domains: STANDARD,
        op_types: &["LSTM"],
        applies: |node| int(node, "input_forget") == Some(1),
        reason: "it computes coupled gates otherwise, each by itself",
    },
    Rule {
        domains: STANDARD,
        op_types: ALIGNED,
        applies: |node| attribute(node, "axis").is_some(),
        reason: "it computes broadcasting from an axis otherwise, from the last one",
    },
];

/// Why the engine would run the node, if at all, as something else than it is.
pub(super) fn misread(node: &NodeProto) -> Option<&'static str> {
    if !KNOWN_DOMAINS.contains(&node.domain()) {
        return Some("it knows no operators of this domain");
    }
    match contrib::lowering(node) {
        Some(lowering) => (lowering.refused)(node),
        None => RULES.iter().find(|rule| rule.applies_to(node)).map(|rule| rule.reason),
    }
}

/// Why a model must not be run as it is.
pub(super) fn check(model: &ModelProto) -> Result<(), CalibError> {
    let nodes = model.graph.as_ref().map(all_nodes).unwrap_or_default();
    let refused = |node: &NodeProto| Some(BlockedNode::new(node, misread(node)?, Fault::Unknown));
    nodes.into_iter().find_map(refused).map_or(Ok(()), |node| Err(CalibError::from(&node)))
}

impl Rule {
    pub(super) fn applies_to(&self, node: &NodeProto) -> bool {
        self.domains.contains(&node.domain()) && self.op_types.contains(&node.op_type()) && (self.applies)(node)
    }
}

/// Whether one of the activation functions is not the one that stands there by default.
fn has_other_activations(node: &NodeProto) -> bool {
    let default: &[&str] = match node.op_type() {
        "RNN" => &["Tanh"],
        "GRU" => &["Sigmoid", "Tanh"],
        _ => &["Sigmoid", "Tanh", "Tanh"],
    };
    let given = attribute(node, "activations").map(|found| found.strings.as_slice()).unwrap_or_default();
    given.iter().zip(default.iter().cycle()).any(|(name, default)| !name.eq_ignore_ascii_case(default.as_bytes()))
}

fn attribute<'a>(node: &'a NodeProto, name: &str) -> Option<&'a AttributeProto> {
    node.attribute.iter().find(|attribute| attribute.name() == name)
}

fn int(node: &NodeProto, name: &str) -> Option<i64> {
    attribute(node, name).map(AttributeProto::i)
}

/// A text, empty where it is left out or none.
fn text<'a>(node: &'a NodeProto, name: &str) -> &'a str {
    attribute(node, name).and_then(|found| std::str::from_utf8(found.s()).ok()).unwrap_or_default()
}

fn has_numbers(node: &NodeProto, name: &str) -> bool {
    attribute(node, name).is_some_and(|found| found.ints.iter().any(|&number| number != 0))
}

fn has_input(node: &NodeProto, position: usize) -> bool {
    node.input.get(position).is_some_and(|name| !name.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::node;
    use onnxquant_proto::onnx::GraphProto;

    fn ints(name: &str, numbers: &[i64]) -> AttributeProto {
        AttributeProto { name: Some(name.into()), ints: numbers.to_vec(), ..AttributeProto::default() }
    }

    fn string(name: &str, value: &str) -> AttributeProto {
        AttributeProto { name: Some(name.into()), s: Some(value.as_bytes().to_vec()), ..AttributeProto::default() }
    }

    fn int_of(name: &str, value: i64) -> AttributeProto {
        AttributeProto { name: Some(name.into()), i: Some(value), ..AttributeProto::default() }
    }

    fn activations(names: &[&str]) -> AttributeProto {
        let strings = names.iter().map(|name| name.as_bytes().to_vec()).collect();
        AttributeProto { name: Some("activations".into()), strings, ..AttributeProto::default() }
    }

    fn with(op_type: &str, attribute: Vec<AttributeProto>) -> NodeProto {
        NodeProto { attribute, ..node(op_type, &["x", "w"], "y") }
    }

    #[test]
    fn only_the_attributes_that_are_misread_are_refused() {
        let same = || string("auto_pad", "SAME_UPPER");
        let padded = || ints("output_padding", &[1, 0]);
        let crop = || string("coordinate_transformation_mode", "tf_crop_and_resize");
        let sized =
            NodeProto { input: ["x", "roi", "", "sizes"].map(String::from).into(), ..with("Resize", vec![crop()]) };
        let right = [
            with("ConvTranspose", vec![]),
            with("ConvTranspose", vec![same()]),
            with("ConvTranspose", vec![padded()]),
            with("Resize", vec![string("coordinate_transformation_mode", "asymmetric")]),
            sized,
            with("RNN", vec![activations(&["tanh"])]),
            with("GRU", vec![activations(&["Sigmoid", "Tanh", "Sigmoid", "Tanh"])]),
            with("LSTM", vec![activations(&["Sigmoid", "Tanh", "Tanh"]), int_of("input_forget", 0)]),
            with("SpaceToDepth", vec![string("mode", "DCR")]),
            with("Add", vec![]),
            with("Softmax", vec![int_of("axis", 1)]),
        ];
        for node in &right {
            assert_eq!(misread(node), None, "{node:?}");
        }
        let wrong = [
            with("ConvTranspose", vec![ints("output_shape", &[8, 8])]),
            with("ConvTranspose", vec![same(), padded()]),
            with("Resize", vec![crop()]),
            with("RNN", vec![activations(&["Relu"])]),
            with("GRU", vec![activations(&["Sigmoid", "Tanh", "Sigmoid", "Relu"])]),
            with("LSTM", vec![int_of("input_forget", 1)]),
            with("SpaceToDepth", vec![string("mode", "CRD")]),
            with("Add", vec![int_of("axis", 1)]),
        ];
        for node in &wrong {
            assert!(misread(node).is_some(), "{node:?}");
        }
    }

    #[test]
    fn foreign_domains_and_namesakes_are_refused_with_the_node() {
        let refused = |domain: &str, op_type: &str| {
            let node = NodeProto { domain: Some(domain.into()), ..with(op_type, vec![]) };
            let graph = GraphProto { node: vec![node], ..GraphProto::default() };
            check(&ModelProto { graph: Some(graph), ..ModelProto::default() }).unwrap_err().to_string()
        };
        let error = refused("org.example", "MatMul");
        assert!(error.contains("`y` (MatMul of domain `org.example`)"), "{error}");
        assert!(refused("com.microsoft", "Attention").contains("number of heads is missing"));
    }
}
