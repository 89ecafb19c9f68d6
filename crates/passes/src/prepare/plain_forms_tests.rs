use std::collections::BTreeMap;

use ndarray::{ArrayD, IxDyn};
use onnxquant_ir::onnx::tensor_proto::DataType;
use onnxquant_ir::onnx::{
    AttributeProto, ModelProto, NodeProto, OperatorSetIdProto, TensorProto, TensorShapeProto, tensor_shape_proto,
    type_proto,
};
use onnxquant_ir::{float_attribute, int_attribute, ints_attribute, tensor, text_attribute};

use super::*;
use crate::testing::{
    array, assert_close, assert_unchanged, assert_valid, floats, image, info, message, model, node, numbers, op_types,
    run, sites,
};

fn x(dims: &[usize]) -> ArrayD<f32> {
    ArrayD::from_shape_vec(dims, numbers(dims.iter().product(), 9)).unwrap()
}

/// The model with an input of as many dimensions as `x` has.
fn declared(mut proto: ModelProto, x: &ArrayD<f32>) -> ModelProto {
    let dims = x.shape().iter().map(|_| tensor_shape_proto::Dimension::default()).collect();
    let input = proto.graph.as_mut().unwrap().input.first_mut().unwrap();
    let Some(type_proto::Value::TensorType(kind)) = input.r#type.as_mut().unwrap().value.as_mut() else { panic!() };
    kind.shape = Some(TensorShapeProto { dim: dims });
    proto
}

fn fused(op_type: &str, inputs: &[&str], attributes: Vec<AttributeProto>) -> NodeProto {
    NodeProto { domain: Some("com.microsoft".to_owned()), ..node(op_type, inputs, &["y"], attributes) }
}

fn with_runtime(mut proto: ModelProto) -> ModelProto {
    proto.opset_import.push(OperatorSetIdProto { domain: Some("com.microsoft".into()), version: Some(1) });
    proto
}

/// Rewrites it and finds one layer where there was none; returns the model.
#[track_caller]
fn rewritten(what: &str, proto: ModelProto) -> Model {
    let mut model = Model::from_proto(proto).unwrap();
    assert_eq!(write_plain_forms(&mut model), 1, "{what}");
    assert_valid(&model);
    assert_eq!(sites(&model).into_iter().filter(Result::is_ok).count(), 1, "{what}");
    assert_eq!(write_plain_forms(&mut model), 0, "{what}: idempotent");
    model
}

