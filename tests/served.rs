//! Judging and calibrating by ONNX Runtime, in the command itself.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::support::{
    Failures, Fixture, Job, Net, Run, chain_around, folder, library, measure, noise_samples, onnxquant, refused,
    report, shadowing_loop, write,
};

/// The same file in the same runtime: other sums of floats alone differ.
const SAME_DB: f64 = 0.05;

#[test]
fn what_is_told_is_what_the_runtime_computes() {
    let cases: [(Fixture, &[&str]); 4] = [
        (Fixture::CNN, &["--scheme", "w8a8", "--target", "qdq-strict"]),
        (Fixture::TRANSFORMER, &["--scheme", "w4"]),
        (Fixture::RESNET, &["--scheme", "auto", "--cpu", "vnni"]),
        (Fixture::CONV1D, &["--scheme", "w2"]),
    ];
    let folder = folder();
    let (mut jobs, mut told) = (Vec::new(), Vec::new());
    for (at, (fixture, args)) in cases.into_iter().enumerate() {
        let output = folder.path().join(format!("{at}.onnx"));
        let found = report(&fixture.model(), &output, args, Some(&fixture.calib()));
        told.push((found["measured"].clone(), found["engine"]["name"].clone()));
        jobs.push(Job::compare(&output, &fixture.model(), &fixture.held_out()));
        jobs.push(Job::compare(&output, &fixture.model(), &fixture.seen()));
    }
    let mut failures = Failures::default();
    let real = measure(&jobs);
    for (((measured, engine), (fixture, args)), real) in told.iter().zip(cases).zip(real.chunks(2)) {
        let [held_out, seen] = [&real[0], &real[1]].map(|real| real.default_sqnr_db);
        let lower = held_out.zip(seen).map(|(held_out, seen)| held_out.min(seen));
        // The standard error of a sum is at most about the sum: 3 dB.
        let (expected, spread) = (measured["expected_db"].as_f64(), -3.1..SAME_DB);
        let is_expected = expected.zip(lower).is_some_and(|(expected, lower)| spread.contains(&(expected - lower)));
        failures.check(is_expected, || format!("{fixture:?} {args:?}: {expected:?} dB expected, {lower:?}"));
        failures.check(measured["seen_samples"] == fixture.seen().len(), || measured.to_string());
        let (told, found) = (measured["sqnr_db"].as_f64(), held_out);
        let same = told.zip(found).is_some_and(|(told, found)| (told - found).abs() < SAME_DB);
        failures.check(same, || format!("{fixture:?} {args:?}: {told:?} dB told, {found:?}"));
        let named = measured["runtime"].as_str().is_some_and(|name| name.starts_with("ONNX Runtime 1."));
        failures.check(named && measured["cpu"].is_string(), || measured.to_string());
        failures.check(engine.as_str().is_some_and(|name| name.starts_with("tract ")), || engine.to_string());
    }
    failures.finish();
}

#[test]
fn files_are_the_same_whether_the_runtime_is_there_or_not() {
    let folder = folder();
    let output = |name: &str| folder.path().join(name);
    let run = |name: &str, args: &[&str]| {
        let mut command = onnxquant(&[Fixture::CONV1D.model(), output(name)]);
        command.args(["--scheme", "auto", "--calib"]).arg(Fixture::CONV1D.calib()).args(args);
        Run::of(&mut command).succeeded().stdout
    };
    let (with, without) = (run("with.onnx", &["--ort-lib", &library()]), run("without.onnx", &["--ort-lib", "off"]));
    assert!(with.contains(" held out, measured in ONNX Runtime 1.") && with.contains(" on this CPU ("), "{with}");
    assert!(without.contains(" held out, simulated") && !without.contains("measured in"), "{without}");
    let bytes = |name: &str| std::fs::read(output(name)).expect("it was written");
    assert!(bytes("with.onnx") == bytes("without.onnx"));
}

/// A model whose middle the embedded engine does not run, and samples.
fn looping(folder: &Path) -> (PathBuf, PathBuf) {
    let (input, calib) = (folder.join("loop.onnx"), folder.join("calib"));
    let (nodes, constants) = shadowing_loop();
    write(&chain_around(nodes, constants), &input);
    noise_samples(&calib, &[4, 32], 20);
    (input, calib)
}

#[test]
fn the_engine_changes_where_the_embedded_one_does_not_run_the_model() {
    let folder = folder();
    let (input, calib) = looping(folder.path());
    let output = folder.path().join("out.onnx");
    let found = |args: &[&str]| report(&input, &output, args, Some(&calib));
    let has_rows = |found: &Value| {
        let layers = found["layers"].as_array().expect("it lists layers");
        layers.iter().filter(|layer| layer["calibration_rows"].is_u64()).count()
    };
    let auto = found(&[]);
    assert!(auto["engine"]["name"].as_str().is_some_and(|name| name.starts_with("ONNX Runtime 1.")), "{auto}");
    assert!(auto["engine"]["because"].as_str().is_some_and(|why| why.contains("`repeat` (Loop)")), "{auto}");
    assert!(has_rows(&auto) == 3 && auto.get("not_run").is_none(), "{auto}");
    let asked = found(&["--engine", "ort"]);
    assert_eq!((&asked["engine"]["name"], has_rows(&asked)), (&auto["engine"]["name"], 3));
    assert!(asked["engine"].get("because").is_none(), "{asked}");
    let embedded = found(&["--engine", "tract"]);
    assert!(embedded["engine"]["name"].as_str().is_some_and(|name| name.starts_with("tract ")), "{embedded}");
    assert!(has_rows(&embedded) == 2 && embedded["not_run"].is_object(), "{embedded}");
    // All the same the whole file is measured.
    assert!(embedded["measured"]["sqnr_db"].as_f64() > Some(30.0), "{embedded}");
}

