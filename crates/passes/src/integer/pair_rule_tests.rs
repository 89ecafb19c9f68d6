//! Codes that keep the pair rule keep it in every form in which they are written for integer kernels.

use ndarray::{Array3, Axis};
use onnxquant_ir::onnx::AttributeProto;
use onnxquant_ir::onnx::tensor_proto::DataType;
use onnxquant_ir::{Model, Use, int_attribute, tensor};
use onnxquant_quant::{ActivationGrid, ActivationParams, Alphabet, Granularity, LayerSolution, PairRule};
use proptest::prelude::{ProptestConfig, any, prop_assert_eq, proptest};

use crate::find::sites::Site;
use crate::integer::align_channels::align_channels;
use crate::integer::fake_quantize::quantize_dequantize;
use crate::integer::saturate_pairs::saturate_pairs;
use crate::integer::write_dynamic::write_dynamic;
use crate::integer::write_static::write_static;
use crate::runtime::cpu::{Cpu, pair_rule};
use crate::testing::{assert_valid, find_node, floats, model, node, only_site};
use crate::write::weight_form::Codes;
use crate::write::write_codes::PackedWeight;

const INPUT_SCALE: f32 = 0.25;

/// A layer, and whether channels are added to it when it is written.
struct Form {
    op_type: &'static str,
    weight: Vec<usize>,
    attributes: fn() -> Vec<AttributeProto>,
    is_aligned: bool,
}

fn forms() -> Vec<Form> {
    let form = |op_type, weight: &[usize], attributes, is_aligned| Form {
        op_type,
        weight: weight.to_vec(),
        attributes,
        is_aligned,
    };
    let none = || vec![];
    vec![
        form("MatMul", &[8, 5], none, false),
        form("MatMul", &[7, 5], none, false),
        form("Gemm", &[7, 5], none, false),
        form("Gemm", &[5, 9], || vec![int_attribute("transB", 1)], false),
        form("Conv", &[6, 4, 1, 1], none, false),
        form("Conv", &[6, 5, 2, 3], none, false),
        form("Conv", &[6, 3, 4, 4], || vec![int_attribute("group", 2)], false),
        form("Conv", &[6, 1, 5, 5], || vec![int_attribute("group", 3)], false),
        form("Conv", &[4, 2, 6], none, false),
        form("Conv", &[4, 3, 7], none, false),
        form("Conv", &[4, 3, 2, 3, 2], none, false),
        form("Conv", &[16, 3, 3, 3], none, true),
    ]
}

impl Form {
    /// `x -> layer -> Identity -> y`, with a bias where the layer can have one.
    fn model(&self, bias: f32) -> Model {
        let outputs = match (self.op_type, self.weight.as_slice()) {
            ("Conv", [outputs, ..]) => *outputs,
            (_, [_, outputs]) if (self.attributes)().is_empty() => *outputs,
            (_, [outputs, ..]) => *outputs,
            _ => 0,
        };
        let inputs: &[&str] = if self.op_type == "MatMul" { &["x", "w"] } else { &["x", "w", "b"] };
        let constants = vec![("w", floats(&self.weight, 1)), ("b", tensor::from_f32(&[outputs], &vec![bias; outputs]))];
        let nodes =
            vec![node(self.op_type, inputs, &["p"], (self.attributes)()), node("Identity", &["p"], &["y"], vec![])];
        model("x", constants, nodes, "y")
    }
}

/// Codes up to `largest` that look random; where a rule is given they keep it.
fn solution(site: &Site, seed: u64, largest: i16, rule: Option<&PairRule>) -> LayerSolution {
    let (groups, inputs, outputs) = (site.view.groups(), site.view.inputs(), site.view.outputs());
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as i16 % (largest + 1)
    };
    let mut codes = Array3::from_shape_fn((groups, inputs, outputs), |_| next());
    for k in 0..inputs {
        let Some(partner) = rule.and_then(|rule| rule.partner(k)).filter(|&partner| partner < k) else { continue };
        let beside = codes.index_axis(Axis(1), partner).to_owned();
        codes.index_axis_mut(Axis(1), k).zip_mut_with(&beside, |code, &partner| {
            let (least, greatest) = PairRule::room(partner);
            *code = (*code).clamp(least, greatest);
        });
    }
    LayerSolution {
        codes,
        scales: Array3::from_elem((groups, 1, outputs), 0.125),
        zero_points: Array3::zeros((groups, 1, outputs)),
        block_size: inputs,
        alphabet: Alphabet::Integers,
        preprocessed: None,
        promise: None,
        notes: vec![],
    }
}

