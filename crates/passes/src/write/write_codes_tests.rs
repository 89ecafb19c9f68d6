use ndarray::{Array3, ArrayD};
use onnxquant_ir::onnx::tensor_proto::DataType;
use onnxquant_ir::onnx::{AttributeProto, NodeProto, TensorProto};
use onnxquant_ir::{Model, float_attribute, int_attribute, ints_attribute};
use onnxquant_quant::{Alphabet, Granularity, LayerSolution};

use super::*;
use crate::decode::decode_weights::decode_weights;
use crate::find::sites::SkipReason;
use crate::testing::{
    assert_valid, body, constant_named, find_node, floats, graph_attribute, input_names, model, node, numbers,
    only_site, op_types, run, sites, solution, with_weights,
};
use crate::write::codes::Codes;
use crate::write::share_constants::stored_bytes;
use crate::write::write_dequantize::needed_opset;

const SIGNED: [(DataType, i16, i16); 3] =
    [(DataType::Int8, -128, 127), (DataType::Int4, -8, 7), (DataType::Int2, -2, 1)];
const UNSIGNED: [(DataType, i16, i16); 3] =
    [(DataType::Uint8, 0, 255), (DataType::Uint4, 0, 15), (DataType::Uint2, 0, 3)];

fn matmul(dtype: DataType) -> Model {
    let w = tensor::from_f32_as(dtype, &[6, 4], &numbers(24, 1));
    model("x", vec![("w", w)], vec![node("MatMul", &["x", "w"], &["y"], vec![])], "y")
}

fn gemm(attributes: Vec<AttributeProto>, dims: &[usize]) -> Model {
    let constants = vec![("w", floats(dims, 1)), ("b", floats(&[4], 2))];
    model("x", constants, vec![node("Gemm", &["x", "w", "b"], &["y"], attributes)], "y")
}

fn conv() -> Model {
    let attributes =
        vec![int_attribute("group", 2), ints_attribute("pads", &[1, 0, 0, 1]), ints_attribute("strides", &[2, 1])];
    let constants = vec![("w", floats(&[4, 3, 2, 2], 1)), ("b", floats(&[4], 2))];
    model("x", constants, vec![node("Conv", &["x", "w", "b"], &["y"], attributes)], "y")
}

fn packed(site: &Site, storage: DataType, granularity: Granularity, solution: &LayerSolution) -> PackedWeight {
    PackedWeight::new(site, storage, granularity, solution, vec![]).unwrap()
}

fn write(model: &mut Model, storage: DataType, granularity: Granularity, low: i16, high: i16) -> LayerSolution {
    let site = only_site(model);
    let solution = solution(&site, granularity, low, high);
    model.set_opset("", 25);
    write_codes(model.graph_mut(), &site, &packed(&site, storage, granularity, &solution)).unwrap();
    solution
}

fn input(shape: &[usize]) -> ArrayD<f32> {
    ArrayD::from_shape_vec(shape, numbers(shape.iter().product(), 9)).unwrap()
}

#[test]
fn mirrored_grids_are_negative_scales_in_the_file() {
    for (storage, low, high) in SIGNED {
        for granularity in [Granularity::Tensor, Granularity::Channel, Granularity::Block(4)] {
            let mut written = matmul(DataType::Float);
            let site = only_site(&written);
            let mut mirrored = solution(&site, granularity, low, high);
            for (index, zero_point) in mirrored.zero_points.iter_mut().enumerate() {
                *zero_point = if granularity == Granularity::Tensor { -1 } else { -(index as i16 % 2) };
            }
            written.set_opset("", 25);
            write_codes(written.graph_mut(), &site, &packed(&site, storage, granularity, &mirrored)).unwrap();
            let (rows, what) = (input(&[3, 6]), format!("{storage:?} {granularity:?}"));
            assert_eq!(run(&written, &rows), run(&with_weights(matmul(DataType::Float), &mirrored), &rows), "{what}");
            // Zero points are absent, or, of int8 with several scales, explicitly 0.
            let explicit = storage == DataType::Int8 && granularity != Granularity::Tensor;
            let zero_points =
                written.graph().find("w_zero_point").map(|_| constant_named(written.graph(), "w_zero_point"));
            assert_eq!(zero_points.is_some(), explicit, "{what}");
            assert!(zero_points.is_none_or(|codes| codes.raw_data().iter().all(|byte| *byte == 0)), "{what}");
            let scales = tensor::to_f32(constant_named(written.graph(), "w_scale")).unwrap();
            assert!(scales.iter().any(|scale| *scale < 0.0), "{what}");
        }
    }
}