#[test]
fn gemm_of_any_form_becomes_a_plain_one() {
    let factor = float_attribute;
    let trans = |name: &str| int_attribute(name, 1);
    let bias = || ("b", floats(&[4], 2));
    type Row<'a> = (&'a str, Vec<AttributeProto>, Vec<(&'static str, TensorProto)>, &'a [&'a str]);
    let table: Vec<Row<'_>> = vec![
        ("alpha", vec![factor("alpha", 0.5)], vec![], &["Gemm"]),
        ("alpha and transB", vec![factor("alpha", -1.5), trans("transB")], vec![bias()], &["Gemm"]),
        ("beta", vec![factor("beta", 3.0)], vec![bias()], &["Gemm"]),
        ("beta of 0", vec![factor("beta", 0.0)], vec![bias()], &["Gemm"]),
        ("transA", vec![trans("transA")], vec![bias()], &["Transpose", "Gemm"]),
        ("all", vec![factor("alpha", 2.0), factor("beta", 0.5), trans("transA")], vec![bias()], &["Transpose", "Gemm"]),
    ];
    for (what, attributes, constants, expected) in table {
        let turned = attributes.iter().any(|attribute| attribute.name() == "transB");
        let weight = ("w", floats(if turned { &[4, 6] } else { &[6, 4] }, 1));
        let inputs = if constants.is_empty() { vec!["x", "w"] } else { vec!["x", "w", "b"] };
        let transposes = attributes.iter().any(|attribute| attribute.name() == "transA");
        let gemm = node("Gemm", &inputs, &["y"], attributes);
        let proto = message("x", [vec![weight], constants].concat(), vec![gemm], "y");
        let before = Model::from_proto(proto.clone()).unwrap();
        let after = rewritten(what, proto);
        assert_eq!(op_types(&after), expected, "{what}");
        let x = x(if transposes { &[6, 5] } else { &[5, 6] });
        assert_close(&run(&after, &x), &run(&before, &x), 1e-6, what);
    }
}

#[test]
fn beta_of_a_computed_bias_is_multiplied() {
    let nodes = vec![
        node("Relu", &["x"], &["c"], vec![]),
        node("Gemm", &["x", "w", "c"], &["y"], vec![float_attribute("beta", 0.5)]),
    ];
    let proto = message("x", vec![("w", floats(&[6, 6], 1))], nodes, "y");
    let before = Model::from_proto(proto.clone()).unwrap();
    let after = rewritten("computed", proto);
    assert_eq!(op_types(&after), ["Relu", "Mul", "Gemm"]);
    assert_close(&run(&after, &x(&[5, 6])), &run(&before, &x(&[5, 6])), 1e-6, "computed");
}

#[test]
fn constant_on_the_left_of_a_matmul_goes_to_the_right() {
    for (dims, expected) in [
        (&[6, 5][..], &["Transpose", "Transpose", "MatMul", "Transpose"][..]),
        (&[2, 6, 5], &["Transpose", "Transpose", "MatMul", "Transpose"]),
        (&[6], &["Transpose", "MatMul"]),
    ] {
        let x = x(dims);
        let left =
            message("x", vec![("w", floats(&[4, 6], 1))], vec![node("MatMul", &["w", "x"], &["y"], vec![])], "y");
        let after = rewritten("left", declared(left, &x));
        assert_eq!(op_types(&after), expected, "{dims:?}");
        let w = array(&floats(&[4, 6], 1));
        let columns = if dims.len() == 1 { 1 } else { 5 };
        let batch = x.len() / 6 / columns;
        let x3 = x.to_shape(vec![batch, 6, columns]).unwrap();
        let y = ArrayD::from_shape_fn(IxDyn(&[batch, 4, columns]), |at| {
            (0..6).map(|k| w[[at[1], k]] * x3[[at[0], k, at[2]]]).sum::<f32>()
        });
        let shape = if dims.len() == 1 { vec![4] } else { [&dims[..dims.len() - 2], &[4, 5]].concat() };
        assert_close(&run(&after, &x), &[y.to_shape(shape).unwrap().to_owned()], 1e-5, "left");
    }
}

#[test]
fn leading_ones_of_a_weight_go_where_the_input_has_as_many_dimensions() {
    let x = x(&[2, 5, 6]);
    let proto = |dims: &[usize]| {
        let matmul = vec![node("MatMul", &["x", "w"], &["y"], vec![])];
        declared(message("x", vec![("w", floats(dims, 1))], matmul, "y"), &x)
    };
    let plain = Model::from_proto(proto(&[6, 4])).unwrap();
    let after = rewritten("ones", proto(&[1, 6, 4]));
    assert_eq!(op_types(&after), ["Reshape", "MatMul"]);
    assert_close(&run(&after, &x), &run(&plain, &x), 1e-6, "ones");
    assert_unchanged("more dimensions", proto(&[1, 1, 6, 4]), write_plain_forms);
    assert_unchanged("a stack", proto(&[2, 6, 4]), write_plain_forms);
}

/// Also where no declaration says how many dimensions there are.
#[test]
fn rank_is_followed_through_operators() {
    let ways = [
        vec![node("Relu", &["x"], &["a"], vec![])],
        vec![node("MatMul", &["x", "square"], &["a"], vec![])],
        vec![node("Add", &["row", "x"], &["a"], vec![])],
        vec![node("Reshape", &["x", "shape"], &["a"], vec![])],
        vec![
            node("Transpose", &["x"], &["t"], vec![ints_attribute("perm", &[0, 1, 2])]),
            node("Cast", &["t"], &["a"], vec![int_attribute("to", 1)]),
        ],
    ];
    let constants = || {
        let shape = tensor::from_i64(&[3], &[2, 5, 6]);
        vec![("square", floats(&[6, 6], 3)), ("row", floats(&[6], 4)), ("shape", shape), ("w", floats(&[1, 6, 4], 1))]
    };
    for way in ways {
        let nodes = [way, vec![node("MatMul", &["a", "w"], &["y"], vec![])]].concat();
        let mut model = Model::from_proto(declared(message("x", constants(), nodes, "y"), &x(&[2, 5, 6]))).unwrap();
        assert_eq!(write_plain_forms(&mut model), 1, "{:?}", op_types(&model));
    }
    let unknown = vec![node("Squeeze", &["x"], &["a"], vec![]), node("MatMul", &["a", "w"], &["y"], vec![])];
    assert_unchanged("unknown", declared(message("x", constants(), unknown, "y"), &x(&[2, 5, 6])), write_plain_forms);
}

/// The sum of products over all labels, as the equation says.
fn einsum(equation: &str, a: &ArrayD<f32>, b: &ArrayD<f32>) -> ArrayD<f32> {
    let (operands, result) = equation.split_once("->").unwrap();
    let (of_a, of_b) = operands.split_once(',').unwrap();
    let sizes: BTreeMap<char, usize> =
        of_a.chars().zip(a.shape().iter().copied()).chain(of_b.chars().zip(b.shape().iter().copied())).collect();
    let mut y = ArrayD::zeros(result.chars().map(|label| sizes[&label]).collect::<Vec<_>>());
    for mut index in 0..sizes.values().product::<usize>() {
        let mut at = BTreeMap::new();
        for (&label, &size) in &sizes {
            at.insert(label, index % size);
            index /= size;
        }
        let place = |labels: &str| IxDyn(&labels.chars().map(|label| at[&label]).collect::<Vec<_>>());
        y[place(result)] += a[place(of_a)] * b[place(of_b)];
    }
    y
}

#[test]
fn einsum_that_is_a_product_becomes_a_matmul() {
    // Equation, shapes of input and weight, whether the weight stands first, and the operators that come of it.
    type Row<'a> = (&'a str, &'a [usize], &'a [usize], bool, &'a [&'a str]);
    let table: Vec<Row<'_>> = vec![
        ("bk,kn->bn", &[5, 6], &[6, 4], false, &["MatMul"]),
        ("bk,nk->bn", &[5, 6], &[4, 6], false, &["Transpose", "MatMul"]),
        ("abk,kn->abn", &[2, 3, 6], &[6, 4], false, &["MatMul"]),
        ("bsd,dhk->bshk", &[2, 3, 6], &[6, 2, 4], false, &["Reshape", "MatMul", "Reshape"]),
        ("bshk,hkd->bsd", &[2, 3, 2, 4], &[2, 4, 5], false, &["Reshape", "Reshape", "MatMul"]),
        ("bhsk,hkd->bsd", &[2, 2, 3, 4], &[2, 4, 5], false, &["Transpose", "Reshape", "Reshape", "MatMul"]),
        ("bck,kn->bnc", &[2, 3, 6], &[6, 4], false, &["MatMul", "Transpose"]),
        ("mc,bck->bmk", &[2, 6, 5], &[4, 6], true, &["Transpose", "Transpose", "MatMul", "Transpose"]),
        ("b c , c d -> b d", &[5, 6], &[6, 4], false, &["MatMul"]),
        ("k,kn->n", &[6], &[6, 4], false, &["MatMul"]),
    ];
    for (equation, of_x, of_w, first, expected) in table {
        let (x, w) = (x(of_x), floats(of_w, 1));
        let inputs = if first { ["w", "x"] } else { ["x", "w"] };
        let einsum_node = node("Einsum", &inputs, &["y"], vec![text_attribute("equation", equation)]);
        let after = rewritten(equation, message("x", vec![("w", w.clone())], vec![einsum_node], "y"));
        assert_eq!(op_types(&after), expected, "{equation}");
        let plain = equation.replace(' ', "");
        let w = array(&w);
        let y = if first { einsum(&plain, &w, &x) } else { einsum(&plain, &x, &w) };
        assert_close(&run(&after, &x), &[y], 1e-5, equation);
    }
    let dots = node("Einsum", &["x", "w"], &["y"], vec![text_attribute("equation", "...k,kn->...n")]);
    let after = rewritten("dots", message("x", vec![("w", floats(&[6, 4], 1))], vec![dots], "y"));
    let x = x(&[2, 3, 6]);
    assert_close(&run(&after, &x), &[einsum("abk,kn->abn", &x, &array(&floats(&[6, 4], 1)))], 1e-5, "dots");
}

