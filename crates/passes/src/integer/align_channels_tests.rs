use ndarray::ArrayD;
use onnxquant_ir::onnx::{GraphProto, ModelProto};
use onnxquant_ir::{Model, int_attribute};

use super::*;
use crate::testing::{assert_unchanged, assert_valid, floats, image, info, message, node, op_types, run, set_constant};

fn codes(dims: &[usize]) -> TensorProto {
    let count = dims.iter().product::<usize>() as i16;
    tensor::from_codes(DataType::Int8, dims, (0..count).map(|i| (i * 37) % 255 - 127))
}

fn on_codes() -> ModelProto {
    let constants = vec![
        ("scale", tensor::from_f32(&[], &[0.05])),
        ("zero", tensor::from_codes(DataType::Uint8, &[], [117])),
        ("w", codes(&[16, 3, 3, 3])),
        ("w_scale", tensor::from_f32(&[16], &[0.01; 16])),
        ("w_zero", tensor::from_codes(DataType::Int8, &[16], [0; 16])),
        ("b", floats(&[16], 5)),
    ];
    let nodes = vec![
        node("QuantizeLinear", &["x", "scale", "zero"], &["q"], vec![]),
        node("DequantizeLinear", &["q", "scale", "zero"], &["d"], vec![]),
        node("DequantizeLinear", &["w", "w_scale", "w_zero"], &["v"], vec![int_attribute("axis", 0)]),
        node("Conv", &["d", "v", "b"], &["y"], vec![]),
    ];
    message("x", constants, nodes, "y")
}

/// Pads codes with their zero point, which the interpreter knows as zeros of real numbers only.
fn without_pad(model: &Model) -> Vec<ArrayD<f32>> {
    let mut model = model.clone();
    let pad = crate::testing::find_node(model.graph(), "Pad").unwrap();
    let graph = model.graph_mut();
    let (codes, padded) = (graph.node(pad).input(0), graph.node(pad).output(0).unwrap());
    let Use::Input(decode, 0) = graph.value(padded).uses()[0] else { panic!("the codes are decoded") };
    let amounts = graph.node(pad).input(1);
    graph.set_input(decode, 0, codes);
    let decoded = graph.node(decode).output(0).unwrap();
    let Use::Input(conv, 0) = graph.value(decoded).uses()[0] else { panic!("the Conv reads them") };
    let after = insert(graph, conv, "Pad", &[decoded, amounts.unwrap()], "real".to_owned(), vec![]);
    graph.set_input(conv, 0, Some(after));
    graph.remove_node(pad).unwrap();
    run(&model, &image())
}

#[test]
fn channels_of_a_picture_become_four() {
    let mut model = Model::from_proto(on_codes()).unwrap();
    let before = run(&model, &image());
    assert_eq!(align_channels(model.graph_mut(), Cpu::Vnni).unwrap(), 1);
    assert_valid(&model);
    assert_eq!(op_types(&model), ["QuantizeLinear", "Pad", "DequantizeLinear", "DequantizeLinear", "Conv"]);
    let graph = model.graph();
    let weight = graph.value(graph.find("w").unwrap()).constant().unwrap();
    assert_eq!(weight.dims, [16, 4, 3, 3]);
    let pad = graph.node(crate::testing::find_node(graph, "Pad").unwrap());
    assert_eq!(pad.input(2), graph.find("zero"), "the zero point fills the new channel");
    assert_eq!(without_pad(&model), before);
    assert_eq!(align_channels(model.graph_mut(), Cpu::Vnni).unwrap(), 0, "idempotent");
}

#[test]
fn other_layers_stay_as_they_are() {
    type Change = fn(&mut GraphProto);
    fn outputs(graph: &mut GraphProto, count: usize) {
        set_constant(graph, "w", codes(&[count, 3, 3, 3]));
        set_constant(graph, "w_scale", tensor::from_f32(&[count], &vec![0.01; count]));
        set_constant(graph, "w_zero", tensor::from_codes(DataType::Int8, &[count], vec![0; count]));
    }
    let table: Vec<(&str, Change)> = vec![
        ("four channels", |g| set_constant(g, "w", codes(&[16, 4, 3, 3]))),
        ("1x1", |g| set_constant(g, "w", codes(&[16, 3, 1, 1]))),
        ("few outputs", |g| outputs(g, 12)),
        ("ragged outputs", |g| outputs(g, 18)),
        ("one spatial dimension", |g| set_constant(g, "w", codes(&[16, 3, 3]))),
        ("groups", |g| g.node[3].attribute.push(int_attribute("group", 2))),
        ("float input", |g| g.node[3].input[0] = "x".into()),
        ("float weight", |g| set_constant(g, "v2", floats(&[16, 3, 3, 3], 1))),
        ("zero points of the weight", |g| {
            set_constant(g, "w_zero", tensor::from_codes(DataType::Int8, &[16], [1; 16]))
        }),
        ("weight overridable", |g| g.input.push(info("w"))),
        ("weight shared", |g| g.node.push(node("Identity", &["w"], &["z"], vec![]))),
        ("codes read elsewhere", |g| g.node.push(node("Identity", &["q"], &["z"], vec![]))),
        ("decoded read elsewhere", |g| g.node.push(node("Identity", &["d"], &["z"], vec![]))),
    ];
    for (what, change) in table {
        let mut proto = on_codes();
        let graph = proto.graph.as_mut().unwrap();
        change(graph);
        if what == "float weight" {
            graph.node[3].input[1] = "v2".into();
        }
        assert_unchanged(what, proto, |model| align_channels(model.graph_mut(), Cpu::Vnni).unwrap());
    }
}