#[test]
fn codes_in_the_model_compute_with_the_weights_of_the_solution() {
    let trans_b = || gemm(vec![int_attribute("transB", 1)], &[4, 6]);
    let rows = input(&[3, 6]);
    let image = input(&[2, 6, 5, 4]);
    type Maker<'a> = (&'a str, &'a dyn Fn() -> Model, &'a ArrayD<f32>);
    let makers: [Maker<'_>; 5] = [
        ("MatMul", &|| matmul(DataType::Float), &rows),
        ("f16 MatMul", &|| matmul(DataType::Float16), &rows),
        ("Gemm", &|| gemm(vec![], &[6, 4]), &rows),
        ("Gemm transB", &trans_b, &rows),
        ("Conv", &conv, &image),
    ];
    for (name, make, x) in makers {
        let is_conv = name == "Conv";
        for granularity in [Granularity::Tensor, Granularity::Channel, Granularity::Block(4), Granularity::Block(2)] {
            if is_conv && matches!(granularity, Granularity::Block(_)) {
                continue;
            }
            for (storage, low, high) in SIGNED.into_iter().chain(UNSIGNED) {
                let what = format!("{name} {granularity:?} {storage:?}");
                let mut written = make();
                let solution = write(&mut written, storage, granularity, low, high);
                assert_valid(&written);
                let expected = run(&with_weights(make(), &solution), x);
                assert_eq!(run(&written, x), expected, "{what}");
                assert_eq!(decode_weights(&mut written).unwrap(), 1, "{what}");
                assert_valid(&written);
                assert_eq!(run(&written, x), expected, "decoded {what}");
                assert_eq!(op_types(&written), op_types(&make()), "{what}");
                assert!(written.graph().find("w_quantized").is_none(), "{what}");
            }
        }
    }
}

