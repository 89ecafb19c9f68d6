//! Einsum that is a product with a constant matrix.
//!
//! ```text
//! abk..., k...n... -> abn...      Reshape to [a, b, K], MatMul with [K, N], Reshape to [a, b, n...]
//! ```
//!
//! Labels in both operands are summed over, those of one go to the result. Where they stand in another order, a
//! `Transpose` before or behind puts them right; that of the weight is constant. The numbers of a Reshape are those of the
//! weight's shape, and 0, which keeps a dimension. An ellipsis in front of input and result needs no name where nothing
//! has to move.

use onnxquant_ir::{Graph, NodeId, ValueId, ints_attribute, tensor};

use super::scaled::is_weight;
use crate::graph::constant_chain;
use crate::graph::insert::{append, insert};

/// An ellipsis, read as one label.
const REST: char = '.';

/// A product with a matrix.
struct Product {
    input: ValueId,
    weight: ValueId,
    /// Order of the input's axes before the product: those of the result, then those summed over.
    input_perm: Vec<i64>,
    /// Order of the weight's axes: those summed over, then those of the result.
    weight_perm: Vec<i64>,
    /// Order of the result's axes, counted in those of the input and then of the weight.
    result_perm: Vec<i64>,
    /// How many axes of the input are in the result.
    kept: usize,
    /// Sizes of the axes summed over.
    summed: Vec<i64>,
    /// Sizes of the weight's axes in the result.
    made: Vec<i64>,
}

/// Rewrites `id` where it is such an Einsum; returns whether.
pub(super) fn write_plain(graph: &mut Graph, id: NodeId) -> bool {
    let Some(found) = plan(graph, id) else { return false };
    let name = graph.label(id).to_owned();
    let zeros = vec![0; found.kept];
    let mut input = moved(graph, id, found.input, &found.input_perm, &name);
    if found.summed.len() != 1 {
        let shape = [zeros.clone(), vec![found.summed.iter().product()]].concat();
        input = shaped(graph, id, input, &shape, &name);
    }
    let mut weight = moved(graph, id, found.weight, &found.weight_perm, &name);
    if found.weight_perm.len() != 2 {
        weight = shaped(graph, id, weight, &[found.summed.iter().product(), found.made.iter().product()], &name);
    }
    graph.remove_attribute(id, "equation");
    graph.set_op_type(id, "MatMul");
    graph.set_input(id, 0, Some(input));
    graph.set_input(id, 1, Some(weight));
    let mut last = id;
    if found.made.len() != 1 {
        let shape = [zeros, found.made].concat();
        last = append(graph, last, "Reshape", format!("{name}_product"));
        let shape = graph.add_constant(&format!("{name}_shape"), tensor::from_i64(&[shape.len()], &shape));
        graph.set_input(last, 1, Some(shape));
    }
    if !is_identity(&found.result_perm) {
        last = append(graph, last, "Transpose", format!("{name}_axes"));
        graph.set_attribute(last, ints_attribute("perm", &found.result_perm));
    }
    true
}

fn moved(graph: &mut Graph, id: NodeId, value: ValueId, perm: &[i64], name: &str) -> ValueId {
    if is_identity(perm) {
        return value;
    }
    insert(graph, id, "Transpose", &[value], format!("{name}_turned"), vec![ints_attribute("perm", perm)])
}

fn shaped(graph: &mut Graph, id: NodeId, value: ValueId, shape: &[i64], name: &str) -> ValueId {
    let shape = graph.add_constant(&format!("{name}_shape"), tensor::from_i64(&[shape.len()], shape));
    insert(graph, id, "Reshape", &[value, shape], format!("{name}_matrix"), vec![])
}

fn is_identity(perm: &[i64]) -> bool {
    perm.iter().zip(0..).all(|(&axis, index)| axis == index)
}

fn plan(graph: &Graph, id: NodeId) -> Option<Product> {
    let node = graph.node(id);
    let [Some(first), Some(second)] = node.inputs() else { return None };
    let equation: String = node.text("equation", "").replace("...", ".").split_whitespace().collect();
    let (operands, result) = equation.split_once("->").filter(|_| node.is("Einsum"))?;
    let (a, b) = operands.split_once(',')?;
    let shape = |value: ValueId| {
        let declared = constant_chain::declared(graph, value).filter(|declared| is_weight(declared.dtype))?;
        declared.shape.iter().map(|&dim| i64::try_from(dim).ok()).collect::<Option<Vec<i64>>>()
    };
    let labels = |text: &str| {
        let labels: Vec<char> = text.chars().collect();
        let once = labels.iter().enumerate().all(|(index, label)| !labels[..index].contains(label));
        once.then_some(labels)
    };
    let (a, b, result) = (labels(a)?, labels(b)?, labels(result)?);
    match (shape(*first), shape(*second)) {
        (None, Some(dims)) => product((*first, &a), (*second, &b, &dims), &result),
        (Some(dims), None) => product((*second, &b), (*first, &a, &dims), &result),
        _ => None,
    }
}

fn product(
    (input, of_input): (ValueId, &[char]),
    (weight, of_weight, dims): (ValueId, &[char], &[i64]),
    of_result: &[char],
) -> Option<Product> {
    let within = |labels: &[char], others: &[char]| -> Vec<char> {
        labels.iter().copied().filter(|label| others.contains(label)).collect()
    };
    let kept = within(of_input, of_result);
    let made = within(of_result, of_weight);
    let summed: Vec<char> = of_input.iter().copied().filter(|label| !of_result.contains(label)).collect();
    let is_product = !summed.is_empty()
        && !made.is_empty()
        && dims.len() == of_weight.len()
        && summed.iter().all(|label| of_weight.contains(label))
        && kept.iter().all(|label| !of_weight.contains(label))
        && summed.len() + made.len() == of_weight.len()
        && kept.len() + made.len() == of_result.len()
        && !of_weight.contains(&REST);
    let perm = |order: &[char], labels: &[char]| -> Option<Vec<i64>> {
        let place = |label: &char| i64::try_from(labels.iter().position(|other| other == label)?).ok();
        order.iter().map(place).collect()
    };
    let size = |label: &char| dims.get(of_weight.iter().position(|other| other == label)?).copied();
    let found = Product {
        input,
        weight,
        input_perm: perm(&[kept.clone(), summed.clone()].concat(), of_input)?,
        weight_perm: perm(&[summed.clone(), made.clone()].concat(), of_weight).filter(|_| is_product)?,
        result_perm: perm(of_result, &[kept.clone(), made.clone()].concat())?,
        kept: kept.len(),
        summed: summed.iter().map(size).collect::<Option<_>>()?,
        made: made.iter().map(size).collect::<Option<_>>()?,
    };
    let stands = found.summed.len() == 1
        && found.made.len() == 1
        && [&found.input_perm, &found.result_perm].iter().all(|perm| is_identity(perm));
    (stands || !of_input.contains(&REST)).then_some(found)
}
