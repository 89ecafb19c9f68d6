//! Checks that the attributes of nodes lie where their operators allow it.
//!
//! # Problem
//!
//! A file may name an axis beyond all axes, or a window of billions of elements. No runtime takes it; a program that
//! starts to compute with it may take minutes, or all memory, or end without a word.
//!
//! # Method
//!
//! `RULES` says by operator and attribute what is legal, relative to the rank of the first input as far as
//! declarations, constants and common operators tell ([`crate::raise_opset`] finds it out the same way). Where the rank
//! is not known, no tensor has more than `MAX_RANK` axes. Arguments that later opsets take as inputs are checked
//! where they are constant. Besides, normalizations have one parameter a channel.
//!
//! Bodies of If, Loop and Scan and local functions are checked as well. Operators of other domains are not.
//!
//! # Guarantee
//!
//! What ONNX Runtime runs passes, unless a window or padding has more than `LONGEST` elements.
//!
//! # References
//!
//! ONNX operator specification; in ONNX Runtime `pool_attributes.h`, `conv_attributes.h`, `batch_norm_helper.h`.

use std::collections::HashSet;

use onnxquant_ir::onnx::{GraphProto, ModelProto, NodeProto};
use onnxquant_ir::{IR_WITH_PLAIN_INITIALIZERS, tensor};

use crate::raise_opset::known::{Dims, Scope};

/// Axes that a tensor has at most; nothing real has more.
const MAX_RANK: i64 = 64;
/// Elements of a window, of a padding or of parts, at most: 2048 x 2048.
const LONGEST: i64 = 1 << 22;
/// Elements of a result whose lengths are constants, at most: 8 GiB of floats.
const MOST_ELEMENTS: i64 = 1 << 31;
/// Strides and dilations, at most: larger ones skip everything.
const WIDEST: i64 = (1 << 31) - 1;

/// What an attribute may be, for a first input of rank `r`.
#[derive(Clone, Copy)]
enum Legal {
    /// Axes from `-r` to `r - 1`.
    Axis,
    /// Axes from `-r` to `r`: where a tensor is divided.
    Border,
    /// Axes of a result with as many more as are named.
    NewAxis,
    /// Every axis once.
    Permutation,
    /// A positive length for each spatial axis, not too many elements together.
    Window,
    /// A positive step for each spatial axis.
    Step,
    /// Numbers from 1.
    Count,
    /// Numbers from 0.
    Amount,
    /// Numbers of either sign.
    Signed,
    /// Numbers from 0, not too large together.
    Amounts,
    /// Lengths of a result, not too many elements together.
    Lengths,
    /// How many of the node's inputs are meant.
    Inputs,
    /// Numbers between these.
    Within(i64, i64),
}

/// Operators, their attribute, the input that took its place in later opsets, and what is legal.
type Rule = (&'static [&'static str], &'static str, Option<usize>, Legal);

#[rustfmt::skip]
const RULES: [Rule; 28] = [
    (&["LayerNormalization", "RMSNormalization", "LpNormalization", "ArgMax", "ArgMin", "Concat", "Split", "Gather",
       "GatherElements", "Scatter", "ScatterElements", "TopK", "Compress"], "axis", None, Legal::Axis),
    (&["Softmax", "LogSoftmax", "Hardmax", "Flatten"], "axis", None, Legal::Border),
    (&["OneHot"], "axis", None, Legal::NewAxis),
    (&["ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd",
       "ReduceSum", "ReduceSumSquare", "Squeeze"], "axes", Some(1), Legal::Axis),
    (&["Slice"], "axes", Some(3), Legal::Axis),
    (&["Resize"], "axes", None, Legal::Axis),
    (&["Unsqueeze"], "axes", Some(1), Legal::NewAxis),
    (&["CumSum"], "axis", Some(1), Legal::Axis),
    (&["Transpose"], "perm", None, Legal::Permutation),
    (&["ReverseSequence"], "batch_axis", None, Legal::Axis),
    (&["ReverseSequence"], "time_axis", None, Legal::Axis),
    (&["Conv", "ConvTranspose", "ConvInteger", "QLinearConv", "AveragePool", "MaxPool", "LpPool"],
        "kernel_shape", None, Legal::Window),
    (&["Conv", "ConvTranspose", "ConvInteger", "QLinearConv", "AveragePool", "MaxPool", "LpPool"],
        "strides", None, Legal::Step),
    (&["Conv", "ConvTranspose", "ConvInteger", "QLinearConv", "AveragePool", "MaxPool", "LpPool"],
        "dilations", None, Legal::Step),
    (&["AveragePool", "MaxPool", "LpPool"], "pads", None, Legal::Amount),
    (&["Conv", "ConvTranspose", "ConvInteger", "QLinearConv"], "pads", None, Legal::Signed),
    (&["ConvTranspose"], "output_padding", None, Legal::Amount),
    (&["Conv", "ConvTranspose", "ConvInteger", "QLinearConv"], "group", None, Legal::Count),
    (&["Pad"], "pads", Some(1), Legal::Signed),
    (&["Tile"], "repeats", Some(1), Legal::Amounts),
    (&["Resize"], "sizes", Some(3), Legal::Lengths),
    (&["Expand"], "shape", Some(1), Legal::Lengths),
    (&["ConstantOfShape"], "shape", Some(0), Legal::Lengths),
    (&["Scan"], "num_scan_inputs", None, Legal::Inputs),
    (&["DepthToSpace", "SpaceToDepth"], "blocksize", None, Legal::Count),
    (&["LRN"], "size", None, Legal::Count),
    (&["LSTM", "GRU", "RNN"], "hidden_size", None, Legal::Count),
    (&["Split"], "num_outputs", None, Legal::Count),
];

