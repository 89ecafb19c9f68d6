use onnxquant_ir::onnx::type_proto;
use onnxquant_ir::verify;

use super::*;
use crate::store_half::store_half;
use crate::testing::{body, graph_attribute, image, info, message, named, node, numbers, run};

const HALF: DataType = DataType::Float16;

fn half(name: &str, dims: &[usize], seed: usize) -> TensorProto {
    named(name, tensor::from_f32_as(HALF, dims, &numbers(dims.iter().product(), seed)))
}

fn of_type(name: &str, kind: DataType) -> ValueInfoProto {
    let mut info = info(name);
    let tensor = type_proto::Tensor { elem_type: Some(kind as i32), shape: None };
    info.r#type = Some(TypeProto { value: Some(Value::TensorType(tensor)), ..TypeProto::default() });
    info
}

/// `y = Relu(conv(x))` and the values behind a branch, all of `kind`.
fn halves(kind: DataType) -> ModelProto {
    let weight = tensor::from_f32_as(kind, &[4, 3, 3, 3], &numbers(108, 1));
    let branch = |op_type: &str| body(vec![node(op_type, &["r"], &["inner"], vec![])], &["inner"]);
    let mut branches = [branch("Relu"), branch("Identity")];
    branches.iter_mut().for_each(|body| body.output[0] = of_type("inner", kind));
    let [yes, no] = branches;
    let attributes = vec![graph_attribute("then_branch", yes), graph_attribute("else_branch", no)];
    let nodes = vec![
        node("Conv", &["x", "w"], &["c"], vec![]),
        node("Relu", &["c"], &["r"], vec![]),
        node("If", &["flag"], &["y"], attributes),
    ];
    let flag = tensor::from_raw(DataType::Bool, &[], vec![1_u8]);
    let mut found = message("x", vec![("w", weight), ("flag", flag)], nodes, "y r");
    let graph = found.graph.as_mut().unwrap();
    graph.input[0] = of_type("x", kind);
    graph.output = vec![of_type("y", kind), of_type("r", kind)];
    graph.value_info = vec![of_type("c", kind), of_type("r", kind)];
    found
}

fn raised(proto: ModelProto) -> (Model, Option<RaisedType>) {
    let mut model = Model::from_proto(proto).unwrap();
    let found = raise_type(&mut model).unwrap();
    assert_eq!(verify(&model), []);
    (model, found)
}

fn casts(model: &Model) -> Vec<(String, String)> {
    let graph = model.graph();
    let name = |value: Option<onnxquant_ir::ValueId>| graph.value(value.unwrap()).name().to_owned();
    let casts = graph.nodes().filter(|(_, node)| node.is("Cast"));
    casts.map(|(_, node)| (name(node.input(0)), name(node.output(0)))).collect()
}

fn kinds(infos: &[ValueInfoProto]) -> Vec<Option<DataType>> {
    infos.iter().map(half_type).collect()
}

#[test]
fn types_at_the_edges_stay_and_all_between_is_f32() {
    for kind in [HALF, DataType::Bfloat16] {
        let (model, found) = raised(halves(kind));
        assert_eq!(found, Some(RaisedType { from: kind, tensors: BTreeSet::from(["w".to_owned()]) }));
        let pairs = [("x", "x_float"), ("y_float", "y"), ("r_float", "r")];
        assert_eq!(casts(&model), pairs.map(|(from, to)| (from.to_owned(), to.to_owned())));
        let proto = model.to_proto().graph.unwrap();
        assert_eq!(kinds(&proto.input), [Some(kind)]);
        assert_eq!(kinds(&proto.output), [Some(kind), Some(kind)]);
        assert_eq!(
            proto.value_info.iter().map(|info| (info.name(), half_type(info))).collect::<Vec<_>>(),
            [("c", None)]
        );
        let branch = proto.node.iter().find(|node| node.op_type() == "If").unwrap();
        for body in branch.attribute.iter().filter_map(|attribute| attribute.g.as_ref()) {
            assert_eq!((&body.node[0].input[0][..], kinds(&body.output)), ("r_float", vec![None]));
        }
    }
}

#[test]
fn what_is_computed_stays() {
    let mut float = halves(HALF);
    let graph = float.graph.as_mut().unwrap();
    graph.node.truncate(2);
    graph.output.remove(0);
    graph.initializer.truncate(1);
    let (model, _) = raised(float.clone());
    // The interpreter computes in f32: what is made is rounded in the end alone.
    let before = run(&Model::from_proto(float).unwrap(), &image()).remove(0);
    let numbers: Vec<f32> = before.iter().copied().collect();
    let rounded = tensor::from_f32_as(HALF, before.shape(), &numbers);
    let found = run(&model, &image()).remove(0);
    assert!(found.iter().eq(tensor::to_f32(&rounded).unwrap().iter()));
}