#[test]
fn fp8_codes_are_decoded_in_f32_and_compute_with_the_weights_of_the_solution() {
    let fp8 = DataType::Float8e4m3fn;
    let trans_b = || gemm(vec![int_attribute("transB", 1)], &[4, 6]);
    let (rows, image) = (input(&[3, 6]), input(&[2, 6, 5, 4]));
    type Maker<'a> = (&'a dyn Fn() -> Model, &'a ArrayD<f32>, &'a [&'a str]);
    let makers: [Maker<'_>; 4] = [
        (&|| matmul(DataType::Float), &rows, &["Cast", "Mul", "MatMul"]),
        (&|| matmul(DataType::Float16), &rows, &["Cast", "Mul", "Cast", "MatMul"]),
        (&trans_b, &rows, &["Cast", "Mul", "Gemm"]),
        (&conv, &image, &["Cast", "Mul", "Conv"]),
    ];
    for (make, x, operators) in makers {
        for granularity in [Granularity::Tensor, Granularity::Channel] {
            let (mut written, form) = (make(), WeightForm::Folded(Codes::Native(fp8)));
            let site = only_site(&written);
            let solution = LayerSolution { alphabet: Alphabet::E4m3, ..solution(&site, granularity, -126, 126) };
            let weight = packed(&site, fp8, granularity, &solution);
            assert!(!weight.is_plain(), "integer kernels know nothing of floats");
            assert_eq!(form.needed_opset(&site, granularity), 19);
            write_weight(written.graph_mut(), &site, &weight, form).unwrap();
            assert_valid(&written);
            assert_eq!(op_types(&written), operators);
            assert_eq!(constant_named(written.graph(), "w_scale").data_type(), DataType::Float as i32);
            assert_eq!(sites(&written)[0].as_ref().err(), Some(&SkipReason::AlreadyQuantized));
            let plain = with_weights(make(), &solution);
            let expected = run(&plain, x);
            assert_eq!(run(&written, x), expected, "{operators:?}");
            assert_eq!(decode_weights(&mut written).unwrap(), 1);
            assert_valid(&written);
            assert_eq!(op_types(&written), op_types(&make()));
            assert_eq!(run(&written, x), expected, "decoded {operators:?}");
            let decoded = tensor::to_f32(&weight.decode(&site).unwrap()).unwrap().into_owned();
            assert_eq!(decoded, *tensor::to_f32(&site.weight_tensor(plain.graph()).unwrap()).unwrap());
        }
    }
}

#[test]
fn codes_are_stored_in_a_type_of_what_they_stand_for() {
    let site = only_site(&matmul(DataType::Float));
    let integers = solution(&site, Granularity::Channel, -126, 126);
    let floats = LayerSolution { alphabet: Alphabet::E4m3, ..integers.clone() };
    for (storage, solution) in [(DataType::Float8e4m3fn, integers), (DataType::Int8, floats)] {
        let error = PackedWeight::new(&site, storage, Granularity::Channel, &solution, vec![]).unwrap_err().to_string();
        assert!(error.contains(storage.as_str_name()), "{error}");
    }
}

#[test]
fn tensors_are_named_after_the_weight_and_shaped_by_the_granularity() {
    type Row<'a> = (Granularity, &'a [i64], &'a [(&'a str, i64)]);
    let table: [Row<'_>; 3] = [
        (Granularity::Tensor, &[], &[]),
        (Granularity::Channel, &[4], &[("axis", 1)]),
        (Granularity::Block(2), &[3, 4], &[("axis", 0), ("block_size", 2)]),
    ];
    for (granularity, dims, attributes) in table {
        let mut model = gemm(vec![int_attribute("transB", 1)], &[4, 6]);
        write(&mut model, DataType::Uint4, granularity, 0, 15);
        let graph = model.graph();
        let decode = graph.node(find_node(graph, "DequantizeLinear").unwrap());
        assert_eq!(input_names(graph, decode), ["w_quantized", "w_scale", "w_zero_point"]);
        assert_eq!(constant_named(graph, "w_quantized").dims, [6, 4], "stored [K, M]");
        assert_eq!(constant_named(graph, "w_scale").dims, dims, "{granularity:?}");
        assert_eq!(constant_named(graph, "w_zero_point").dims, dims, "{granularity:?}");
        assert_eq!(constant_named(graph, "w_zero_point").data_type(), DataType::Uint4 as i32);
        let found = decode.attributes().iter().map(|a| (a.name(), a.i())).collect::<Vec<_>>();
        assert_eq!(found, attributes);
        let gemm = graph.node(find_node(graph, "Gemm").unwrap());
        assert!(gemm.attribute("transB").is_none());
        assert!(graph.find("w").is_none(), "the float weight goes");
    }
}

#[test]
fn conv_gets_float_zero_points_and_scales_that_broadcast() {
    for (granularity, dims) in [(Granularity::Tensor, vec![]), (Granularity::Channel, vec![4, 1, 1, 1])] {
        let mut model = conv();
        write(&mut model, DataType::Uint8, granularity, 0, 255);
        let graph = model.graph();
        assert_eq!(op_types(&model), ["Cast", "Sub", "Mul", "Conv"]);
        assert_eq!(constant_named(graph, "w_scale").dims, dims);
        assert_eq!(constant_named(graph, "w_zero_point").dims, dims);
        assert_eq!(constant_named(graph, "w_zero_point").data_type(), DataType::Float as i32);
        assert_eq!(constant_named(graph, "w_quantized").dims, [4, 3, 2, 2]);
    }
    let mut symmetric = conv();
    write(&mut symmetric, DataType::Int8, Granularity::Channel, -128, 127);
    assert_eq!(op_types(&symmetric), ["Cast", "Mul", "Conv"]);
}

