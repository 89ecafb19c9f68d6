use std::path::Path;

use onnxquant_ir::onnx::{FunctionProto, ModelProto, OperatorSetIdProto};
use onnxquant_ir::{float_attribute, int_attribute, ints_attribute, tensor, text_attribute};

use onnxquant_quant::{ConvGeometry, Padding};

use super::*;
use crate::testing::{body, floats, graph_attribute, message, model, node, sites};

fn layer(op_type: &str, attributes: Vec<AttributeProto>) -> NodeProto {
    node(op_type, &["x", "w"], &["y"], attributes)
}

fn reason_of(proto: ModelProto) -> SkipReason {
    let model = Model::from_proto(proto).unwrap_or_else(|violations| panic!("{violations:?}"));
    sites(&model).pop().expect("a layer").expect_err("the layer stays in float")
}

fn one(op_type: &str, weight: TensorProto, attributes: Vec<AttributeProto>) -> ModelProto {
    message("x", vec![("w", weight)], vec![layer(op_type, attributes)], "y")
}

fn rank(shape: &[usize], expected: &'static str) -> SkipReason {
    SkipReason::Rank { shape: shape.to_vec(), expected }
}

fn shared(user: &str) -> SkipReason {
    SkipReason::SharedWithOther { user: user.to_owned() }
}

#[track_caller]
fn assert_reasons(table: Vec<(&str, ModelProto, SkipReason)>) {
    for (what, proto, expected) in table {
        assert_eq!(reason_of(proto), expected, "{what}");
    }
}

#[test]
fn layer_without_a_float_constant_of_its_own_says_why() {
    let codes = tensor::from_codes(DataType::Int8, &[6, 4], [1; 24]);
    let dequantize = node("DequantizeLinear", &["q", "s"], &["w"], vec![]);
    let cast = node("Cast", &["q"], &["c"], vec![int_attribute("to", 1)]);
    let mul = node("Mul", &["c", "s"], &["w"], vec![]);
    let quantized = || vec![("q", codes.clone()), ("s", tensor::from_f32(&[], &[0.5]))];
    let overridable = message("x w", vec![("w", floats(&[6, 4], 1))], vec![layer("MatMul", vec![])], "y");
    assert_reasons(vec![
        ("computed", message("x w", vec![], vec![layer("MatMul", vec![])], "y"), SkipReason::NoConstantWeight),
        (
            "no weight",
            message("x", vec![], vec![node("MatMul", &["x"], &["y"], vec![])], "y"),
            SkipReason::NoConstantWeight,
        ),
        (
            "constant on the left",
            message("x", vec![("w", floats(&[4, 6], 1))], vec![node("MatMul", &["w", "x"], &["y"], vec![])], "y"),
            SkipReason::ConstantOnTheLeft,
        ),
        ("overridable", overridable, SkipReason::Overridable),
        (
            "dequantized",
            message("x", quantized(), vec![dequantize, layer("MatMul", vec![])], "y"),
            SkipReason::AlreadyQuantized,
        ),
        (
            "decoded",
            message("x", quantized(), vec![cast, mul, layer("MatMul", vec![])], "y"),
            SkipReason::AlreadyQuantized,
        ),
    ]);
}

#[test]
fn weight_that_is_computed_says_by_what() {
    let behind = |op_type: &str, inputs: &[&str], more: &[NodeProto]| {
        let nodes = [more, &[node(op_type, inputs, &["w"], vec![]), layer("MatMul", vec![])]].concat();
        message("x", vec![("v", floats(&[6, 4], 1))], nodes, "y")
    };
    let computed = |by: &str| SkipReason::Computed { by: by.to_owned() };
    let dequantize = node("DequantizeLinear", &["c", "s"], &["d"], vec![]);
    let codes = ("c", tensor::from_codes(DataType::Int8, &[4, 6], [1; 24]));
    let nodes = vec![dequantize, node("Transpose", &["d"], &["w"], vec![]), layer("MatMul", vec![])];
    assert_reasons(vec![
        ("constants alone", behind("Erf", &["v"], &[]), computed("`node_w` (Erf)")),
        (
            "behind a link",
            behind("Transpose", &["e"], &[node("Erf", &["v"], &["e"], vec![])]),
            computed("`node_e` (Erf)"),
        ),
        ("an input, too", behind("Add", &["v", "x"], &[]), SkipReason::NoConstantWeight),
        ("chance", behind("RandomNormalLike", &["v"], &[]), SkipReason::NoConstantWeight),
        (
            "codes behind a link",
            message("x", vec![codes, ("s", tensor::from_f32(&[], &[0.5]))], nodes, "y"),
            SkipReason::AlreadyQuantized,
        ),
    ]);
}

