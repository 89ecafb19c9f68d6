use ndarray::ArrayD;
use onnxquant_ir::onnx::AttributeProto;
use onnxquant_ir::{Model, verify};

use super::*;
use crate::decode::decode_weights::decode_weights;
use crate::runtime::ort_version::OrtVersion;
use crate::testing::{
    constant_named, find_node, floats, input_names, model, node, numbers, only_site, op_types, run, solution,
    with_weights,
};
use crate::write::runs_as::{Kernel, runs_as};
use crate::write::share_constants::stored_bytes;
use crate::write::weight_form::{WeightForm, write_weight};

const K: usize = 40;
const M: usize = 6;

fn gemm(attributes: Vec<AttributeProto>, weight: &[usize], bias: &[usize]) -> Model {
    let constants = vec![("w", floats(weight, 1)), ("b", floats(bias, 2))];
    model("x", constants, vec![node("Gemm", &["x", "w", "b"], &["y"], attributes)], "y")
}

fn matmul() -> Model {
    model("x", vec![("w", floats(&[K, M], 1))], vec![node("MatMul", &["x", "w"], &["y"], vec![])], "y")
}

fn matmul_and_add(bias: &[usize]) -> Model {
    let nodes = vec![node("MatMul", &["x", "w"], &["p"], vec![]), node("Add", &["b", "p"], &["y"], vec![])];
    model("x", vec![("w", floats(&[K, M], 1)), ("b", floats(bias, 2))], nodes, "y")
}

fn input() -> ArrayD<f32> {
    ArrayD::from_shape_vec(vec![3, K], numbers(3 * K, 9)).unwrap()
}

/// Codes of `bits` bits in the type that holds them.
fn range(bits: u32, signed: bool) -> (DataType, i16, i16) {
    let dtype = match (bits, signed) {
        (1..=2, true) => DataType::Int2,
        (3..=4, true) => DataType::Int4,
        (_, true) => DataType::Int8,
        (1..=2, false) => DataType::Uint2,
        (3..=4, false) => DataType::Uint4,
        (_, false) => DataType::Uint8,
    };
    match signed {
        true => (dtype, -(1 << (bits - 1)), (1 << (bits - 1)) - 1),
        false => (dtype, 0, ((1u16 << bits) - 1) as i16),
    }
}

/// Writes codes that look random, decodes the file and compares with the weights of the codes.
fn check(make: impl Fn() -> Model, granularity: Granularity, (bits, signed): (u32, bool), form: WeightForm) {
    let what = format!("{granularity:?} {bits} bits, signed {signed}, {form:?}");
    let (dtype, low, high) = range(bits, signed);
    let mut written = make();
    let site = only_site(&written);
    let mut solution = solution(&site, granularity, low, high);
    if bits == 1 && signed {
        solution.codes.mapv_inplace(|code| if code < 0 { -1 } else { 1 });
    }
    let weight = PackedWeight::new(&site, dtype, granularity, &solution, vec![]).unwrap();
    let inputs_before = written.graph().initializers().len();
    let stored = write_weight(written.graph_mut(), &site, &weight, form).unwrap();
    written.set_opset(MICROSOFT, 1);
    assert_eq!(verify(&written), [], "{what}");
    assert!(
        written.graph().initializers().len() > inputs_before && stored_bytes(written.graph(), &stored) > 0,
        "{what}"
    );
    let expected = run(&with_weights(make(), &solution), &input());
    assert_eq!(decode_weights(&mut written).unwrap(), 1, "{what}");
    assert_eq!(verify(&written), [], "{what}");
    assert_eq!(run(&written, &input()), expected, "{what}");
    let left = written.graph().initializers().iter().map(|&id| written.graph().value(id).name()).collect::<Vec<_>>();
    assert!(left.iter().all(|name| !name.starts_with("w_") || *name == "w_dequantized"), "{what}: {left:?}");
}

#[test]
fn decoded_file_has_the_weights_of_the_solution() {
    let granularities = [Granularity::Tensor, Granularity::Channel, Granularity::Block(16), Granularity::Block(32)];
    for granularity in granularities {
        for (bits, signed) in (1..=8).flat_map(|bits| [(bits, true), (bits, false)]) {
            let block = block_of(granularity, K, bits).unwrap();
            let kernel = if bits <= 4 { 4 } else { 8 };
            let native = WeightForm::NBits { bits: kernel, block, codes: Codes::Native(DataType::Uint8) };
            check(matmul, granularity, (bits, signed), native);
            let planes = WeightForm::NBits { bits: kernel, block, codes: Codes::Planes { bits } };
            if bits < kernel {
                check(matmul, granularity, (bits, signed), planes);
            }
            if !matches!(granularity, Granularity::Block(_)) {
                check(matmul, granularity, (bits, signed), WeightForm::Folded(Codes::Native(range(bits, signed).0)));
                if bits < 8 {
                    check(matmul, granularity, (bits, signed), WeightForm::Folded(Codes::Planes { bits }));
                }
            }
        }
    }
}

#[test]
fn blocks_of_twice_the_kernels_size_are_split() {
    for (wanted, k, block) in [
        (Granularity::Block(48), 96, Some(16)),
        (Granularity::Block(64), 96, Some(64)),
        (Granularity::Block(512), 2048, Some(256)),
        (Granularity::Block(8), 64, None),
        (Granularity::Block(40), 80, None),
        (Granularity::Channel, 4096, Some(128)),
        (Granularity::Channel, 144, Some(32)),
        (Granularity::Channel, 100, Some(16)),
        (Granularity::Tensor, 1000, Some(128)),
        (Granularity::Channel, 1, Some(16)),
    ] {
        assert_eq!(block_of(wanted, k, 4), block, "{wanted:?} of {k}");
    }
    assert_eq!(block_of(Granularity::Channel, 4096, 8), Some(64));
    let form = WeightForm::NBits { bits: 4, block: 16, codes: Codes::Native(DataType::Uint8) };
    check(matmul, Granularity::Block(48), (4, true), form);
}