#[test]
fn conv_with_blocks_is_refused() {
    let site = only_site(&conv());
    let solution = solution(&site, Granularity::Block(4), -8, 7);
    let error = PackedWeight::new(&site, DataType::Int4, Granularity::Block(4), &solution, vec![]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "granularity of a convolution is blocks of 4, expected scales per tensor or per channel"
    );
}

#[test]
fn f16_weight_gets_f16_scales() {
    let mut model = matmul(DataType::Float16);
    write(&mut model, DataType::Int8, Granularity::Channel, -128, 127);
    let scale = constant_named(model.graph(), "w_scale");
    assert_eq!(scale.data_type(), DataType::Float16 as i32);
    assert_eq!(*tensor::to_f32(scale).unwrap(), [1.0, 2.0, 3.0, 4.0].map(|x| x / 64.0));
}

#[test]
fn bytes_are_those_of_packed_codes_scales_and_zero_points() {
    let of = |storage, granularity, low, high| {
        let mut model = matmul(DataType::Float);
        let site = only_site(&model);
        let weight = packed(&site, storage, granularity, &solution(&site, granularity, low, high));
        let stored = write_weight(model.graph_mut(), &site, &weight, WeightForm::Dequantize(storage)).unwrap();
        stored_bytes(model.graph(), &stored)
    };
    assert_eq!(of(DataType::Int8, Granularity::Tensor, -128, 127), 24 + 4);
    assert_eq!(of(DataType::Int4, Granularity::Channel, -8, 7), 12 + 16);
    assert_eq!(of(DataType::Uint4, Granularity::Block(4), 0, 15), 12 + 32 + 4);
    assert_eq!(of(DataType::Int2, Granularity::Channel, -2, 1), 6 + 16);
}

#[test]
fn taken_names_get_suffixes_those_inside_bodies_too() {
    let branch = |value: &str| {
        let nodes = vec![node("Identity", &["x"], &[value], vec![])];
        body(nodes, &[value])
    };
    let bodies =
        vec![graph_attribute("then_branch", branch("w_scale")), graph_attribute("else_branch", branch("w_zero_point"))];
    let nodes = vec![
        node("Identity", &["x"], &["w_quantized"], vec![]),
        node("If", &["c"], &["z"], bodies),
        node("MatMul", &["w_quantized", "w"], &["y"], vec![]),
    ];
    let c = tensor::from_raw(DataType::Bool, &[], vec![1u8]);
    let mut model = model("x", vec![("w", floats(&[6, 4], 1)), ("c", c)], nodes, "y z");
    write(&mut model, DataType::Uint8, Granularity::Tensor, 0, 255);
    assert_valid(&model);
    let graph = model.graph();
    let decode = graph.node(find_node(graph, "DequantizeLinear").unwrap());
    assert_eq!(input_names(graph, decode), ["w_quantized_1", "w_scale_1", "w_zero_point_1"]);
}

#[test]
fn shared_weight_gives_every_layer_its_own_codes_and_goes_with_the_last() {
    let nodes = vec![
        node("Identity", &["w"], &["v"], vec![]),
        node("MatMul", &["x", "w"], &["a"], vec![]),
        node("MatMul", &["a", "v"], &["y"], vec![]),
    ];
    let mut model = model("x", vec![("w", floats(&[4, 4], 1))], nodes, "y");
    model.set_opset("", 25);
    let sites = sites(&model).into_iter().map(Result::unwrap).collect::<Vec<_>>();
    let solution = solution(&sites[0], Granularity::Channel, -8, 7);
    for (site, left) in sites.iter().zip([true, false]) {
        write_codes(model.graph_mut(), site, &packed(site, DataType::Int4, Granularity::Channel, &solution)).unwrap();
        assert_eq!(model.graph().find("w").is_some(), left);
        assert_valid(&model);
    }
    let names = model.graph().initializers().iter().map(|&id| model.graph().value(id).name()).collect::<Vec<_>>();
    assert_eq!(names, ["w_quantized", "w_scale", "w_quantized_1", "w_scale_1"]);
    assert_eq!(op_types(&model), ["DequantizeLinear", "MatMul", "DequantizeLinear", "MatMul"]);
}