#[test]
fn layer_of_another_form_says_which() {
    let codes = tensor::from_codes(DataType::Int8, &[6, 4], [1; 24]);
    let f64s = tensor::from_f32_as(DataType::Double, &[6, 4], &[1.0; 24]);
    let dense = "two dimensions";
    let spatial = "at least three dimensions";
    let form = |attribute| SkipReason::GemmForm { attribute };
    let gemm = |attributes| one("Gemm", floats(&[6, 4], 1), attributes);
    let beta = {
        let gemm = node("Gemm", &["x", "w", "b"], &["y"], vec![float_attribute("beta", 0.5)]);
        message("x", vec![("w", floats(&[6, 4], 1)), ("b", floats(&[4], 1))], vec![gemm], "y")
    };
    assert_reasons(vec![
        ("vector", one("MatMul", floats(&[6], 1), vec![]), rank(&[6], dense)),
        ("stack", one("MatMul", floats(&[2, 6, 4], 1), vec![]), rank(&[2, 6, 4], dense)),
        ("Gemm of a vector", one("Gemm", floats(&[6], 1), vec![]), rank(&[6], dense)),
        ("Conv of a matrix", one("Conv", floats(&[4, 3], 1), vec![]), rank(&[4, 3], spatial)),
        ("Conv of a number", one("Conv", floats(&[], 1), vec![]), rank(&[], spatial)),
        ("alpha", gemm(vec![float_attribute("alpha", 2.0)]), form("alpha")),
        ("beta", beta, form("beta")),
        ("transA", gemm(vec![int_attribute("transA", 1)]), form("transA")),
        ("f64", one("MatMul", f64s, vec![]), SkipReason::UnsupportedType { dtype: "DOUBLE" }),
        ("codes", one("MatMul", codes.clone(), vec![]), SkipReason::UnsupportedType { dtype: "INT8" }),
        ("no rows", one("MatMul", floats(&[0, 4], 1), vec![]), SkipReason::Empty),
        ("no columns", one("Gemm", floats(&[4, 0], 1), vec![]), SkipReason::Empty),
    ]);
}

#[test]
fn weight_that_others_read_too_says_who() {
    let with = |nodes: Vec<NodeProto>, outputs: &str| {
        message("x", vec![("w", floats(&[6, 4], 1))], [nodes, vec![layer("MatMul", vec![])]].concat(), outputs)
    };
    let reader = |op: &str, inputs: &[&str]| vec![node(op, inputs, &["z"], vec![])];
    let captures = || {
        let branch = |name: &str| body(vec![node("Identity", &["w"], &[name], vec![])], &[name]);
        vec![graph_attribute("then_branch", branch("t")), graph_attribute("else_branch", branch("e"))]
    };
    assert_reasons(vec![
        ("another reader", with(reader("Relu", &["w"]), "y z"), shared("`node_z` (Relu)")),
        ("as data of a layer", with(reader("MatMul", &["w", "x"]), "y z"), shared("`node_z` (MatMul)")),
        ("as shape of a link", with(reader("Reshape", &["x", "w"]), "y z"), shared("`node_z` (Reshape)")),
        ("output", with(vec![], "y w"), SkipReason::WeightIsOutput),
        ("output behind a link", with(reader("Identity", &["w"]), "y z"), SkipReason::WeightIsOutput),
        ("read by a body", with(vec![node("If", &["x"], &["z"], captures())], "y z"), SkipReason::ReadBySubgraph),
    ]);
}

