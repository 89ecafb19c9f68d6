use std::collections::HashMap;

use onnxquant_ir::onnx::tensor_proto::DataType;
use onnxquant_ir::onnx::{AttributeProto, TensorProto};
use onnxquant_ir::{Model, ValueId, float_attribute, int_attribute, ints_attribute, tensor};

use super::*;
use crate::testing::{floats, model, node};

struct All(HashMap<ValueId, Constant>);

impl Values for All {
    fn constant(&self, value: ValueId) -> Option<Constant> {
        self.0.get(&value).cloned()
    }

    fn shape(&self, value: ValueId) -> Option<Vec<usize>> {
        self.0.get(&value).map(|constant| constant.shape().to_vec())
    }
}

/// What one node of constants makes; outputs are `r`, `s`, ...
fn results(
    op_type: &str,
    constants: &[TensorProto],
    attributes: Vec<AttributeProto>,
    outputs: usize,
) -> Option<Vec<TensorProto>> {
    const NAMES: [&str; 4] = ["a", "b", "c", "d"];
    let made = &["r", "s", "t"][..outputs];
    let nodes = vec![node(op_type, &NAMES[..constants.len()], made, attributes)];
    let model: Model = model("x", NAMES.into_iter().zip(constants.iter().cloned()).collect(), nodes, "r");
    let graph = model.graph();
    let read = |&id: &ValueId| Some((id, Constant::read(graph.value(id).constant()?)?));
    let all = All(graph.initializers().iter().filter_map(read).collect());
    let (_, node) = graph.nodes().next().unwrap();
    let found = evaluate(node, &all, 1 << 16)?;
    Some(found.iter().map(Constant::to_tensor).collect())
}

fn result(op_type: &str, constants: &[TensorProto], attributes: Vec<AttributeProto>) -> Option<TensorProto> {
    results(op_type, constants, attributes, 1).map(|mut results| results.remove(0))
}

fn list(numbers: &[i64]) -> TensorProto {
    tensor::from_i64(&[numbers.len()], numbers)
}

fn f32s(numbers: &[f32]) -> TensorProto {
    tensor::from_f32(&[numbers.len()], numbers)
}

fn halves(numbers: &[f32]) -> TensorProto {
    tensor::from_f32_as(DataType::Float16, &[numbers.len()], numbers)
}

fn bools(bytes: &[u8]) -> TensorProto {
    tensor::from_raw(DataType::Bool, &[bytes.len()], bytes.to_vec())
}

#[test]
#[rustfmt::skip]
fn arithmetic_on_floats_is_rounded_once_to_their_type() {
    let doubles = |numbers: &[f64]| tensor::from_raw(DataType::Double, &[numbers.len()], numbers.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>());
    let nan = f32::NAN;
    let table = [
        ("Add", vec![f32s(&[0.1, 1e30]), f32s(&[0.2, 1e30])], vec![], f32s(&[0.1 + 0.2, 2e30])),
        ("Sub", vec![f32s(&[1.0]), f32s(&[0.1])], vec![], f32s(&[1.0 - 0.1])),
        ("Mul", vec![f32s(&[0.1, 3.0]), f32s(&[0.3])], vec![], f32s(&[0.1 * 0.3, 3.0 * 0.3])),
        ("Div", vec![f32s(&[1.0, 1.0]), f32s(&[3.0, 0.0])], vec![], f32s(&[1.0 / 3.0, f32::INFINITY])),
        ("Mul", vec![halves(&[0.1]), halves(&[0.3])], vec![], halves(&[0.099_975_586 * 0.300_048_83])),
        ("Div", vec![doubles(&[1.0]), doubles(&[3.0])], vec![], doubles(&[1.0 / 3.0])),
        ("Max", vec![f32s(&[1.0, nan]), f32s(&[2.0])], vec![], f32s(&[2.0, nan])),
        ("Min", vec![f32s(&[1.0, 5.0]), f32s(&[2.0])], vec![], f32s(&[1.0, 2.0])),
        ("Pow", vec![f32s(&[3.0, 2.0]), list(&[2])], vec![], f32s(&[9.0, 4.0])),
        ("Sqrt", vec![f32s(&[2.0])], vec![], f32s(&[2f32.sqrt()])),
        ("Reciprocal", vec![f32s(&[3.0])], vec![], f32s(&[1.0 / 3.0])),
        ("Neg", vec![f32s(&[3.0])], vec![], f32s(&[-3.0])),
        ("Abs", vec![f32s(&[-3.0])], vec![], f32s(&[3.0])),
        ("Exp", vec![f32s(&[0.0])], vec![], f32s(&[1.0])),
        ("Clip", vec![f32s(&[-2.0, 0.5, 2.0]), tensor::from_f32(&[], &[-1.0]), tensor::from_f32(&[], &[1.0])], vec![], f32s(&[-1.0, 0.5, 1.0])),
        ("Clip", vec![f32s(&[-2.0, 0.5])], vec![float_attribute("max", 0.25)], f32s(&[-2.0, 0.25])),
        ("Cast", vec![f32s(&[0.1, 65520.0])], vec![int_attribute("to", DataType::Float16 as i64)], halves(&[0.1, f32::INFINITY])),
        ("Cast", vec![list(&[16_777_217])], vec![int_attribute("to", DataType::Float as i64)], f32s(&[16_777_216.0])),
        ("Cast", vec![doubles(&[2.9, -2.9])], vec![int_attribute("to", DataType::Int64 as i64)], list(&[2, -2])),
        ("Cast", vec![bools(&[1, 0])], vec![int_attribute("to", DataType::Float as i64)], f32s(&[1.0, 0.0])),
        ("Equal", vec![list(&[1, 2]), list(&[1])], vec![], bools(&[1, 0])),
    ];
    for (op_type, constants, attributes, expected) in table {
        assert_eq!(result(op_type, &constants, attributes), Some(expected), "{op_type} of {constants:?}");
    }
}