#[test]
fn einsum_of_another_kind_stays() {
    let table = [
        ("a label in all", "bk,bkn->bn"),
        ("a sum over the input alone", "bak,kn->bn"),
        ("a sum over the weight alone", "bk,kmn->bn"),
        ("no sum", "b,kn->bkn"),
        ("nothing of the weight", "bkn,kn->b"),
        ("a label twice", "bkk,kn->bn"),
        ("an ellipsis that has to move", "...kb,kn->...bn"),
        ("an ellipsis of the weight", "bk,...kn->...bn"),
        ("no result", "bk,kn"),
        ("one operand", "kn->nk"),
        ("three operands", "bk,kn,n->bn"),
        ("more dimensions", "bk,kmn->bmn"),
    ];
    for (what, equation) in table {
        let nodes = vec![node("Einsum", &["x", "w"], &["y"], vec![text_attribute("equation", equation)])];
        let dims: &[usize] = if what == "a sum over the weight alone" { &[6, 4, 4] } else { &[6, 4] };
        assert_unchanged(what, message("x", vec![("w", floats(dims, 1))], nodes, "y"), write_plain_forms);
    }
}

#[test]
fn fused_matmul_becomes_a_plain_one() {
    let attributes = vec![float_attribute("alpha", 0.25), int_attribute("transB", 1)];
    let proto = message("x", vec![("w", floats(&[4, 6], 1))], vec![fused("FusedMatMul", &["x", "w"], attributes)], "y");
    let after = rewritten("FusedMatMul", with_runtime(proto));
    assert_eq!(op_types(&after), ["Transpose", "MatMul"]);
    let gemm = vec![float_attribute("alpha", 0.25), int_attribute("transB", 1)];
    let gemm = model("x", vec![("w", floats(&[4, 6], 1))], vec![node("Gemm", &["x", "w"], &["y"], gemm)], "y");
    assert_close(&run(&after, &x(&[5, 6])), &run(&gemm, &x(&[5, 6])), 1e-6, "FusedMatMul");
}

