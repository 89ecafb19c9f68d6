use onnxquant_ir::onnx::{NodeProto, TensorProto};
use onnxquant_ir::{Model, tensor};
use proptest::prelude::*;

use onnxquant_quant::ActivationGrid;

use super::*;
use crate::cpu::Cpu;
use crate::integer::costs::Alternative;
use crate::integer::kernels::find_units;
use crate::testing::{floats, model, node, site_map};

fn plain(op_type: &str, inputs: &[&str], output: &str) -> NodeProto {
    node(op_type, inputs, &[output], vec![])
}

fn constants() -> Vec<(&'static str, TensorProto)> {
    let numbers = [("three", 3.0), ("half", 0.5)].map(|(name, x)| (name, tensor::from_f32(&[], &[x])));
    [("w", floats(&[6, 4], 1)), ("row", floats(&[4], 2))].into_iter().chain(numbers).collect()
}

fn of(nodes: Vec<NodeProto>, outputs: &str) -> Model {
    model("x z", constants(), nodes, outputs)
}

fn units(model: &Model) -> Vec<Unit> {
    find_units(model.graph(), &site_map(model), |_| true)
}

/// Every value has `size` of its position among all.
fn costs_on(cpu: Cpu, model: &Model, size: impl Fn(usize) -> usize) -> Costs {
    let graph = model.graph();
    let inputs = graph.inputs().iter().map(|port| port.value);
    let made = graph.nodes().flat_map(|(_, node)| node.outputs().iter().copied().flatten());
    let sizes = inputs.chain(made).enumerate().map(|(at, value)| (value, size(at))).collect();
    Costs::new(graph, &site_map(model), sizes, Alternative::WeightOnly, cpu)
}

/// The times with VNNI.
fn costs(model: &Model, size: impl Fn(usize) -> usize) -> Costs {
    costs_on(Cpu::Vnni, model, size)
}

/// The times on the only class, or on the last one.
fn class(costs: &Costs) -> ClassCosts<'_> {
    costs.classes().last().expect("there is a table")
}

/// Up to ten operators over the inputs and earlier results; a choice of them are graph outputs.
fn random_model(steps: &[(usize, usize, usize, bool)]) -> Model {
    let mut names = vec!["x".to_owned(), "z".to_owned()];
    let (mut nodes, mut outputs) = (Vec::new(), Vec::new());
    for (at, &(kind, a, b, is_output)) in steps.iter().enumerate() {
        let name = format!("v{at}");
        // Near results are read more often, so that chains come about.
        let near = |back: usize| names[names.len() - 1 - back % names.len().min(4)].clone();
        let (a, b) = (near(a), near(b));
        let made = match kind {
            0 | 1 => plain("MatMul", &[&a, "w"], &name),
            2 | 3 => plain("MatMul", &[&a, &b], &name),
            4 | 5 => plain("Add", &[&a, &b], &name),
            6 => plain("Add", &[&a, "row"], &name),
            7 => plain("Mul", &[&a, &b], &name),
            8 => plain("Mul", &[&a, "half"], &name),
            9 => plain("Sigmoid", &[&a], &name),
            10 => plain("MaxPool", &[&a], &name),
            11 => plain("Transpose", &[&a], &name),
            12 => plain("Relu", &[&a], &name),
            13 => node("Split", &[&a], &[&name, &format!("{name}_b")], vec![]),
            _ => plain("Softmax", &[&a], &name),
        };
        names.extend(made.output.iter().cloned());
        outputs.extend(is_output.then(|| name.clone()));
        nodes.push(made);
    }
    outputs.extend(outputs.is_empty().then(|| names[names.len() - 1].clone()));
    of(nodes, &outputs.join(" "))
}

