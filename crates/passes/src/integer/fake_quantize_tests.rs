use ndarray::{ArrayD, IxDyn};
use onnxquant_ir::onnx::NodeProto;
use onnxquant_ir::{Model, Use};
use proptest::prelude::*;

use super::*;
use crate::testing::{
    array, assert_valid, body, constant_named, find_node, graph_attribute, input_names, model, node, numbers, op_types,
    run,
};

/// Parameters of 8-bit codes, which all engines know.
fn all() -> [ActivationParams; 6] {
    use ActivationGrid::{Shifted, Signed, Unsigned};
    let table = [(0.25, 0, Unsigned), (0.013, 100, Unsigned), (1.7, 255, Unsigned), (0.5, 0, Signed)];
    let shifted = [(0.02, -128, Shifted), (3.0, 127, Shifted)];
    [table[0], table[1], table[2], table[3], shifted[0], shifted[1]].map(params)
}

fn params((scale, zero_point, grid): (f32, i32, ActivationGrid)) -> ActivationParams {
    ActivationParams::new(scale, zero_point, grid).unwrap()
}

type Rewrite = dyn Fn(&mut Graph, ValueId, &[(NodeId, usize)]) -> ValueId;

/// The three rewrites, the static ones with the same parameters.
fn rewrites(params: ActivationParams) -> [(&'static str, Box<Rewrite>); 3] {
    [
        ("fake", Box::new(move |graph, value, readers| fake_quantize(graph, value, params, readers))),
        ("codes", Box::new(move |graph, value, readers| quantize_dequantize(graph, value, params, readers))),
        ("dynamic", Box::new(fake_quantize_dynamically)),
    ]
}

fn readers(graph: &Graph, value: ValueId) -> Vec<(NodeId, usize)> {
    let of = |user: &Use| if let Use::Input(node, slot) = *user { Some((node, slot)) } else { None };
    graph.value(value).uses().iter().filter_map(of).collect()
}

/// Applies `rewrite` to all readers of the value called `name`.
fn apply(model: &mut Model, name: &str, rewrite: &Rewrite) {
    let graph = model.graph_mut();
    let value = graph.find(name).unwrap();
    let readers = readers(graph, value);
    let made = rewrite(graph, value, &readers);
    assert!(readers.iter().all(|&(node, slot)| graph.node(node).input(slot) == Some(made)), "{name}");
    assert_valid(model);
}

fn identity(from: &str, to: &str) -> NodeProto {
    node("Identity", &[from], &[to], vec![])
}

fn vector(numbers: &[f32]) -> ArrayD<f32> {
    ArrayD::from_shape_vec(IxDyn(&[numbers.len()]), numbers.to_vec()).unwrap()
}

/// What the model `y = x` gives when `rewrite` rounds `x`.
fn rounded(x: &ArrayD<f32>, rewrite: &Rewrite) -> ArrayD<f32> {
    let mut model = model("x", vec![], vec![identity("x", "y")], "y");
    apply(&mut model, "x", rewrite);
    run(&model, x).remove(0)
}

/// `QuantizeLinear` and `DequantizeLinear` of one number.
fn oracle(x: f32, params: ActivationParams) -> f32 {
    let (low, high) = (params.grid().min_code() as f32, params.grid().max_code() as f32);
    let (scale, zero_point) = (params.scale(), params.zero_point() as f32);
    scale * (((x / scale).round_ties_even() + zero_point).clamp(low, high) - zero_point)
}

/// Every tie of 600 steps around 0, the numbers next to it, and the ends of f32.
fn hard_numbers(scale: f32) -> Vec<f32> {
    let ties = (-300..300).map(|step| (step as f32 + 0.5) * scale);
    let around = ties.flat_map(|tie| [tie, tie.next_up(), tie.next_down()]);
    around.chain([0.0, -0.0, f32::MAX, f32::MIN, f32::INFINITY, f32::NEG_INFINITY, f32::MIN_POSITIVE]).collect()
}

#[test]
fn rounding_in_floats_and_through_codes_is_that_of_the_specification() {
    for params in all() {
        let x = hard_numbers(params.scale());
        let expected = vector(&x.iter().map(|&x| oracle(x, params)).collect::<Vec<_>>());
        for (what, rewrite) in &rewrites(params)[..2] {
            assert_eq!(rounded(&vector(&x), rewrite), expected, "{what} {params:?}");
        }
    }
}

#[test]
fn ties_go_to_even_and_ends_saturate() {
    let params = params((2.0, 3, ActivationGrid::Unsigned));
    let x = vector(&[1.0, 3.0, 5.0, -1.0, -3.0, -7.0, 504.0, 506.0]);
    let expected = vector(&[0.0, 4.0, 4.0, 0.0, -4.0, -6.0, 504.0, 504.0]);
    for (what, rewrite) in &rewrites(params)[..2] {
        assert_eq!(rounded(&x, rewrite), expected, "{what}");
    }
}

#[test]
fn value_may_be_an_input_a_node_output_or_a_constant() {
    let nodes = vec![node("Relu", &["x"], &["v"], vec![]), node("Add", &["v", "c"], &["y"], vec![])];
    let c = numbers(5, 2);
    let make = || model("x", vec![("c", tensor::from_f32(&[5], &c))], nodes.clone(), "y");
    let x = numbers(5, 7);
    for params in all() {
        let of = |number: f32, is_rounded: bool| if is_rounded { oracle(number, params) } else { number };
        for name in ["x", "v", "c"] {
            let sum = |(&x, &c): (&f32, &f32)| of(of(x, name == "x").max(0.0), name == "v") + of(c, name == "c");
            let expected = vector(&x.iter().zip(&c).map(sum).collect::<Vec<_>>());
            for (what, rewrite) in &rewrites(params)[..2] {
                let mut model = make();
                apply(&mut model, name, rewrite);
                assert_eq!(run(&model, &vector(&x)), std::slice::from_ref(&expected), "{what} {name} {params:?}");
            }
        }
    }
}

#[test]
fn operators_and_names_are_those_documented() {
    let of = |rewrite: &Rewrite| {
        let mut model = model("x", vec![], vec![identity("x", "y")], "y");
        apply(&mut model, "x", rewrite);
        let graph = model.graph();
        let types = op_types(&model).join(" ");
        let names = graph.nodes().filter_map(|(_, node)| Some(graph.value(node.output(0)?).name())).collect::<Vec<_>>();
        (types, names.join(" "))
    };
    let [(_, fake), (_, codes), (_, dynamic)] = rewrites(all()[0]);
    let (types, names) = of(&*codes);
    assert_eq!(types, "QuantizeLinear DequantizeLinear Identity");
    assert_eq!(names, "x_quantized x_dequantized y");
    let (types, names) = of(&*fake);
    assert_eq!(types, "Div Round Max Min Mul Identity");
    assert_eq!(names, "x_over_scale x_steps x_steps_above x_steps_within x_fake_quantized y");
    let (types, _) = of(&*dynamic);
    let scales = "ReduceMin Min ReduceMax Max Sub Div Max Div Round Add";
    assert_eq!(types, format!("{scales} Div Round Max Min Mul Identity"));
}

#[test]
fn scale_and_zero_point_are_scalars_of_the_type_of_the_codes() {
    for (params, dtype) in [(all()[1], DataType::Uint8), (all()[4], DataType::Int8)] {
        let mut model = model("x", vec![], vec![identity("x", "y")], "y");
        apply(&mut model, "x", &*rewrites(params)[1].1);
        let graph = model.graph();
        for op_type in ["QuantizeLinear", "DequantizeLinear"] {
            let found = graph.node(find_node(graph, op_type).unwrap());
            assert_eq!(input_names(graph, found)[1..], ["x_scale", "x_zero_point"]);
        }
        let zero_point = constant_named(graph, "x_zero_point");
        assert_eq!((zero_point.data_type(), zero_point.dims.len()), (dtype as i32, 0));
        assert_eq!(
            tensor::to_codes(zero_point).unwrap().into_iter().map(i32::from).collect::<Vec<_>>(),
            [params.zero_point()]
        );
        assert_eq!(*tensor::to_f32(constant_named(graph, "x_scale")).unwrap(), [params.scale()]);
    }
}

#[test]
fn constant_is_stored_as_codes_and_goes_with_its_last_reader() {
    let nodes = vec![node("Add", &["x", "c"], &["a"], vec![]), node("Mul", &["a", "c"], &["y"], vec![])];
    let c = tensor::from_f32(&[2, 2], &[0.25, 0.75, -9.0, 900.0]);
    let mut model = model("x", vec![("c", c)], nodes, "y");
    let params = params((0.5, 10, ActivationGrid::Shifted));
    let graph = model.graph_mut();
    let value = graph.find("c").unwrap();
    let [add, mul] = [0, 1].map(|at| graph.order()[at]);
    quantize_dequantize(graph, value, params, &[(add, 1)]);
    assert!(graph.find("c").is_some(), "the Mul reads it");
    let codes = constant_named(graph, "c_quantized");
    assert_eq!((codes.data_type(), codes.dims.as_slice()), (DataType::Int8 as i32, [2, 2].as_slice()));
    assert_eq!(tensor::to_codes(codes).unwrap(), [10, 12, -8, 127]);
    quantize_dequantize(graph, value, params, &[(mul, 1)]);
    assert!(graph.find("c").is_none());
    assert_valid(&model);
    assert_eq!(op_types(&model), ["DequantizeLinear", "Add", "DequantizeLinear", "Mul"]);
}

#[test]
fn constant_that_cannot_be_quantized_here_is_quantized_at_every_run() {
    let table = [
        ("overridable", "x c", tensor::from_f32(&[1], &[1.5])),
        ("of another type", "x", tensor::from_f32_as(DataType::Double, &[1], &[1.5])),
        ("NaN", "x", tensor::from_f32(&[1], &[f32::NAN])),
    ];
    for (what, inputs, c) in table {
        let mut model = model(inputs, vec![("c", c)], vec![node("Add", &["x", "c"], &["y"], vec![])], "y");
        apply(&mut model, "c", &*rewrites(all()[0])[1].1);
        assert_eq!(op_types(&model), ["QuantizeLinear", "DequantizeLinear", "Add"], "{what}");
    }
}

#[test]
fn only_the_given_readers_change_and_the_first_of_them_comes_after_the_rounding() {
    let branch = || body(vec![identity("v", "b")], &["b"]);
    let bodies = vec![graph_attribute("then_branch", branch()), graph_attribute("else_branch", branch())];
    let nodes = vec![
        identity("x", "v"),
        identity("v", "early"),
        node("Add", &["x", "v"], &["late"], vec![]),
        node("Mul", &["v", "v"], &["later"], vec![]),
        node("If", &["cond"], &["z"], bodies),
    ];
    let cond = tensor::from_raw(DataType::Bool, &[], vec![1u8]);
    let make = || model("x", vec![("cond", cond.clone())], nodes.clone(), "v early late later z");
    for (what, rewrite) in rewrites(all()[0]) {
        let mut model = make();
        let graph = model.graph_mut();
        let value = graph.find("v").unwrap();
        let [made, early, late, later, branches] = [0, 1, 2, 3, 4].map(|at| graph.order()[at]);
        let result = rewrite(graph, value, &[(later, 1), (late, 1)]);
        assert_eq!(graph.order()[..2], [made, early], "{what}");
        assert_eq!(graph.order()[graph.order().len() - 3..], [late, later, branches], "{what}");
        let read = |node: NodeId| graph.node(node).inputs().to_vec();
        assert_eq!(read(late)[1], Some(result), "{what}");
        assert_eq!(read(later), [Some(value), Some(result)], "{what}");
        assert_eq!(read(early), [Some(value)], "{what}");
        assert_eq!(graph.node(branches).captures(), [value], "{what}");
        assert!(graph.is_output(value) && graph.producer(value).is_some_and(|(id, _)| id == made), "{what}");
        assert_valid(&model);
    }
}

#[test]
fn value_without_readers_stays_as_it_is() {
    for (what, rewrite) in rewrites(all()[0]) {
        let mut model = model("x", vec![], vec![identity("x", "y")], "y");
        let before = model.to_proto();
        let value = model.graph().find("y").unwrap();
        assert_eq!(rewrite(model.graph_mut(), value, &[]), value, "{what}");
        assert_eq!(model.to_proto(), before, "{what}");
    }
}

#[test]
fn codes_of_16_bits_are_stored_in_two_bytes() {
    let c = tensor::from_f32(&[4], &[0.25, 0.75, -9.0, 90000.0]);
    let table: [_; 2] = [
        (params((0.5, 10, ActivationGrid::Unsigned16)), DataType::Uint16, [10u16, 12, 0, 65535]),
        (params((0.5, 0, ActivationGrid::Signed16)), DataType::Int16, [0, 2, -18i16 as u16, 32767]),
    ];
    for (params, dtype, codes) in table {
        let mut model = model("x", vec![("c", c.clone())], vec![node("Add", &["x", "c"], &["y"], vec![])], "y");
        let graph = model.graph_mut();
        let value = graph.find("c").unwrap();
        let readers = readers(graph, value);
        quantize_dequantize(graph, value, params, &readers);
        let stored = constant_named(graph, "c_quantized");
        assert_eq!(stored.data_type(), dtype as i32);
        let raw: Vec<u8> = codes.iter().flat_map(|code| code.to_le_bytes()).collect();
        assert_eq!(stored.raw_data(), raw);
        let x = hard_numbers(params.scale());
        let expected = vector(&x.iter().map(|&x| oracle(x, params)).collect::<Vec<_>>());
        assert_eq!(rounded(&vector(&x), &*rewrites(params)[0].1), expected);
    }
}

/// What `DynamicQuantizeLinear -> DequantizeLinear` gives.
fn through_dynamic_codes(x: &ArrayD<f32>) -> ArrayD<f32> {
    let nodes = vec![
        node("DynamicQuantizeLinear", &["x"], &["q", "s", "z"], vec![]),
        node("DequantizeLinear", &["q", "s", "z"], &["y"], vec![]),
    ];
    run(&model("x", vec![], nodes, "y"), x).remove(0)
}

#[test]
fn dynamic_rounding_is_that_of_dynamic_quantize_linear() {
    let table: [(&str, &[f32]); 9] = [
        ("the example of the specification", &[0.0, 2.0, -3.0, -2.5, 1.34, 0.5]),
        ("above zero", &[1.0, 2.1, 1.3, 2.5, 3.34, 4.0]),
        ("below zero", &[-1.0, -2.1, -1.3, -2.5, -3.34, -4.0]),
        ("ties", &[255.0, 0.0, 0.5, 1.5, 2.5, -0.0]),
        ("tie of the zero point", &[-127.5, 127.5, 0.5, 1.0, -0.5]),
        ("one number", &[-7.0]),
        ("zeros", &[0.0, 0.0]),
        ("tiny", &[1e-30, 2e-30]),
        ("huge", &[-1e38, 1e38, 3e36]),
    ];
    let [_, _, (_, rewrite)] = rewrites(all()[0]);
    for (what, x) in table {
        assert_eq!(rounded(&vector(x), &*rewrite), through_dynamic_codes(&vector(x)), "{what}");
    }
    let steps = [0.0, 102.0, -153.0, -127.0, 68.0, 26.0].map(|step| step * (5.0f32 / 255.0));
    assert_eq!(rounded(&vector(table[0].1), &*rewrite), vector(&steps));
}

#[test]
fn dynamic_range_runs_over_all_dimensions() {
    let x = array(&tensor::from_f32(&[2, 3, 4], &numbers(24, 5)));
    assert_eq!(rounded(&x, &*rewrites(all()[0])[2].1), through_dynamic_codes(&x));
}

#[test]
fn dynamic_rounding_of_zeros_and_of_less_than_normal_numbers_is_finite() {
    for x in [vec![0.0; 3], vec![-0.0; 3], vec![1e-45, 0.0], vec![1e-40, -1e-40]] {
        let result = rounded(&vector(&x), &*rewrites(all()[0])[2].1);
        assert!(result.iter().all(|y| y.abs() <= f32::MIN_POSITIVE), "{x:?}: {result:?}");
    }
}

proptest! {
    #[test]
    fn float_arithmetic_equals_codes_on_random_numbers(
        x in proptest::collection::vec(-1e3f32..1e3, 1..40),
        scale in 1e-3f32..10.0,
        code in 0i32..256,
        signed: bool,
    ) {
        let (zero_point, grid) = match signed {
            true => (code - 128, ActivationGrid::Shifted),
            false => (code, ActivationGrid::Unsigned),
        };
        let params = params((scale, zero_point, grid));
        let [(_, fake), (_, codes), (_, dynamic)] = rewrites(params);
        let x = vector(&x);
        prop_assert_eq!(rounded(&x, &*fake), rounded(&x, &*codes));
        prop_assert_eq!(rounded(&x, &*dynamic), through_dynamic_codes(&x));
    }
}

/// What `MatMulNBits` makes of a row: blocks on scales of their own.
fn in_blocks(row: &[f32], block: usize) -> Vec<f32> {
    let rounded = |block: &[f32]| {
        let scale = (block.iter().fold(0f32, |most, x| most.max(x.abs())) / 127.0).max(f32::MIN_POSITIVE);
        block.iter().map(|x| (x / scale).round_ties_even() * scale).collect::<Vec<_>>()
    };
    row.chunks(block).flat_map(rounded).collect()
}

#[test]
fn rounding_in_blocks_is_that_of_each_block_of_each_row() {
    let cases = [(13, 8, 32, 32), (13, 8, 64, 16), (13, 4, 40, 16), (13, 4, 12, 32), (18, 4, 40, 16), (18, 2, 32, 32)];
    for (opset, rows, inputs, block) in cases {
        let x = array(&tensor::from_f32(&[2, rows / 2, inputs], &numbers(rows * inputs, 3)));
        let mut model = model("x", vec![], vec![identity("x", "y")], "y");
        model.set_opset("", opset);
        apply(&mut model, "x", &move |graph, value, readers| {
            fake_quantize_in_blocks(graph, opset, value, [inputs, block], readers)
        });
        let expected: Vec<f32> = x.as_slice().unwrap().chunks(inputs).flat_map(|row| in_blocks(row, block)).collect();
        let expected = ArrayD::from_shape_vec(x.raw_dim(), expected).unwrap();
        assert_eq!(run(&model, &x).remove(0), expected, "opset {opset}, {inputs} inputs in blocks of {block}");
    }
}
