use ndarray::{Array3, ArrayD};
use onnxquant_ir::onnx::NodeProto;
use onnxquant_ir::{Model, Use, float_attribute, tensor};
use onnxquant_quant::{Alphabet, Granularity, LayerSolution, MatrixView};

use super::*;
use crate::integer::fake_quantize::fake_quantize_dynamically;
use crate::testing::{
    array, assert_valid, constant_named, find_node, floats, input_names, model, node, numbers, only_site, op_types,
    run, sites,
};
use crate::write::share_constants::stored_bytes;

const GRANULARITIES: [Granularity; 2] = [Granularity::Tensor, Granularity::Channel];

/// Codes from -127 to 127, scales that are powers of two.
fn solution(site: &Site, granularity: Granularity) -> LayerSolution {
    let (k, m) = (site.view.inputs(), site.view.outputs());
    let scale = |o: usize| if granularity == Granularity::Tensor { 0 } else { o % 3 };
    LayerSolution {
        codes: Array3::from_shape_fn((1, k, m), |(_, i, o)| ((i * 71 + o * 130) % 255) as i16 - 127),
        scales: Array3::from_shape_fn((1, 1, m), |(_, _, o)| (1 << scale(o)) as f32 / 64.0),
        zero_points: Array3::zeros((1, 1, m)),
        block_size: k,
        alphabet: Alphabet::Integers,
        preprocessed: None,
        promise: None,
        notes: vec![],
    }
}

const INT8: Codes = Codes::Native(DataType::Int8);

fn packed(site: &Site, granularity: Granularity, correction: Vec<f32>) -> PackedWeight {
    PackedWeight::new(site, DataType::Int8, granularity, &solution(site, granularity), correction).unwrap()
}

fn all_sites(model: &Model) -> Vec<Site> {
    sites(model).into_iter().map(Result::unwrap).collect()
}

fn write(model: &mut Model, granularity: Granularity) {
    let layers = all_sites(model).into_iter().map(|site| (site.clone(), packed(&site, granularity, vec![]), INT8));
    write_dynamic(model.graph_mut(), layers.collect()).unwrap();
    assert_valid(model);
}

/// The same model in floats: weights that the codes mean, inputs rounded as the layers round them.
fn in_floats(model: &mut Model, granularity: Granularity) {
    for site in all_sites(model) {
        let weights = solution(&site, granularity).dequantize();
        let weights = site.view.from_matrix(weights.view()).unwrap();
        let weights = tensor::from_f32(weights.shape(), &weights.iter().copied().collect::<Vec<_>>());
        model.graph_mut().set_tensor(site.weight, weights);
        fake_quantize_dynamically(model.graph_mut(), site.input, &[(site.node, 0)]);
    }
}

fn layer(op_type: &str, inputs: &[&str], output: &str) -> NodeProto {
    node(op_type, inputs, &[output], vec![])
}

fn with(weight: &[usize], bias: &[usize], nodes: Vec<NodeProto>, outputs: &str) -> Model {
    model("x", vec![("w", floats(weight, 1)), ("b", floats(bias, 2))], nodes, outputs)
}

fn gemm(bias: &[usize]) -> Model {
    with(&[6, 4], bias, vec![layer("Gemm", &["x", "w", "b"], "y")], "y")
}

fn matmul() -> Model {
    model("x", vec![("w", floats(&[6, 4], 1))], vec![layer("MatMul", &["x", "w"], "y")], "y")
}

fn input(shape: &[usize]) -> ArrayD<f32> {
    array(&floats(shape, 9))
}

#[track_caller]
fn assert_near(found: &[ArrayD<f32>], expected: &[ArrayD<f32>], what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    for (found, expected) in found.iter().zip(expected) {
        assert_eq!(found.shape(), expected.shape(), "{what}");
        let largest = expected.iter().fold(0f32, |largest, x| largest.max(x.abs()));
        let apart = found.iter().zip(expected).fold(0f32, |apart, (a, b)| apart.max((a - b).abs()));
        assert!(apart <= 1e-5 * largest, "{what}: {apart} of {largest}");
    }
}