#[test]
fn weight_behind_a_chain_is_named_after_its_source_and_the_chain_goes() {
    let nodes = vec![node("Transpose", &["w"], &["t"], vec![]), node("MatMul", &["x", "t"], &["y"], vec![])];
    let make = || model("x", vec![("w", floats(&[4, 6], 1))], nodes.clone(), "y");
    let mut written = make();
    let solution = write(&mut written, DataType::Int8, Granularity::Channel, -128, 127);
    assert_valid(&written);
    assert_eq!(op_types(&written), ["DequantizeLinear", "MatMul"]);
    assert!(written.graph().find("w_quantized").is_some() && written.graph().find("w").is_none());
    let weights = solution.dequantize().remove_axis_of_groups();
    let plain = model("x", vec![("w", weights)], vec![node("MatMul", &["x", "w"], &["y"], vec![])], "y");
    assert_eq!(run(&written, &input(&[2, 6])), run(&plain, &input(&[2, 6])));
}

trait Flat {
    fn remove_axis_of_groups(self) -> TensorProto;
}

impl Flat for Array3<f32> {
    fn remove_axis_of_groups(self) -> TensorProto {
        let (_, k, m) = self.dim();
        tensor::from_f32(&[k, m], &self.iter().copied().collect::<Vec<_>>())
    }
}

#[test]
fn correction_goes_into_the_bias() {
    let correction = vec![0.5, -1.0, 0.0, 2.0];
    let corrected = |mut model: Model| {
        let site = only_site(&model);
        let solution = solution(&site, Granularity::Tensor, -128, 127);
        let weight =
            PackedWeight::new(&site, DataType::Int8, Granularity::Tensor, &solution, correction.clone()).unwrap();
        write_codes(model.graph_mut(), &site, &weight).unwrap();
        assert_valid(&model);
        model
    };
    let bias = |model: &Model, name: &str| tensor::to_f32(constant_named(model.graph(), name)).unwrap().into_owned();
    let plain = numbers(4, 2);
    let expected = plain.iter().zip(&correction).map(|(a, b)| a + b).collect::<Vec<_>>();
    assert_eq!(bias(&corrected(gemm(vec![], &[6, 4])), "b_corrected"), expected);
    assert_eq!(bias(&corrected(conv()), "b_corrected"), expected);
    let without = corrected(matmul(DataType::Float));
    assert_eq!(op_types(&without), ["DequantizeLinear", "MatMul"], "no place for it");
}

#[test]
fn needed_opset_is_the_highest_of_type_form_and_scale() {
    let [f32_site, f16_site] = [DataType::Float, DataType::Float16].map(|dtype| only_site(&matmul(dtype)));
    let conv_site = only_site(&conv());
    let table = [
        (&f32_site, DataType::Int8, Granularity::Tensor, 10),
        (&f32_site, DataType::Uint8, Granularity::Channel, 13),
        (&f32_site, DataType::Int8, Granularity::Block(2), 21),
        (&f32_site, DataType::Int4, Granularity::Tensor, 21),
        (&f32_site, DataType::Uint4, Granularity::Block(2), 21),
        (&f32_site, DataType::Uint2, Granularity::Channel, 25),
        (&f16_site, DataType::Int8, Granularity::Tensor, 19),
        (&f16_site, DataType::Int4, Granularity::Channel, 21),
        (&conv_site, DataType::Int8, Granularity::Tensor, 10),
        (&conv_site, DataType::Int8, Granularity::Channel, 13),
        (&conv_site, DataType::Uint4, Granularity::Tensor, 21),
        (&conv_site, DataType::Int2, Granularity::Channel, 25),
    ];
    for (site, storage, granularity, expected) in table {
        assert_eq!(needed_opset(site, storage, granularity), expected, "{:?} {storage:?} {granularity:?}", site.dtype);
    }
}

