//! Lets Pad say its amounts for every dimension instead of for some, where their number is known.
//!
//! ONNX Runtime moves layouts through a Pad behind a convolution on codes, and computes the wrong indices (or ends with an
//! error) where its amounts are for the `axes` of a fourth input. Exact. Left alone: amounts and axes that are computed.

use onnxquant_ir::{Graph, Model, NodeId, tensor};

use crate::graph::rank::rank;
use crate::prepare::fold_pad::amounts;

/// Where the axes are among the inputs.
const AXES: usize = 3;

/// Changes every such Pad; returns how many.
pub fn write_full_pads(model: &mut Model) -> usize {
    let graph = model.graph_mut();
    let with_axes = graph.nodes().filter(|(_, node)| node.is("Pad") && node.input(AXES).is_some());
    let with_axes: Vec<NodeId> = with_axes.map(|(id, _)| id).collect();
    with_axes.into_iter().filter(|&pad| write(graph, pad).is_some()).count()
}

fn write(graph: &mut Graph, pad: NodeId) -> Option<()> {
    let node = graph.node(pad);
    let full = amounts(graph, node, rank(graph, node.input(0)?)?)?;
    let (before, label) = ([node.input(1)?, node.input(AXES)?], graph.label(pad).to_owned());
    let len = if node.input(2).is_some() { AXES } else { 2 };
    let full = graph.add_constant(&format!("{label}_pads"), tensor::from_i64(&[full.len()], &full));
    graph.set_input(pad, 1, Some(full));
    graph.truncate_inputs(pad, len);
    before.into_iter().for_each(|value| graph.remove_if_unused(value));
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_unchanged, assert_valid, floats, image, message, model, node, run};

    #[test]
    fn amounts_of_some_axes_become_those_of_all() {
        let constants = || {
            vec![
                ("w", floats(&[4, 3, 2, 2], 1)),
                ("pads", tensor::from_i64(&[4], &[1, 2, 0, 3])),
                ("axes", tensor::from_i64(&[2], &[-1, 2])),
                ("value", tensor::from_f32(&[], &[0.5])),
            ]
        };
        for inputs in [["c", "pads", "value", "axes"], ["c", "pads", "", "axes"]] {
            let nodes = vec![node("Conv", &["x", "w"], &["c"], vec![]), node("Pad", &inputs, &["y"], vec![])];
            let mut padded = model("x", constants(), nodes, "y");
            let x = image();
            let expected = run(&padded, &x);
            assert_eq!(write_full_pads(&mut padded), 1);
            assert_valid(&padded);
            assert_eq!(run(&padded, &x), expected);
            let pad = padded.graph().nodes().find(|(_, node)| node.is("Pad")).expect("it stays").1;
            assert_eq!(pad.inputs().len(), if inputs[2].is_empty() { 2 } else { 3 });
            let full = padded.graph().value(pad.input(1).expect("it has amounts")).constant().expect("they are given");
            assert_eq!(tensor::to_i64(full).expect("they are integers"), [0, 0, 2, 1, 0, 0, 3, 0]);
            assert!(padded.graph().find("axes").is_none());
        }
    }

    #[test]
    fn unknown_dimensions_and_computed_axes_stay() {
        let constants = vec![("pads", tensor::from_i64(&[2], &[1, 2])), ("axes", tensor::from_i64(&[1], &[0]))];
        let nodes = vec![node("Pad", &["x", "pads", "", "axes"], &["y"], vec![])];
        assert_unchanged("no rank", message("x", constants, nodes, "y"), write_full_pads);
    }
}
