use onnxquant_proto::onnx::tensor_proto::DataType;
use onnxquant_proto::onnx::{FunctionProto, ModelProto, NodeProto, OperatorSetIdProto, SparseTensorProto};

use super::*;
use crate::attribute::int_attribute;
use crate::tensor::TensorError;
use crate::testing::{branching, graph, graph_attribute, info, message, model, named, nested, node, number, with};

/// The violations of `proto`, found by the import or after it.
fn violations(proto: ModelProto) -> Vec<Violation> {
    Model::from_proto(proto).err().unwrap_or_default()
}

fn sound() -> ModelProto {
    message(graph("x", "w", vec![node("Add", &["x", "w"], &["y"])], "y"))
}

fn inner(proto: &mut ModelProto) -> &mut onnxquant_proto::onnx::GraphProto {
    proto.graph.as_mut().expect("made with a graph")
}

#[test]
fn every_broken_rule_of_a_file_is_named() {
    type Change = fn(&mut ModelProto);
    let name = |name: &str| name.to_owned();
    let duplicate = |n: &str| Violation::DuplicateName { name: name(n) };
    let opset = |version| Violation::Opset { domain: String::new(), version };
    let table: Vec<(Change, Violation)> = vec![
        (|p| p.graph = None, Violation::NoGraph),
        (|p| inner(p).input.push(info("x")), duplicate("x")),
        (|p| inner(p).initializer.push(number("w")), duplicate("w")),
        (|p| inner(p).node.push(node("Relu", &["x"], &["y"])), duplicate("y")),
        (|p| inner(p).node.push(node("Relu", &["x"], &["x"])), duplicate("x")),
        (|p| inner(p).node.push(node("Relu", &["x"], &["w"])), duplicate("w")),
        (|p| inner(p).node.push(node("Split", &["x"], &["z", "z"])), duplicate("z")),
        (
            |p| {
                let sparse = SparseTensorProto { values: Some(number("w")), ..SparseTensorProto::default() };
                inner(p).sparse_initializer.push(sparse);
            },
            duplicate("w"),
        ),
        (|p| inner(p).initializer.push(number("")), Violation::UnnamedInitializer { index: 1 }),
        (
            |p| inner(p).sparse_initializer.push(SparseTensorProto::default()),
            Violation::UnnamedInitializer { index: 0 },
        ),
        (|p| p.opset_import[0].version = Some(0), opset(0)),
        (|p| p.opset_import[0].version = Some(MAX_OPSET + 1), opset(MAX_OPSET + 1)),
        (
            |p| p.opset_import.push(OperatorSetIdProto { domain: Some("d".into()), version: Some(-1) }),
            Violation::Opset { domain: name("d"), version: -1 },
        ),
        (
            |p| {
                let mut broken = branching("x", "z", vec![], "x");
                broken.attribute.truncate(1);
                inner(p).node.push(broken);
            },
            Violation::NoBody { node: name("`z` (If)"), attribute: "else_branch" },
        ),
        (
            |p| inner(p).node.push(node("Loop", &["", ""], &["z"])),
            Violation::NoBody { node: name("`z` (Loop)"), attribute: "body" },
        ),
        (
            |p| inner(p).node.push(node("Scan", &["x"], &["z"])),
            Violation::NoBody { node: name("`z` (Scan)"), attribute: "body" },
        ),
        (
            |p| inner(p).node.push(node("Relu", &["missing"], &["z"])),
            Violation::UnknownValue { node: name("`z` (Relu)"), name: name("missing") },
        ),
        (
            |p| inner(p).node.push(branching("x", "z", vec![node("Relu", &["missing"], &["r"])], "r")),
            Violation::UnknownValue { node: name("`z` (If)"), name: name("missing") },
        ),
        (|p| inner(p).output.push(info("missing")), Violation::UnknownOutput { name: name("missing") }),
        (|p| inner(p).node.push(node("Add", &["z", "x"], &["z"])), Violation::Cycle { nodes: vec![name("`z` (Add)")] }),
        (
            |p| {
                inner(p).node.push(node("Relu", &["v"], &["z"]));
                inner(p).node.push(branching("x", "v", vec![], "z"));
            },
            Violation::Cycle { nodes: vec![name("`z` (Relu)"), name("`v` (If)")] },
        ),
        (
            |p| inner(p).node.push(branching("x", "z", vec![node("Relu", &["x"], &["w"])], "w")),
            Violation::Shadowed { node: name("`z` (If)"), name: name("w") },
        ),
        (
            |p| inner(p).initializer[0].dims = vec![2],
            Violation::Tensor(TensorError::new("w", "shape [2] of FLOAT needs 8 bytes of raw_data, found 4")),
        ),
        (
            |p| {
                let short = TensorProto { dims: vec![2], ..number("inside") };
                let constant = with(node("Constant", &[], &["r"]), vec![tensor_attribute(short)]);
                let branches = [("then_branch", vec![constant], "r"), ("else_branch", vec![], "x")];
                let attributes = branches.map(|(name, nodes, out)| graph_attribute(name, graph("", "", nodes, out)));
                inner(p).node.push(with(node("If", &["x"], &["z"]), attributes.to_vec()));
            },
            Violation::Tensor(TensorError::new("inside", "shape [2] of FLOAT needs 8 bytes of raw_data, found 4")),
        ),
        (
            |p| inner(p).node[0].domain = Some("d".into()),
            Violation::DomainNotImported { node: name("`y` (Add)"), domain: name("d") },
        ),
        (|p| p.opset_import.clear(), Violation::DomainNotImported { node: name("`y` (Add)"), domain: String::new() }),
    ];
    assert_eq!(violations(sound()), []);
    for (change, expected) in table {
        let mut proto = sound();
        change(&mut proto);
        assert_eq!(violations(proto), std::slice::from_ref(&expected), "{expected}");
    }
}

