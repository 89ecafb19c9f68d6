use std::collections::HashSet;

use ndarray::ArrayD;
use onnxquant_ir::onnx::tensor_proto::DataType;
use onnxquant_ir::onnx::{NodeProto, TensorProto};
use onnxquant_ir::{Model, Use, int_attribute, ints_attribute};

use onnxquant_quant::ActivationGrid;

use super::*;
use crate::integer::kernels::{Kernel, find_units};
use crate::testing::{
    array, assert_valid, constant_named, find_node, floats, model, node, numbers, op_types, run, site_map,
};

fn plain(op_type: &str, inputs: &[&str], output: &str) -> NodeProto {
    node(op_type, inputs, &[output], vec![])
}

fn constants() -> Vec<(&'static str, TensorProto)> {
    let number = |x| tensor::from_f32(&[], &[x]);
    vec![
        ("k", floats(&[3, 3, 1, 1], 1)),
        ("bias", floats(&[3], 2)),
        ("row", floats(&[3, 1, 1], 5)),
        ("three", number(3.0)),
        ("zero", number(0.0)),
        ("six", number(6.0)),
        ("divisor", number(6.0)),
        ("half", number(0.5)),
    ]
}

fn of(nodes: Vec<NodeProto>, outputs: &str) -> Model {
    model("x", constants(), nodes, outputs)
}

/// A Conv with HardSwish, pooled; with readers in float and graph outputs on the way.
fn network() -> Model {
    let pool = vec![ints_attribute("kernel_shape", &[2, 2]), ints_attribute("strides", &[2, 2])];
    let nodes = vec![
        plain("Conv", &["x", "k", "bias"], "c"),
        plain("Add", &["c", "three"], "a"),
        plain("Clip", &["a", "zero", "six"], "t"),
        plain("Mul", &["c", "t"], "m"),
        plain("Div", &["m", "divisor"], "h"),
        node("MaxPool", &["h"], &["p"], pool),
        plain("Add", &["p", "row"], "s"),
        plain("Sigmoid", &["s"], "g"),
        plain("Sub", &["s", "three"], "d"),
        plain("Sub", &["x", "half"], "e"),
    ];
    of(nodes, "c p g d e")
}

fn split() -> Model {
    let nodes = vec![
        node("Split", &["x"], &["a", "b"], vec![int_attribute("axis", 2)]),
        plain("Sigmoid", &["a"], "s"),
        plain("Mul", &["half", "b"], "r"),
        plain("Mul", &["r", "half"], "q"),
        node("Concat", &["a", "r", "q", "s"], &["y"], vec![int_attribute("axis", 1)]),
    ];
    of(nodes, "a s y")
}

fn sample() -> ArrayD<f32> {
    array(&tensor::from_f32(&[2, 3, 4, 4], &numbers(96, 9))) * 0.15
}

/// Scales that reach over all values of these tests and make no ties of them.
fn params(regions: &Regions) -> Vec<ActivationParams> {
    let of_class = |class| {
        let scale = 0.0971 + 0.0031 * class as f32;
        ActivationParams::new(scale, 110, ActivationGrid::Unsigned).unwrap()
    };
    (0..regions.classes.len()).map(of_class).collect()
}

/// All units of the model on codes.
fn written(mut model: Model, conversion: Conversion) -> (Model, Regions) {
    let units = find_units(model.graph(), &site_map(&model), |_| true);
    let regions = Regions::of(model.graph(), units);
    let params = params(&regions);
    write_regions(model.graph_mut(), &regions, &params, conversion);
    assert_valid(&model);
    (model, regions)
}

fn output_names(model: &Model) -> Vec<&str> {
    model.graph().outputs().iter().map(|port| model.graph().value(port.value).name()).collect()
}

fn names_of(model: &Model, op_type: &str, slot: usize) -> Vec<String> {
    let graph = model.graph();
    let nodes = graph.nodes().filter(|(_, node)| node.is(op_type));
    nodes.map(|(_, node)| graph.value(node.input(slot).unwrap()).name().to_owned()).collect()
}

#[test]
fn codes_and_floats_give_the_same_and_nearly_that_of_the_model() {
    for (what, make) in [("network", network as fn() -> Model), ("split", split)] {
        let expected = run(&make(), &sample());
        let (codes, _) = written(make(), Conversion::Codes);
        let (floats, _) = written(make(), Conversion::Floats);
        let (of_codes, of_floats) = (run(&codes, &sample()), run(&floats, &sample()));
        assert_eq!(output_names(&codes), output_names(&make()), "{what}");
        assert_eq!(output_names(&floats), output_names(&make()), "{what}");
        for (at, name) in output_names(&codes).iter().enumerate() {
            let greatest =
                |other: &ArrayD<f32>| of_codes[at].iter().zip(other).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(greatest(&of_floats[at]) < 1e-5, "{what} {name}: {}", greatest(&of_floats[at]));
            assert!(greatest(&expected[at]) < 0.4, "{what} {name}: {}", greatest(&expected[at]));
        }
        assert_ne!(of_codes, expected, "{what}: nothing was rounded");
    }
}