#[test]
fn reductions_sum_over_their_axes() {
    let x = tensor::from_f32(&[2, 3], &[1.0, -2.0, 2.0, 0.0, 3.0, -4.0]);
    let axes = |list: &[i64]| vec![ints_attribute("axes", list)];
    let flat = |list: &[i64]| vec![ints_attribute("axes", list), int_attribute("keepdims", 0)];
    let table = [
        ("ReduceL2", axes(&[1]), tensor::from_f32(&[2, 1], &[3.0, 5.0])),
        ("ReduceL2", axes(&[-2]), tensor::from_f32(&[1, 3], &[1.0, 13f32.sqrt(), 20f32.sqrt()])),
        ("ReduceL1", flat(&[1]), f32s(&[5.0, 7.0])),
        ("ReduceSum", flat(&[0]), f32s(&[1.0, 1.0, -2.0])),
        ("ReduceMean", vec![], tensor::from_f32(&[1, 1], &[0.0])),
        ("ReduceSumSquare", flat(&[0, 1]), tensor::from_f32(&[], &[34.0])),
    ];
    for (op_type, attributes, expected) in table {
        assert_eq!(result(op_type, std::slice::from_ref(&x), attributes), Some(expected), "{op_type}");
    }
    assert_eq!(result("ReduceSum", &[x.clone(), list(&[1])], vec![]), Some(tensor::from_f32(&[2, 1], &[1.0, -1.0])));
    let empty = [x, list(&[])];
    assert_eq!(result("ReduceSum", &empty, vec![int_attribute("noop_with_empty_axes", 1)]), None);
    assert_eq!(result("ReduceMean", &[tensor::from_f32(&[0], &[])], vec![]), None);
}

/// Of bytes, halves, words and doubles alike, a number that is none included.
#[test]
fn movement_keeps_every_bit_of_any_type() {
    let count = 12;
    for (dtype, width) in [(DataType::Int8, 1), (DataType::Bfloat16, 2), (DataType::Float, 4), (DataType::Double, 8)] {
        let element = |index: usize| vec![0xf0 | index as u8; width];
        let of = |dims: &[usize], order: &[usize]| {
            tensor::from_raw(dtype, dims, order.iter().flat_map(|&index| element(index)).collect::<Vec<u8>>())
        };
        let x = of(&[3, 4], &(0..count).collect::<Vec<_>>());
        let row = of(&[4], &[0, 1, 2, 3]);
        let perm = || vec![ints_attribute("perm", &[1, 0])];
        let turned = of(&[4, 3], &[0, 4, 8, 1, 5, 9, 2, 6, 10, 3, 7, 11]);
        assert_eq!(result("Transpose", std::slice::from_ref(&x), perm()), Some(turned), "{dtype:?}");
        assert_eq!(
            result("Expand", &[row.clone(), list(&[2, 1])], vec![]),
            Some(of(&[2, 4], &[0, 1, 2, 3, 0, 1, 2, 3]))
        );
        assert_eq!(result("Tile", &[row.clone(), list(&[2])], vec![]), Some(of(&[8], &[0, 1, 2, 3, 0, 1, 2, 3])));
        let joined = result("Concat", &[row.clone(), row.clone()], vec![int_attribute("axis", 0)]);
        assert_eq!(joined, Some(of(&[8], &[0, 1, 2, 3, 0, 1, 2, 3])));
        let rows = result("Gather", &[x.clone(), list(&[2, 0])], vec![]);
        assert_eq!(rows, Some(of(&[2, 4], &[8, 9, 10, 11, 0, 1, 2, 3])));
        let chosen = result("Where", &[bools(&[1, 0, 0, 1]), of(&[1], &[9]), row.clone()], vec![]);
        assert_eq!(chosen, Some(of(&[4], &[9, 1, 2, 9])));
        assert_eq!(
            result("Flatten", std::slice::from_ref(&x), vec![int_attribute("axis", 0)]).map(|x| x.dims),
            Some(vec![1, 12])
        );
        let cut = result("Slice", &[x.clone(), list(&[1]), list(&[3]), list(&[1])], vec![]);
        assert_eq!(cut, Some(of(&[3, 2], &[1, 2, 5, 6, 9, 10])));
        let parts = results("Split", &[x, list(&[1, 3])], vec![int_attribute("axis", 1)], 2).unwrap();
        assert_eq!(parts, [of(&[3, 1], &[0, 4, 8]), of(&[3, 3], &[1, 2, 3, 5, 6, 7, 9, 10, 11])]);
    }
}