#[test]
fn conv_of_impossible_geometry_is_skipped_with_the_problem() {
    let ints = |name: &str, list: &[i64]| vec![ints_attribute(name, list)];
    let table = [
        (ints("kernel_shape", &[3, 3]), "kernel_shape differs"),
        (ints("kernel_shape", &[2]), "kernel_shape is [2]"),
        (ints("strides", &[1]), "strides is [1]"),
        (ints("strides", &[0, 1]), "strides"),
        (ints("strides", &[-1, 1]), "strides is [-1, 1]"),
        (ints("dilations", &[i64::MAX, 1]), "dilations"),
        (ints("pads", &[1, 1]), "pads is [1, 1]"),
        (ints("pads", &[0, 0, -1, 0]), "pads is [0, 0, -1, 0]"),
        (vec![int_attribute("group", 0)], "group is 0"),
        (vec![int_attribute("group", -2)], "group is -2"),
        (vec![int_attribute("group", 3)], "3 groups"),
        (vec![int_attribute("group", i64::MAX)], "group overflows"),
        (vec![text_attribute("auto_pad", "SAME")], "auto_pad is `SAME`"),
    ];
    for (attributes, expected) in table {
        let what = format!("{attributes:?}");
        match reason_of(one("Conv", floats(&[4, 3, 2, 2], 1), attributes)) {
            SkipReason::Geometry { problem } => assert!(problem.contains(expected), "{what}: {problem}"),
            other => panic!("{what}: {other:?}"),
        }
    }
}

fn inside(name: &str, because: Option<&str>) -> SkipReason {
    SkipReason::InsideFunction { name: name.into(), because: because.map(str::to_owned) }
}

#[test]
fn every_reason_has_a_text_and_a_name() {
    let reasons = [
        (SkipReason::Excluded, "excluded by the settings", "excluded"),
        (
            SkipReason::NoAxis,
            "its outputs in groups have no axis of their own, along which this target takes scales",
            "no-axis",
        ),
        (SkipReason::Empty, "the weight has no elements", "empty"),
        (rank(&[2], "two dimensions"), "the weight has shape [2], expected two dimensions", "rank"),
        (inside("f", None), "inside the local function `f`", "inside-function"),
        (inside("f", Some("why")), "inside the local function `f`: why", "inside-function"),
    ];
    for (reason, text, name) in reasons {
        assert_eq!(reason.to_string(), text);
        let debug = format!("{reason:?}").to_lowercase();
        assert!(debug.starts_with(&name.replace('-', "")), "{debug}");
    }
}

#[test]
fn layer_that_can_be_quantized_gives_its_view() {
    let dense = |inputs, outputs, transposed| MatrixView::Dense { inputs, outputs, transposed };
    let table = [
        ("MatMul", vec![], dense(6, 4, false)),
        ("Gemm", vec![], dense(6, 4, false)),
        ("Gemm", vec![int_attribute("transB", 1)], dense(4, 6, true)),
        ("Gemm", vec![float_attribute("beta", 0.5)], dense(6, 4, false)),
    ];
    for (op_type, attributes, expected) in table {
        let model = Model::from_proto(one(op_type, floats(&[6, 4], 1), attributes)).unwrap();
        let site = sites(&model).remove(0).unwrap();
        assert_eq!((&site.view, site.dtype, site.parameters()), (&expected, DataType::Float, 24), "{op_type}");
    }
}