#[test]
fn every_tensor_made_in_the_graph_is_quantized_once() {
    for make in [network as fn() -> Model, split] {
        let (model, regions) = written(make(), Conversion::Codes);
        let quantized = names_of(&model, "QuantizeLinear", 0);
        assert_eq!(quantized.iter().collect::<HashSet<_>>().len(), quantized.len(), "{quantized:?}");
        let original = make();
        let is_made = |tensor: &&CodedTensor| {
            tensor.codes_of.is_none() && original.graph().value(tensor.value).constant().is_none()
        };
        assert_eq!(quantized.len(), regions.tensors.iter().filter(is_made).count());
    }
}

#[test]
fn rescales_vanish_where_codes_are_written_and_stay_in_floats() {
    let (codes, regions) = written(network(), Conversion::Codes);
    assert!(regions.units.iter().any(|unit| matches!(unit.kernel, Kernel::Rescale(_))));
    assert!(find_node(codes.graph(), "Div").is_none() && codes.graph().find("divisor").is_none());
    let (floats, _) = written(network(), Conversion::Floats);
    assert!(find_node(floats.graph(), "Div").is_some());
    assert!(!op_types(&floats).iter().any(|op_type| op_type.ends_with("izeLinear")));
    let (chain, _) = written(split(), Conversion::Codes);
    assert!(find_node(chain.graph(), "Mul").is_none());
    // What is read is what the chain of numbers makes of the scale.
    let scale = |name| tensor::to_f32(constant_named(chain.graph(), name)).unwrap()[0];
    assert_eq!((scale("r_scale"), scale("q_scale")), (0.5 * scale("b_scale"), 0.25 * scale("b_scale")));
    let codes_of = |name: &str| {
        let graph = chain.graph();
        graph.producer(graph.find(name).unwrap()).unwrap().1.input(0)
    };
    assert_eq!(codes_of("r_dequantized"), codes_of("q_dequantized"));
}

#[test]
fn constants_are_stored_as_codes() {
    let (model, _) = written(network(), Conversion::Codes);
    for name in ["three_quantized", "row_quantized"] {
        assert_eq!(constant_named(model.graph(), name).data_type(), DataType::Uint8 as i32, "{name}");
    }
    assert!(model.graph().find("row").is_none());
    assert!(model.graph().find("three").is_some(), "the Sub reads it");
    let nodes = vec![plain("Add", &["x", "row"], "a"), plain("Mul", &["a", "row"], "y")];
    let (shared, _) = written(of(nodes, "y"), Conversion::Codes);
    assert_eq!(names_of(&shared, "DequantizeLinear", 0).iter().filter(|name| *name == "row_quantized").count(), 1);
}

#[test]
fn output_keeps_its_name_behind_the_conversion_and_units_read_the_codes() {
    for conversion in [Conversion::Codes, Conversion::Floats] {
        for (make, name) in [(network as fn() -> Model, "c"), (split, "a")] {
            let (model, _) = written(make(), conversion);
            let graph = model.graph();
            let value = graph.find(name).unwrap();
            let (_, copy) = graph.producer(value).unwrap();
            assert!(copy.is("Identity"), "{name}");
            assert!(matches!(graph.value(value).uses(), [Use::GraphOutput(_)]), "only the caller reads `{name}`");
            let (_, decode) = graph.producer(copy.input(0).unwrap()).unwrap();
            assert!(decode.is("DequantizeLinear") || decode.is("Mul"), "{name}: {}", decode.op_type());
            assert!(graph.value(copy.input(0).unwrap()).uses().len() > 1, "the units read what `{name}` copies");
        }
    }
}

#[test]
fn readers_in_float_of_a_value_made_in_float_go_on_reading_it() {
    let (model, _) = written(network(), Conversion::Codes);
    let graph = model.graph();
    let sub = graph.nodes().find(|(_, node)| node.output(0) == graph.find("e")).unwrap().1;
    assert_eq!(sub.input(0), graph.find("x"));
    // A value made on codes has no other form.
    let sub = graph.nodes().find(|(_, node)| node.output(0) == graph.find("d")).unwrap().1;
    assert_eq!(sub.input(0), graph.find("s_dequantized"));
}

#[test]
fn no_regions_change_nothing() {
    let mut model = network();
    write_regions(model.graph_mut(), &Regions::default(), &[], Conversion::Codes);
    assert_eq!(model.to_proto(), network().to_proto());
}