#[test]
fn needed_opset_is_enough_for_the_verifier() {
    for granularity in [Granularity::Tensor, Granularity::Channel, Granularity::Block(2)] {
        for (storage, low, high) in SIGNED.into_iter().chain(UNSIGNED) {
            let mut model = matmul(DataType::Float);
            let needed = needed_opset(&only_site(&model), storage, granularity);
            write(&mut model, storage, granularity, low, high);
            model.set_opset("", needed);
            assert_eq!(onnxquant_ir::verify(&model), [], "{granularity:?} {storage:?}");
            model.set_opset("", needed - 1);
            assert!(!onnxquant_ir::verify(&model).is_empty(), "{granularity:?} {storage:?}");
        }
    }
}

#[test]
fn convolution_behind_a_dequantize_has_scales_along_its_outputs() {
    for (granularity, dims) in [(Granularity::Tensor, vec![]), (Granularity::Channel, vec![4])] {
        let (mut standard, mut folded) = (conv(), conv());
        let site = only_site(&standard);
        let solution = write(&mut folded, DataType::Int8, granularity, -128, 127);
        let weight = packed(&site, DataType::Int8, granularity, &solution);
        standard.set_opset("", 13);
        write_weight(standard.graph_mut(), &site, &weight, WeightForm::Dequantize(DataType::Int8)).unwrap();
        assert_valid(&standard);
        assert_eq!(op_types(&standard), ["DequantizeLinear", "Conv"]);
        let graph = standard.graph();
        assert_eq!(tensor::shape(constant_named(graph, "w_scale")).unwrap(), dims);
        let decode = graph.node(find_node(graph, "DequantizeLinear").unwrap());
        assert_eq!(decode.attribute("axis").is_some(), granularity == Granularity::Channel);
        assert_eq!(decode.int("axis", 0), 0);
        decode_weights(&mut standard).unwrap();
        decode_weights(&mut folded).unwrap();
        let x = input(&[2, 6, 5, 4]);
        assert_eq!(run(&standard, &x), run(&folded, &x), "{granularity:?}");
    }
}

#[test]
fn rewriting_a_written_model_finds_nothing_to_quantize() {
    let nodes = |op: &str, x: &str, w: &str, y: &str| -> NodeProto { node(op, &[x, w], &[y], vec![]) };
    let mut model = model("x", vec![("w", floats(&[6, 4], 1))], vec![nodes("Gemm", "x", "w", "y")], "y");
    write(&mut model, DataType::Int8, Granularity::Channel, -128, 127);
    assert_eq!(sites(&model)[0].as_ref().unwrap_err(), &crate::find::sites::SkipReason::AlreadyQuantized);
    let mut conv = conv();
    write(&mut conv, DataType::Int8, Granularity::Channel, -128, 127);
    assert_eq!(sites(&conv)[0].as_ref().unwrap_err(), &crate::find::sites::SkipReason::AlreadyQuantized);
}

#[test]
fn gemm_without_bias_keeps_its_meaning_whatever_beta_is() {
    let make = || {
        let gemm = node("Gemm", &["x", "w"], &["y"], vec![float_attribute("beta", 0.5)]);
        model("x", vec![("w", floats(&[6, 4], 1))], vec![gemm], "y")
    };
    let mut written = make();
    let site = only_site(&written);
    let solution = solution(&site, Granularity::Tensor, -128, 127);
    let correction = vec![1.0, 2.0, 3.0, 4.0];
    let weight = PackedWeight::new(&site, DataType::Int8, Granularity::Tensor, &solution, correction).unwrap();
    write_codes(written.graph_mut(), &site, &weight).unwrap();
    let x = ArrayD::zeros(vec![1, 6]);
    assert_eq!(run(&written, &x)[0].iter().copied().collect::<Vec<_>>(), [1.0, 2.0, 3.0, 4.0]);
}
