use onnxquant_ir::Model;
use onnxquant_ir::onnx::{GraphProto, ModelProto, NodeProto, OperatorSetIdProto, ValueInfoProto};
use onnxquant_ir::tensor;

use super::*;
use crate::config::{ActivationBits, Activations, Budget, Target};
use crate::plan::layers::Plan;
use crate::plan::raise::raise_for_codes;

/// `y = Conv(x)` and `z = MatMul(x)`, weights large enough for planes.
fn model(dtype: DataType) -> Model {
    let node = |op_type: &str, weight: &str, output: &str| NodeProto {
        op_type: Some(op_type.to_owned()),
        input: vec!["x".to_owned(), weight.to_owned()],
        output: vec![output.to_owned()],
        ..NodeProto::default()
    };
    let value = |name: &str| ValueInfoProto { name: Some(name.to_owned()), ..ValueInfoProto::default() };
    let weight = |name: &str, dims: &[usize]| {
        let numbers = vec![0.5; dims.iter().product()];
        let tensor = tensor::from_f32_as(dtype, dims, &numbers);
        onnxquant_ir::onnx::TensorProto { name: Some(name.to_owned()), ..tensor }
    };
    let graph = GraphProto {
        node: vec![node("Conv", "c", "y"), node("MatMul", "w", "z")],
        initializer: vec![weight("c", &[64, 64, 3, 3]), weight("w", &[256, 64])],
        input: vec![value("x")],
        output: vec![value("y"), value("z")],
        ..GraphProto::default()
    };
    let opset = OperatorSetIdProto { version: Some(13), ..OperatorSetIdProto::default() };
    let proto =
        ModelProto { ir_version: Some(8), opset_import: vec![opset], graph: Some(graph), ..ModelProto::default() };
    Model::from_proto(proto).expect("the model of a test is valid")
}

fn config(bits: u32, granularity: Granularity, ort_min: &str, format: Format, opset_max: i64) -> Config {
    let ort_min = ort_min.parse().expect("a version");
    Config { bits, granularity, ort_min, format, opset_max, ..Config::default() }
}

/// The forms of Conv and MatMul, and the opset.
fn forms(dtype: DataType, config: &Config) -> Result<(WeightForm, WeightForm, i64), Error> {
    let plan = Plan::new(&model(dtype), config)?;
    Ok((plan.layers[0].form, plan.layers[1].form, plan.opset))
}

#[test]
fn form_depends_on_bits_runtime_and_opset() {
    use Codes::{Native, Planes};
    use Granularity::{Block, Channel};
    use WeightForm::{Dequantize, Folded, NBits};
    let bytes = Native(DataType::Uint8);
    let int8 = Folded(Native(DataType::Int8));
    let planes = |bits| Folded(Planes { bits });
    let nbits = |bits, block, codes| NBits { bits, block, codes };
    let table = [
        (config(8, Channel, "1.22", Format::Auto, 25), int8, nbits(8, 64, bytes), 13),
        (config(8, Channel, "1.21", Format::Auto, 25), int8, int8, 13),
        (config(8, Channel, "1.26", Format::Dq, 25), int8, Dequantize(DataType::Int8), 13),
        (config(4, Channel, "1.19", Format::Auto, 25), planes(4), nbits(4, 128, bytes), 18),
        (config(4, Block(32), "1.19", Format::MatMulNBits, 17), int8, nbits(4, 32, bytes), 13),
        (config(4, Block(32), "1.19", Format::Dq, 25), planes(4), Dequantize(DataType::Int4), 21),
        (config(4, Block(8), "1.19", Format::Auto, 25), planes(4), Dequantize(DataType::Int4), 21),
        (config(3, Block(32), "1.19", Format::Auto, 25), planes(3), nbits(4, 32, Planes { bits: 3 }), 18),
        (config(2, Channel, "1.19", Format::Auto, 25), planes(2), nbits(4, 128, Planes { bits: 2 }), 18),
        (config(2, Channel, "1.19", Format::Auto, 17), int8, nbits(4, 128, bytes), 13),
        (config(2, Channel, "1.24", Format::Dq, 25), planes(2), Dequantize(DataType::Int2), 25),
        (config(2, Channel, "1.23", Format::Dq, 25), planes(2), Dequantize(DataType::Int4), 21),
        (config(1, Channel, "1.19", Format::Auto, 25), planes(1), nbits(4, 128, Planes { bits: 1 }), 18),
    ];
    for (config, conv, matmul, opset) in table {
        let found = forms(DataType::Float, &config).expect("every row can be written");
        assert_eq!(found, (conv, matmul, opset), "{config:?}");
    }
}

#[test]
fn strict_targets_have_bytes_behind_a_dequantize_in_every_layer() {
    let strict = WeightForm::Dequantize(DataType::Int8);
    for target in [Target::QdqStrict, Target::Tensorrt, Target::Openvino, Target::Qnn] {
        for bits in [8, 4, 1] {
            let config = config(bits, Granularity::Channel, "1.22", Format::Auto, 25);
            let config = Config { target, activations: Activations::Static, ..config };
            let plan = Plan::new(&model(DataType::Float), &config).expect("every layer can be written");
            let forms = plan.layers.iter().map(|layer| (layer.form, layer.integer_codes, layer.granularity));
            let dense = if target == Target::Qnn { Granularity::Tensor } else { Granularity::Channel };
            let bytes = Codes::Native(DataType::Int8);
            let expected = [(strict, bytes, Granularity::Channel), (strict, bytes, dense)];
            assert_eq!(forms.collect::<Vec<_>>(), expected, "{target} {bits}");
            assert_eq!(plan.opset, 13, "{target} {bits}");
        }
        let config = Config { target, activations: Activations::Static, ..Config::default() };
        let half = Plan::new(&model(DataType::Float16), &config).expect("every layer can be written");
        assert_eq!(half.opset, 19, "{target}: scales of f16");
    }
}

