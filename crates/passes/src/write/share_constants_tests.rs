use onnxquant_ir::onnx::tensor_proto::DataType;
use onnxquant_ir::{Model, NodeId, tensor};

use super::*;
use crate::testing::{assert_valid, model, node};

/// Two layers that read `x`, each with the constants in its slots from 1 on.
fn layers(constants: [&[(&str, TensorProto)]; 2]) -> (Model, [Vec<ValueId>; 2]) {
    let nodes = ["y", "z"].map(|output| node("Max", &["x"], &[output], vec![]));
    let mut model = model("x", vec![], nodes.to_vec(), "y z");
    let graph = model.graph_mut();
    let nodes: Vec<NodeId> = graph.order().to_vec();
    let mut add = |node: NodeId, constants: &[(&str, TensorProto)]| {
        let add = |(slot, (name, tensor)): (usize, &(&str, TensorProto))| {
            let value = graph.add_constant(name, tensor.clone());
            graph.set_input(node, slot + 1, Some(value));
            value
        };
        constants.iter().enumerate().map(add).collect::<Vec<_>>()
    };
    let stored = [add(nodes[0], constants[0]), add(nodes[1], constants[1])];
    (model, stored)
}

fn shared(model: &mut Model, stored: &mut [Vec<ValueId>; 2]) {
    let mut lists: Vec<&mut Vec<ValueId>> = stored.iter_mut().collect();
    share_constants(model.graph_mut(), &mut lists).unwrap();
    assert_valid(model);
}

fn codes(dims: &[usize], codes: &[i16]) -> TensorProto {
    tensor::from_codes(DataType::Int8, dims, codes.iter().copied())
}

#[test]
fn equal_constants_become_one_and_count_for_the_first_layer() {
    let (same, scale) = (codes(&[2, 2], &[1, 2, 3, 4]), |s: f32| tensor::from_f32(&[2], &[1.0, s]));
    let first = [("a", same.clone()), ("s", scale(2.0))];
    let (mut model, mut stored) = layers([&first, &[("b", same), ("t", scale(3.0))]]);
    shared(&mut model, &mut stored);
    let graph = model.graph();
    let read = |layer: usize, slot| graph.value(graph.node(graph.order()[layer]).input(slot).unwrap()).name();
    assert_eq!([read(0, 1), read(0, 2), read(1, 1), read(1, 2)], ["a", "s", "a", "t"]);
    assert_eq!(graph.initializers().len(), 3);
    assert_eq!([stored_bytes(graph, &stored[0]), stored_bytes(graph, &stored[1])], [4 + 8, 8]);
    // Once more changes nothing.
    let before = stored.clone();
    shared(&mut model, &mut stored);
    assert_eq!((stored, model.graph().initializers().len()), (before, 3));
}

#[test]
fn constants_that_differ_stay_apart() {
    let table = [
        ("numbers", codes(&[2, 2], &[1, 2, 3, 4]), codes(&[2, 2], &[1, 2, 3, 5])),
        ("shape", codes(&[2, 2], &[1, 2, 3, 4]), codes(&[4, 1], &[1, 2, 3, 4])),
        ("type", codes(&[2], &[1, 2]), tensor::from_raw(DataType::Uint8, &[2], vec![1, 2])),
    ];
    for (what, a, b) in table {
        let (mut model, mut stored) = layers([&[("a", a)], &[("b", b)]]);
        shared(&mut model, &mut stored);
        assert_eq!(model.graph().initializers().len(), 2, "{what}");
        assert!(stored.iter().all(|stored| stored.len() == 1), "{what}");
    }
}

#[test]
fn equal_constants_of_one_layer_stay_apart() {
    let scale = tensor::from_f32(&[2], &[1.0, 2.0]);
    let (mut model, mut stored) = layers([&[("a", scale.clone()), ("b", scale)], &[]]);
    shared(&mut model, &mut stored);
    assert_eq!(model.graph().initializers().len(), 2);
}
