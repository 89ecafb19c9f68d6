use onnxquant_ir::onnx::{NodeProto, TensorProto};
use onnxquant_ir::{int_attribute, ints_attribute};

use super::*;
use crate::decode::decode_weights::decode_weights;
use crate::decode::drop_activation_codes::drop_activation_codes;
use crate::testing::{assert_valid, constant_named, message, model, node, op_types};

fn scale(numbers: &[f32]) -> TensorProto {
    let dims: &[usize] = if numbers.len() == 1 { &[] } else { &[numbers.len()] };
    tensor::from_f32(dims, numbers)
}

fn zero(dtype: DataType, dims: &[usize], number: i16) -> TensorProto {
    tensor::from_codes(dtype, dims, std::iter::repeat_n(number, dims.iter().product()))
}

fn microsoft(node: NodeProto) -> NodeProto {
    NodeProto { domain: Some(MICROSOFT.to_owned()), ..node }
}

/// A model of opset 21 that may use the runtime's operators.
fn with_microsoft(constants: Vec<(&str, TensorProto)>, nodes: Vec<NodeProto>) -> Model {
    let mut message = message("x", constants, nodes, "y");
    let import = onnxquant_ir::onnx::OperatorSetIdProto { domain: Some(MICROSOFT.to_owned()), version: Some(1) };
    message.opset_import.push(import);
    Model::from_proto(message).expect("the model can be read")
}

/// Everything that `--requantize` does to a model.
fn floats(model: &mut Model) -> usize {
    let expanded = expand_integer_operators(model).expect("the operators fit");
    assert_valid(model);
    decode_weights(model).expect("the weights fit");
    drop_activation_codes(model).expect("the pairs fit");
    assert_valid(model);
    expanded
}

fn numbers(model: &Model, name: &str) -> Vec<f32> {
    tensor::to_f32(constant_named(model.graph(), name)).expect("it holds floats").into_owned()
}

#[test]
fn static_operators_become_float_ones() {
    let codes = |dims: &[usize]| {
        let count = dims.iter().product::<usize>();
        tensor::from_codes(DataType::Int8, dims, (0..count).map(|at| at as i16 - 2))
    };
    let constants = vec![
        ("s", scale(&[0.5])),
        ("z", zero(DataType::Uint8, &[], 128)),
        ("w", codes(&[2, 1, 2, 2])),
        ("ws", scale(&[0.5, 0.25])),
        ("wz", zero(DataType::Int8, &[2], 0)),
        ("b", tensor::from_i32(&[2], &[4, -8])),
        ("v", codes(&[8, 2])),
        ("vs", scale(&[2.0])),
        ("vz", zero(DataType::Int8, &[], 1)),
        ("shape", tensor::from_i64(&[2], &[1, 8])),
    ];
    let conv = ["q", "s", "z", "w", "ws", "wz", "s", "z", "b"];
    let nodes = vec![
        node("QuantizeLinear", &["x", "s", "z"], &["q"], vec![]),
        node("QLinearConv", &conv, &["c"], vec![ints_attribute("kernel_shape", &[2, 2])]),
        node("MaxPool", &["c"], &["p"], vec![ints_attribute("kernel_shape", &[2, 2])]),
        microsoft(node("QLinearAdd", &["p", "s", "z", "p", "s", "z", "s", "z"], &["a"], vec![])),
        node("Reshape", &["a", "shape"], &["r"], vec![]),
        node("QLinearMatMul", &["r", "s", "z", "v", "vs", "vz", "s", "z"], &["m"], vec![]),
        microsoft(node("QLinearSigmoid", &["m", "s", "z", "s", "z"], &["g"], vec![])),
        node("DequantizeLinear", &["g", "s", "z"], &["y"], vec![]),
    ];
    let mut model = with_microsoft(constants, nodes);
    assert_eq!(floats(&mut model), 4);
    let expected = ["Conv", "MaxPool", "Add", "Reshape", "MatMul", "Sigmoid", "QuantizeLinear", "DequantizeLinear"];
    assert_eq!(op_types(&model), expected, "the last pair makes an output");
    assert_eq!(numbers(&model, "w_dequantized"), [-1.0, -0.5, 0.0, 0.5, 0.5, 0.75, 1.0, 1.25]);
    assert_eq!(numbers(&model, "node_c_bias"), [1.0, -1.0]);
    assert_eq!(numbers(&model, "v_dequantized")[..3], [-6.0, -4.0, -2.0]);
}

#[test]
fn products_of_codes_made_at_run_time_become_float_ones() {
    let constants = || {
        vec![
            ("w", tensor::from_codes(DataType::Uint8, &[2, 3], 0..6)),
            ("ws", scale(&[1.0, 2.0, 0.5])),
            ("wz", zero(DataType::Uint8, &[3], 1)),
            ("b", tensor::from_f32(&[3], &[1.0, 2.0, 3.0])),
        ]
    };
    let standard = vec![
        node("DynamicQuantizeLinear", &["x"], &["q", "s", "z"], vec![]),
        node("MatMulInteger", &["q", "w", "z", "wz"], &["i"], vec![]),
        node("Cast", &["i"], &["f"], vec![int_attribute("to", 1)]),
        node("Mul", &["s", "ws"], &["ss"], vec![]),
        node("Mul", &["f", "ss"], &["m"], vec![]),
        node("Add", &["m", "b"], &["y"], vec![]),
    ];
    let fused = vec![microsoft(node("DynamicQuantizeMatMul", &["x", "w", "ws", "wz", "b"], &["y"], vec![]))];
    let half_fused = vec![
        node("DynamicQuantizeLinear", &["x"], &["q", "s", "z"], vec![]),
        microsoft(node("MatMulIntegerToFloat", &["q", "w", "s", "ws", "z", "wz", "b"], &["y"], vec![])),
    ];
    for nodes in [standard, fused, half_fused] {
        let mut model = with_microsoft(constants(), nodes);
        assert_eq!(floats(&mut model), 1);
        assert_eq!(op_types(&model), ["MatMul", "Add"]);
        assert_eq!(numbers(&model, "w_dequantized"), [-1.0, 0.0, 0.5, 2.0, 6.0, 2.0]);
    }
}

#[test]
fn integers_that_something_else_reads_stay() {
    let constants = vec![("w", tensor::from_codes(DataType::Uint8, &[2, 3], 0..6)), ("ws", scale(&[2.0]))];
    let nodes = vec![
        node("DynamicQuantizeLinear", &["x"], &["q", "s", "z"], vec![]),
        node("MatMulInteger", &["q", "w", "z"], &["i"], vec![]),
        node("Cast", &["i"], &["f"], vec![int_attribute("to", 1)]),
        node("Mul", &["s", "ws"], &["ss"], vec![]),
        node("Mul", &["f", "ss"], &["y"], vec![]),
    ];
    let mut model = model("x", constants, nodes, "y f");
    assert_eq!(expand_integer_operators(&mut model).expect("nothing is done"), 0);
    assert_eq!(op_types(&model).len(), 5);
}
