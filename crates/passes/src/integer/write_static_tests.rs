use ndarray::{ArrayD, Dimension};
use onnxquant_ir::onnx::AttributeProto;
use onnxquant_ir::{Model, ints_attribute};
use onnxquant_quant::{ActivationGrid, ActivationParams, Granularity, LayerSolution};

use super::*;
use crate::integer::fake_quantize::quantize_dequantize;
use crate::testing::{
    array, assert_valid, constant_named, floats, input_names, model, node, numbers, run, site_map, solution,
    with_weights,
};
use crate::write::share_constants::stored_bytes;

const INPUT_SCALE: f32 = 0.25;

fn layer(op_type: &str, dims: &[usize], bias: Option<TensorProto>, attributes: Vec<AttributeProto>) -> Model {
    let inputs: &[&str] = if bias.is_some() { &["x", "w", "b"] } else { &["x", "w"] };
    let constants = [("w", floats(dims, 1))].into_iter().chain(bias.map(|bias| ("b", bias))).collect();
    model("x", constants, vec![node(op_type, inputs, &["y"], attributes)], "y")
}

fn matmul(add: &[&str], bias: TensorProto) -> Model {
    let nodes = vec![node("MatMul", &["x", "w"], &["p"], vec![]), node("Add", add, &["y"], vec![])];
    model("x", vec![("w", floats(&[6, 4], 1)), ("b", bias)], nodes, "y")
}

fn only_layer(model: &Model) -> Site {
    let mut found = site_map(model);
    assert_eq!(found.len(), 1);
    found.drain().next().unwrap().1
}

const INT8: Codes = Codes::Native(DataType::Int8);

fn packed(site: &Site, granularity: Granularity, solution: &LayerSolution, correction: Vec<f32>) -> PackedWeight {
    PackedWeight::new(site, DataType::Int8, granularity, solution, correction).unwrap()
}

fn input(shape: &[usize]) -> ArrayD<f32> {
    array(&tensor::from_f32(shape, &numbers(shape.iter().product(), 9)))
}

fn write(model: &mut Model, granularity: Granularity, correction: Vec<f32>) -> LayerSolution {
    let site = only_layer(model);
    let solution = solution(&site, granularity, -128, 127);
    let weight = packed(&site, granularity, &solution, correction);
    write_static(model.graph_mut(), &site, &weight, INT8, INPUT_SCALE).unwrap();
    assert_valid(model);
    solution
}