#[test]
fn slow_layer_is_folded_where_it_has_eight_bits_and_nobody_names_the_form() {
    use Granularity::{Block, Channel};
    let folded = WeightForm::Folded(Codes::Native(DataType::Int8));
    let table = [
        (DataType::Float, config(8, Channel, "1.22", Format::Auto, 25), true),
        (DataType::Float, config(6, Channel, "1.22", Format::Auto, 25), true),
        (DataType::Float, config(4, Channel, "1.22", Format::Auto, 25), false),
        (DataType::Float, config(8, Block(32), "1.22", Format::Auto, 25), false),
        (DataType::Float, config(8, Channel, "1.22", Format::MatMulNBits, 25), false),
        (DataType::Float16, config(8, Channel, "1.26", Format::Auto, 25), false),
    ];
    for (dtype, config, folds) in table {
        let layer = &Plan::new(&model(dtype), &config).expect("every row can be written").layers[1];
        let slow = layer.slow(&config).expect("every row can be written");
        assert!(matches!(layer.form, WeightForm::NBits { .. }), "{config:?}");
        assert_eq!(slow.form, if folds { folded } else { layer.form }, "{config:?}");
        let again = slow.with_bits(&config, 4).and_then(|narrow| narrow.with_bits(&config, layer.bits));
        assert_eq!(again.expect("every row can be written").form, slow.form, "{config:?}");
    }
}

#[test]
fn opset_is_the_least_for_all_bits_that_layers_may_get() {
    let config = |opset_max| config(8, Granularity::Channel, "1.22", Format::Auto, opset_max);
    let within = |budget, opset_max| Config { budget: Some(budget), ..config(opset_max) };
    let strict = Config { activations: Activations::Static, target: Target::QdqStrict, ..config(25) };
    let table = [
        (config(25), 13),
        (within(Budget::AverageBits(8.0), 25), 18),
        (within(Budget::TargetBytes(1), 25), 18),
        (within(Budget::MinSqnrDb(1.0), 17), 13),
        (Config { format: Format::Dq, ..within(Budget::AverageBits(4.0), 24) }, 21),
        (strict.clone(), 13),
        (Config { activation_bits: ActivationBits::Mixed, ..strict }, 21),
    ];
    for (config, opset) in table {
        let model = raise_for_codes(model(DataType::Float), &config).expect("the model can be raised").model;
        assert_eq!(model.opset(""), Some(opset), "{config:?}");
        let mut plan = Plan::new(&model, &config).expect("the model can be quantized");
        for bits in [2, 3, 4, 8].into_iter().filter(|_| config.budget.is_some()) {
            plan.set_bits(&config, &[bits, bits]).expect("these bits may be chosen");
            let needed = plan.layers.iter().map(|layer| layer.form.needed_opset(&layer.site, layer.granularity)).max();
            assert!(needed <= Some(opset), "{bits} bits need opset {needed:?} under {config:?}");
        }
    }
}

#[test]
fn floats_of_8_bits_have_one_form_in_every_layer_and_runtime() {
    let folded = WeightForm::Folded(Codes::Native(DataType::Float8e4m3fn));
    for dtype in [DataType::Float, DataType::Float16, DataType::Bfloat16] {
        for (granularity, oldest) in [(Granularity::Channel, "1.19"), (Granularity::Tensor, "1.32")] {
            let floats = |opset_max| {
                let config = config(8, granularity, oldest, Format::Auto, opset_max);
                forms(dtype, &Config { alphabet: Alphabet::E4m3, ..config })
            };
            assert_eq!(floats(19).expect("it can be written"), (folded, folded, 19), "{dtype:?} {granularity:?}");
            let error = floats(18).expect_err("opset 18 has no such type").to_string();
            assert!(error.contains("opset 19") && !error.contains("granularity"), "{error}");
        }
    }
}

#[test]
fn what_means_nothing_for_floats_of_8_bits_is_refused() {
    let floats = || Config { alphabet: Alphabet::E4m3, ..Config::default() };
    assert!(floats().check().is_ok());
    let table = [
        (Config { bits: 4, ..floats() }, "--bits"),
        (Config { symmetry: Symmetry::Asymmetric, ..floats() }, "--asymmetric"),
        (Config { budget: Some(Budget::AverageBits(4.0)), ..floats() }, "--average-bits"),
        (Config { format: Format::Dq, ..floats() }, "--format"),
        (Config { activations: Activations::Static, ..floats() }, "float activations"),
        (Config { granularity: Granularity::Block(32), ..floats() }, "a block"),
    ];
    for (config, text) in table {
        let error = config.check().expect_err(text).to_string();
        assert!(error.contains("FP8") && error.contains(text), "{error}");
    }
}

#[test]
fn what_the_operator_cannot_have_is_refused_where_it_was_asked_for() {
    let asked = |bits, granularity, ort_min| config(bits, granularity, ort_min, Format::MatMulNBits, 25);
    let table = [
        (DataType::Float, asked(8, Granularity::Channel, "1.21"), "--ort-min 1.22"),
        (DataType::Float16, asked(4, Granularity::Channel, "1.19"), "f16 1.20"),
        (DataType::Bfloat16, asked(4, Granularity::Channel, "1.22"), "bf16"),
        (DataType::Float, asked(4, Granularity::Block(24), "1.22"), "power of two"),
    ];
    for (dtype, config, text) in table {
        let error = forms(dtype, &config).expect_err(text).to_string();
        assert!(error.contains(text) && error.contains("`z`"), "{error}");
    }
}