#[test]
fn nodes_that_an_edit_left_out_of_order_are_named() {
    let nodes = vec![node("Relu", &["x"], &["h"]), node("Relu", &["h"], &["z"]), branching("x", "v", vec![], "h")];
    let mut broken = model(graph("x", "", nodes, "z v"));
    broken.graph.order.rotate_left(1);
    let early = |node: &str| Violation::NotTopological { node: node.to_owned(), name: "h".to_owned() };
    assert_eq!(verify(&broken), [early("`z` (Relu)"), early("`v` (If)")]);
}

#[test]
fn a_long_circle_is_cut_short_in_the_message() {
    let nodes = (0..20).map(|index| format!("n{index}")).collect();
    let text = Violation::Cycle { nodes }.to_string();
    assert!(text.ends_with("n6 reads n7 reads 12 more reads n0"), "{text}");
}

fn tensor_attribute(tensor: TensorProto) -> onnxquant_proto::onnx::AttributeProto {
    onnxquant_proto::onnx::AttributeProto {
        name: Some("value".into()),
        t: Some(Box::new(tensor)),
        ..onnxquant_proto::onnx::AttributeProto::default()
    }
}

#[test]
fn all_violations_are_listed_not_only_the_first() {
    let mut proto = sound();
    proto.opset_import[0].version = Some(0);
    inner(&mut proto).initializer[0].dims = vec![-1];
    inner(&mut proto).node[0].domain = Some("d".into());
    assert_eq!(violations(proto).len(), 3);
}

#[test]
fn function_that_reaches_itself_is_named_whoever_calls_it() {
    let function = |name: &str, calls: &[&str]| {
        let call = |callee: &&str| NodeProto { domain: Some("d".into()), ..node(callee, &["a"], &["b"]) };
        FunctionProto {
            name: Some(name.to_owned()),
            domain: Some("d".into()),
            node: calls.iter().map(call).collect(),
            ..FunctionProto::default()
        }
    };
    let of = |functions: Vec<FunctionProto>| {
        let recursion = |violation: Violation| match violation {
            Violation::Recursion { function } => function,
            other => panic!("{other}"),
        };
        let found = violations(ModelProto { functions, ..sound() });
        found.into_iter().map(recursion).collect::<Vec<_>>()
    };
    assert_eq!(of(vec![function("f", &["g"]), function("g", &["Relu"])]), Vec::<String>::new());
    assert_eq!(of(vec![function("f", &["f"])]), ["f"]);
    assert_eq!(of(vec![function("f", &["g"]), function("g", &["h"]), function("h", &["g"])]), ["g", "h"]);
    let mut hidden = function("f", &[]);
    let call = NodeProto { domain: Some("d".into()), ..node("f", &["a"], &["b"]) };
    hidden.node = vec![branching("a", "z", vec![call], "b")];
    assert_eq!(of(vec![hidden]), ["f"]);
}

fn quantized(node: NodeProto, constants: Vec<TensorProto>, opset: i64) -> Option<String> {
    let mut proto = message(graph("x", "", vec![node], "y"));
    proto.opset_import[0].version = Some(opset);
    inner(&mut proto).initializer = constants;
    match violations(proto).as_slice() {
        [] => None,
        [Violation::Quantization { problem, .. }] => Some(problem.clone()),
        other => panic!("{other:?}"),
    }
}