/// Greatest difference of the outputs.
fn difference(a: &Model, b: &Model, x: &ArrayD<f32>) -> f32 {
    let (a, b) = (run(a, x).remove(0), run(b, x).remove(0));
    assert_eq!(a.shape(), b.shape());
    a.iter().zip(&b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

/// Forms of layers, with an input each.
fn forms() -> Vec<(&'static str, Model, ArrayD<f32>)> {
    let grouped = vec![int_attribute("group", 2), ints_attribute("pads", &[1, 0, 0, 1])];
    let trans_b = || vec![int_attribute("transB", 1)];
    let (rows, image) = (|| input(&[3, 6]), || input(&[2, 6, 5, 4]));
    let bias = |dims: &[usize]| Some(floats(dims, 2));
    vec![
        ("Conv", layer("Conv", &[4, 6, 2, 2], bias(&[4]), vec![]), image()),
        ("Conv without bias", layer("Conv", &[4, 6, 2, 2], None, vec![]), image()),
        ("grouped Conv", layer("Conv", &[4, 3, 2, 2], bias(&[4]), grouped), image()),
        ("Gemm", layer("Gemm", &[6, 4], bias(&[4]), vec![]), rows()),
        ("Gemm transB", layer("Gemm", &[4, 6], bias(&[4]), trans_b()), rows()),
        ("Gemm, row", layer("Gemm", &[6, 4], bias(&[1, 4]), vec![]), rows()),
        ("Gemm, scalar", layer("Gemm", &[6, 4], bias(&[]), vec![]), rows()),
        ("Gemm, one number", layer("Gemm", &[4, 6], bias(&[1]), trans_b()), rows()),
        ("Gemm, one output", layer("Gemm", &[6, 1], bias(&[1]), vec![]), rows()),
        ("Gemm without bias", layer("Gemm", &[6, 4], None, vec![]), rows()),
        ("MatMul", layer("MatMul", &[6, 4], None, vec![]), rows()),
        ("MatMul and Add", matmul(&["p", "b"], floats(&[4], 2)), rows()),
        ("MatMul and Add, left", matmul(&["b", "p"], floats(&[4], 2)), rows()),
        ("MatMul and Add, row", matmul(&["p", "b"], floats(&[1, 1, 4], 2)), rows()),
        ("MatMul and Add, scalar", matmul(&["p", "b"], floats(&[], 2)), rows()),
    ]
}

#[test]
fn decoded_layer_computes_with_the_weights_of_the_solution_and_the_rounded_bias() {
    for granularity in [Granularity::Tensor, Granularity::Channel] {
        for (what, original, x) in forms() {
            let mut written = original.clone();
            let solution = write(&mut written, granularity, vec![]);
            let step = INPUT_SCALE * solution.scales.iter().copied().fold(0.0, f32::max);
            let found = difference(&written, &with_weights(original.clone(), &solution), &x);
            assert!(found <= 0.5001 * step, "{what} {granularity:?}: {found}, step {step}");
            let graph = written.graph();
            assert!(graph.find("w").is_none() && graph.find("b").is_none(), "{what} {granularity:?}");
            let has_bias = original.graph().find("b").is_some();
            assert_eq!(graph.find("b_quantized").is_some(), has_bias, "{what} {granularity:?}");
        }
    }
}

#[test]
fn weight_and_bias_have_the_types_shapes_and_scales_of_the_kernels() {
    for (what, mut model, _) in forms() {
        let is_conv = what.contains("Conv");
        let rank = model.graph().find("b").map_or(0, |b| model.graph().value(b).constant().unwrap().dims.len());
        let solution = write(&mut model, Granularity::Channel, vec![]);
        let graph = model.graph();
        let m = solution.scales.len();
        let scales = tensor::to_f32(constant_named(graph, "w_scale")).unwrap();
        assert_eq!(*scales, *solution.scales.iter().copied().collect::<Vec<_>>(), "{what}");
        assert_eq!(constant_named(graph, "w_zero_point").data_type(), DataType::Int8 as i32, "{what}");
        let decoder = |name: &str| graph.producer(graph.find(name).unwrap()).unwrap().1;
        assert_eq!(decoder("w_dequantized").int("axis", 9), if is_conv { 0 } else { 1 }, "{what}");
        assert_eq!(input_names(graph, decoder("w_dequantized")), ["w_quantized", "w_scale", "w_zero_point"], "{what}");
        if graph.find("b_quantized").is_none() {
            continue;
        }
        let codes = constant_named(graph, "b_quantized");
        let expected_rank = if what.contains("Add") { rank.max(1) } else { 1 };
        assert_eq!((codes.data_type(), codes.dims.len()), (DataType::Int32 as i32, expected_rank), "{what}");
        assert_eq!(tensor::shape(codes).unwrap().last(), Some(&m), "{what}");
        assert_eq!(decoder("b_dequantized").int("axis", 9), expected_rank as i64 - 1, "{what}");
        let products = scales.iter().map(|scale| INPUT_SCALE * scale).collect::<Vec<_>>();
        assert_eq!(*tensor::to_f32(constant_named(graph, "b_scale")).unwrap(), products, "{what}");
    }
}

#[test]
fn bias_stays_floats_where_the_input_has_no_scale_for_it() {
    for (what, original, x) in forms() {
        let mut written = original.clone();
        let site = only_layer(&written);
        let solution = solution(&site, Granularity::Channel, -128, 127);
        let weight = packed(&site, Granularity::Channel, &solution, vec![]);
        write_static(written.graph_mut(), &site, &weight, INT8, None).unwrap();
        assert_valid(&written);
        assert!(written.graph().find("b_quantized").is_none(), "{what}");
        assert_eq!(difference(&written, &with_weights(original, &solution), &x), 0.0, "{what}");
    }
}

#[test]
fn bias_that_would_not_fit_raises_the_scale_of_its_output_alone() {
    let big = 3e6;
    let table = [
        ("Gemm", layer("Gemm", &[6, 4], Some(tensor::from_f32(&[4], &[1.0, big, -1.0, 0.0])), vec![]), input(&[3, 6])),
        ("MatMul", matmul(&["p", "b"], tensor::from_f32(&[4], &[1.0, big, -1.0, 0.0])), input(&[3, 6])),
        (
            "Conv",
            layer("Conv", &[4, 3, 1, 1], Some(tensor::from_f32(&[4], &[1.0, big, -1.0, 0.0])), vec![]),
            input(&[1, 3, 2, 2]),
        ),
    ];
    for (what, original, x) in table {
        let site = only_layer(&original);
        let mut solution = solution(&site, Granularity::Channel, -128, 127);
        solution.scales.iter_mut().nth(1).map(|scale| *scale = 1e-5).unwrap();
        let mut written = original.clone();
        let weight = packed(&site, Granularity::Channel, &solution, vec![]);
        write_static(written.graph_mut(), &site, &weight, INT8, INPUT_SCALE).unwrap();
        assert_valid(&written);
        let graph = written.graph();
        let scales = tensor::to_f32(constant_named(graph, "w_scale")).unwrap().into_owned();
        let raised = scales[1] / 1e-5;
        assert!(raised > 100.0, "{what}: {raised}");
        for (m, scale) in solution.scales.iter().enumerate().filter(|(m, _)| *m != 1) {
            assert_eq!(scales[m], *scale, "{what}");
        }
        let steps = tensor::to_i64(constant_named(graph, "b_quantized")).unwrap();
        assert!((steps[1] as f64 / MOST_BIAS_STEPS - 1.0).abs() < 1e-6, "{what}: {steps:?}");
        // Half a step of the weights for each input, and half a step of the bias.
        let reach = x.iter().map(|x| x.abs()).fold(0.0, f32::max);
        let inputs = site.view.inputs() as f32;
        let step = scales.iter().copied().fold(0.0, f32::max);
        let bound = 0.5 * step * (inputs * reach + INPUT_SCALE) + big * f32::EPSILON;
        let found = difference(&written, &with_weights(original.clone(), &solution), &x);
        assert!(found <= bound, "{what}: {found}, at most {bound}");
    }
}

#[test]
fn scale_of_the_whole_tensor_makes_room_for_the_greatest_bias() {
    let bias = tensor::from_f32(&[4], &[1.0, -3e6, 2.0, 0.0]);
    let mut model = layer("Gemm", &[6, 4], Some(bias), vec![]);
    let site = only_layer(&model);
    let mut solution = solution(&site, Granularity::Tensor, -128, 127);
    solution.scales.fill(1e-5);
    let weight = packed(&site, Granularity::Tensor, &solution, vec![]);
    write_static(model.graph_mut(), &site, &weight, INT8, INPUT_SCALE).unwrap();
    assert_valid(&model);
    let scale = constant_named(model.graph(), "w_scale");
    assert!(scale.dims.is_empty());
    let (scale, codes) = (tensor::to_f32(scale).unwrap()[0], constant_named(model.graph(), "w_quantized"));
    for (code, old) in tensor::to_codes(codes).unwrap().into_iter().zip(solution.codes.iter()) {
        assert!((f32::from(code) * scale - f32::from(*old) * 1e-5).abs() <= 0.5001 * scale, "{code} for {old}");
    }
    assert_eq!(tensor::to_i64(constant_named(model.graph(), "b_quantized")).unwrap()[1].abs(), 1 << 30);
}

#[test]
fn correction_goes_into_the_bias() {
    let correction = vec![1.0, -2.0, 0.5, 4.0];
    for (what, original, x) in forms() {
        if what == "MatMul" || what == "Gemm, one output" {
            continue;
        }
        let (mut plain, mut corrected) = (original.clone(), original);
        let solution = write(&mut plain, Granularity::Channel, vec![]);
        write(&mut corrected, Granularity::Channel, correction.clone());
        let step = INPUT_SCALE * solution.scales.iter().copied().fold(0.0, f32::max);
        let (before, after) = (run(&plain, &x).remove(0), run(&corrected, &x).remove(0));
        // Outputs are the second dimension of an image and the last of rows.
        let output = |at: &ndarray::IxDyn| if what.contains("Conv") { at[1] } else { at[at.ndim() - 1] };
        for (at, after) in after.indexed_iter() {
            let moved = after - before[&at];
            assert!((moved - correction[output(&at)]).abs() <= 1.0001 * step, "{what} {at:?}: {moved}");
        }
    }
}

#[test]
fn add_behind_a_matmul_stays_where_it_is_no_plain_bias() {
    let nodes = || vec![node("MatMul", &["x", "w"], &["p"], vec![]), node("Add", &["p", "b"], &["y"], vec![])];
    let table = [
        ("other reader", model("x", vec![("w", floats(&[6, 4], 1)), ("b", floats(&[4], 2))], nodes(), "p y")),
        ("no row", matmul(&["p", "b"], floats(&[3, 4], 2))),
        ("overridable", model("x b", vec![("w", floats(&[6, 4], 1)), ("b", floats(&[4], 2))], nodes(), "y")),
    ];
    for (what, mut model) in table {
        write(&mut model, Granularity::Channel, vec![]);
        let graph = model.graph();
        assert!(graph.find("b").is_some() && graph.find("b_quantized").is_none(), "{what}");
    }
}

#[test]
fn add_on_codes_keeps_its_constant() {
    let mut model = matmul(&["p", "b"], floats(&[4], 2));
    let site = only_layer(&model);
    let params = ActivationParams::new(0.05, 128, ActivationGrid::Unsigned).unwrap();
    let graph = model.graph_mut();
    let add = graph.order()[1];
    for (slot, name) in ["p", "b"].iter().enumerate() {
        let value = graph.find(name).unwrap();
        quantize_dequantize(graph, value, params, &[(add, slot)]);
    }
    let solution = solution(&site, Granularity::Channel, -128, 127);
    write_static(graph, &site, &packed(&site, Granularity::Channel, &solution, vec![]), INT8, INPUT_SCALE).unwrap();
    assert_valid(&model);
    assert_eq!(constant_named(model.graph(), "b_quantized").data_type(), DataType::Uint8 as i32);
}

#[test]
#[should_panic(expected = "integer kernels take symmetric weights")]
fn weights_in_blocks_are_a_mistake_of_the_caller() {
    let mut model = layer("MatMul", &[6, 4], None, vec![]);
    write(&mut model, Granularity::Block(2), vec![]);
}

#[test]
fn codes_in_planes_are_the_same_int8_when_they_are_joined() {
    // One bit with a 0, as a scale that was raised for the bias leaves it, takes two.
    let (int4, int2) = (DataType::Int4, DataType::Int2);
    for (bits, storage, low, high) in [(4, int4, -8, 7), (3, int4, -4, 3), (2, int2, -2, 1), (1, int2, -1, 1)] {
        let nodes = vec![node("Conv", &["x", "w"], &["y"], vec![])];
        let mut model = model("x", vec![("w", floats(&[4, 3, 2, 2], 1))], nodes, "y");
        let site = only_layer(&model);
        let solution = solution(&site, Granularity::Channel, low, high);
        let weight = PackedWeight::new(&site, storage, Granularity::Channel, &solution, vec![]).unwrap();
        let stored = write_static(model.graph_mut(), &site, &weight, Codes::Planes { bits }, INPUT_SCALE).unwrap();
        assert_valid(&model);
        assert_eq!(stored_bytes(model.graph(), &stored), 48 * bits.max(2) as usize / 8 + 4 * 4 + 4);
        assert!(crate::decode::fold_planes::fold_planes(model.graph_mut()) > 0);
        assert_valid(&model);
        let codes = constant_named(model.graph(), "w_quantized");
        assert_eq!(codes.data_type(), DataType::Int8 as i32);
        let expected = site.view.from_matrix(solution.codes.view()).unwrap();
        assert_eq!(tensor::to_codes(codes).unwrap(), expected.iter().copied().collect::<Vec<_>>(), "{bits} bits");
    }
}