#[test]
fn conv_gives_its_geometry_with_defaults_filled_in() {
    let given = vec![
        int_attribute("group", 2),
        ints_attribute("strides", &[2, 1]),
        ints_attribute("dilations", &[1, 3]),
        ints_attribute("pads", &[1, 2, 3, 4]),
        ints_attribute("kernel_shape", &[2, 2]),
    ];
    let geometry = |attributes| {
        let model = Model::from_proto(one("Conv", floats(&[4, 3, 2, 2], 1), attributes)).unwrap();
        match sites(&model).remove(0).unwrap().view {
            MatrixView::Conv(geometry) => geometry,
            other => panic!("{other:?}"),
        }
    };
    let expected = ConvGeometry {
        groups: 2,
        out_channels: 4,
        in_channels: 6,
        kernel: vec![2, 2],
        strides: vec![2, 1],
        dilations: vec![1, 3],
        padding: Padding::Explicit { begin: vec![1, 2], end: vec![3, 4] },
    };
    assert_eq!(geometry(given), expected);
    let none = Padding::Explicit { begin: vec![0, 0], end: vec![0, 0] };
    let defaults = geometry(vec![]);
    assert_eq!(
        (defaults.groups, defaults.strides, defaults.dilations, defaults.padding),
        (1, vec![1, 1], vec![1, 1], none.clone())
    );
    let padded = |auto_pad| geometry(vec![text_attribute("auto_pad", auto_pad)]).padding;
    let found = ["SAME_UPPER", "SAME_LOWER", "VALID", "NOTSET"].map(padded);
    assert_eq!(found, [Padding::SameUpper, Padding::SameLower, Padding::Valid, none]);
    assert_eq!(geometry(vec![ints_attribute("kernel_shape", &[])]).kernel, [2, 2]);
}

#[test]
fn weight_may_be_shared_among_layers_also_behind_links() {
    let nodes = vec![
        node("Identity", &["w"], &["v"], vec![]),
        node("Transpose", &["v"], &["t"], vec![]),
        node("MatMul", &["x", "w"], &["a"], vec![]),
        node("MatMul", &["a", "t"], &["b"], vec![]),
        node("Gemm", &["b", "v"], &["y"], vec![int_attribute("transB", 1)]),
        node("Identity", &["w"], &["unused"], vec![]),
    ];
    let model = model("x", vec![("w", floats(&[6, 6], 1))], nodes, "y");
    assert!(sites(&model).iter().all(Result::is_ok));
}

#[test]
fn weight_of_a_layer_that_is_skipped_may_still_be_shared() {
    let nodes = vec![
        node("Gemm", &["x", "w"], &["a"], vec![float_attribute("alpha", 2.0)]),
        node("MatMul", &["a", "w"], &["y"], vec![]),
    ];
    let found = sites(&model("x", vec![("w", floats(&[6, 6], 1))], nodes, "y"));
    assert_eq!(found[0].as_ref().unwrap_err(), &SkipReason::GemmForm { attribute: "alpha" });
    assert!(found[1].is_ok());
}

#[test]
fn long_chain_of_links_ends() {
    let name = |index: usize| if index == 0 { "w".to_owned() } else { format!("v{index}") };
    let mut nodes = (0..500).map(|i| node("Identity", &[&name(i)], &[&name(i + 1)], vec![])).collect::<Vec<_>>();
    nodes.push(node("MatMul", &["x", "w"], &["y"], vec![]));
    nodes.push(node("MatMul", &["x", "v500"], &["z"], vec![]));
    let found = sites(&model("x", vec![("w", floats(&[6, 6], 1))], nodes, "y z v400"));
    assert!(matches!(found[0], Err(SkipReason::SharedWithOther { .. })), "{:?}", found[0]);
    assert_eq!(found[1].as_ref().unwrap_err(), &SkipReason::NoConstantWeight);
}

#[test]
fn label_is_the_nodes_name_or_else_its_outputs() {
    let unnamed = NodeProto { name: None, ..node("MatMul", &["a", "w"], &["y"], vec![]) };
    let silent = NodeProto { name: None, ..node("MatMul", &["x", "w"], &[], vec![]) };
    let nodes = vec![node("MatMul", &["x", "w"], &["a"], vec![]), unnamed, silent];
    let found = find_sites(&model("x", vec![("w", floats(&[6, 6], 1))], nodes, "y"));
    let labels = found.iter().map(|candidate| candidate.label.as_str()).collect::<Vec<_>>();
    assert_eq!(labels, ["node_a", "y", ""]);
    assert_eq!(found[0].weight_shape, Some(vec![6, 6]));
}

