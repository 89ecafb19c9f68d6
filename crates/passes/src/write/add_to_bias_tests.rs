use ndarray::ArrayD;
use onnxquant_ir::onnx::{NodeProto, TensorProto};
use onnxquant_ir::{Model, float_attribute, int_attribute};

use super::*;
use crate::testing::{array, assert_valid, constant_named, floats, model, node, numbers, run, sites};

const VECTOR: [f32; 4] = [0.5, -1.0, 0.0, 2.0];

fn first_site(model: &Model) -> Site {
    sites(model).remove(0).unwrap()
}

fn matmul_with(bias: TensorProto, add: &[&str], outputs: &str) -> Model {
    let nodes = vec![node("MatMul", &["x", "w"], &["p"], vec![]), node("Add", add, &["y"], vec![])];
    model("x", vec![("w", floats(&[6, 4], 1)), ("b", bias)], nodes, outputs)
}

fn layer(op_type: &str, dims: &[usize], bias: Option<TensorProto>) -> Model {
    let attributes = if op_type == "Gemm" && dims[0] == 4 { vec![int_attribute("transB", 1)] } else { vec![] };
    let inputs: &[&str] = if bias.is_some() { &["x", "w", "b"] } else { &["x", "w"] };
    let constants = [("w", floats(dims, 1))].into_iter().chain(bias.map(|bias| ("b", bias))).collect();
    model("x", constants, vec![node(op_type, inputs, &["y"], attributes)], "y")
}

#[test]
fn vector_is_added_to_every_output_and_shapes_stay() {
    let matrix = array(&floats(&[3, 6], 3));
    let image = array(&floats(&[2, 3, 4, 4], 3));
    let table = [
        ("Conv", layer("Conv", &[4, 3, 2, 2], Some(floats(&[4], 2))), &image),
        ("Conv without bias", layer("Conv", &[4, 3, 2, 2], None), &image),
        ("Gemm", layer("Gemm", &[6, 4], Some(floats(&[4], 2))), &matrix),
        ("Gemm, row", layer("Gemm", &[4, 6], Some(floats(&[1, 4], 2))), &matrix),
        ("Gemm, scalar", layer("Gemm", &[6, 4], Some(floats(&[], 2))), &matrix),
        ("Gemm, one", layer("Gemm", &[6, 4], Some(floats(&[1], 2))), &matrix),
        ("Gemm without bias", layer("Gemm", &[6, 4], None), &matrix),
        ("MatMul, Add", matmul_with(floats(&[4], 2), &["p", "b"], "y"), &matrix),
        ("MatMul, Add, bias first", matmul_with(floats(&[4], 2), &["b", "p"], "y"), &matrix),
        ("MatMul, Add of higher rank", matmul_with(floats(&[1, 1, 4], 2), &["p", "b"], "y"), &matrix),
        ("MatMul, Add of one of higher rank", matmul_with(floats(&[1, 1, 1], 2), &["p", "b"], "y"), &matrix),
        ("MatMul, Add of a scalar", matmul_with(floats(&[], 2), &["b", "p"], "y"), &matrix),
    ];
    for (what, mut model, x) in table {
        let before = run(&model, x).remove(0);
        let site = first_site(&model);
        assert!(has_bias(model.graph(), &site), "{what}");
        assert!(add_to_bias(model.graph_mut(), &site, &VECTOR), "{what}");
        assert_valid(&model);
        let after = run(&model, x).remove(0);
        assert_eq!(after.shape(), before.shape(), "{what}");
        let ones = if what.starts_with("Conv") { vec![4, 1, 1] } else { vec![4] };
        let expected = before + ArrayD::from_shape_vec(ones, VECTOR.to_vec()).unwrap();
        assert!((after - expected).iter().all(|difference| difference.abs() < 1e-5), "{what}");
        assert!(model.graph().find("b").is_none(), "{what}: the old bias goes");
    }
}

