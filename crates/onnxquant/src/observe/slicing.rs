//! Which parts of the outputs are judged apart, as far as the graph tells.
//!
//! Where a Concat makes an output, its pieces are different things, whatever their magnitudes. Where Sigmoid or Softmax
//! makes it, its numbers are all between 0 and 1 by nature, and small ones among them are no less exact for being small.
//! In all other cases magnitudes tell ([`onnxquant_calib::Slicing`]).

use onnxquant_calib::{CalibError, Slicing, observe_shapes};
use onnxquant_ir::{Graph, Model, Node, NodeId, ValueId};

use crate::error::Error;
use crate::load::decoded;
use crate::observe::samples::Samples;

/// Operators that leave an output's numbers as they are; all but Transpose leave their axes too.
const RENAMING: [&str; 3] = ["Identity", "Cast", "Dropout"];
/// Operators that change the shape alone.
const RESHAPING: [&str; 4] = ["Reshape", "Flatten", "Squeeze", "Unsqueeze"];
/// Operators whose results have one scale by nature.
const BOUNDED: [&str; 4] = ["Sigmoid", "Softmax", "HardSigmoid", "Tanh"];

/// A Concat behind which only axes are exchanged.
struct Joined {
    concat: NodeId,
    /// By axis of the output: the axis of the Concat's result; `None` where they are the same.
    axes: Option<Vec<usize>>,
}

/// How the values of these names are divided; those that the graph does not know go by magnitude.
pub(crate) fn slicings(model: &Model, samples: &Samples, names: &[String]) -> Result<Vec<Slicing>, Error> {
    let graph = model.graph();
    let values: Vec<Option<ValueId>> = names.iter().map(|name| graph.find(name)).collect();
    let joined: Vec<Option<Joined>> = values.iter().map(|value| joined(graph, (*value)?)).collect();
    let shapes = piece_shapes(model, samples, &joined)?;
    let mut slicings = Vec::with_capacity(values.len());
    for ((value, joined), shapes) in values.iter().zip(&joined).zip(shapes) {
        let in_pieces = joined.as_ref().zip(shapes).and_then(|(joined, shapes)| pieces(graph, joined, &shapes));
        slicings.push(in_pieces.unwrap_or_else(|| by_nature(graph, *value)));
    }
    Ok(slicings)
}

/// How a value is divided that no Concat makes.
fn by_nature(graph: &Graph, value: Option<ValueId>) -> Slicing {
    if value.is_some_and(|value| is_bounded(graph, value)) { Slicing::Whole } else { Slicing::ByMagnitude }
}

/// The Concat that makes a value.
fn joined(graph: &Graph, value: ValueId) -> Option<Joined> {
    let (mut value, mut axes): (ValueId, Option<Vec<usize>>) = (value, None);
    loop {
        let (id, node) = graph.producer(value)?;
        if node.is("Concat") {
            return Some(Joined { concat: id, axes });
        }
        if node.is("Transpose") {
            let order: Vec<usize> =
                node.ints("perm")?.iter().map(|&axis| usize::try_from(axis).ok()).collect::<Option<_>>()?;
            axes = Some(match axes {
                Some(axes) => axes.iter().map(|&axis| order.get(axis).copied()).collect::<Option<_>>()?,
                None => order,
            });
        } else if !is_one_of(node, &RENAMING) {
            return None;
        }
        value = node.input(0)?;
    }
}

/// The shapes of what each Concat puts together, in one sample; nothing where the engine cannot tell.
fn piece_shapes(
    model: &Model,
    samples: &Samples,
    joined: &[Option<Joined>],
) -> Result<Vec<Option<Vec<Vec<usize>>>>, Error> {
    let graph = model.graph();
    let inputs = |joined: &Option<Joined>| -> Vec<String> {
        let concat = joined.as_ref().map(|joined| graph.node(joined.concat));
        let inputs = concat.into_iter().flat_map(|concat| concat.inputs().iter().flatten());
        inputs.map(|&value| graph.value(value).name().to_owned()).collect()
    };
    let names: Vec<Vec<String>> = joined.iter().map(inputs).collect();
    let all: Vec<String> = names.concat();
    let Some(&sample) = samples.split.calibration.first().filter(|_| !all.is_empty()) else {
        return Ok(vec![None; joined.len()]);
    };
    let decoded = decoded(model)?;
    let observed = || -> Result<Vec<(Vec<usize>, bool)>, Error> {
        let session = samples.session(&decoded, &all, &[sample])?;
        Ok(observe_shapes(&session, &samples.data, sample)?)
    };
    let mut shapes = match observed() {
        Ok(shapes) => shapes.into_iter().map(|(shape, _)| shape),
        Err(Error::Calibration(CalibError::Load { .. } | CalibError::Run { .. } | CalibError::NoSuchValue { .. })) => {
            return Ok(vec![None; joined.len()]);
        }
        Err(other) => return Err(other),
    };
    Ok(names.iter().map(|names| Some(shapes.by_ref().take(names.len()).collect())).collect())
}