#[test]
fn quantization_that_breaks_its_specification_is_named() {
    let dequantize = |attributes: &[(&str, i64)]| {
        let attributes = attributes.iter().map(|&(name, value)| int_attribute(name, value)).collect();
        with(node("DequantizeLinear", &["q", "s", "z"], &["y"]), attributes)
    };
    let codes = |dtype, dims: &[usize]| named("q", tensor::from_codes(dtype, dims, vec![0; dims.iter().product()]));
    let zero = |dtype| named("z", tensor::from_codes(dtype, &[], [0]));
    let scale = |dims: &[usize], x: f32| named("s", tensor::from_f32(dims, &vec![x; dims.iter().product()]));
    let int8 = || vec![codes(DataType::Int8, &[4, 6]), zero(DataType::Int8)];
    let of = |more: TensorProto| [int8(), vec![more]].concat();
    let far = TensorProto { dims: vec![0, i64::MAX], ..codes(DataType::Int8, &[0]) };
    let odd = vec![("block_size", i64::MAX), ("axis", 1)];
    type Row<'a> = (&'a [(&'a str, i64)], Vec<TensorProto>, i64, Option<&'a str>);
    let table: Vec<Row<'_>> = vec![
        (&[], of(scale(&[], 0.5)), 10, None),
        (&[], of(scale(&[6], 0.5)), 13, None),
        (&[("axis", -2)], of(scale(&[4], 0.5)), 13, None),
        (&[("axis", 0), ("block_size", 3)], of(scale(&[2, 6], 0.5)), 21, None),
        (&[], of(scale(&[], 0.0)), 10, Some("scale 0 is 0, expected a finite number > 0")),
        (&[], of(scale(&[6], -1.0)), 13, Some("scale 0 is -1, expected a finite number > 0")),
        (&[], of(scale(&[], f32::NAN)), 10, Some("scale 0 is NaN, expected a finite number > 0")),
        (&[], of(scale(&[], f32::INFINITY)), 10, Some("scale 0 is inf, expected a finite number > 0")),
        (&[], of(scale(&[6], 0.5)), 12, Some("a scale of shape [6] needs opset 13, the model imports 12")),
        (&[], of(scale(&[], 0.5)), 9, Some("a scale of shape [] needs opset 10, the model imports 9")),
        (
            &[("axis", 0), ("block_size", 3)],
            of(scale(&[2, 6], 0.5)),
            20,
            Some("a scale of shape [2, 6] needs opset 21, the model imports 20"),
        ),
        (
            &[],
            vec![codes(DataType::Int4, &[4]), zero(DataType::Int4), scale(&[], 0.5)],
            20,
            Some("INT4 codes need opset 21, the model imports 20"),
        ),
        (
            &[],
            vec![codes(DataType::Uint2, &[4]), zero(DataType::Uint2), scale(&[], 0.5)],
            24,
            Some("UINT2 codes need opset 25, the model imports 24"),
        ),
        (
            &[],
            vec![codes(DataType::Int8, &[4]), zero(DataType::Uint8), scale(&[], 0.5)],
            21,
            Some("codes and zero point have different types"),
        ),
        (&[("axis", 2)], of(scale(&[6], 0.5)), 21, Some("axis 2 is outside a tensor of rank 2")),
        (&[("axis", -3)], of(scale(&[6], 0.5)), 21, Some("axis -3 is outside a tensor of rank 2")),
        (&[], of(scale(&[4], 0.5)), 21, Some("scale has shape [4], expected [6]")),
        (&[("block_size", 4)], of(scale(&[4, 3], 0.5)), 21, Some("scale has shape [4, 3], expected [4, 2]")),
        (&[("block_size", -1)], of(scale(&[4, 3], 0.5)), 21, Some("block_size is -1, expected a number > 0")),
        (
            &[("axis", 0)],
            vec![codes(DataType::Int8, &[]), zero(DataType::Int8), scale(&[2], 0.5)],
            21,
            Some("axis 0 is outside a tensor of rank 0"),
        ),
        (&odd, vec![far, zero(DataType::Int8), scale(&[0], 0.5)], 21, Some("scale has shape [0], expected [0, 1]")),
    ];
    for (attributes, constants, opset, expected) in table {
        let what = format!("{attributes:?} at {opset}, expected {expected:?}");
        assert_eq!(quantized(dequantize(attributes), constants, opset).as_deref(), expected, "{what}");
    }
}