#[test]
fn no_two_layers_have_one_label() {
    let named = |name: &str, input: &str, output: &str| NodeProto {
        name: Some(name.to_owned()),
        ..node("MatMul", &[input, "w"], &[output], vec![])
    };
    // Names of the nodes that make `a`, `b` and `y`, and the labels.
    let table = [
        (["fc", "fc", "head"], ["a", "b", "head"]),
        (["", "", ""], ["a", "b", "y"]),
        (["b", "", "y"], ["a", "b", "y"]),
        (["b", "a", ""], ["a", "b", "y"]),
    ];
    for ([first, second, third], expected) in table {
        let nodes = vec![named(first, "x", "a"), named(second, "a", "b"), named(third, "b", "y")];
        let found = find_sites(&model("x", vec![("w", floats(&[6, 6], 1))], nodes, "y"));
        let labels = found.iter().map(|candidate| candidate.label.as_str()).collect::<Vec<_>>();
        assert_eq!(labels, expected);
    }
}

#[test]
fn layers_of_other_domains_are_none() {
    let foreign = NodeProto { domain: Some("com.example".into()), ..layer("MatMul", vec![]) };
    let spelled = NodeProto { domain: Some("ai.onnx".into()), ..node("MatMul", &["x", "w"], &["z"], vec![]) };
    let mut proto = message("x", vec![("w", floats(&[6, 6], 1))], vec![foreign, spelled], "y z");
    proto.opset_import.push(OperatorSetIdProto { domain: Some("com.example".into()), version: Some(1) });
    let model = Model::from_proto(proto).unwrap();
    let found = find_sites(&model);
    assert_eq!(found.len(), 1, "`ai.onnx` is the default domain");
    assert_eq!(found[0].outcome.as_ref().unwrap_err(), &shared("`node_y` (MatMul)"));
}

#[test]
fn layers_inside_functions_and_closed_bodies_are_listed_as_skipped() {
    let inner = body(vec![node("Conv", &["x", "v"], &["d"], vec![])], &["d"]);
    let nested = graph_attribute("body", inner);
    let nodes = vec![node("MatMul", &["x", "x"], &["m"], vec![]), node("Loop", &["", ""], &["n"], vec![nested])];
    let decoder = graph_attribute("decoder", body(nodes.clone(), &["m"]));
    let search = NodeProto { domain: Some("com.microsoft".into()), ..node("Search", &["x"], &["z"], vec![decoder]) };
    let other = body(vec![node("Relu", &["x"], &["s"], vec![])], &["s"]);
    let branches = vec![graph_attribute("then_branch", body(nodes, &["m"])), graph_attribute("else_branch", other)];
    let mut proto = message("x v", vec![], vec![search, node("If", &["x"], &["y"], branches)], "y");
    proto.opset_import.push(OperatorSetIdProto { domain: Some("com.microsoft".into()), version: Some(1) });
    proto.functions.push(FunctionProto {
        name: Some("f".into()),
        domain: Some("local".into()),
        opset_import: vec![OperatorSetIdProto { version: Some(11), ..OperatorSetIdProto::default() }],
        node: vec![node("Gemm", &["a", "b"], &["c"], vec![])],
        ..FunctionProto::default()
    });
    let model = Model::from_proto(proto).unwrap();
    let rows = |found: Vec<Candidate>| {
        found.into_iter().map(|c| (c.label, c.op_type, c.outcome.unwrap_err())).collect::<Vec<_>>()
    };
    let row = |label: &str, op_type: &str, reason| (label.to_owned(), op_type.to_owned(), reason);
    let of = |what: &str| SkipReason::InsideSubgraph { of: what.into() };
    let expected = vec![
        row("node_m", "MatMul", of("`node_z` (Search)")),
        row("node_d", "Conv", of("`node_z` (Search)")),
        row("node_c", "Gemm", inside("f", Some("it is written for opset 11, the model for 21"))),
    ];
    assert_eq!(rows(find_sites(&model)), expected);
    let then = &model.graph().bodies()[0];
    let of = || of("`node_y` (If)");
    assert_eq!(rows(closed_sites(model.graph(), then)), [row("node_m", "MatMul", of()), row("node_d", "Conv", of())]);
}

