//! Runs one sample through a network in pieces of so many bytes of weights.
//!
//! An engine makes copies of its own of the weights that it reads, two of them for a while: a network whose weights fill the
//! memory is not opened as a whole where nobody needs it to be. One with fewer weights is one piece.

use std::collections::{HashMap, HashSet};

use onnxquant_proto::onnx::{GraphProto, ModelProto};

use super::{Network, Stream, advance};
use crate::data::CalibSet;
use crate::engine::SharedEngine;
use crate::error::CalibError;
use crate::graph::reads;
use crate::tensor::Tensor;

/// Computes `values` of `model` for one sample and hands each to `see`, with its position. Pieces have weights of at most
/// `most_bytes`, where single nodes have no more.
///
/// # Errors
/// The engine cannot run the model.
pub fn run_in_pieces(
    engine: &SharedEngine,
    model: &ModelProto,
    values: &[String],
    (data, sample): (&CalibSet, usize),
    most_bytes: u64,
    see: &mut (dyn FnMut(usize, &Tensor) + Send),
) -> Result<(), CalibError> {
    let nothing = GraphProto::default();
    let graph = model.graph.as_ref().unwrap_or(&nothing);
    let weights = Weights::of(graph);
    let asked = values.len();
    // Between two values there may be more weights than a piece may have.
    let values = [values, &weights.ends(graph, most_bytes)].concat();
    let pieces = weights.pieces(&values, most_bytes);
    let names = |piece: &[usize]| -> Vec<String> { piece.iter().map(|&position| values[position].clone()).collect() };
    let mut stream = Stream::new(engine.clone(), &[sample], usize::MAX);
    for (at, piece) in pieces.iter().enumerate() {
        let (wanted, later) = (names(piece), names(&pieces[at + 1..].concat()));
        let network = Network { stream: &mut stream, model, whole: &|| Ok(model.clone()), later: &later };
        advance(&mut [network], &[&wanted], data, &|_| {}, &mut |runs| {
            let found = runs.iter().flat_map(|run| run.values.iter().flatten());
            let found = piece.iter().zip(found).filter(|(position, _)| **position < asked);
            found.for_each(|(&position, tensor)| see(position, tensor));
            Ok(())
        })?;
    }
    Ok(())
}

/// By value, the bytes of the weights that are read up to it, as nodes stand.
struct Weights<'a>(HashMap<&'a str, u64>);

impl<'a> Weights<'a> {
    fn of(graph: &'a GraphProto) -> Self {
        let bytes = graph.initializer.iter().map(|tensor| (tensor.name(), tensor.raw_data().len() as u64));
        let bytes: HashMap<&str, u64> = bytes.collect();
        let (mut read, mut known) = (0, HashSet::new());
        let mut before = HashMap::new();
        for node in &graph.node {
            let fresh = reads(node).filter(|name| known.insert(*name));
            read += fresh.filter_map(|name| bytes.get(name)).sum::<u64>();
            before.extend(node.output.iter().map(|output| (output.as_str(), read)));
        }
        Self(before)
    }

    fn before(&self, value: &str) -> u64 {
        self.0.get(value).copied().unwrap_or(0)
    }

    /// Results of nodes, about so many bytes apart.
    fn ends(&self, graph: &GraphProto, most_bytes: u64) -> Vec<String> {
        let mut ends = Vec::new();
        let (mut start, mut last) = (0, None::<&String>);
        for output in graph.node.iter().filter_map(|node| node.output.first()).filter(|name| !name.is_empty()) {
            if self.before(output) - start > most_bytes
                && let Some(end) = last
            {
                start = self.before(end);
                ends.push(end.clone());
            }
            last = Some(output);
        }
        ends
    }

    /// The positions of `values`, in the order in which they are computed, piece by piece.
    fn pieces(&self, values: &[String], most_bytes: u64) -> Vec<Vec<usize>> {
        let bytes = |position: usize| self.before(&values[position]);
        let mut order: Vec<usize> = (0..values.len()).collect();
        order.sort_by_key(|&position| bytes(position));
        let mut pieces: Vec<Vec<usize>> = Vec::new();
        // Bytes before the piece, and up to its last value.
        let (mut start, mut end) = (0, 0);
        for position in order {
            let bytes = bytes(position);
            match pieces.last_mut() {
                Some(piece) if bytes == end || bytes - start <= most_bytes => piece.push(position),
                _ => {
                    start = end;
                    pieces.push(vec![position]);
                }
            }
            end = bytes;
        }
        pieces
    }
}

#[cfg(test)]
mod tests {
    use onnxquant_proto::onnx::TensorProto;

    use super::*;
    use crate::testing::node;

    #[test]
    fn pieces_hold_so_many_weights_and_follow_one_another() {
        let weight = |name: &str, bytes: usize| TensorProto {
            name: Some(name.into()),
            raw_data: Some(vec![0; bytes].into()),
            ..TensorProto::default()
        };
        let graph = GraphProto {
            node: vec![
                node("MatMul", &["x", "a"], "1"),
                node("MatMul", &["1", "b"], "2"),
                node("MatMul", &["2", "b"], "3"),
                node("MatMul", &["3", "c"], "4"),
            ],
            initializer: vec![weight("a", 10), weight("b", 10), weight("c", 30)],
            ..GraphProto::default()
        };
        let weights = Weights::of(&graph);
        let values = ["4", "2", "x", "1", "3"].map(str::to_owned);
        assert_eq!(weights.pieces(&values, 1000), [[2, 3, 1, 4, 0]]);
        assert_eq!(weights.pieces(&values, 20), [vec![2, 3, 1, 4], vec![0]]);
        assert_eq!(weights.pieces(&values, 10), [vec![2, 3], vec![1, 4], vec![0]]);
        assert_eq!(weights.pieces(&values, 1), [vec![2], vec![3], vec![1, 4], vec![0]]);
        assert_eq!(weights.pieces(&[], 1), Vec::<Vec<usize>>::new());
        assert_eq!(weights.ends(&graph, 1000), Vec::<String>::new());
        assert_eq!(weights.ends(&graph, 20), ["3"]);
        assert_eq!(weights.ends(&graph, 10), ["1", "3"]);
    }
}
