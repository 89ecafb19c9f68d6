use ndarray::ArrayD;
use onnxquant_ir::onnx::attribute_proto::AttributeType;
use onnxquant_ir::onnx::tensor_proto::DataType;
use onnxquant_ir::onnx::{NodeProto, SparseTensorProto};
use onnxquant_ir::{float_attribute, int_attribute, ints_attribute, text_attribute};

use super::*;
use crate::testing::{
    array, assert_valid, body, constant_named, floats, graph_attribute, message, model, node, op_types, run,
};

fn tensor_attribute(tensor: TensorProto) -> AttributeProto {
    let kind = Some(AttributeType::Tensor as i32);
    AttributeProto { name: Some("value".into()), r#type: kind, t: Some(Box::new(tensor)), ..AttributeProto::default() }
}

fn constant(name: &str, attributes: Vec<AttributeProto>) -> NodeProto {
    node("Constant", &[], &[name], attributes)
}

#[test]
fn constant_of_each_numeric_form_becomes_an_initializer_of_its_name() {
    let floats_attribute = AttributeProto {
        name: Some("value_floats".into()),
        floats: vec![1.5, 2.5],
        r#type: Some(AttributeType::Floats as i32),
        ..AttributeProto::default()
    };
    let table = [
        (tensor_attribute(tensor::from_f32(&[1, 2], &[3.0, 4.0])), vec![1, 2], vec![3.0, 4.0]),
        (float_attribute("value_float", 2.5), vec![], vec![2.5]),
        (floats_attribute, vec![2], vec![1.5, 2.5]),
        (int_attribute("value_int", -3), vec![], vec![-3.0]),
        (ints_attribute("value_ints", &[4, 5, 6]), vec![3], vec![4.0, 5.0, 6.0]),
    ];
    for (attribute, dims, numbers) in table {
        let name = attribute.name().to_owned();
        let nodes = vec![constant("c", vec![attribute]), node("Add", &["x", "c"], &["y"], vec![])];
        let mut model = model("x", vec![], nodes, "y");
        assert_eq!(lift_constants(&mut model), 1, "{name}");
        assert_valid(&model);
        let expected = ArrayD::from_shape_vec(dims, numbers).unwrap();
        assert_eq!(array(constant_named(model.graph(), "c")), expected, "{name}");
        assert_eq!(op_types(&model), ["Add"], "{name}");
        assert_eq!(lift_constants(&mut model), 0, "{name}: idempotent");
    }
}

#[test]
fn lifting_keeps_the_outputs() {
    let nodes =
        vec![constant("c", vec![tensor_attribute(floats(&[6, 4], 1))]), node("MatMul", &["x", "c"], &["y"], vec![])];
    let before = model("x", vec![], nodes.clone(), "y");
    let mut after = before.clone();
    lift_constants(&mut after);
    let plain = model("x", vec![("c", floats(&[6, 4], 1))], nodes[1..].to_vec(), "y");
    assert_eq!(after.to_proto(), plain.to_proto());
    let x = array(&floats(&[2, 6], 4));
    assert_eq!(run(&after, &x), run(&plain, &x));
}

#[test]
fn constant_that_is_no_plain_tensor_of_numbers_or_an_output_stays() {
    let text = TensorProto {
        data_type: Some(DataType::String as i32),
        dims: vec![1],
        string_data: vec![vec![65]],
        ..TensorProto::default()
    };
    let sparse = AttributeProto {
        name: Some("sparse_value".into()),
        r#type: Some(AttributeType::SparseTensor as i32),
        sparse_tensor: Some(Box::new(SparseTensorProto::default())),
        ..AttributeProto::default()
    };
    let plain = || float_attribute("value_float", 2.5);
    let table = [
        ("string tensor", vec![tensor_attribute(text)], "y"),
        ("string", vec![text_attribute("value_string", "a")], "y"),
        ("sparse", vec![sparse], "y"),
        ("no attribute", vec![], "y"),
        ("two attributes", vec![plain(), int_attribute("value_int", 1)], "y"),
        ("graph output", vec![plain()], "y c"),
    ];
    for (what, attributes, outputs) in table {
        let nodes = vec![constant("c", attributes), node("Add", &["x", "c"], &["y"], vec![])];
        let mut model = model("x", vec![], nodes, outputs);
        let before = model.to_proto();
        assert_eq!(lift_constants(&mut model), 0, "{what}");
        assert_eq!(model.to_proto(), before, "{what}");
    }
}

#[test]
fn constant_read_only_by_a_body_keeps_its_name_there() {
    let branch = |name: &str| body(vec![node("Add", &["x", "c"], &[name], vec![])], &[name]);
    let bodies = vec![graph_attribute("then_branch", branch("t")), graph_attribute("else_branch", branch("e"))];
    let nodes = vec![constant("c", vec![float_attribute("value_float", 2.5)]), node("If", &["x"], &["y"], bodies)];
    let mut model = model("x", vec![], nodes, "y");
    assert_eq!(lift_constants(&mut model), 1);
    assert_valid(&model);
    assert!(constant_named(model.graph(), "c").dims.is_empty());
}

#[test]
fn ir_version_below_4_is_raised_and_its_constants_stay_constants() {
    let nodes =
        vec![constant("c", vec![float_attribute("value_float", 2.5)]), node("Gemm", &["c", "w"], &["y"], vec![])];
    let mut proto = message("x w", vec![("w", floats(&[2], 1))], nodes, "y");
    proto.ir_version = Some(3);
    let mut model = Model::from_proto(proto).unwrap();
    assert_eq!(lift_constants(&mut model), 1);
    assert_valid(&model);
    assert_eq!(model.ir_version(), 4);
    assert_eq!(model.graph().inputs().len(), 1, "`w` leaves the inputs");
    assert!(model.graph().value(model.graph().find("w").unwrap()).constant().is_some());
}