#[test]
fn quantizing_a_constant_is_judged_by_its_zero_point() {
    let quantize = node("QuantizeLinear", &["q", "s", "z"], &["y"]);
    let zero = named("z", tensor::from_codes(DataType::Int4, &[], [0]));
    let constants = vec![named("q", tensor::from_f32(&[2], &[0.0; 2])), number("s"), zero];
    let problem = quantized(quantize.clone(), constants.clone(), 20);
    assert_eq!(problem.as_deref(), Some("INT4 codes need opset 21, the model imports 20"));
    assert_eq!(quantized(quantize, constants, 21), None);
}

#[test]
fn edge_that_one_end_does_not_know_is_named() {
    type Damage = fn(&mut Graph);
    fn id(graph: &Graph, name: &str) -> crate::ids::ValueId {
        graph.find(name).expect("the value is there")
    }
    let table: Vec<(&str, Damage)> = vec![
        ("a use is forgotten", |g| g.value_mut(id(g, "x")).uses.clear()),
        ("a use is listed twice", |g| {
            let used = g.value(id(g, "x")).uses[0];
            g.value_mut(id(g, "x")).uses.push(used);
        }),
        ("an input changes", |g| {
            let node = g.order[0];
            g.node_mut(node).inputs[0] = Some(id(g, "w"));
        }),
        ("an output goes", |g| {
            let node = g.order[0];
            g.node_mut(node).outputs.clear();
        }),
        ("an origin changes", |g| g.value_mut(id(g, "y")).origin = Origin::Input),
        ("an origin is another's slot", |g| g.value_mut(id(g, "y")).origin = Origin::Output(g.order[0], 1)),
        ("a name leads elsewhere", |g| g.value_mut(id(g, "y")).name = "z".into()),
        ("a value is removed", |g| drop(g.values.remove(id(g, "x")))),
        ("an output value is removed", |g| drop(g.values.remove(id(g, "y")))),
        ("a node is removed", |g| drop(g.nodes.remove(g.order[0]))),
        ("a node is not in the order", |g| g.order.clear()),
        ("a node is in the order twice", |g| g.order.push(g.order[0])),
        ("a graph output goes", |g| g.outputs.clear()),
        ("a graph input goes", |g| g.inputs.clear()),
        ("an initializer is without data", |g| g.value_mut(id(g, "w")).tensor = None),
        ("an initializer is not listed", |g| g.initializers.clear()),
        ("an initializer is listed twice", |g| g.initializers.push(g.initializers[0])),
        ("a computed value has data", |g| g.value_mut(id(g, "y")).tensor = Some(number("y"))),
    ];
    for (what, damage) in table {
        let mut model = model(graph("x", "w", vec![node("Add", &["x", "w"], &["y"])], "y"));
        assert_eq!(verify(&model), []);
        damage(model.graph_mut());
        let found = verify(&model);
        let broken = |violation: &Violation| matches!(violation, Violation::BrokenEdge { .. });
        assert!(!found.is_empty() && found.iter().all(broken), "{what}: {found:?}");
    }
}

#[test]
fn body_nested_fifty_deep_is_read_verified_and_written() {
    let model = model(graph("x c", "", vec![nested(50, "x")], "y"));
    let graph = model.graph();
    let captured = graph.node(graph.order()[0]).captures().iter().map(|&id| graph.value(id).name());
    assert_eq!(captured.collect::<Vec<_>>(), ["c", "x"]);
    assert_eq!(crate::model::Model::from_proto(model.to_proto()).map(|again| again.to_proto()), Ok(model.to_proto()));
    let function = FunctionProto { name: Some("f".into()), node: vec![nested(50, "x")], ..FunctionProto::default() };
    let proto = ModelProto { functions: vec![function], ..sound() };
    assert_eq!(violations(proto), []);
}

#[test]
fn every_violation_is_told_in_words() {
    let texts = [
        Violation::NoGraph,
        Violation::DuplicateName { name: "a".into() },
        Violation::BrokenEdge { value: "a".into(), detail: "why".into() },
        Violation::Opset { domain: "d".into(), version: 0 },
        Violation::Recursion { function: "f".into() },
    ]
    .map(|violation| violation.to_string());
    let expected = [
        "the model holds no graph",
        "value name `a` is defined more than once",
        "value `a`: why",
        "domain `d` is imported at version 0",
        "the local function `f` calls itself",
    ];
    assert_eq!(texts, expected);
}