#[test]
fn weight_that_bodies_read_as_a_weight_can_be_quantized() {
    let with = |inner: Vec<NodeProto>, constants: Vec<TensorProto>| {
        let then = GraphProto { initializer: constants, ..body(inner, &["t"]) };
        let other = body(vec![node("Relu", &["x"], &["e"], vec![])], &["e"]);
        let branches = vec![graph_attribute("then_branch", then), graph_attribute("else_branch", other)];
        let nodes = vec![layer("MatMul", vec![]), node("If", &["x"], &["z"], branches)];
        sites(&model("x", vec![("w", floats(&[6, 4], 1))], nodes, "y z")).remove(0).map(drop)
    };
    let turned = |slot: usize| {
        let inputs = if slot == 1 { ["x", "v"] } else { ["v", "x"] };
        vec![node("Transpose", &["w"], &["v"], vec![]), node("MatMul", &inputs, &["t"], vec![])]
    };
    let deeper = |inner: Vec<NodeProto>| {
        let branches = vec![graph_attribute("then_branch", body(inner, &["d"]))];
        vec![node("If", &["x"], &["t"], branches)]
    };
    assert_eq!(with(vec![node("Gemm", &["x", "w"], &["t"], vec![])], vec![]), Ok(()));
    assert_eq!(with(turned(1), vec![]), Ok(()));
    assert_eq!(with(deeper(vec![node("Gemm", &["x", "w"], &["d"], vec![])]), vec![]), Ok(()));
    let own = vec![crate::testing::named("w", floats(&[6, 4], 2))];
    assert_eq!(with(vec![node("Add", &["x", "w"], &["t"], vec![])], own), Ok(()), "another `w`");
    let refused = Err(SkipReason::ReadBySubgraph);
    assert_eq!(with(turned(0), vec![]), refused);
    assert_eq!(with(vec![node("Add", &["x", "w"], &["t"], vec![])], vec![]), refused);
    assert_eq!(with(deeper(vec![node("Relu", &["w"], &["d"], vec![])]), vec![]), refused);
}

#[test]
fn weight_tensor_is_the_one_behind_the_chain_and_gone_after_it_was_replaced() {
    let nodes = vec![node("Transpose", &["w"], &["t"], vec![]), node("MatMul", &["x", "t"], &["y"], vec![])];
    let mut model = model("x", vec![("w", floats(&[6, 4], 1))], nodes, "y");
    let site = sites(&model).remove(0).unwrap();
    assert_eq!(site.weight_tensor(model.graph()).unwrap().dims, [4, 6]);
    let (transpose, _) = model.graph().producer(site.weight).unwrap();
    model.graph_mut().set_op_type(transpose, "Relu");
    let error = site.weight_tensor(model.graph()).unwrap_err();
    assert_eq!(error.to_string(), "tensor `t`: the constant behind it is gone");
}

#[test]
fn overridable_initializer_below_ir_4_is_a_weight() {
    let mut proto = message("x w", vec![("w", floats(&[6, 4], 1))], vec![layer("MatMul", vec![])], "y");
    proto.ir_version = Some(3);
    assert!(sites(&Model::from_proto(proto).unwrap())[0].is_ok());
}

#[test]
fn sites_of_every_fixture_are_found_without_a_panic() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/traps");
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let models = files.filter(|path| path.extension().is_some_and(|end| end == "onnx"));
    let mut counts = (0, 0);
    for path in models {
        let Ok(mut model) = Model::read(&path) else { continue };
        crate::prepare::lift_constants::lift_constants(&mut model);
        crate::prepare::fold_batchnorm::fold_batchnorm(&mut model).unwrap();
        for candidate in find_sites(&model) {
            match candidate.outcome {
                Ok(site) => {
                    let tensor = site.weight_tensor(model.graph()).unwrap();
                    assert_eq!(tensor::shape(&tensor).unwrap(), site.view.weight_shape(), "{}", path.display());
                    counts.0 += 1;
                }
                Err(reason) => {
                    assert!(!reason.to_string().is_empty());
                    counts.1 += 1;
                }
            }
        }
        crate::decode::decode_weights::decode_weights(&mut model).unwrap();
        crate::testing::assert_valid(&model);
    }
    assert!(counts.0 > 100 && counts.1 > 30, "{counts:?}");
}