#[test]
fn integer_product_equals_the_layer_with_rounded_input_and_weight() {
    let trans_b = vec![int_attribute("transB", 1)];
    let trans_b = vec![node("Gemm", &["x", "w", "b"], &["y"], trans_b)];
    let beta = vec![node("Gemm", &["x", "w"], &["y"], vec![float_attribute("beta", 0.5)])];
    let computed = vec![layer("Identity", &["b"], "c"), layer("Gemm", &["x", "w", "c"], "y")];
    let add = vec![layer("MatMul", &["x", "w"], "p"), layer("Add", &["b", "p"], "s"), layer("Relu", &["s"], "y")];
    let rows = input(&[3, 6]);
    let cube = input(&[2, 3, 6]);
    let product = ["DynamicQuantizeLinear", "Mul", "MatMulInteger", "Cast", "Mul"];
    let table = [
        ("MatMul", matmul(), &rows, vec![]),
        ("MatMul, rank 3", matmul(), &cube, vec![]),
        ("MatMul, Add, Relu", with(&[6, 4], &[4], add, "y"), &cube, vec!["Add", "Relu"]),
        ("Gemm", gemm(&[4]), &rows, vec!["Add"]),
        ("Gemm, row", gemm(&[1, 4]), &rows, vec!["Add"]),
        ("Gemm, scalar", gemm(&[]), &rows, vec!["Add"]),
        ("Gemm, one", gemm(&[1]), &rows, vec!["Add"]),
        ("Gemm, matrix", gemm(&[3, 4]), &rows, vec!["Add"]),
        ("Gemm, transB", with(&[4, 6], &[4], trans_b, "y"), &rows, vec!["Add"]),
        ("Gemm without bias", with(&[6, 4], &[4], beta, "y"), &rows, vec![]),
        ("Gemm, computed bias", with(&[6, 4], &[4], computed, "y"), &rows, vec!["Add"]),
    ];
    for (what, model, x, after) in table {
        for granularity in GRANULARITIES {
            let (mut written, mut floats) = (model.clone(), model.clone());
            write(&mut written, granularity);
            in_floats(&mut floats, granularity);
            assert_near(&run(&written, x), &run(&floats, x), what);
            let types = op_types(&written).into_iter().filter(|&op_type| op_type != "Identity").collect::<Vec<_>>();
            assert_eq!(types, [&product[..], &after].concat(), "{what}");
        }
    }
}

#[test]
fn weight_is_stored_by_input_and_output_and_named_after_the_float_one() {
    for (granularity, dims) in [(Granularity::Tensor, vec![]), (Granularity::Channel, vec![4])] {
        let attributes = vec![int_attribute("transB", 1)];
        let mut model = with(&[4, 6], &[4], vec![node("Gemm", &["x", "w", "b"], &["y"], attributes)], "y");
        write(&mut model, granularity);
        let graph = model.graph();
        let product = graph.node(find_node(graph, "MatMulInteger").unwrap());
        assert_eq!(input_names(graph, product), ["x_quantized", "w_quantized", "x_zero_point"]);
        assert_eq!((product.name(), product.attributes().len()), ("node_y", 0));
        let scales = graph.node(find_node(graph, "Mul").unwrap());
        assert_eq!(input_names(graph, scales), ["x_scale", "w_scale"]);
        let (codes, scale) = (constant_named(graph, "w_quantized"), constant_named(graph, "w_scale"));
        assert_eq!((codes.data_type(), codes.dims.as_slice()), (DataType::Int8 as i32, [6, 4].as_slice()));
        assert_eq!((scale.data_type(), &scale.dims), (DataType::Float as i32, &dims));
        assert!(graph.find("w").is_none(), "the float weight goes");
    }
}