/// Inputs that hold one number a channel.
const A_NUMBER_A_CHANNEL: [(&str, std::ops::Range<usize>); 2] =
    [("BatchNormalization", 1..5), ("InstanceNormalization", 1..3)];

/// An attribute, or an input of numbers in its place, that its operator does not allow.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("node `{node}` ({op_type}): {what} is {found:?}, expected {expected}")]
pub struct IllegalAttribute {
    /// The node's name, or its first output's.
    pub node: String,
    /// Its operator.
    pub op_type: String,
    /// Attribute or input.
    pub what: String,
    /// What it holds.
    pub found: Vec<i64>,
    /// What it may hold.
    pub expected: String,
}

/// All illegal attributes of `model`, in a fixed order.
pub fn check_attributes(model: &ModelProto) -> Vec<IllegalAttribute> {
    let local = model.functions.iter().filter(|function| matches!(function.domain(), "" | "ai.onnx"));
    let mut check = Check {
        functions: local.map(|function| function.name()).collect(),
        overridable: model.ir_version() >= IR_WITH_PLAIN_INITIALIZERS,
        found: Vec::new(),
    };
    let nothing = Scope::default();
    model.graph.iter().for_each(|graph| check.graph(graph, &nothing));
    for function in &model.functions {
        check.nodes(&function.node, &Scope::of_nodes(&function.node, &nothing));
    }
    check.found
}

struct Check<'a> {
    /// Local functions of the default domain: nodes of these names are calls.
    functions: HashSet<&'a str>,
    /// Whether an initializer that is listed as an input may be replaced by callers.
    overridable: bool,
    found: Vec<IllegalAttribute>,
}

impl Check<'_> {
    fn graph(&mut self, graph: &GraphProto, outer: &Scope<'_>) {
        self.nodes(&graph.node, &Scope::of_graph(graph, outer, self.overridable));
    }

    fn nodes(&mut self, nodes: &[NodeProto], scope: &Scope<'_>) {
        for node in nodes {
            if matches!(node.domain(), "" | "ai.onnx") && !self.functions.contains(node.op_type()) {
                let subject = Subject { node, scope };
                let rules = RULES.iter().filter(|(op_types, ..)| op_types.contains(&node.op_type()));
                self.found.extend(rules.filter_map(|rule| subject.breaks(rule)));
                self.found.extend(subject.uneven_channels());
            }
            for attribute in &node.attribute {
                let bodies = attribute.g.iter().map(|graph| &**graph).chain(&attribute.graphs);
                bodies.for_each(|body| self.graph(body, scope));
            }
        }
    }
}

/// A node that is checked, and what is known of its inputs.
struct Subject<'a> {
    node: &'a NodeProto,
    scope: &'a Scope<'a>,
}