/// A Loop body that shadows `w` and reads `x`, with an If inside that shadows `x` in one branch and reads it in the other.
fn shadowing() -> NodeProto {
    let inside = |constants: &str| graph("", constants, vec![node("Add", &["x", "w"], &["deep"])], "deep");
    let branches = [graph_attribute("then_branch", inside("x")), graph_attribute("else_branch", inside(""))];
    let body = graph("i go", "w", vec![with(node("If", &["go"], &["r"]), branches.to_vec())], "go r");
    with(node("Loop", &["n", "c"], &["z"]), vec![graph_attribute("body", body)])
}

#[test]
fn names_that_a_file_shadows_mean_the_inner_value() {
    let model = model(graph("x n c", "w", vec![shadowing(), node("Add", &["x", "w"], &["y"])], "y z"));
    let graph = model.graph();
    let captured = graph.node(graph.order()[0]).captures().iter().map(|&id| graph.value(id).name());
    assert_eq!(captured.collect::<Vec<_>>(), ["x"], "the else branch reads the outer one");
    let uses = |name: &str| graph.value(graph.find(name).expect("defined")).uses().len();
    assert_eq!((uses("x"), uses("w")), (2, 1));
    assert_eq!(verify(&model), []);
    assert_eq!(Model::from_proto(model.to_proto()).map(|again| again.to_proto()), Ok(model.to_proto()));
    assert!(model.with_message(model.to_proto()).is_ok());
}

/// As optimum merges the decoders without and with a past: both branches call their output as the If does.
#[test]
fn outputs_of_branches_may_be_called_as_those_of_their_node() {
    let branch = |name: &str, op_type: &str, out: &str| {
        graph_attribute(
            name,
            graph("", "", vec![node("Neg", &["x"], &["later"]), node(op_type, &["later"], &[out])], out),
        )
    };
    let branches = vec![branch("then_branch", "Relu", "y"), branch("else_branch", "Abs", "y")];
    let nodes = vec![with(node("If", &["c"], &["y"]), branches), node("Exp", &["y"], &["later"])];
    let model = model(graph("x c", "", nodes.clone(), "y later"));
    assert_eq!(model.graph().node(model.graph().order()[0]).captures().len(), 1, "the branches read `x` alone");
    assert_eq!(Model::from_proto(model.to_proto()).map(|again| again.to_proto()), Ok(model.to_proto()));
    assert!(model.with_message(model.to_proto()).is_ok());
    let body = &model.graph().bodies()[0];
    assert!(model.open_body(body).is_some_and(|opened| opened.graph().nodes().count() == 2));

    let early = vec![
        node("Exp", &["x"], &["early"]),
        with(
            node("If", &["c"], &["y"]),
            vec![branch("then_branch", "Relu", "early"), branch("else_branch", "Abs", "z")],
        ),
    ];
    let expected = Violation::Shadowed { node: "`y` (If)".into(), name: "early".into() };
    assert_eq!(violations(message(graph("x c", "", early, "y early"))), [expected]);
    let other = message(graph("x c", "", vec![nodes[0].clone(), node("Exp", &["y"], &["z"])], "y z"));
    let other = Model::from_proto(other).expect("sound");
    let expected = [Violation::Shadowed { node: "`y` (If)".into(), name: "later".into() }];
    assert_eq!(other.with_message(model.to_proto()).err().as_deref(), Some(&expected[..]), "an edit may not");
}

#[test]
fn shadowing_that_an_edit_makes_is_a_violation() {
    let body = || graph_attribute("then_branch", graph("", "r", vec![node("Relu", &["r"], &["s"])], "s"));
    let branches = || vec![body(), graph_attribute("else_branch", graph("", "", vec![], "x"))];
    let branch = || with(node("If", &["c"], &["z"]), branches());
    let mut model = model(graph("x c", "w", vec![branch(), node("Add", &["x", "w"], &["y"])], "y z"));
    let other = message(graph("x c", "r", vec![branch(), node("Add", &["x", "r"], &["y"])], "y z"));
    let expected = [Violation::Shadowed { node: "`z` (If)".into(), name: "r".into() }];
    assert_eq!(model.with_message(other.clone()).err().as_deref(), Some(&expected[..]));
    assert_eq!(violations(other), [], "as a file it is sound");
    assert_eq!(model.graph_mut().fresh_name("r"), "r_1");
    let value = model.graph_mut().new_value("r".into(), Origin::Constant, Some(number("r")));
    model.graph_mut().initializers.push(value);
    assert_eq!(verify(&model), expected);
}