#[test]
fn layers_that_read_the_same_value_share_its_codes() {
    let nodes = vec![
        layer("Relu", &["x"], "v"),
        layer("MatMul", &["v", "w1"], "a"),
        layer("Gemm", &["v", "w2", "b"], "y"),
        layer("MatMul", &["a", "w3"], "z"),
    ];
    let weights = [("w1", floats(&[6, 4], 1)), ("w2", floats(&[6, 5], 2)), ("w3", floats(&[4, 3], 3))];
    let constants = weights.into_iter().chain([("b", floats(&[5], 4))]).collect::<Vec<_>>();
    let plain = model("x", constants, nodes, "y z");
    let (mut written, mut floats) = (plain.clone(), plain);
    // In reverse, so that the codes must go before the layer that comes first in the graph.
    let layers = all_sites(&written).into_iter().rev();
    let layers = layers.map(|site| (site.clone(), packed(&site, Granularity::Channel, vec![]), INT8)).collect();
    write_dynamic(written.graph_mut(), layers).unwrap();
    assert_valid(&written);
    in_floats(&mut floats, Granularity::Channel);
    assert_near(&run(&written, &input(&[3, 6])), &run(&floats, &input(&[3, 6])), "all");
    let graph = written.graph();
    let dynamic = graph.nodes().filter(|(_, node)| node.is("DynamicQuantizeLinear"));
    assert_eq!(dynamic.map(|(_, node)| input_names(graph, node)[0]).collect::<Vec<_>>(), ["v", "a"]);
    let products = graph.nodes().filter(|(_, node)| node.is("MatMulInteger"));
    let read = products.map(|(_, node)| input_names(graph, node)[0]).collect::<Vec<_>>();
    assert_eq!(read, ["v_quantized", "v_quantized", "a_quantized"]);
}

#[test]
fn output_keeps_its_name_and_readers() {
    for bias in [vec!["x", "w"], vec!["x", "w", "b"]] {
        let mut model = with(&[6, 4], &[4], vec![layer("Gemm", &bias, "y"), layer("Sigmoid", &["y"], "z")], "y z");
        let value = model.graph().find("y").unwrap();
        let before = model.graph().value(value).uses().to_vec();
        write(&mut model, Granularity::Channel);
        let graph = model.graph();
        assert_eq!(graph.find("y"), Some(value));
        assert_eq!(graph.value(value).uses(), before);
        assert!(before.iter().any(|user| matches!(user, Use::GraphOutput(0))));
        let last = if bias.len() == 3 { "Add" } else { "Mul" };
        assert_eq!(graph.producer(value).map(|(_, node)| node.op_type()), Some(last));
    }
}

#[test]
fn taken_names_get_suffixes() {
    let nodes = vec![layer("Identity", &["x"], "v_scale"), layer("Relu", &["v_scale"], "v")];
    let nodes = [nodes, vec![layer("MatMul", &["v", "w"], "w_quantized")]].concat();
    let mut model = with(&[6, 4], &[4], nodes, "w_quantized");
    write(&mut model, Granularity::Tensor);
    let graph = model.graph();
    let scales = graph.node(find_node(graph, "Mul").unwrap());
    assert_eq!(input_names(graph, scales), ["v_scale_1", "w_scale"]);
    let product = graph.node(find_node(graph, "MatMulInteger").unwrap());
    assert_eq!(input_names(graph, product)[1], "w_quantized_1");
}

#[test]
fn shared_weight_gives_every_layer_its_own_codes_and_goes_with_the_last() {
    let nodes =
        vec![layer("Identity", &["w"], "v"), layer("MatMul", &["x", "w"], "a"), layer("MatMul", &["a", "v"], "y")];
    let mut model = model("x", vec![("w", floats(&[4, 4], 1))], nodes, "y");
    write(&mut model, Granularity::Channel);
    let names = model.graph().initializers().iter().map(|&id| model.graph().value(id).name()).collect::<Vec<_>>();
    assert_eq!(names, ["w_quantized", "w_scale", "w_quantized_1", "w_scale_1"]);
    assert!(find_node(model.graph(), "Identity").is_none(), "the chain goes");
}

