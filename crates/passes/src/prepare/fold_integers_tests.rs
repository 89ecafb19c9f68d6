use ndarray::ArrayD;
use onnxquant_ir::onnx::attribute_proto::AttributeType;
use onnxquant_ir::onnx::tensor_proto::DataType;
use onnxquant_ir::onnx::{AttributeProto, ModelProto, NodeProto, TensorProto};
use onnxquant_ir::{int_attribute, ints_attribute, tensor};

use super::*;
use crate::testing::{
    array, assert_unchanged, assert_valid, body, constant_named, floats, graph_attribute, info, message, node, numbers,
    op_types, run,
};

type Constants = Vec<(&'static str, TensorProto)>;

fn list(numbers: &[i64]) -> TensorProto {
    tensor::from_i64(&[numbers.len()], numbers)
}

fn scalar(number: i64) -> TensorProto {
    tensor::from_i64(&[], &[number])
}

fn int32(dims: &[usize], numbers: &[i32]) -> TensorProto {
    tensor::from_raw(DataType::Int32, dims, numbers.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>())
}

/// 0, 1, 2, ... as int64.
fn counted(dims: &[usize]) -> TensorProto {
    tensor::from_i64(dims, &(0..dims.iter().product::<usize>() as i64).collect::<Vec<_>>())
}

fn value(tensor: TensorProto) -> AttributeProto {
    let kind = Some(AttributeType::Tensor as i32);
    AttributeProto { name: Some("value".into()), r#type: kind, t: Some(Box::new(tensor)), ..AttributeProto::default() }
}

/// One node of constants `a`, `b`, ... whose result `r` is a shape that a Reshape of `x` reads.
fn proto(op_type: &str, constants: &[TensorProto], attributes: &[AttributeProto]) -> ModelProto {
    const NAMES: [&str; 5] = ["a", "b", "c", "d", "e"];
    let nodes = vec![
        node(op_type, &NAMES[..constants.len()], &["r"], attributes.to_vec()),
        node("Reshape", &["x", "r"], &["y"], vec![]),
    ];
    message("x", NAMES.into_iter().zip(constants.iter().cloned()).collect(), nodes, "y")
}

fn axis(axis: i64) -> Vec<AttributeProto> {
    vec![int_attribute("axis", axis)]
}

fn to(dtype: DataType) -> Vec<AttributeProto> {
    vec![int_attribute("to", dtype as i64)]
}

/// A tensor that is counted up, and the four arguments of a Slice.
fn cut(dims: &[usize], numbers: [i64; 4]) -> Vec<TensorProto> {
    [vec![counted(dims)], numbers.map(|number| list(&[number])).into_iter().collect()].concat()
}

/// Operator, case, constants, attributes and result.
type Row = (&'static str, &'static str, Vec<TensorProto>, Vec<AttributeProto>, TensorProto);

#[track_caller]
fn assert_computed(table: Vec<Row>) {
    for (op_type, what, constants, attributes, expected) in table {
        let what = format!("{op_type}, {what}");
        let mut model = Model::from_proto(proto(op_type, &constants, &attributes)).unwrap();
        assert_eq!(fold_integers(&mut model), 1, "{what}");
        assert_valid(&model);
        assert_eq!(op_types(&model), ["Reshape"], "{what}");
        assert_eq!(constant_named(model.graph(), "r"), &crate::testing::named("r", expected), "{what}");
        assert_eq!(model.graph().initializers().len(), 1, "{what}: the arguments go");
        assert_eq!(fold_integers(&mut model), 0, "{what}: idempotent");
    }
}

#[test]
#[rustfmt::skip]
fn arithmetic_gives_what_the_specification_says() {
    let halves = |numbers: &[f32]| tensor::from_f32_as(DataType::Float16, &[numbers.len()], numbers);
    assert_computed(vec![
        ("Add", "broadcast", vec![counted(&[2, 1]), list(&[10, 20, 30])], vec![], tensor::from_i64(&[2, 3], &[10, 20, 30, 11, 21, 31])),
        ("Add", "scalars", vec![scalar(2), scalar(3)], vec![], scalar(5)),
        ("Add", "nothing", vec![list(&[]), list(&[3])], vec![], list(&[])),
        ("Sub", "int32", vec![int32(&[2], &[1, -2]), int32(&[], &[3])], vec![], int32(&[2], &[-2, -5])),
        ("Mul", "", vec![list(&[3, -4]), scalar(5)], vec![], list(&[15, -20])),
        ("Div", "truncates", vec![list(&[7, -7, 7, -7]), list(&[2, 2, -2, -2])], vec![], list(&[3, -3, -3, 3])),
        ("Cast", "narrower", vec![list(&[1, -2])], to(DataType::Int32), int32(&[2], &[1, -2])),
        ("Cast", "wider", vec![int32(&[2], &[1, -2])], to(DataType::Int64), list(&[1, -2])),
        ("Cast", "f32 truncates", vec![tensor::from_f32(&[3], &[1.9, -1.9, -0.0])], to(DataType::Int64), list(&[1, -1, 0])),
        ("Cast", "f64", vec![tensor::from_f32_as(DataType::Double, &[1], &[-1.5])], to(DataType::Int32), int32(&[1], &[-1])),
        ("Cast", "f16", vec![halves(&[2048.0, -0.5])], to(DataType::Int32), int32(&[2], &[2048, 0])),
        ("Concat", "", vec![list(&[1, 2]), list(&[]), list(&[3])], axis(0), list(&[1, 2, 3])),
        ("Concat", "last axis", vec![counted(&[2, 2]), counted(&[2, 1])], axis(-1), tensor::from_i64(&[2, 3], &[0, 1, 0, 2, 3, 1])),
        ("ConstantOfShape", "", vec![list(&[2, 2])], vec![value(list(&[7]))], tensor::from_i64(&[2, 2], &[7; 4])),
        ("ConstantOfShape", "int32", vec![list(&[1])], vec![value(int32(&[1], &[7]))], int32(&[1], &[7])),
        ("ConstantOfShape", "of no dimensions", vec![list(&[])], vec![value(list(&[7]))], scalar(7)),
        ("ConstantOfShape", "of none", vec![list(&[0, 3])], vec![value(list(&[7]))], tensor::from_i64(&[0, 3], &[])),
        ("Gather", "scalar", vec![list(&[5, 6, 7]), scalar(-1)], vec![], scalar(7)),
        ("Gather", "axis", vec![counted(&[2, 3]), tensor::from_i64(&[1, 2], &[2, 0])], axis(1), tensor::from_i64(&[2, 1, 2], &[2, 0, 5, 3])),
        ("Gather", "negative axis", vec![counted(&[2, 3]), int32(&[2], &[2, -3])], axis(-1), tensor::from_i64(&[2, 2], &[2, 0, 5, 3])),
        ("Identity", "", vec![list(&[5])], vec![], list(&[5])),
        ("Range", "up", vec![scalar(1), scalar(6), scalar(2)], vec![], list(&[1, 3, 5])),
        ("Range", "down", vec![scalar(5), scalar(0), scalar(-2)], vec![], list(&[5, 3, 1])),
        ("Range", "empty", vec![scalar(5), scalar(0), scalar(2)], vec![], list(&[])),
        ("Range", "int32", vec![int32(&[], &[0]), int32(&[], &[2]), int32(&[], &[1])], vec![], int32(&[2], &[0, 1])),
    ]);
}

#[test]
#[rustfmt::skip]
fn changes_of_shape_give_what_the_specification_says() {
    const MIN: i64 = i64::MIN;
    let axes = |axes: &[i64]| vec![ints_attribute("axes", axes)];
    let spans = |starts: &[i64], ends: &[i64]| vec![ints_attribute("starts", starts), ints_attribute("ends", ends)];
    let spans_on =
        |starts: &[i64], ends: &[i64], on: &[i64]| [spans(starts, ends), vec![ints_attribute("axes", on)]].concat();
    assert_computed(vec![
        ("Reshape", "", vec![counted(&[2, 3]), list(&[0, -1, 1])], vec![], counted(&[2, 3, 1])),
        ("Reshape", "scalar", vec![list(&[4]), list(&[])], vec![], scalar(4)),
        ("Reshape", "zero is zero", vec![list(&[]), list(&[0, 3])], vec![int_attribute("allowzero", 1)], tensor::from_i64(&[0, 3], &[])),
        ("Shape", "of floats", vec![floats(&[4, 3, 2], 1)], vec![], list(&[4, 3, 2])),
        ("Shape", "of a large constant", vec![floats(&[64, 32], 1)], vec![], list(&[64, 32])),
        ("Shape", "part", vec![floats(&[4, 3, 2], 1)], vec![int_attribute("start", 1), int_attribute("end", -1)], list(&[3])),
        ("Shape", "clamped", vec![floats(&[4, 3, 2], 1)], vec![int_attribute("start", -9), int_attribute("end", 9)], list(&[4, 3, 2])),
        ("Shape", "empty part", vec![floats(&[4, 3, 2], 1)], vec![int_attribute("start", 2), int_attribute("end", 1)], list(&[])),
        ("Slice", "attributes", vec![counted(&[3, 4])], spans(&[1, 1], &[3, -1]), tensor::from_i64(&[2, 2], &[5, 6, 9, 10])),
        ("Slice", "attribute axes", vec![counted(&[2, 3])], spans_on(&[1], &[99], &[1]), tensor::from_i64(&[2, 2], &[1, 2, 4, 5])),
        ("Slice", "inputs", vec![counted(&[3, 4]), list(&[1, 0]), list(&[9, 2])], vec![], tensor::from_i64(&[2, 2], &[4, 5, 8, 9])),
        ("Slice", "steps", cut(&[7], [0, 7, 0, 3]), vec![], list(&[0, 3, 6])),
        ("Slice", "backwards", cut(&[4, 2], [-1, -i64::MAX, 0, -1]), vec![], tensor::from_i64(&[4, 2], &[6, 7, 4, 5, 2, 3, 0, 1])),
        ("Slice", "backwards in steps", cut(&[7], [99, 0, -1, -2]), vec![], list(&[6, 4, 2])),
        ("Slice", "backwards to the first", cut(&[4], [2, MIN, 0, -2]), vec![], list(&[2, 0])),
        ("Slice", "backwards, empty", cut(&[4], [1, 3, 0, -1]), vec![], list(&[])),
        ("Slice", "far beyond", cut(&[4], [MIN, i64::MAX, 0, i64::MAX]), vec![], list(&[0])),
        ("Slice", "empty", cut(&[4], [3, 1, 0, 1]), vec![], list(&[])),
        ("Slice", "of nothing", cut(&[0, 2], [3, 1, 0, -1]), vec![], tensor::from_i64(&[0, 2], &[])),
        ("Slice", "int32 arguments", vec![counted(&[4]), int32(&[1], &[1]), int32(&[1], &[3])], vec![], list(&[1, 2])),
        ("Squeeze", "all", vec![counted(&[1, 2, 1])], vec![], counted(&[2])),
        ("Squeeze", "attribute", vec![counted(&[1, 2, 1])], axes(&[-1]), counted(&[1, 2])),
        ("Squeeze", "input", vec![counted(&[1, 2, 1]), list(&[0])], vec![], counted(&[2, 1])),
        ("Transpose", "", vec![counted(&[2, 3])], vec![ints_attribute("perm", &[1, 0])], tensor::from_i64(&[3, 2], &[0, 3, 1, 4, 2, 5])),
        ("Transpose", "reversed", vec![counted(&[1, 3, 2])], vec![], tensor::from_i64(&[2, 3, 1], &[0, 2, 4, 1, 3, 5])),
        ("Unsqueeze", "attribute", vec![scalar(4)], axes(&[0]), list(&[4])),
        ("Unsqueeze", "input", vec![counted(&[2]), list(&[0, -1])], vec![], counted(&[1, 2, 1])),
    ]);
}

/// Operator, case, constants and attributes.
type Uncertain = (&'static str, &'static str, Vec<TensorProto>, Vec<AttributeProto>);

#[track_caller]
fn assert_left(table: Vec<Uncertain>) {
    for (op_type, what, constants, attributes) in table {
        assert_unchanged(&format!("{op_type}, {what}"), proto(op_type, &constants, &attributes), fold_integers);
    }
}

#[test]
#[rustfmt::skip]
fn arithmetic_that_is_not_certain_stays_as_it_is() {
    let pair = || vec![list(&[1]), list(&[2])];
    let many = MAX_ELEMENTS as i64 + 1;
    let filled = |tensor: TensorProto| vec![value(tensor)];
    assert_left(vec![
        ("Add", "overflow", vec![list(&[i64::MAX]), list(&[1])], vec![]),
        ("Add", "overflow of int32", vec![int32(&[1], &[i32::MAX]), int32(&[1], &[1])], vec![]),
        ("Add", "two types", vec![list(&[1]), int32(&[1], &[1])], vec![]),
        ("Add", "floats", vec![floats(&[1], 1), floats(&[1], 2)], vec![]),
        ("Add", "shapes", vec![list(&[1, 2]), list(&[1, 2, 3])], vec![]),
        ("Add", "old broadcasting", pair(), axis(0)),
        ("Add", "large result", vec![counted(&[40, 1]), counted(&[40])], vec![]),
        ("Div", "by zero", vec![list(&[1]), list(&[0])], vec![]),
        ("Div", "overflow", vec![list(&[i64::MIN]), list(&[-1])], vec![]),
        ("Mod", "unknown", pair(), vec![]),
        ("Cast", "out of range", vec![list(&[1 << 31])], to(DataType::Int32)),
        ("Cast", "no integer", vec![tensor::from_f32(&[1], &[f32::NAN])], to(DataType::Int64)),
        ("Cast", "large float", vec![tensor::from_f32(&[1], &[9.3e18])], to(DataType::Int64)),
        ("Cast", "to float", vec![list(&[1])], to(DataType::Float)),
        ("Cast", "to nothing", vec![list(&[1])], vec![]),
        ("Cast", "to a type that does not exist", vec![list(&[1])], vec![int_attribute("to", 999)]),
        ("Concat", "no axis", pair(), vec![]),
        ("Concat", "axis", pair(), axis(1)),
        ("Concat", "scalars", vec![scalar(1), scalar(2)], axis(0)),
        ("Concat", "two types", vec![list(&[1]), int32(&[1], &[1])], axis(0)),
        ("Concat", "shapes", vec![counted(&[2, 2]), counted(&[2, 3])], axis(0)),
        ("Concat", "large", vec![counted(&[MAX_ELEMENTS]), list(&[1])], axis(0)),
        ("Concat", "nothing", vec![], axis(0)),
        ("ConstantOfShape", "f32", vec![list(&[2])], vec![]),
        ("ConstantOfShape", "value of f32", vec![list(&[2])], filled(floats(&[1], 1))),
        ("ConstantOfShape", "two values", vec![list(&[2])], filled(list(&[1, 2]))),
        ("ConstantOfShape", "negative", vec![list(&[-1])], filled(list(&[1]))),
        ("ConstantOfShape", "large", vec![list(&[many])], filled(list(&[1]))),
        ("ConstantOfShape", "overflow", vec![list(&[i64::MAX, i64::MAX])], filled(list(&[1]))),
    ]);
}

#[test]
#[rustfmt::skip]
fn selection_and_shapes_that_are_not_certain_stay_as_they_are() {
    let (many, large) = (MAX_ELEMENTS as i64 + 1, counted(&[MAX_ELEMENTS + 1]));
    assert_left(vec![
        ("Gather", "out of range", vec![list(&[1, 2]), list(&[2])], vec![]),
        ("Gather", "before the first", vec![list(&[1, 2]), list(&[-3])], vec![]),
        ("Gather", "axis", vec![list(&[1, 2]), list(&[0])], axis(1)),
        ("Gather", "large", vec![counted(&[2, 40]), counted(&[40])], vec![]),
        ("Identity", "large", vec![large], vec![]),
        ("Identity", "other type", vec![tensor::from_codes(DataType::Int8, &[1], [1])], vec![]),
        ("Range", "no step", vec![scalar(0), scalar(1), scalar(0)], vec![]),
        ("Range", "two types", vec![scalar(0), scalar(1), int32(&[], &[1])], vec![]),
        ("Range", "large", vec![scalar(0), scalar(many), scalar(1)], vec![]),
        ("Range", "larger", vec![scalar(i64::MIN), scalar(i64::MAX), scalar(1)], vec![]),
        ("Range", "no scalar", vec![list(&[0, 1]), scalar(1), scalar(1)], vec![]),
        ("Reshape", "number", vec![list(&[1, 2]), list(&[3])], vec![]),
        ("Reshape", "two open", vec![list(&[1, 2]), list(&[-1, -1])], vec![]),
        ("Reshape", "indivisible", vec![list(&[1, 2, 3]), list(&[2, -1])], vec![]),
        ("Reshape", "no shape", vec![list(&[1, 2])], vec![]),
        ("Reshape", "shape of two dimensions", vec![list(&[1, 2]), counted(&[1, 2])], vec![]),
        ("Slice", "no step", cut(&[4], [0, 1, 0, 0]), vec![]),
        ("Slice", "down from before the first", cut(&[4], [-9, i64::MIN, 0, -1]), vec![]),
        ("Slice", "axis", cut(&[4], [0, 1, 1, 1]), vec![]),
        ("Slice", "lengths", vec![counted(&[4]), list(&[1]), list(&[1, 2])], vec![]),
        ("Slice", "axis twice", vec![counted(&[4]), list(&[1, 1]), list(&[2, 2]), list(&[0, -1])], vec![]),
        ("Slice", "more than there are", vec![counted(&[4]), list(&[1, 1]), list(&[2, 2])], vec![]),
        ("Slice", "no arguments", vec![counted(&[4])], vec![]),
        ("Slice", "no ends", vec![counted(&[4]), list(&[1])], vec![]),
        ("Squeeze", "not one", vec![counted(&[2]), list(&[0])], vec![]),
        ("Squeeze", "axis", vec![counted(&[1]), list(&[1])], vec![]),
        ("Transpose", "perm", vec![counted(&[2, 3])], vec![ints_attribute("perm", &[0, 0])]),
        ("Unsqueeze", "no axes", vec![counted(&[2])], vec![]),
        ("Unsqueeze", "axis twice", vec![counted(&[2]), list(&[0, 0])], vec![]),
    ]);
}

#[test]
fn node_that_is_not_free_stays_as_it_is() {
    type Change = fn(&mut ModelProto);
    let table: Vec<(&str, Change)> = vec![
        ("graph output", |p| p.graph.as_mut().unwrap().output.push(info("r"))),
        ("overridable", |p| p.graph.as_mut().unwrap().input.push(info("a"))),
        ("computed input", |p| p.graph.as_mut().unwrap().node[0].input[1] = "x".into()),
        ("input left out", |p| p.graph.as_mut().unwrap().node[0].input[1] = String::new()),
        ("more outputs", |p| p.graph.as_mut().unwrap().node[0].output.push("z".into())),
        ("other domain", |p| {
            p.graph.as_mut().unwrap().node[0].domain = Some("com.example".into());
            p.opset_import[0].domain = Some(String::new());
            let domain = Some("com.example".to_owned());
            p.opset_import.push(onnxquant_ir::onnx::OperatorSetIdProto { domain, version: Some(1) });
        }),
    ];
    for (what, change) in table {
        let mut proto = proto("Add", &[list(&[1]), list(&[2])], &[]);
        change(&mut proto);
        assert_unchanged(what, proto, fold_integers);
    }
}

/// The padding of a convolution as torch writes it.
fn pad_program() -> (Constants, Vec<NodeProto>) {
    let constants = vec![
        ("amounts", list(&[0, 1, 2, 1])),
        ("missing", list(&[4])),
        ("pairs", list(&[-1, 2])),
        ("last", list(&[-1])),
        ("end", list(&[-i64::MAX])),
        ("axis", list(&[0])),
        ("step", list(&[-1])),
        ("flat", list(&[-1])),
    ];
    let nodes = vec![
        node("ConstantOfShape", &["missing"], &["zeros"], vec![value(list(&[0]))]),
        node("Concat", &["amounts", "zeros"], &["all"], vec![int_attribute("axis", 0)]),
        node("Reshape", &["all", "pairs"], &["table"], vec![]),
        node("Slice", &["table", "last", "end", "axis", "step"], &["turned"], vec![]),
        node("Transpose", &["turned"], &["columns"], vec![ints_attribute("perm", &[1, 0])]),
        node("Reshape", &["columns", "flat"], &["row"], vec![]),
        node("Cast", &["row"], &["pads"], vec![int_attribute("to", 7)]),
    ];
    (constants, nodes)
}

#[test]
fn program_of_torch_for_pads_becomes_one_constant() {
    let (constants, mut nodes) = pad_program();
    nodes.push(node("Pad", &["x", "pads"], &["y"], vec![]));
    let mut model = Model::from_proto(message("x", constants, nodes, "y")).unwrap();
    assert_eq!(fold_integers(&mut model), 7);
    assert_valid(&model);
    assert_eq!(op_types(&model), ["Pad"]);
    assert_eq!(model.graph().initializers().len(), 1);
    let pads = tensor::to_i64(constant_named(model.graph(), "pads")).unwrap();
    assert_eq!(pads, [0, 0, 2, 0, 0, 0, 1, 1]);
    let x = ArrayD::from_shape_vec(vec![1, 2, 3, 3], numbers(18, 3)).unwrap();
    assert_eq!(run(&model, &x)[0].shape(), [1, 2, 6, 4]);
}

#[test]
fn value_that_a_subgraph_reads_keeps_its_name() {
    let branch = |name: &str| body(vec![node("Identity", &["r"], &[name], vec![])], &[name]);
    let bodies = vec![graph_attribute("then_branch", branch("t")), graph_attribute("else_branch", branch("e"))];
    let nodes = vec![node("Identity", &["a"], &["r"], vec![]), node("If", &["x"], &["y"], bodies)];
    let mut model = Model::from_proto(message("x", vec![("a", list(&[3]))], nodes, "y")).unwrap();
    assert_eq!(fold_integers(&mut model), 1);
    assert_valid(&model);
    assert_eq!(op_types(&model), ["If"]);
    assert_eq!(array(constant_named(model.graph(), "r")).len(), 1);
}

#[test]
fn argument_with_another_reader_stays() {
    let mut proto = proto("Add", &[list(&[1]), list(&[2])], &[]);
    proto.graph.as_mut().unwrap().node.push(node("Reshape", &["x", "a"], &["z"], vec![]));
    let mut model = Model::from_proto(proto).unwrap();
    assert_eq!(fold_integers(&mut model), 1);
    assert_valid(&model);
    let names = model.graph().initializers().iter().map(|&id| model.graph().value(id).name()).collect::<Vec<_>>();
    assert_eq!(names, ["a", "r"]);
}

#[test]
fn old_models_get_an_ir_version_that_allows_plain_initializers() {
    let mut proto = proto("Add", &[list(&[1]), list(&[2])], &[]);
    proto.ir_version = Some(3);
    proto.graph.as_mut().unwrap().input.extend([info("a"), info("b")]);
    let mut model = Model::from_proto(proto).unwrap();
    assert_eq!(fold_integers(&mut model), 1);
    assert_valid(&model);
    assert_eq!(model.ir_version(), 4);
    assert_eq!(model.graph().inputs().len(), 1);
}