/// The sum of times that the module documents, for one choice.
fn total(graph: &Graph, units: &[Unit], costs: &ClassCosts<'_>, coded: &[bool]) -> u64 {
    let times = units.iter().zip(coded).map(|(unit, &coded)| match coded {
        true => costs.on_codes(graph, unit),
        false => costs.in_float(graph, unit),
    });
    let reads_codes = |user: &Use, value: ValueId| {
        let reads = |unit: &Unit| matches!(user, Use::Input(node, slot) if *node == unit.node && unit.inputs.contains(&(*slot, value)));
        units.iter().zip(coded).any(|(unit, &coded)| coded && reads(unit))
    };
    let touched = units.iter().flat_map(|unit| unit.inputs.iter().map(|(_, v)| *v).chain(unit.outputs.iter().copied()));
    let mut values: Vec<ValueId> = touched.filter(|value| graph.value(*value).origin() != Origin::Constant).collect();
    values.sort_unstable();
    values.dedup();
    let conversion = |&value: &ValueId| {
        let uses = graph.value(value).uses();
        let by_codes = uses.iter().filter(|user| reads_codes(user, value)).count();
        match units.iter().zip(coded).find(|(unit, coded)| **coded && unit.outputs.contains(&value)) {
            Some((unit, _)) if by_codes < uses.len() && !unit.may_write_floats(graph) => costs.dequantize(value),
            None if by_codes > 0 => costs.quantize(value),
            _ => 0,
        }
    };
    times.sum::<u64>() + values.iter().map(conversion).sum::<u64>()
}

/// The least of all choices, with the units of `float` in float.
fn least(graph: &Graph, units: &[Unit], costs: &ClassCosts<'_>, float: &HashSet<NodeId>) -> u64 {
    let choices = (0..1usize << units.len())
        .map(|mask| (0..units.len()).map(|unit| mask >> unit & 1 == 1).collect::<Vec<bool>>())
        .filter(|coded| units.iter().zip(coded).all(|(unit, coded)| !(*coded && float.contains(&unit.node))));
    choices.map(|coded| total(graph, units, costs, &coded)).min().expect("there is always the choice of floats")
}

fn sizes() -> impl Strategy<Value = Vec<usize>> {
    let size = prop_oneof![1usize..200, 200usize..3_000, 3_000usize..100_000];
    proptest::collection::vec(size, 32)
}

fn steps() -> impl Strategy<Value = Vec<(usize, usize, usize, bool)>> {
    proptest::collection::vec((0usize..15, 0usize..4, 0usize..4, proptest::bool::weighted(0.15)), 1..=10)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn cut_takes_the_least_time_of_all_choices(steps in steps(), sizes in sizes(), mask in 0usize..1024) {
        let model = random_model(&steps);
        let (graph, units) = (model.graph(), units(&model));
        let costs = costs_on(Cpu::Portable, &model, |at| sizes[at]);
        let costs = class(&costs);
        let free = cut(graph, &units, &costs, &HashSet::new());
        prop_assert_eq!(total(graph, &units, &costs, &free), least(graph, &units, &costs, &HashSet::new()));
        let forced = units.iter().enumerate().filter(|(at, _)| mask >> at & 1 == 1);
        let float: HashSet<NodeId> = forced.map(|(_, unit)| unit.node).collect();
        let some = cut(graph, &units, &costs, &float);
        prop_assert_eq!(total(graph, &units, &costs, &some), least(graph, &units, &costs, &float));
        for (at, unit) in units.iter().enumerate() {
            prop_assert!(!(some[at] && float.contains(&unit.node)), "a unit that must be in float");
            prop_assert!(free[at] || !some[at], "a unit came to the codes because others left");
        }
    }

    #[test]
    fn regions_of_any_processor_are_judged_where_they_gain_least(steps in steps(), sizes in sizes()) {
        let model = random_model(&steps);
        let (graph, units) = (model.graph(), units(&model));
        let costs = costs_on(Cpu::Portable, &model, |at| sizes[at]);
        let worst = |regions: &Regions| {
            let times = costs.classes().map(|class| relative_time(graph, &units, &class, regions));
            times.fold(0.0, f64::max)
        };
        let portable = choose_regions(graph, &units, &costs, &HashSet::new());
        prop_assert!((portable.relative_time - worst(&portable)).abs() < 1e-12);
        prop_assert!(portable.relative_time <= 1.0);
        for class in costs.classes() {
            let chosen = cut(graph, &units, &class, &HashSet::new());
            let coded = units.iter().zip(chosen).filter(|(_, coded)| *coded).map(|(unit, _)| unit.clone()).collect();
            prop_assert!(portable.relative_time <= worst(&Regions::of(graph, coded)), "{} gains more", class.cpu());
        }
    }
}