#[test]
fn correction_goes_into_the_bias() {
    let correction = vec![0.5, -1.0, 0.0, 2.0];
    let add = vec![layer("MatMul", &["x", "w"], "p"), layer("Add", &["p", "b"], "y")];
    let without = vec![layer("Gemm", &["x", "w"], "y")];
    let table = [
        ("Gemm", gemm(&[4])),
        ("Gemm, scalar", gemm(&[])),
        ("Gemm without bias", with(&[6, 4], &[4], without, "y")),
        ("MatMul, Add", with(&[6, 4], &[4], add, "y")),
    ];
    for (what, model) in table {
        let (mut plain, mut corrected) = (model.clone(), model);
        write(&mut plain, Granularity::Channel);
        let site = only_site(&corrected);
        let weight = packed(&site, Granularity::Channel, correction.clone());
        write_dynamic(corrected.graph_mut(), vec![(site, weight, INT8)]).unwrap();
        assert_valid(&corrected);
        let x = input(&[3, 6]);
        let expected = run(&plain, &x).remove(0) + ArrayD::from_shape_vec(vec![4], correction.clone()).unwrap();
        assert_near(&run(&corrected, &x), &[expected], what);
    }
    let mut no_place = matmul();
    let site = only_site(&no_place);
    let weight = packed(&site, Granularity::Channel, correction);
    write_dynamic(no_place.graph_mut(), vec![(site, weight, INT8)]).unwrap();
    assert!(find_node(no_place.graph(), "Add").is_none());
}

#[test]
fn written_model_holds_no_more_layers() {
    let mut model = gemm(&[4]);
    write(&mut model, Granularity::Channel);
    assert!(sites(&model).is_empty());
}

#[test]
fn what_has_no_integer_product_is_refused() {
    let supported = only_site(&matmul());
    let plain = solution(&supported, Granularity::Channel);
    assert!(is_supported(&supported));
    let of_type = |dtype| Site { dtype, ..supported.clone() };
    let wide = |inputs| Site { view: MatrixView::Dense { inputs, outputs: 4, transposed: false }, ..supported.clone() };
    assert!(is_supported(&wide(65_793)));
    let conv = vec![("w", floats(&[4, 3, 2, 2], 1))];
    let conv = only_site(&model("x", conv, vec![layer("Conv", &["x", "w"], "y")], "y"));
    let table = [
        (conv, "a weight [4, 3, 2, 2] of type FLOAT"),
        (of_type(DataType::Float16), "a weight [6, 4] of type FLOAT16"),
        (of_type(DataType::Bfloat16), "a weight [6, 4] of type BFLOAT16"),
        (wide(65_794), "a weight [65794, 4] of type FLOAT"),
    ];
    for (site, found) in table {
        assert!(!is_supported(&site), "{found}");
    }
    let plain_codes = |granularity, solution: &LayerSolution| {
        PackedWeight::new(&supported, DataType::Int8, granularity, solution, vec![]).unwrap().is_plain()
    };
    assert!(plain_codes(Granularity::Channel, &plain) && plain_codes(Granularity::Tensor, &plain));
    assert!(!plain_codes(Granularity::Block(2), &solution(&supported, Granularity::Block(2))));
    let mut shifted = plain;
    shifted.zero_points[[0, 0, 2]] = 3;
    assert!(!plain_codes(Granularity::Channel, &shifted));
}

#[test]
fn bytes_are_those_of_codes_and_scales() {
    for (granularity, scales) in [(Granularity::Tensor, 4), (Granularity::Channel, 16)] {
        let mut model = matmul();
        let site = only_site(&model);
        let weight = packed(&site, granularity, vec![]);
        let stored = write_dynamic(model.graph_mut(), vec![(site, weight, INT8)]).unwrap();
        assert_eq!(stored_bytes(model.graph(), &stored[0]), 24 + scales);
    }
}

#[test]
fn input_of_zeros_gives_the_bias() {
    let mut model = gemm(&[4]);
    write(&mut model, Granularity::Channel);
    let result = run(&model, &ArrayD::zeros(vec![1, 6])).remove(0);
    assert_eq!(result.iter().copied().collect::<Vec<_>>(), numbers(4, 2));
}
