use crate::config::Config;
use crate::report::not_run::NotRun;
use crate::testing::{self, constant, names, node};

use super::*;

/// `x -> MatMul = a -> Odd = b -> MatMul = c`; `d` is a plus 1, in the shape of c, and `e` the sum of both.
fn model() -> Model {
    let weight = |name: &str| constant(name, &[2, 2], &[1.0, 2.0, 3.0, 4.0]);
    let nodes = vec![
        node("MatMul", &["x", "w"], "a"),
        node("Odd", &["a", "x"], "b"),
        node("MatMul", &["b", "v"], "c"),
        node("Relu", &["a"], "d"),
        node("Add", &["c", "d"], "e"),
    ];
    testing::model(&["x"], nodes, vec![weight("w"), weight("v")], &["d", "e"])
}

fn without_odd(model: &Model) -> Reach {
    let blocked = unknown_operators(onnxquant_calib::engine(), &model.to_proto());
    assert_eq!(blocked.len(), 1);
    Reach { blocked, compared: Vec::new() }
}

#[test]
fn everything_that_depends_on_a_blocked_node_is_behind_it() {
    let model = model();
    let graph = model.graph();
    assert_eq!(names(graph, without_odd(&model).behind(graph).into_keys()), ["b", "c", "e"]);
    assert_eq!(names(graph, Reach::all(&model).behind(graph).into_keys()), [""; 0]);
    assert_eq!(Reach::all(&model).names(), ["d", "e"]);
}

#[test]
fn layers_behind_and_what_layers_change_are_told_apart() {
    let model = model();
    let (graph, reach) = (model.graph(), without_odd(&model));
    let plan = Plan::new(&model, &Config::default()).unwrap();
    let why: Vec<Option<String>> = plan.layers.iter().map(|layer| reach.why_unseen(graph, layer)).collect();
    let expected = "rounded without data: it depends on `b` (Odd), which the calibration engine cannot run";
    assert_eq!(why, [None, Some(expected.to_owned())]);
    assert_eq!(names(graph, touched(graph, &plan)), ["a", "b", "c", "d", "e"]);
    let one = Plan { layers: plan.layers[1..].to_vec(), ..plan.clone() };
    assert_eq!(names(graph, touched(graph, &one)), ["c", "e"]);
    let not_run = NotRun::of(&reach, graph, &plan).expect("there is something");
    assert_eq!((not_run.outputs, not_run.layers), (vec!["e".to_owned()], vec!["c".to_owned()]));
    assert!(NotRun::of(&Reach::all(&model), graph, &plan).is_none());
}

#[test]
fn compared_values_are_looked_up_where_they_are_read() {
    let mut model = model();
    let (odd, d) = (model.graph().order()[1], model.graph().find("d"));
    let mut reach = without_odd(&model);
    let compared = |name: &str, place| Compared::new(name.to_owned(), place);
    reach.compared =
        vec![compared("d", Place::Output), compared("a", Place::Input(odd, 0)), compared("a", Place::Capture)];
    assert_eq!(reach.names_in(&model), ["d", "a", "a"]);
    model.graph_mut().set_input(odd, 0, d);
    assert_eq!(reach.names_in(&model), ["d", "d", "a"]);
    assert_eq!(reach.names(), ["d", "a", "a"]);
}

#[test]
fn layers_refused_without_a_defect_of_the_engine_are_errors() {
    let model = model();
    let (graph, plan) = (model.graph(), Plan::new(&model, &Config::default()).unwrap());
    let refusing = |op: usize, fault| {
        let first = &graph.node(graph.order()[op]).output(0).map(|value| graph.value(value).name().to_owned());
        let blocked =
            BlockedNode { outputs: first.iter().cloned().collect(), fault, ..without_odd(&model).blocked.remove(0) };
        Reach { blocked: vec![blocked], compared: Vec::new() }
    };
    let table =
        [(0, Fault::Error, true), (0, Fault::Panic, false), (0, Fault::Unknown, false), (1, Fault::Error, false)];
    for (op, fault, is_error) in table {
        assert_eq!(refusing(op, fault).refusal(graph, &plan).is_some(), is_error, "{op} {fault:?}");
    }
    let all = |names: [&str; 1]| BlockedNode {
        outputs: names.map(str::to_owned).into(),
        ..without_odd(&model).blocked.remove(0)
    };
    let sees = |blocked: Vec<BlockedNode>| Reach { blocked, compared: Vec::new() }.sees_layers(graph, &plan);
    assert!(sees(vec![]) && sees(vec![all(["b"])]));
    assert!(!sees(vec![all(["x"])]));
}