#[test]
fn activation_of_a_fused_layer_stands_behind_it() {
    let named = |name: &str| text_attribute("activation", name);
    let params = |list: &[f32]| AttributeProto {
        name: Some("activation_params".into()),
        r#type: Some(onnxquant_ir::onnx::attribute_proto::AttributeType::Floats as i32),
        floats: list.to_vec(),
        ..AttributeProto::default()
    };
    let weight = || ("w", floats(&[4, 3, 2, 2], 1));
    let bound = |name: &'static str, number: f32| (name, tensor::from_f32(&[], &[number]));
    let table = [
        (vec![named("Relu")], node("Relu", &["c"], &["y"], vec![]), vec![]),
        (
            vec![named("LeakyRelu"), params(&[0.25])],
            node("LeakyRelu", &["c"], &["y"], vec![float_attribute("alpha", 0.25)]),
            vec![],
        ),
        (
            vec![named("Clip"), params(&[-1.0, 2.0])],
            node("Clip", &["c", "low", "high"], &["y"], vec![]),
            vec![bound("low", -1.0), bound("high", 2.0)],
        ),
    ];
    for (attributes, activation, constants) in table {
        let what = format!("{attributes:?}");
        let attributes = [attributes, vec![ints_attribute("strides", &[2, 1])]].concat();
        let proto = message("x", vec![weight()], vec![fused("FusedConv", &["x", "w"], attributes)], "y");
        let after = rewritten(&what, with_runtime(proto));
        let conv = node("Conv", &["x", "w"], &["c"], vec![ints_attribute("strides", &[2, 1])]);
        let plain = model("x", [vec![weight()], constants].concat(), vec![conv, activation], "y");
        assert_eq!(op_types(&after), op_types(&plain));
        assert_close(&run(&after, &image()), &run(&plain, &image()), 0.0, &what);
    }
    let attributes = vec![named("Relu"), float_attribute("alpha", 2.0), int_attribute("transB", 1)];
    let proto = message("x", vec![("w", floats(&[4, 6], 1))], vec![fused("FusedGemm", &["x", "w"], attributes)], "y");
    assert_eq!(op_types(&rewritten("FusedGemm", with_runtime(proto))), ["Gemm", "Relu"]);
}