fn packed(site: &Site, solution: &LayerSolution) -> PackedWeight {
    PackedWeight::new(site, DataType::Int8, Granularity::Channel, solution, vec![]).unwrap()
}

/// The reader of the layer's result.
fn behind(model: &Model) -> (onnxquant_ir::ValueId, Vec<(onnxquant_ir::NodeId, usize)>) {
    let result = model.graph().find("p").unwrap();
    let readers = model.graph().value(result).uses().iter().filter_map(|user| match user {
        Use::Input(node, slot) => Some((*node, *slot)),
        _ => None,
    });
    (result, readers.collect())
}

/// Writes the layer for static codes; returns how many layers can saturate.
fn written_static(form: &Form, seed: u64, stored: Codes, largest: i16, bias: f32, keeps: bool) -> usize {
    let mut model = form.model(bias);
    let site = only_site(&model);
    let solution =
        solution(&site, seed, largest, keeps.then(|| pair_rule(&site.view, form.is_aligned)).flatten().as_ref());
    let params = ActivationParams::new(INPUT_SCALE, 100, ActivationGrid::Unsigned).unwrap();
    let (result, readers) = behind(&model);
    quantize_dequantize(model.graph_mut(), site.input, params, &[(site.node, 0)]);
    quantize_dequantize(model.graph_mut(), result, params, &readers);
    write_static(model.graph_mut(), &site, &packed(&site, &solution), stored, INPUT_SCALE).unwrap();
    // Where products saturate, codes that break the rule keep channels from being added.
    let cpu = if keeps { Cpu::Portable } else { Cpu::Vnni };
    let aligned = align_channels(model.graph_mut(), cpu).unwrap();
    let is_aligned = form.is_aligned && stored == INT8;
    assert_eq!(aligned, usize::from(is_aligned), "{} {:?}", form.op_type, form.weight);
    assert_valid(&model);
    saturating(&mut model)
}

/// The same for codes made at run time.
fn written_dynamic(form: &Form, seed: u64, stored: Codes, largest: i16, keeps: bool) -> usize {
    let mut model = form.model(0.5);
    let site = only_site(&model);
    let solution =
        solution(&site, seed, largest, keeps.then(|| pair_rule(&site.view, form.is_aligned)).flatten().as_ref());
    write_dynamic(model.graph_mut(), vec![(site.clone(), packed(&site, &solution), stored)]).unwrap();
    assert!(find_node(model.graph(), "MatMulInteger").is_some());
    assert_valid(&model);
    saturating(&mut model)
}

fn saturating(model: &mut Model) -> usize {
    saturate_pairs(model.graph_mut(), "test.Saturate", &|_, view| pair_rule(view, false)).unwrap()
}

const INT8: Codes = Codes::Native(DataType::Int8);

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn written_codes_keep_the_pair_rule(seed in any::<u64>()) {
        for form in forms() {
            let name = format!("{} {:?}", form.op_type, form.weight);
            // A large bias raises scales, and codes are rounded again.
            for bias in [0.5, 4e7] {
                prop_assert_eq!(written_static(&form, seed, INT8, 127, bias, true), 0, "{}, bias {}", name, bias);
            }
            prop_assert_eq!(written_static(&form, seed, Codes::Planes { bits: 7 }, 63, 0.5, true), 0, "{}", name);
            if form.op_type != "Conv" {
                prop_assert_eq!(written_dynamic(&form, seed, INT8, 127, true), 0, "{}", name);
                prop_assert_eq!(written_dynamic(&form, seed, Codes::Planes { bits: 7 }, 63, true), 0, "{}", name);
            }
        }
    }
}

/// What the property rests on: other codes are found.
#[test]
fn codes_that_break_the_pair_rule_are_found_in_every_form() {
    for form in forms() {
        let name = format!("{} {:?}", form.op_type, form.weight);
        assert_eq!(written_static(&form, 7, INT8, 127, 0.5, false), 1, "{name}");
        if form.op_type != "Conv" {
            assert_eq!(written_dynamic(&form, 7, INT8, 127, false), 1, "{name}");
        }
    }
}
