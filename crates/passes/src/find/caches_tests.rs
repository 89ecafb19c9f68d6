use onnxquant_ir::Model;
use onnxquant_ir::onnx::{ModelProto, NodeProto, OperatorSetIdProto};
use onnxquant_ir::{int_attribute, text_attribute};

use super::*;
use crate::testing::{floats, message, node};

/// Attention over 2 heads of 4 channels, whose caches the caller keeps.
pub(crate) fn attention() -> NodeProto {
    let inputs = ["x", "", "", "past_k", "past_v", "lengths", "total", "cos", "sin"];
    let attributes =
        vec![int_attribute("num_heads", 2), int_attribute("kv_num_heads", 2), int_attribute("do_rotary", 1)];
    NodeProto { domain: Some(MICROSOFT.into()), ..node(ATTENTION, &inputs, &["y", "now_k", "now_v"], attributes) }
}

pub(crate) fn decoder(nodes: Vec<NodeProto>, outputs: &str) -> ModelProto {
    let constants = vec![("cos", floats(&[16, 2], 1)), ("sin", floats(&[16, 2], 2))];
    let mut decoder = message("x past_k past_v lengths total", constants, nodes, outputs);
    decoder.opset_import.push(OperatorSetIdProto { domain: Some(MICROSOFT.into()), version: Some(1) });
    decoder
}

fn found(nodes: Vec<NodeProto>, outputs: &str) -> Result<Vec<Caches>, NoCaches> {
    find_caches(Model::from_proto(decoder(nodes, outputs)).unwrap().graph())
}

#[test]
fn caches_of_the_caller_are_found() {
    let model = Model::from_proto(decoder(vec![attention()], "y now_k now_v")).unwrap();
    let caches = find_caches(model.graph()).unwrap();
    let names = |values: [ValueId; 2]| values.map(|value| model.graph().value(value).name());
    assert_eq!((names(caches[0].past), names(caches[0].present)), (["past_k", "past_v"], ["now_k", "now_v"]));
    assert_eq!((caches.len(), caches[0].heads), (1, 2));
    assert_eq!(caches[0].rotation, Some(Rotation { channels: Some(4), interleaved: false }));
}

#[test]
fn casts_around_are_passed_over() {
    let mut inner = attention();
    (inner.input[3], inner.output[1]) = ("real".into(), "made".into());
    let cast = |from: &str, to: &str| node("Cast", &[from], &[to], vec![int_attribute("to", 1)]);
    let nodes = vec![cast("past_k", "real"), inner, cast("made", "now_k")];
    let model = Model::from_proto(decoder(nodes, "y now_k now_v")).unwrap();
    let caches = find_caches(model.graph()).unwrap();
    assert_eq!(model.graph().value(caches[0].past[0]).name(), "past_k");
    assert_eq!(model.graph().value(caches[0].present[0]).name(), "now_k");
}

#[test]
fn others_may_ask_for_shapes() {
    let shape = |of: &str, to: &str| node("Shape", &[of], &[to], vec![]);
    let nodes = vec![shape("past_k", "before"), attention(), shape("now_v", "behind")];
    assert_eq!(found(nodes, "y now_k now_v before behind").map(|caches| caches.len()), Ok(1));
}

#[test]
fn what_others_read_is_told() {
    let relu = |of: &str| node("Relu", &[of], &["z"], vec![]);
    let mut elsewhere = attention();
    elsewhere.domain = None;
    let mut without_past = attention();
    without_past.input[3].clear();
    let mut codes = attention();
    codes.attribute.push(text_attribute("k_quant_type", "PER_TENSOR"));
    let cases = [
        (vec![elsewhere], "y now_k now_v", "no GroupQueryAttention"),
        (vec![without_past], "y now_k now_v", "it has no past"),
        (vec![codes], "y now_k now_v", "codes already"),
        (vec![attention()], "y now_k", "`now_v` is no output"),
        (vec![attention(), relu("now_k")], "y now_k now_v z", "`now_k` is also read by others"),
        (vec![relu("past_v"), attention()], "y now_k now_v z", "`past_v` is also read by others"),
        (vec![attention(), relu("y")], "y now_k z", "`now_v` is no output"),
    ];
    for (nodes, outputs, wanted) in cases {
        let message = found(nodes, outputs).unwrap_err().to_string();
        assert!(message.contains(wanted), "{message}, expected {wanted}");
    }
}

#[test]
fn channels_are_rotated_two_and_two() {
    let partners = |rotation: Rotation| (0..6).map(|channel| rotation.partner(channel, 6)).collect::<Vec<_>>();
    let half = Rotation { channels: None, interleaved: false };
    assert_eq!(partners(half), [3, 4, 5, 0, 1, 2].map(Some));
    let neighbours = Rotation { channels: Some(4), interleaved: true };
    assert_eq!(partners(neighbours), [Some(1), Some(0), Some(3), Some(2), None, None]);
    let part = Rotation { channels: Some(4), interleaved: false };
    assert_eq!(partners(part), [Some(2), Some(3), Some(0), Some(1), None, None]);
}