#[test]
fn sum_of_a_fused_conv_stands_before_the_activation() {
    let constants = vec![("w", floats(&[3, 3, 1, 1], 1)), ("b", floats(&[3], 2))];
    let conv = fused("FusedConv", &["x", "w", "b", "x"], vec![text_attribute("activation", "Relu")]);
    let after = rewritten("sum", with_runtime(message("x", constants.clone(), vec![conv], "y")));
    let nodes = vec![
        node("Conv", &["x", "w", "b"], &["c"], vec![]),
        node("Add", &["c", "x"], &["s"], vec![]),
        node("Relu", &["s"], &["y"], vec![]),
    ];
    let plain = model("x", constants, nodes, "y");
    assert_eq!(op_types(&after), op_types(&plain));
    assert_close(&run(&after, &image()), &run(&plain, &image()), 0.0, "sum");
}

#[test]
fn other_forms_stay() {
    let weight = || vec![("w", floats(&[6, 4], 1))];
    let one = |op_type: &str, inputs: &[&str], attributes| {
        message("x", weight(), vec![node(op_type, inputs, &["y"], attributes)], "y")
    };
    let alpha = || vec![float_attribute("alpha", 2.0)];
    let mut shared = one("Gemm", &["x", "w"], alpha());
    shared.graph.as_mut().unwrap().node.push(node("MatMul", &["x", "w"], &["z"], vec![]));
    shared.graph.as_mut().unwrap().output.push(info("z"));
    let codes = vec![("w", tensor::from_codes(DataType::Int8, &[6, 4], [1; 24]))];
    let in_runtime = |node: NodeProto| with_runtime(message("x", weight(), vec![node], "y"));
    let unknown = vec![text_attribute("activation", "Elu")];
    let mut clip = vec![text_attribute("activation", "Clip")];
    let table = vec![
        ("plain Gemm", one("Gemm", &["x", "w"], vec![])),
        ("plain MatMul", one("MatMul", &["x", "w"], vec![])),
        ("two activations", one("Gemm", &["x", "x"], alpha())),
        ("factor of a weight that others read", shared),
        ("codes", message("x", codes, vec![node("Gemm", &["x", "w"], &["y"], alpha())], "y")),
        ("infinite", one("Gemm", &["x", "w"], vec![float_attribute("alpha", f32::INFINITY)])),
        ("rank that is not known", one("MatMul", &["w", "x"], vec![])),
        ("transA of a FusedMatMul", in_runtime(fused("FusedMatMul", &["x", "w"], vec![int_attribute("transA", 1)]))),
        ("activation that is not known", in_runtime(fused("FusedGemm", &["x", "w"], unknown))),
        ("bounds that are not given", in_runtime(fused("FusedGemm", &["x", "w"], std::mem::take(&mut clip)))),
    ];
    for (what, proto) in table {
        assert_unchanged(what, proto, write_plain_forms);
    }
}