/// The pieces along the axis of the output.
fn pieces(graph: &Graph, joined: &Joined, shapes: &[Vec<usize>]) -> Option<Slicing> {
    let concat = graph.node(joined.concat);
    let rank = shapes.first()?.len();
    let along = usize::try_from(concat.int("axis", 0)).ok().or_else(|| {
        let from_end = usize::try_from(concat.int("axis", 0).unsigned_abs()).ok()?;
        rank.checked_sub(from_end)
    })?;
    let sizes: Vec<usize> = shapes.iter().map(|shape| shape.get(along).copied()).collect::<Option<_>>()?;
    let axis = match &joined.axes {
        Some(axes) => axes.iter().position(|&axis| axis == along)?,
        None => along,
    };
    let by_magnitude = !concat.inputs().iter().flatten().all(|&piece| is_bounded(graph, piece));
    (sizes.len() > 1).then_some(Slicing::Pieces { axis, sizes, by_magnitude })
}

/// Whether the numbers of a value have one scale by nature.
fn is_bounded(graph: &Graph, mut value: ValueId) -> bool {
    while let Some((_, node)) = graph.producer(value) {
        if is_one_of(node, &BOUNDED) {
            return true;
        }
        let moves = node.is("Transpose") || is_one_of(node, &RENAMING) || is_one_of(node, &RESHAPING);
        match node.input(0).filter(|_| moves) {
            Some(input) => value = input,
            None => return false,
        }
    }
    false
}

fn is_one_of(node: &Node, op_types: &[&str]) -> bool {
    op_types.iter().any(|op_type| node.is(op_type))
}

#[cfg(test)]
mod tests {
    use onnxquant_ir::onnx::{AttributeProto, NodeProto};
    use onnxquant_ir::{int_attribute, ints_attribute};

    use super::*;
    use crate::testing;

    fn node(op_type: &str, inputs: &[&str], output: &str, attributes: Vec<AttributeProto>) -> NodeProto {
        NodeProto { attribute: attributes, ..testing::node(op_type, inputs, output) }
    }

    fn axis(axis: i64) -> Vec<AttributeProto> {
        vec![int_attribute("axis", axis)]
    }

    fn order(order: &[i64]) -> Vec<AttributeProto> {
        vec![ints_attribute("perm", order)]
    }

    /// How `y` is divided where `a` has the shape [1, 4, 8] and `b` [1, 10, 8].
    fn divided(nodes: Vec<NodeProto>) -> Slicing {
        let model = testing::model(&["a", "b"], nodes, Vec::new(), &["y"]);
        let graph = model.graph();
        let value = graph.find("y").unwrap();
        let shapes = [vec![1, 4, 8], vec![1, 10, 8]];
        let by_nature = if is_bounded(graph, value) { Slicing::Whole } else { Slicing::ByMagnitude };
        joined(graph, value).and_then(|joined| pieces(graph, &joined, &shapes)).unwrap_or(by_nature)
    }

    fn along(axis: usize, by_magnitude: bool) -> Slicing {
        Slicing::Pieces { axis, sizes: vec![4, 10], by_magnitude }
    }

    #[test]
    fn pieces_are_found_behind_what_exchanges_axes() {
        let concat = |output: &str, at: i64| node("Concat", &["a", "b"], output, axis(at));
        assert_eq!(divided(vec![concat("y", 1)]), along(1, true));
        assert_eq!(divided(vec![concat("y", -2)]), along(1, true));
        let turned =
            vec![concat("c", 1), node("Transpose", &["c"], "t", order(&[0, 2, 1])), node("Cast", &["t"], "y", vec![])];
        assert_eq!(divided(turned), along(2, true));
        let twice = vec![
            concat("c", 1),
            node("Transpose", &["c"], "s", order(&[1, 2, 0])),
            node("Transpose", &["s"], "y", order(&[2, 0, 1])),
        ];
        assert_eq!(divided(twice), along(1, true));
        assert_eq!(divided(vec![concat("c", 1), node("Relu", &["c"], "y", vec![])]), Slicing::ByMagnitude);
    }

    #[test]
    fn what_lies_between_0_and_1_is_not_divided() {
        let sum = || node("Add", &["a", "b"], "s", vec![]);
        assert_eq!(divided(vec![sum(), node("Softmax", &["s"], "y", vec![])]), Slicing::Whole);
        assert_eq!(divided(vec![sum(), node("Relu", &["s"], "y", vec![])]), Slicing::ByMagnitude);
        let both = vec![
            node("Sigmoid", &["a"], "p", vec![]),
            node("Sigmoid", &["b"], "q", vec![]),
            node("Concat", &["p", "q"], "y", axis(1)),
        ];
        assert_eq!(divided(both), along(1, false));
    }
}
