use onnxquant_ir::Model;
use onnxquant_ir::onnx::NodeProto;

use super::*;
use crate::caches::find_caches;
use crate::find::caches::tests::{attention, decoder};
use crate::testing::{array, assert_valid, constant_named, input_names, node, op_types};

fn scaled(model: &Model) -> Vec<ScaledCaches> {
    let caches = find_caches(model.graph()).unwrap();
    let scales = [0.5, 0.25].map(|first| (0..8).map(|at| first * (1.0 + at as f32)).collect());
    caches.into_iter().map(|caches| ScaledCaches { caches, head_size: 4, scales: scales.clone() }).collect()
}

fn type_of(model: &Model, name: &str) -> i32 {
    declared_tensor(model.graph(), model.graph().find(name).unwrap()).unwrap().elem_type()
}

/// A decoder whose caches are f16 for the caller.
fn half() -> Vec<NodeProto> {
    let mut inner = attention();
    (inner.input[3], inner.output[1]) = ("real".into(), "made".into());
    let cast = |from: &str, to: &str| node("Cast", &[from], &[to], vec![int_attribute("to", 1)]);
    vec![cast("past_k", "real"), inner, cast("made", "now_k")]
}

#[test]
fn caches_become_codes_with_scales() {
    for nodes in [vec![attention()], half()] {
        let mut model = Model::from_proto(decoder(nodes, "y now_k now_v")).unwrap();
        let scaled = scaled(&model);
        write_caches(model.graph_mut(), &scaled).unwrap();
        assert_valid(&model);
        assert_eq!(op_types(&model), ["GroupQueryAttention"]);
        for name in ["past_k", "past_v", "now_k", "now_v"] {
            assert_eq!(type_of(&model, name), DataType::Int8 as i32, "{name}");
        }
        let (_, written) = model.graph().nodes().next().unwrap();
        let names = input_names(model.graph(), written);
        assert_eq!(names[3..5], ["past_k", "past_v"]);
        assert_eq!(names[9..], ["", "", "", "now_k_key_scale", "now_v_value_scale"]);
        let key_scale = array(constant_named(model.graph(), "now_k_key_scale"));
        assert_eq!((key_scale.shape(), key_scale.as_slice().unwrap()), (&[2, 1, 4][..], &scaled[0].scales[0][..]));
        assert_eq!(written.text("v_quant_type", ""), "PER_CHANNEL");
        assert_eq!((written.int("kv_cache_bit_width", 0), scaled[0].numbers_per_token()), (8, 16));
        assert!(has_codes(model.graph()));
        let again = find_caches(model.graph()).unwrap_err().to_string();
        assert!(again.contains("codes already"), "{again}");
    }
}

#[test]
fn an_opened_model_takes_and_returns_floats() {
    let mut model = Model::from_proto(decoder(half(), "y now_k now_v")).unwrap();
    let past = model.graph().find("past_k").unwrap();
    model.graph_mut().set_element_type(past, DataType::Float16);
    let types = InputTypes::of(model.graph());
    let scaled = scaled(&model);
    write_caches(model.graph_mut(), &scaled).unwrap();
    assert_eq!(open_caches(model.graph_mut(), &types), 2);
    assert_valid(&model);
    assert_eq!(type_of(&model, "past_k"), DataType::Float16 as i32);
    for name in ["past_v", "now_k", "now_v"] {
        assert_eq!(type_of(&model, name), DataType::Float as i32, "{name}");
    }
    let codes = ["Div", "Round", "Max", "Min", "Cast"];
    let wanted = [&["Cast"][..], &codes, &codes, &["GroupQueryAttention", "Cast", "Mul", "Cast", "Mul"]].concat();
    assert_eq!(op_types(&model), wanted);
    assert_eq!(open_caches(model.graph_mut(), &types), 0, "it is open already");
    assert!(!has_codes(model.graph()));
}

#[test]
fn caches_of_floats_and_of_other_codes_stay() {
    let mut floats = Model::from_proto(decoder(vec![attention()], "y now_k now_v")).unwrap();
    assert_eq!(open_caches(floats.graph_mut(), &InputTypes::default()), 0);
    let mut model = Model::from_proto(decoder(vec![attention()], "y now_k now_v")).unwrap();
    let scaled = scaled(&model);
    write_caches(model.graph_mut(), &scaled).unwrap();
    let id = scaled[0].caches.node;
    model.graph_mut().set_attribute(id, int_attribute("kv_cache_bit_width", 4));
    assert_eq!(open_caches(model.graph_mut(), &InputTypes::default()), 0);
}