#[test]
fn every_layer_keeps_its_meaning() {
    let trans_b = || gemm(vec![int_attribute("transB", 1)], &[M, K], &[M]);
    let makers: [&dyn Fn() -> Model; 7] = [
        &|| gemm(vec![], &[K, M], &[M]),
        &trans_b,
        &|| gemm(vec![], &[K, M], &[1]),
        &|| gemm(vec![], &[K, M], &[3, 1]),
        &|| matmul_and_add(&[M]),
        &|| matmul_and_add(&[1, M]),
        &|| matmul_and_add(&[3, M]),
    ];
    for make in makers {
        let form = WeightForm::NBits { bits: 4, block: 16, codes: Codes::Planes { bits: 3 } };
        check(make, Granularity::Channel, (3, true), form);
    }
}

#[test]
fn operator_has_the_layout_that_the_runtime_reads() {
    let mut written = gemm(vec![int_attribute("transB", 1)], &[M, K], &[M]);
    let site = only_site(&written);
    let solution = solution(&site, Granularity::Block(16), 0, 15);
    let weight = PackedWeight::new(&site, DataType::Uint4, Granularity::Block(16), &solution, vec![]).unwrap();
    let form = WeightForm::NBits { bits: 4, block: 16, codes: Codes::Native(DataType::Uint8) };
    let stored = write_weight(written.graph_mut(), &site, &weight, form).unwrap();
    let graph = written.graph();
    assert_eq!(op_types(&written), ["MatMulNBits"]);
    let found = graph.node(graph.order()[0]);
    assert!(find_node(graph, "MatMulNBits").is_none() && found.domain() == MICROSOFT);
    assert_eq!(input_names(graph, found)[..4], ["x", "w_quantized", "w_scale", "w_zero_point"]);
    assert_eq!(found.input(5).map(|bias| graph.value(bias).name()), Some("b"));
    assert!(found.input(4).is_none());
    let attributes = found.attributes().iter().map(|a| (a.name(), a.i())).collect::<Vec<_>>();
    let expected = [("K", 40), ("N", 6), ("bits", 4), ("block_size", 16), ("accuracy_level", 4)];
    assert_eq!(attributes, expected);
    assert_eq!(constant_named(graph, "w_quantized").dims, [6, 3, 8]);
    assert_eq!(constant_named(graph, "w_scale").dims, [6, 3]);
    assert_eq!(constant_named(graph, "w_zero_point").dims, [6, 2]);
    assert_eq!(stored_bytes(graph, &stored), 6 * 3 * 8 + 6 * 3 * 4 + 6 * 2);
    let first = tensor::to_raw(constant_named(graph, "w_quantized")).unwrap()[0];
    assert_eq!(i16::from(first), solution.codes[[0, 0, 0]] | solution.codes[[0, 1, 0]] << 4, "low nibble first");
}

/// The scales are `scale` times those of other tests.
fn with_scales_of(scale: f32) -> (Model, Site, PackedWeight) {
    let model = matmul();
    let site = only_site(&model);
    let mut solution = solution(&site, Granularity::Channel, -8, 7);
    solution.scales.mapv_inplace(|old| old * scale);
    let weight = PackedWeight::new(&site, DataType::Int4, Granularity::Channel, &solution, vec![]).unwrap();
    (model, site, weight)
}

#[test]
fn weights_that_overflow_integer_sums_are_computed_in_floats() {
    let form = WeightForm::NBits { bits: 4, block: 16, codes: Codes::Native(DataType::Uint8) };
    for (scale, level) in [(1.0, 4), (1e14, 4), (1e17, 1), (1e36, 1)] {
        let (mut model, site, weight) = with_scales_of(scale);
        write_weight(model.graph_mut(), &site, &weight, form).unwrap();
        let graph = model.graph();
        let attributes = graph.node(graph.order()[0]).attributes();
        let found = attributes.iter().find(|attribute| attribute.name() == "accuracy_level").map(|found| found.i());
        assert_eq!((found, weight.may_round_inputs()), (Some(level), level == 4), "{scale}");
    }
}

#[test]
fn weights_that_overflow_integer_sums_are_not_fused() {
    for (scale, operators) in
        [(1.0, &["DequantizeLinear", "MatMul"][..]), (1e17, &["DequantizeLinear", "Max", "MatMul"])]
    {
        let (mut model, site, weight) = with_scales_of(scale);
        let expected = {
            let mut folded = model.clone();
            write_weight(folded.graph_mut(), &site, &weight, WeightForm::Folded(Codes::Native(DataType::Int8)))
                .unwrap();
            run(&folded, &input())
        };
        write_weight(model.graph_mut(), &site, &weight, WeightForm::Dequantize(DataType::Int8)).unwrap();
        assert_eq!((verify(&model), op_types(&model)), (vec![], operators.to_vec()));
        assert_eq!(run(&model, &input()), expected, "{scale}");
        let predicted = runs_as(model.graph(), site.node, OrtVersion::FUSES_ALL_DEQUANTIZE);
        let is_fused = scale == 1.0;
        assert_eq!((predicted.kernel == Kernel::MatMulNBits, predicted.slow_because.is_none()), (is_fused, is_fused));
    }
}