#[test]
fn random_graphs_have_regions_of_both_kinds() {
    // Otherwise the comparison with all choices would show nothing.
    let steps: Vec<_> = [0, 6, 14, 2, 4, 9, 14, 10].iter().map(|&kind| (kind, 0, 1, false)).collect();
    let model = random_model(&steps);
    let units = units(&model);
    for (size, some_coded, some_float) in [(1, false, true), (50_000, true, true)] {
        let coded = cut(model.graph(), &units, &class(&costs(&model, |_| size)), &HashSet::new());
        assert_eq!(coded.contains(&true), some_coded, "{size}: {coded:?}");
        assert_eq!(coded.contains(&false), some_float, "{size}: {coded:?}");
    }
}

#[test]
fn long_chain_is_kept_on_codes_across_a_slow_kernel() {
    let nodes = vec![
        plain("MatMul", &["x", "z"], "a"),
        plain("Mul", &["a", "g"], "s"),
        plain("MatMul", &["s", "z"], "b"),
        plain("Softmax", &["b"], "y"),
    ];
    let model = model("x z g", constants(), nodes, "y");
    // The smaller `g` is, the slower is the product on codes.
    let coded = |size_of_g: usize| {
        let costs = costs(&model, |at| if at == 2 { size_of_g } else { 40_000 });
        cut(model.graph(), &units(&model), &class(&costs), &HashSet::new())
    };
    assert_eq!(coded(4_000), [true, true, true]);
    // Slower on codes by more than the conversions take.
    assert_eq!(coded(2), [true, false, true]);
}

#[test]
fn wanted_units_run_on_codes_though_that_takes_longer_and_others_where_it_does_not() {
    let nodes = vec![
        plain("Sigmoid", &["x"], "s"),
        plain("MatMul", &["s", "z"], "a"),
        plain("Softmax", &["a"], "f"),
        plain("Sigmoid", &["f"], "y"),
    ];
    let model = of(nodes, "y");
    let (graph, costs) = (model.graph(), costs(&model, |_| 1_000));
    let mut units = units(&model);
    assert_eq!(cut(graph, &units, &class(&costs), &HashSet::new()), [false, false, false]);
    units[1].is_wanted = true;
    assert_eq!(cut(graph, &units, &class(&costs), &HashSet::new()), [true, true, false]);
    let float = HashSet::from([units[1].node]);
    assert_eq!(cut(graph, &units, &class(&costs), &float), [false, false, false], "it must stay in float");
}

#[test]
fn relative_time_is_the_cost_of_the_choice_over_that_of_floats() {
    let nodes = vec![
        plain("MatMul", &["x", "z"], "a"),
        plain("Relu", &["a"], "r"),
        plain("MatMul", &["r", "z"], "b"),
        plain("Add", &["b", "row"], "y"),
    ];
    let model = of(nodes, "y");
    let (graph, units) = (model.graph(), units(&model));
    let costs = costs(&model, |_| 30_000);
    let regions = choose_regions(graph, &units, &costs, &HashSet::new());
    let coded = cut(graph, &units, &class(&costs), &HashSet::new());
    assert_eq!(coded, [true, true, false]);
    let float = total(graph, &units, &class(&costs), &[false; 3]) as f64;
    let chosen = total(graph, &units, &class(&costs), &coded) as f64;
    assert!((regions.relative_time - chosen / float).abs() < 1e-9, "{}", regions.relative_time);
    let none = choose_regions(graph, &units, &costs, &units.iter().map(|unit| unit.node).collect());
    assert_eq!((none.relative_time, none.tensors.len(), none.units.len()), (1.0, 0, 0));
}