#[test]
fn split_without_sizes_makes_equal_parts() {
    let x = f32s(&[1.0, 2.0, 3.0, 4.0, 5.0]);
    let parts = results("Split", &[f32s(&[1.0, 2.0, 3.0, 4.0])], vec![], 2).unwrap();
    assert_eq!(parts, [f32s(&[1.0, 2.0]), f32s(&[3.0, 4.0])]);
    assert_eq!(results("Split", std::slice::from_ref(&x), vec![], 2), None, "indivisible");
    let uneven = results("Split", std::slice::from_ref(&x), vec![int_attribute("num_outputs", 2)], 2).unwrap();
    assert_eq!(uneven, [f32s(&[1.0, 2.0, 3.0]), f32s(&[4.0, 5.0])]);
    let attribute = results("Split", std::slice::from_ref(&x), vec![ints_attribute("split", &[4, 1])], 2).unwrap();
    assert_eq!(attribute, [f32s(&[1.0, 2.0, 3.0, 4.0]), f32s(&[5.0])]);
    for wrong in [vec![4, 2], vec![5], vec![6, -1]] {
        assert_eq!(results("Split", &[x.clone(), list(&wrong)], vec![], 2), None, "{wrong:?}");
    }
}

#[test]
fn what_is_not_certain_is_not_computed() {
    let codes = tensor::from_codes(DataType::Int8, &[2], [1, 2]);
    let float = || vec![int_attribute("to", DataType::Float as i64)];
    let table = [
        ("Cast", vec![codes.clone()], float()),
        ("Add", vec![codes.clone(), codes], vec![]),
        ("Add", vec![f32s(&[1.0]), halves(&[1.0])], vec![]),
        ("Mul", vec![f32s(&[1.0]), f32s(&[1.0])], vec![int_attribute("axis", 0)]),
        ("Expand", vec![f32s(&[1.0, 2.0]), list(&[3])], vec![]),
        ("Expand", vec![f32s(&[1.0]), list(&[1 << 17])], vec![]),
        ("Expand", vec![f32s(&[1.0]), list(&[i64::MAX, i64::MAX])], vec![]),
        ("Tile", vec![f32s(&[1.0]), list(&[1 << 17])], vec![]),
        ("Tile", vec![f32s(&[1.0]), list(&[1, 1])], vec![]),
        ("Tile", vec![f32s(&[1.0]), list(&[-1])], vec![]),
        ("Where", vec![f32s(&[1.0]), f32s(&[1.0]), f32s(&[2.0])], vec![]),
        ("Where", vec![bools(&[1]), f32s(&[1.0]), halves(&[2.0])], vec![]),
        ("Concat", vec![f32s(&[1.0]), halves(&[2.0])], vec![int_attribute("axis", 0)]),
        ("Sqrt", vec![list(&[4])], vec![]),
        ("ReduceSum", vec![list(&[4])], vec![]),
        ("ReduceSum", vec![f32s(&[4.0]), list(&[1])], vec![]),
        ("Clip", vec![f32s(&[4.0]), f32s(&[1.0, 2.0])], vec![]),
        ("RandomNormalLike", vec![f32s(&[4.0])], vec![]),
        ("DequantizeLinear", vec![tensor::from_codes(DataType::Int8, &[1], [1]), f32s(&[4.0])], vec![]),
    ];
    for (op_type, constants, attributes) in table {
        assert_eq!(result(op_type, &constants, attributes), None, "{op_type} of {constants:?}");
    }
    assert_eq!(Constant::read(&tensor::from_codes(DataType::Int4, &[2], [1, 2])).map(|c| c.len()), None);
    let short = TensorProto { dims: vec![9], ..floats(&[3], 1) };
    assert!(Constant::read(&short).is_none());
}