impl Subject<'_> {
    /// How the node breaks a rule for its operator.
    fn breaks(&self, &(_, name, slot, legal): &Rule) -> Option<IllegalAttribute> {
        let attribute = self.node.attribute.iter().find(|attribute| attribute.name() == name);
        let (what, numbers) = match attribute {
            Some(attribute) if attribute.ints.is_empty() => (format!("`{name}`"), attribute.i.into_iter().collect()),
            Some(attribute) => (format!("`{name}`"), attribute.ints.clone()),
            None => (format!("input {} (`{name}`)", slot?), self.constant(slot?)?),
        };
        let inputs = i64::try_from(self.node.input.len()).unwrap_or(i64::MAX);
        let expected = match legal {
            Legal::Inputs => expected(Legal::Within(1, inputs), None, &numbers),
            legal => expected(legal, self.rank(), &numbers),
        }?;
        Some(self.illegal(what, numbers, expected))
    }

    /// Parameters that are not one number a channel.
    fn uneven_channels(&self) -> Option<IllegalAttribute> {
        let (_, slots) = A_NUMBER_A_CHANNEL.iter().find(|(op_type, _)| *op_type == self.node.op_type())?;
        let is_spatial = |name: &str| self.node.attribute.iter().all(|a| a.name() != name || a.i() != 0);
        // A tensor of one axis has one channel.
        let channels = match self.dims(0)?.as_slice() {
            [_, channels, ..] => (*channels)?,
            _ => 1,
        };
        let dims = |slot: usize| self.dims(slot)?.iter().copied().collect::<Option<Vec<i64>>>();
        let uneven = |slot: usize| Some((slot, dims(slot).filter(|dims| *dims != [channels])?));
        let (slot, found) = slots.clone().filter(|_| is_spatial("spatial")).find_map(uneven)?;
        let expected = format!("[{channels}], a number for each channel of the input");
        Some(self.illegal(format!("the shape of input {slot}"), found, expected))
    }

    fn illegal(&self, what: String, found: Vec<i64>, expected: String) -> IllegalAttribute {
        let output = || self.node.output.first().cloned().unwrap_or_default();
        let node = self.node.name.clone().filter(|name| !name.is_empty()).unwrap_or_else(output);
        IllegalAttribute { node, op_type: self.node.op_type().to_owned(), what, found, expected }
    }

    fn dims(&self, slot: usize) -> Option<&Dims> {
        self.scope.find(self.node.input.get(slot)?)?.dims.as_ref()
    }

    /// Numbers of a constant input.
    fn constant(&self, slot: usize) -> Option<Vec<i64>> {
        tensor::to_i64(self.scope.find(self.node.input.get(slot)?)?.constant.as_ref()?).ok()
    }

    /// Of the first input; of a Concat, all of whose inputs have one rank, that of any.
    fn rank(&self) -> Option<i64> {
        let slots = if self.node.op_type() == "Concat" { 0..self.node.input.len() } else { 0..1 };
        i64::try_from(slots.into_iter().find_map(|slot| self.dims(slot))?.len()).ok()
    }
}

/// What is expected instead of `numbers`, where these are illegal.
fn expected(legal: Legal, rank: Option<i64>, numbers: &[i64]) -> Option<String> {
    let axes = rank.unwrap_or(MAX_RANK);
    let count = i64::try_from(numbers.len()).unwrap_or(i64::MAX);
    let spatial = rank.and_then(|rank| rank.checked_sub(2)).filter(|&spatial| spatial > 0);
    let uneven = spatial.filter(|&spatial| spatial != count && count > 0).map(|spatial| format!("{spatial} numbers"));
    let within = |low: i64, high: i64| {
        let inside = numbers.iter().all(|number| (low..=high).contains(number));
        (!inside).then(|| format!("{} from {low} to {high}", if count == 1 { "a number" } else { "numbers" }))
    };
    let together = |most: i64| {
        let elements = numbers.iter().try_fold(1_i64, |product, &length| product.checked_mul(length.max(1)));
        let few = elements.is_some_and(|elements| elements <= most);
        (!few).then(|| format!("at most {most} elements together"))
    };
    match legal {
        Legal::Axis => within(-axes, axes - 1),
        Legal::Border => within(-axes, axes),
        Legal::NewAxis => within(-axes - count, axes + count - 1),
        Legal::Permutation => {
            let mut sorted = numbers.to_vec();
            sorted.sort_unstable();
            let is_permutation = sorted.iter().copied().eq(0..rank.unwrap_or(count));
            (!is_permutation && count > 0).then(|| format!("each of 0 to {} once", rank.unwrap_or(count) - 1))
        }
        Legal::Window => within(1, LONGEST).or(uneven).or_else(|| together(LONGEST)),
        Legal::Step => within(1, WIDEST).or(uneven),
        Legal::Count => within(1, LONGEST),
        Legal::Amount => within(0, LONGEST),
        Legal::Signed => within(-LONGEST, LONGEST),
        Legal::Amounts => within(0, LONGEST).or_else(|| together(LONGEST)),
        // What is below 0 is left to who runs it.
        Legal::Lengths => within(i64::MIN, MOST_ELEMENTS).or_else(|| together(MOST_ELEMENTS)),
        Legal::Within(low, high) => within(low, high),
        // What a rule says of inputs depends on the node.
        Legal::Inputs => None,
    }
}

#[cfg(test)]
#[path = "check_attributes_tests.rs"]
mod tests;