/// Where the simulation reaches a goal that the runtime misses by a little.
#[test]
fn where_the_runtime_falls_short_of_a_goal_it_decides() {
    let folder = folder();
    let output = folder.path().join("out.onnx");
    let run = |fixture: Fixture, more: &[&str]| {
        let args = [&["--scheme", "w8a8", "--target", "qdq-strict", "--method", "msq"], more].concat();
        report(&fixture.model(), &output, &args, Some(&fixture.calib()))
    };
    let figure = |found: &Value, who: &str| found[who]["sqnr_db"].as_f64().expect("it was measured");
    let decided = |fixture: Fixture, range: &str| {
        let found = run(fixture, &["--range", range]);
        let (told, real) = (figure(&found, "held_out"), figure(&found, "measured"));
        let goal = f64::midpoint(told, real);
        let found = (told > real + 0.01).then(|| run(fixture, &["--range", range, "--min-sqnr", &goal.to_string()]))?;
        let rounds = found["integers"]["trade"].as_array().expect("it tells of rounds");
        let by_runtime = rounds.iter().any(|round| round["judged_by"] == "runtime" && round.get("to_float").is_some());
        by_runtime.then(|| (goal, figure(&found, "measured")))
    };
    let cases = [Fixture::RESNET, Fixture::CNN, Fixture::CONV1D]
        .map(|fixture| ["min-max", "mse", "percentile:99.9"].map(|range| (fixture, range)));
    let (goal, reached) =
        cases.concat().into_iter().find_map(|(fixture, range)| decided(fixture, range)).expect("one is less exact");
    assert!(reached >= goal, "{goal} dB wanted, {reached} reached");
}

/// LayerNormalization without a bias, whose name is left empty, crashes ONNX Runtime 1.32.
#[test]
fn a_runtime_that_crashes_takes_nothing_along() {
    let folder = folder();
    let (input, calib, output) =
        (folder.path().join("model.onnx"), folder.path().join("calib"), folder.path().join("out.onnx"));
    let mut net = Net::default();
    net.random("w", &[32, 8], 0.5).random("scale", &[8], 1.0);
    net.node("MatMul", &["x", "w"], "h", &[]).node("LayerNormalization", &["h", "scale", ""], "y", &[]);
    write(&net.model(18, &[4, 32], 2), &input);
    noise_samples(&calib, &[4, 32], 10);
    let run = Run::of(onnxquant(&[&input, &output]).args(["--ort-lib", &library(), "--calib"]).arg(&calib)).succeeded();
    assert!(run.stderr.contains("crashes on the float model") && run.says("simulated"), "{run:?}");
    let mut command = onnxquant(&[&input, &output]);
    let run = Run::of(command.args(["--engine", "ort", "--ort-lib", &library(), "--calib"]).arg(&calib));
    assert_eq!(refused(&run, &["`--engine ort` needs ONNX Runtime", "crashes on the float model"]), None);
}

#[test]
fn a_library_that_is_missing_is_missed_only_where_it_is_needed() {
    let folder = folder();
    let text = folder.path().join("text.so");
    std::fs::write(&text, "not a library").expect("a file can be written");
    let text = text.to_str().expect("it is text");
    let run = |args: &[&str], variable: Option<&str>| {
        let mut command = onnxquant(&[Fixture::MLP.model(), folder.path().join("out.onnx")]);
        command.args(args).arg("--calib").arg(Fixture::MLP.calib());
        command.envs(variable.map(|path| ("ORT_DYLIB_PATH", path)));
        Run::of(&mut command)
    };
    let cases: [(&[&str], Option<&str>, &[&str]); 6] = [
        (&["--ort-lib", text], None, &["cannot load `", "--ort-lib"]),
        (&[], Some(text), &["cannot load `", "--ort-lib"]),
        (&["--python", "/nonexistent/python"], None, &["no ONNX Runtime found", "pip install onnxruntime"]),
        (&["--verify", "ort", "--ort-lib", "off"], None, &["`--verify ort` needs ONNX Runtime", "off"]),
        (&["--engine", "ort", "--ort-lib", "off"], None, &["`--engine ort` needs ONNX Runtime", "off"]),
        (&["--python", "p", "--ort-lib", "l"], None, &["--python", "--ort-lib"]),
    ];
    let mut failures = Failures::default();
    for (args, variable, texts) in cases {
        let fault = refused(&run(args, variable), texts);
        failures.check(fault.is_none(), || format!("{args:?} {variable:?}: {fault:?}"));
    }
    // No Python has it.
    let mut command = onnxquant(&[Fixture::MLP.model(), folder.path().join("out.onnx")]);
    command.arg("--calib").arg(Fixture::MLP.calib()).env("ONNXQUANT_PYTHON", "/nonexistent/python");
    let found = Run::of(&mut command).succeeded();
    failures.check(found.says("held out, ") && found.complaints().is_empty(), || format!("{found:?}"));
    failures.finish();
}
