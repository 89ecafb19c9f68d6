//! Files whose nodes are not in order.

use std::path::Path;

use onnxquant_ir::onnx::{GraphProto, ModelProto};

use crate::support::{
    Failures, Fixture, Job, Run, chain_around, folder, measure, node, onnxquant, report, shadowing_loop, write,
};

/// Reverses the nodes of a graph and of all bodies in it.
fn reverse(graph: &mut GraphProto) {
    graph.node.reverse();
    for attribute in graph.node.iter_mut().flat_map(|node| &mut node.attribute) {
        attribute.g.iter_mut().for_each(|body| reverse(body));
    }
}

fn reversed(mut model: ModelProto) -> ModelProto {
    reverse(model.graph.as_mut().expect("it has a graph"));
    model
}

#[test]
fn nodes_in_any_order_give_the_model_that_they_give_in_order() {
    let folder = folder();
    let at = |name: &str| folder.path().join(name);
    let mut failures = Failures::default();
    let mut jobs = Vec::new();
    for fixture in [Fixture::MLP, Fixture::CNN, Fixture::TRANSFORMER] {
        let [input, output, usual] = ["in", "out", "usual"].map(|name| at(&format!("{name}_{}.onnx", fixture.name)));
        write(&reversed(onnxquant_proto::read_model(&fixture.model()).expect("it can be read")), &input);
        let found = report(&input, &output, &["--bits", "4"], Some(&fixture.calib()));
        let expected = report(&fixture.model(), &usual, &["--bits", "4"], Some(&fixture.calib()));
        let moved = found["prepared"]["nodes_sorted"].as_u64().unwrap_or(0);
        failures.check(moved > 2, || format!("{}: {moved} nodes moved", fixture.name));
        failures.check(expected["prepared"]["nodes_sorted"].is_null(), || format!("{}: in order", fixture.name));
        let errors = [&found, &expected].map(|report| report["held_out"]["sqnr_db"].as_f64().unwrap_or(0.0));
        failures.check((errors[0] - errors[1]).abs() < 0.5, || format!("{}: {errors:?} dB", fixture.name));
        jobs.push(Job::compare(&output, &input, &fixture.held_out()));
    }
    for measured in measure(&jobs) {
        failures.check(measured.faults().is_empty(), || measured.faults());
        failures.check(measured.sqnr_db.is_some_and(|db| db > 10.0), || format!("{:?} dB", measured.sqnr_db));
    }
    failures.finish();
}

#[test]
fn bodies_are_sorted_and_the_summary_says_how_many_nodes_moved() {
    let folder = folder();
    let [input, output] = ["in.onnx", "out.onnx"].map(|name| folder.path().join(name));
    let (middle, constants) = shadowing_loop();
    write(&reversed(chain_around(middle, constants)), &input);
    let run = |input: &Path| Run::of(onnxquant(&[input, &output]).arg("--weights-only"));
    let text = run(&input).succeeded().stdout;
    assert!(text.contains("nodes stood behind others that read them; they come before these now"), "{text}");
    let again = folder.path().join("again.onnx");
    let text = Run::of(onnxquant(&[&output, &again]).args(["--weights-only", "--allow-float"])).succeeded().stdout;
    assert!(!text.contains("sorted"), "{text}");
    assert_eq!(measure(&[Job::load(&output)])[0].faults(), "");
}

#[test]
fn a_circle_is_refused_by_the_names_in_it() {
    let folder = folder();
    let input = folder.path().join("in.onnx");
    let circle = vec![node("Add", &["h", "loop"], &["one"]), node("Relu", &["one"], &["loop"])];
    let mut model = chain_around(circle, Vec::new());
    write(&model, &input);
    let run = Run::of(onnxquant(&["inspect"]).arg(&input));
    assert_eq!(run.code, Some(2), "{run:?}");
    assert!(run.stderr.contains("`one` (Add) reads `loop` (Relu) reads `one` (Add)"), "{}", run.stderr);
    let (mut middle, constants) = shadowing_loop();
    for attribute in middle.iter_mut().flat_map(|node| &mut node.attribute) {
        if let Some(body) = &mut attribute.g {
            body.node.extend([node("Relu", &["two"], &["three"]), node("Relu", &["three"], &["two"])]);
        }
    }
    model = chain_around(middle, constants);
    write(&model, &input);
    let run = Run::of(onnxquant(&["inspect"]).arg(&input));
    assert_eq!(run.code, Some(2), "{run:?}");
    assert!(run.stderr.contains("`three` (Relu) reads `two` (Relu) reads `three` (Relu)"), "{}", run.stderr);
}
