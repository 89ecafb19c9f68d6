use onnxquant_ir::onnx::{AttributeProto, NodeProto};
use onnxquant_ir::{Model, int_attribute};
use onnxquant_quant::{ActivationGrid, ActivationParams};

use super::*;
use crate::integer::fake_quantize::{fake_quantize, fake_quantize_dynamically};
use crate::runtime::cpu::pair_rule;
use crate::testing::{assert_valid, constant_named, find_node, floats, input_names, model, node, op_types};

const OPERATOR: &str = "test.Saturate";

/// Codes from -127 to 127 among which are pairs that break the rule.
fn codes(dims: &[usize]) -> TensorProto {
    let count = dims.iter().product::<usize>();
    tensor::from_codes(DataType::Int8, dims, (0..count).map(|i| (i * 89 % 255) as i16 - 127))
}

fn saturate(model: &mut Model) -> usize {
    let can = can_saturate(model.graph_mut(), &|_, view| pair_rule(view, false)).unwrap();
    let changed = saturate_pairs(model.graph_mut(), OPERATOR, &|_, view| pair_rule(view, false)).unwrap();
    assert_valid(model);
    assert_eq!(can, changed > 0);
    changed
}

/// A layer of an input and a weight that are decoded, with or without codes of the result.
fn on_codes(
    op_type: &str,
    dims: &[usize],
    zero_point: (DataType, i16),
    attributes: Vec<AttributeProto>,
    coded: bool,
) -> Model {
    let outputs = if op_type == "MatMul" { dims[1] } else { dims[0] };
    let axis = if op_type == "MatMul" { 1 } else { 0 };
    let constants = vec![
        ("s", tensor::from_f32(&[], &[0.5])),
        ("z", tensor::from_codes(zero_point.0, &[], [zero_point.1])),
        ("w", codes(dims)),
        ("ws", tensor::from_f32(&[outputs], &(0..outputs).map(|m| 1.0 + m as f32).collect::<Vec<_>>())),
    ];
    let mut nodes = vec![
        node("QuantizeLinear", &["x", "s", "z"], &["q"], vec![]),
        node("DequantizeLinear", &["q", "s", "z"], &["d"], vec![]),
        node("DequantizeLinear", &["w", "ws"], &["v"], vec![int_attribute("axis", axis)]),
        node(op_type, &["d", "v"], &["p"], attributes),
    ];
    if coded {
        nodes.push(node("QuantizeLinear", &["p", "s", "z"], &["qy"], vec![]));
        nodes.push(node("DequantizeLinear", &["qy", "s", "z"], &["y"], vec![]));
    }
    model("x", constants, nodes, if coded { "y" } else { "p" })
}

fn operator(model: &Model) -> &Node {
    let id = find_node(model.graph(), OPERATOR).unwrap();
    model.graph().node(id)
}

/// `[output, k, k', q, q']` of all neighbours in `order` that break the rule, by a plain loop.
fn broken(order: &[usize], outputs: usize, code: impl Fn(usize, usize) -> i16) -> Vec<Vec<i64>> {
    let mut pairs = Vec::new();
    for pair in order.chunks_exact(2) {
        for output in 0..outputs {
            let (a, b) = (code(output, pair[0]), code(output, pair[1]));
            let fits = [(255, 0), (0, 255), (255, 255)]
                .into_iter()
                .all(|(x, y)| i16::try_from(x * i32::from(a) + y * i32::from(b)).is_ok());
            let (first, second) = if pair[0] < pair[1] { (0, 1) } else { (1, 0) };
            let codes = [i64::from(a), i64::from(b)];
            if !fits {
                let numbers = [output as i64, pair[first] as i64, pair[second] as i64, codes[first], codes[second]];
                pairs.push(numbers.to_vec());
            }
        }
    }
    pairs.sort();
    pairs
}

#[track_caller]
fn assert_pairs(model: &Model, expected: Vec<Vec<i64>>) {
    let mut found: Vec<Vec<i64>> = operator(model).ints("pairs").unwrap().chunks(5).map(<[i64]>::to_vec).collect();
    found.sort();
    assert!(!expected.is_empty());
    assert_eq!(found, expected);
}

#[test]
fn products_on_codes_get_the_pairs_of_their_inputs() {
    for (op_type, dims, attributes) in [("MatMul", [7, 4], vec![]), ("Gemm", [4, 7], vec![int_attribute("transB", 1)])]
    {
        for coded in [false, true] {
            let mut model = on_codes(op_type, &dims, (DataType::Uint8, 100), attributes.clone(), coded);
            assert_eq!(saturate(&mut model), 1, "{op_type}");
            let graph = model.graph();
            let names = input_names(graph, operator(&model));
            assert_eq!((names[1], names[2]), ("d", "s"), "{op_type}: what it reads");
            assert_eq!(tensor::to_f32(constant_named(graph, names[3])).unwrap()[0], -100.0);
            assert_eq!(*tensor::to_f32(constant_named(graph, names[4])).unwrap(), [1.0, 2.0, 3.0, 4.0]);
            let numbers = tensor::to_codes(&codes(&dims)).unwrap();
            let at = |output: usize, k: usize| numbers[if op_type == "Gemm" { output * 7 + k } else { k * 4 + output }];
            assert_pairs(&model, broken(&[0, 1, 2, 3, 4, 5, 6], 4, at));
        }
    }
}