/// `name class factor`, with `of name` where the codes are another tensor's and `out` of graph outputs.
fn tensors(model: &Model, regions: &Regions) -> Vec<String> {
    let name = |value: ValueId| model.graph().value(value).name();
    let line = |tensor: &CodedTensor| {
        let of = tensor.codes_of.map_or(String::new(), |value| format!(" of {}", name(value)));
        let out = if tensor.is_output { " out" } else { "" };
        format!("{} {} {}{of}{out}", name(tensor.value), tensor.class, tensor.factor)
    };
    regions.tensors.iter().map(line).collect()
}

#[test]
fn moved_tensors_share_a_class_and_rescaled_ones_the_codes() {
    let nodes = vec![
        plain("Transpose", &["x"], "t"),
        plain("Mul", &["t", "three"], "m"),
        plain("Div", &["m", "half"], "d"),
        plain("Transpose", &["d"], "u"),
        plain("Add", &["u", "row"], "s"),
        plain("Relu", &["s"], "y"),
    ];
    let model = of(nodes, "y");
    let regions = Regions::of(model.graph(), units(&model));
    let expected = ["x 0 1", "t 0 1", "m 0 3 of t", "d 0 6 of m", "u 0 6", "row 1 1", "y 2 1 out"];
    assert_eq!(tensors(&model, &regions), expected);
    let name = |value: &ValueId| model.graph().value(*value).name();
    assert_eq!(regions.classes.iter().map(name).collect::<Vec<_>>(), ["x", "row", "y"]);
    let params = |scale| ActivationParams::new(scale, 7, ActivationGrid::Unsigned).unwrap();
    assert_eq!(regions.tensors[4].params(&[params(0.5); 3]), params(3.0));
}

#[test]
fn all_readers_of_a_tensor_made_on_codes_decode_it_and_only_units_one_made_in_float() {
    let nodes = vec![
        plain("Softmax", &["x"], "f"),
        plain("Add", &["f", "z"], "a"),
        plain("Softmax", &["f"], "g"),
        plain("Sigmoid", &["a"], "s"),
        plain("Softmax", &["a"], "h"),
    ];
    let model = of(nodes, "g s h f");
    let graph = model.graph();
    let regions = Regions::of(graph, units(&model));
    assert_eq!(tensors(&model, &regions), ["f 0 1", "z 1 1", "a 2 1", "s 3 1 out"]);
    let readers = |at: usize| {
        let reader = |&(node, slot): &(NodeId, usize)| {
            format!("{}:{slot}", graph.value(graph.node(node).output(0).unwrap()).name())
        };
        regions.tensors[at].readers.iter().map(reader).collect::<Vec<_>>()
    };
    assert_eq!((readers(0), readers(1)), (vec!["a:0".to_owned()], vec!["a:1".to_owned()]));
    assert_eq!(readers(2), ["s:0", "h:0"]);
    assert!(readers(3).is_empty());
}

#[test]
fn result_that_may_be_floats_is_a_tensor_only_where_codes_are_read() {
    let nodes =
        vec![plain("MatMul", &["x", "w"], "a"), plain("Softmax", &["a"], "s"), plain("MatMul", &["s", "w"], "y")];
    let model = of(nodes, "y");
    let regions = Regions::of(model.graph(), units(&model));
    assert_eq!(tensors(&model, &regions), ["x 0 1", "s 1 1"]);
    let chained = of(vec![plain("MatMul", &["x", "w"], "a"), plain("Sigmoid", &["a"], "y")], "y");
    let regions = Regions::of(chained.graph(), units(&chained));
    assert_eq!(tensors(&chained, &regions), ["x 0 1", "a 1 1", "y 2 1 out"]);
}