#[test]
fn casts_that_are_left_without_a_reason_go() {
    let to = |kind: DataType| vec![int_attribute("to", i64::from(kind as i32))];
    let nodes = vec![
        node("Cast", &["x"], &["h"], to(HALF)),
        node("Conv", &["h", "w"], &["c"], vec![]),
        node("Relu", &["c"], &["r"], vec![]),
        node("Cast", &["r"], &["f"], to(DataType::Float)),
        node("Shape", &["f"], &["s"], vec![]),
        node("Cast", &["s"], &["t"], to(HALF)),
        node("Add", &["f", "t"], &["y"], vec![]),
    ];
    let (model, found) = raised(message("x", vec![("w", half("w", &[4, 3, 3, 3], 1))], nodes, "y"));
    assert!(found.is_some());
    assert_eq!(casts(&model), [("s".to_owned(), "t".to_owned())]);
    let conv = model.graph().nodes().find(|(_, node)| node.is("Conv")).unwrap().1;
    assert_eq!(model.graph().value(conv.input(0).unwrap()).name(), "x");
}

#[test]
fn inputs_that_are_constants_below_ir_version_4_are_raised_with_them() {
    let mut old = halves(HALF);
    let graph = old.graph.as_mut().unwrap();
    graph.node.truncate(2);
    graph.output.remove(0);
    graph.input.push(of_type("w", HALF));
    let listed = old.clone();
    old.ir_version = Some(3);
    let (model, _) = raised(old);
    assert_eq!(casts(&model).len(), 2);
    assert_eq!(model.to_proto().graph.unwrap().initializer[0].data_type(), DataType::Float as i32);
    // From 4 on a caller may give another weight, of the type that is declared.
    let (model, found) = raised(listed);
    assert_eq!((casts(&model).len(), found.unwrap().tensors.len()), (3, 0));
    assert_eq!(model.to_proto().graph.unwrap().initializer[0].data_type(), HALF as i32);
}

#[test]
fn what_no_cast_reaches_and_models_of_f32_stay_as_they_are() {
    let of_other_domain = |proto: &mut ModelProto| {
        proto.graph.as_mut().unwrap().node[1].domain = Some("other".to_owned());
        proto
            .opset_import
            .push(onnxquant_ir::onnx::OperatorSetIdProto { domain: Some("other".to_owned()), version: Some(1) });
    };
    let without_type = |proto: &mut ModelProto| proto.graph.as_mut().unwrap().output[1].r#type = None;
    let float = |proto: &mut ModelProto| *proto = halves(DataType::Float);
    for change in [&of_other_domain as &dyn Fn(&mut ModelProto), &without_type, &float] {
        let mut proto = halves(HALF);
        change(&mut proto);
        let (model, found) = raised(proto.clone());
        assert_eq!((found, model.to_proto()), (None, proto));
    }
}

#[test]
fn long_tensors_that_are_left_are_stored_in_their_type_again() {
    let long = half("long", &[64, 32], 3);
    let nodes = vec![
        node("MatMul", &["x", "long"], &["m"], vec![]),
        node("Mul", &["m", "short"], &["s"], vec![]),
        node("Gather", &["table", "rows"], &["g"], vec![]),
        node("Add", &["s", "g"], &["y"], vec![]),
    ];
    let rows = tensor::from_i64(&[1], &[5]);
    let constants = vec![
        ("long", long.clone()),
        ("short", half("short", &[32], 4)),
        ("table", half("table", &[64, 32], 5)),
        ("rows", rows),
    ];
    let (mut model, found) = raised(message("x", constants, nodes, "y"));
    assert_eq!(store_half(model.graph_mut(), &found.unwrap()).unwrap(), 2);
    assert_eq!(verify(&model), []);
    let pairs = [("long_half", "long_float"), ("table_rows", "g")];
    assert_eq!(casts(&model), pairs.map(|(from, to)| (from.to_owned(), to.to_owned())));
    let graph = model.to_proto().graph.unwrap();
    let halves = graph.initializer.iter().filter(|tensor| is_half(tensor.data_type()));
    let bytes: Vec<usize> = halves.map(|tensor| tensor.raw_data.as_ref().unwrap().len()).collect();
    assert_eq!(bytes, [64 * 32 * 2, 64 * 32 * 2]);
}