#[test]
fn layer_without_a_place_for_a_bias_stays_as_it_is() {
    let adds =
        |right: &str| vec![node("MatMul", &["x", "w"], &["p"], vec![]), node("Add", &["p", right], &["y"], vec![])];
    let with = |nodes: Vec<NodeProto>, outputs: &str| {
        model("x z", vec![("w", floats(&[6, 4], 1)), ("b", floats(&[4], 2))], nodes, outputs)
    };
    let lone = vec![node("MatMul", &["x", "w"], &["y"], vec![])];
    let twice = [adds("b"), vec![node("Relu", &["p"], &["q"], vec![])]].concat();
    let computed = vec![node("Gemm", &["x", "w", "z"], &["y"], vec![])];
    let table = [
        ("no Add", with(lone, "y")),
        ("Add of an activation", with(adds("z"), "y")),
        ("Add of the product itself", with(adds("p"), "y")),
        ("product with another reader", with(twice, "y q")),
        ("product is a graph output", with(adds("b"), "y p")),
        ("computed bias", with(computed, "y")),
        ("column", layer("Gemm", &[6, 4], Some(floats(&[4, 1], 2)))),
        ("matrix", layer("Gemm", &[6, 4], Some(floats(&[3, 4], 2)))),
        ("wrong number", matmul_with(floats(&[3], 2), &["p", "b"], "y")),
        ("other type", layer("Gemm", &[6, 4], Some(tensor::from_f32_as(DataType::Double, &[4], &VECTOR)))),
        ("nothing", layer("Gemm", &[6, 4], Some(floats(&[0], 2)))),
    ];
    for (what, mut model) in table {
        let before = model.to_proto();
        let site = first_site(&model);
        assert!(!has_bias(model.graph(), &site), "{what}");
        assert!(!add_to_bias(model.graph_mut(), &site, &VECTOR), "{what}");
        assert_eq!(model.to_proto(), before, "{what}");
    }
}

#[test]
fn vector_of_another_length_is_not_added() {
    let mut model = layer("Gemm", &[6, 4], None);
    let site = first_site(&model);
    assert!(!add_to_bias(model.graph_mut(), &site, &[1.0; 3]));
}

#[test]
fn other_readers_of_the_bias_see_no_change() {
    let nodes = vec![node("Gemm", &["x", "w", "b"], &["y"], vec![]), node("Identity", &["b"], &["z"], vec![])];
    let mut model = model("x", vec![("w", floats(&[6, 4], 1)), ("b", floats(&[4], 2))], nodes, "y z");
    let site = first_site(&model);
    assert!(add_to_bias(model.graph_mut(), &site, &VECTOR));
    assert_valid(&model);
    assert_eq!(array(constant_named(model.graph(), "b")), array(&floats(&[4], 2)));
    assert!(model.graph().find("b_corrected").is_some());
}

#[test]
fn f16_bias_stays_f16() {
    let half =
        |dims: &[usize], seed| tensor::from_f32_as(DataType::Float16, dims, &numbers(dims.iter().product(), seed));
    let nodes = vec![node("Gemm", &["x", "w", "b"], &["y"], vec![])];
    let mut model = model("x", vec![("w", half(&[6, 4], 1)), ("b", half(&[4], 2))], nodes, "y");
    let site = first_site(&model);
    assert!(add_to_bias(model.graph_mut(), &site, &VECTOR));
    assert_eq!(constant_named(model.graph(), "b_corrected").data_type(), DataType::Float16 as i32);
}

#[test]
fn bias_of_a_gemm_that_had_none_is_not_scaled_by_its_beta() {
    let gemm = node("Gemm", &["x", "w"], &["y"], vec![float_attribute("beta", 0.5)]);
    let mut model = model("x", vec![("w", floats(&[6, 4], 1))], vec![gemm], "y");
    let site = first_site(&model);
    assert!(add_to_bias(model.graph_mut(), &site, &VECTOR));
    let y = run(&model, &ArrayD::zeros(vec![1, 6])).remove(0);
    assert_eq!(y.iter().copied().collect::<Vec<_>>(), VECTOR);
}