#[test]
fn convolutions_get_pairs_of_positions_and_channels() {
    let dims = [4, 3, 2, 2];
    let mut model = on_codes("Conv", &dims, (DataType::Int8, 0), vec![int_attribute("group", 2)], true);
    assert_eq!(saturate(&mut model), 1);
    let numbers = tensor::to_codes(&codes(&dims)).unwrap();
    // Channel fastest.
    let order: Vec<usize> = (0..4).flat_map(|position| (0..3).map(move |channel| channel * 4 + position)).collect();
    assert_pairs(&model, broken(&order, 4, |output, k| numbers[output * 12 + k]));
    let low = input_names(model.graph(), operator(&model))[3];
    assert_eq!(tensor::to_f32(constant_named(model.graph(), low)).unwrap()[0], -128.0);
    assert_eq!(operator(&model).ints("pads"), Some([0; 4].as_slice()));
}

#[test]
fn integer_products_get_the_pairs_of_their_codes() {
    let constants = vec![("w", codes(&[6, 4]))];
    let nodes = vec![
        node("DynamicQuantizeLinear", &["x"], &["q", "s", "z"], vec![]),
        node("MatMulInteger", &["q", "w", "z"], &["y"], vec![]),
    ];
    let mut model = model("x", constants, nodes, "y");
    assert_eq!(saturate(&mut model), 1);
    assert_eq!(op_types(&model), ["DynamicQuantizeLinear", "MatMulInteger", OPERATOR]);
    let names = input_names(model.graph(), operator(&model));
    let scalar = |name: &str| tensor::to_f32(constant_named(model.graph(), name)).unwrap()[0];
    assert_eq!((names[1], scalar(names[2]), scalar(names[3])), ("q", 1.0, 0.0));
}

/// The forms in which codes are judged: float arithmetic in place of codes.
#[test]
fn rounded_inputs_count_as_codes() {
    let constants = || vec![("w", codes(&[6, 4])), ("ws", tensor::from_f32(&[4], &[1.0; 4]))];
    let nodes: fn() -> Vec<NodeProto> = || {
        let decoding = node("DequantizeLinear", &["w", "ws"], &["v"], vec![int_attribute("axis", 1)]);
        vec![decoding, node("MatMul", &["x", "v"], &["y"], vec![])]
    };
    let params = ActivationParams::from_range(-1.0, 3.0, ActivationGrid::Unsigned);
    for is_dynamic in [false, true] {
        let mut model = model("x", constants(), nodes(), "y");
        let (x, layer) = (model.graph().find("x").unwrap(), find_node(model.graph(), "MatMul").unwrap());
        match is_dynamic {
            true => fake_quantize_dynamically(model.graph_mut(), x, &[(layer, 0)]),
            false => fake_quantize(model.graph_mut(), x, params, &[(layer, 0)]),
        };
        assert_eq!(saturate(&mut model), 1);
        let names = input_names(model.graph(), operator(&model));
        assert_eq!(names[1..4], ["x_fake_quantized", "x_scale", "x_lowest_step"], "{is_dynamic}");
    }
    assert_eq!(saturate(&mut model("x", constants(), nodes(), "y")), 0, "the weight alone is codes");
}

#[test]
fn what_never_saturates_is_left_alone() {
    let u8_code = (DataType::Uint8, 100);
    let depthwise = on_codes("Conv", &[6, 1, 3, 3], u8_code, vec![int_attribute("group", 6)], true);
    let float_result = on_codes("Conv", &[4, 3, 2, 2], u8_code, vec![], false);
    let mut unsigned = on_codes("MatMul", &[6, 4], u8_code, vec![], false);
    let weight = unsigned.graph().find("w").unwrap();
    unsigned.graph_mut().set_tensor(weight, tensor::from_codes(DataType::Uint8, &[6, 4], (0..24).map(|i| i * 10)));
    let mut keeps = on_codes("MatMul", &[6, 4], u8_code, vec![], false);
    let weight = keeps.graph().find("w").unwrap();
    keeps.graph_mut().set_tensor(weight, tensor::from_codes(DataType::Int8, &[6, 4], [64; 24]));
    let float = model("x", vec![("w", floats(&[6, 4], 1))], vec![node("MatMul", &["x", "w"], &["y"], vec![])], "y");
    for (what, mut model) in [
        ("depthwise", depthwise),
        ("float result", float_result),
        ("unsigned weight", unsigned),
        ("codes that keep the rule", keeps),
        ("float", float),
    ] {
        let before = model.to_proto();
        assert_eq!(saturate(&mut model), 0, "{what}");
        assert_eq!(model.to_proto(), before, "{what}");
    }
}
