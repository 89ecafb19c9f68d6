//! Integer activations in ONNX Runtime: the nodes that it fuses, the outputs, and the accuracy.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::support::{Failures, Fixture, Job, Measured, Run, agree, folder, measure, onnxquant, refused, report};

/// A way to quantize, and what it must achieve.
struct Setting {
    args: &'static [&'static str],
    /// Output SQNR on held-out samples, at least.
    sqnr_db: f64,
}

const SETTINGS: [Setting; 9] = [
    Setting { args: &["--scheme", "w8a8"], sqnr_db: 25.0 },
    Setting { args: &["--scheme", "w8a8", "--target", "qdq-strict"], sqnr_db: 10.0 },
    Setting { args: &["--scheme", "w8a8", "--target", "qdq-strict", "--range", "min-max"], sqnr_db: 10.0 },
    Setting { args: &["--scheme", "w8a8-dynamic"], sqnr_db: 25.0 },
    Setting { args: &["--scheme", "auto"], sqnr_db: 25.0 },
    Setting { args: &["--scheme", "auto", "--reduce-range"], sqnr_db: 22.0 },
    Setting { args: &["--scheme", "w8a8", "--target", "qdq-strict", "--min-sqnr", "25"], sqnr_db: 24.0 },
    Setting { args: &["--scheme", "w4a8", "--target", "qdq-strict"], sqnr_db: 8.0 },
    Setting { args: &["--scheme", "auto", "--bits", "4"], sqnr_db: 8.0 },
];

/// Tract and ONNX Runtime round near ties differently.
pub const SIMULATION_MARGIN_DB: f64 = 1.0;
/// The same for weights of 4 bits: with coarse steps a near tie weighs more.
const COARSE_MARGIN_DB: f64 = 1.5;
/// Optimized and plain kernels may differ by single steps.
const AGREEMENT_DB: f64 = 25.0;
/// Accuracy that integer activations may cost.
const ACCURACY_MARGIN: f64 = 0.02;

#[test]
fn integer_layers_are_fused_and_do_what_was_reported() {
    let folder = folder();
    let mut cases = Vec::new();
    let mut jobs = Vec::new();
    for fixture in Fixture::ALL {
        for setting in &SETTINGS {
            let path = folder.path().join(format!("{}.onnx", cases.len()));
            let found = report(&fixture.model(), &path, setting.args, Some(&fixture.calib()));
            jobs.push(Job { nodes: true, ..Job::compare(&path, &fixture.model(), &fixture.held_out()) });
            let labels = Some(fixture.test_set());
            jobs.push(Job { model: path, labels, ..Job::default() });
            cases.push((fixture, setting, found));
        }
    }
    let float_from = jobs.len();
    jobs.extend(Fixture::ALL.map(|fixture| Job {
        model: fixture.model(),
        labels: Some(fixture.test_set()),
        ..Job::default()
    }));
    let found = measure(&jobs);
    let (found, float) = found.split_at(float_from);
    let mut failures = Failures::default();
    let mut nodes = String::new();
    for ((fixture, setting, report), results) in cases.iter().zip(found.chunks(2)) {
        let name = format!("{} {}", fixture.name, setting.args.join(" "));
        nodes += &format!("{name}\n    {}\n", counted(&results[0]));
        let position = Fixture::ALL.iter().position(|other| other == fixture).expect("it is one of all");
        check(&name, setting, report, results, float[position].accuracy, &mut failures);
    }
    let expected = include_str!("fused_nodes.txt");
    failures.check(nodes == expected, || format!("ONNX Runtime makes other nodes of it:\n{nodes}"));
    failures.finish();
}

/// Quantized operators and what is left of their kinds in float, with their numbers.
fn counted(found: &Measured) -> String {
    let short = |name: &str| name.rsplit('.').next().unwrap_or(name).to_owned();
    let shown = ["Q", "Dynamic", "MatMul", "Conv", "Gemm", "FusedConv", "FusedGemm", "Dequantize", "Nhwc"];
    let counts: BTreeMap<String, u64> = found.nodes.iter().map(|(name, &count)| (short(name), count)).collect();
    let relevant = counts.iter().filter(|(name, _)| shown.iter().any(|start| name.starts_with(start)));
    relevant.map(|(name, count)| format!("{name} {count}")).collect::<Vec<_>>().join(", ")
}

fn check(
    name: &str,
    setting: &Setting,
    report: &Value,
    results: &[Measured],
    float: Option<f64>,
    failures: &mut Failures,
) {
    let (held_out, test_set) = (&results[0], &results[1]);
    let faults = [held_out.faults(), test_set.faults()].concat();
    failures.check(faults.is_empty(), || format!("{name}: {faults}"));
    let reported = report["held_out"]["sqnr_db"].as_f64();
    for (how, found) in [("plain", held_out.sqnr_db), ("optimized", held_out.default_sqnr_db)] {
        let reached = found.is_some_and(|found| found >= setting.sqnr_db);
        failures.check(reached, || format!("{name}: {how} SQNR {found:?} dB, expected {} dB", setting.sqnr_db));
    }
    let found = held_out.default_sqnr_db;
    let coarse = setting.args.iter().any(|arg| ["w4a8", "4"].contains(arg));
    let margin = if coarse { COARSE_MARGIN_DB } else { SIMULATION_MARGIN_DB };
    let as_reported = found.zip(reported).is_some_and(|(found, told)| agree(found, told, margin));
    failures.check(as_reported, || format!("{name}: SQNR {found:?} dB, {reported:?} dB reported"));
    let agrees = held_out.agreement_db.is_none_or(|agreement_db| agreement_db >= AGREEMENT_DB);
    failures.check(agrees, || format!("{name}: {:?} dB between optimized and plain", held_out.agreement_db));
    let kept = test_set.accuracy.zip(float).is_some_and(|(found, float)| found >= float - ACCURACY_MARGIN);
    failures.check(kept, || format!("{name}: accuracy {:?}, float {float:?}", test_set.accuracy));
}

/// Layers on codes save no time in networks so small: what is asked for is done all the same.
#[test]
fn a_scheme_that_is_named_is_obeyed_whatever_it_costs() {
    let folder = folder();
    let output = folder.path().join("out.onnx");
    let mut failures = Failures::default();
    for fixture in Fixture::ALL {
        for (scheme, dense, conv) in
            [("w8a8", "static", "static"), ("w4a8", "static", "static"), ("w8a8-dynamic", "dynamic", "float")]
        {
            let args = ["--scheme", scheme, "--method", "msq", "--range", "mse"];
            let args = if scheme == "w8a8-dynamic" { &args[..4] } else { &args[..] };
            let found = report(&fixture.model(), &output, args, Some(&fixture.calib()));
            for layer in found["layers"].as_array().expect("it lists layers") {
                let is_conv = layer["op_type"] == "Conv";
                let expected = if is_conv { conv } else { dense };
                let name = format!("{} {scheme} {}", fixture.name, layer["label"]);
                failures.check(layer["activations"] == expected, || format!("{name}: {}", layer["activations"]));
                let has_reason = layer["float_because"].is_string();
                failures.check(has_reason == (expected == "float"), || format!("{name}: {}", layer["float_because"]));
            }
        }
    }
    failures.finish();
}

/// No sample says what a scale is that is made at run time.
#[test]
fn scales_of_the_run_time_need_no_samples() {
    let (folder, fixture) = (folder(), Fixture::TRANSFORMER);
    let output = folder.path().join("out.onnx");
    let found = report(&fixture.model(), &output, &["--scheme", "w8a8-dynamic"], None);
    let layers = found["layers"].as_array().expect("it lists layers");
    assert!(layers.iter().all(|layer| layer["activations"] == "dynamic"), "{layers:?}");
    let measured = &measure(&[Job::compare(&output, &fixture.model(), &fixture.held_out())])[0];
    assert!(measured.faults().is_empty() && measured.sqnr_db > Some(20.0), "{measured:?}");
}

#[test]
fn a_missed_accuracy_has_an_exit_code_of_its_own() {
    let folder = folder();
    let output = folder.path().join("out.onnx");
    let mut command = onnxquant(&[Fixture::CONV1D.model(), output.clone()]);
    command.args(["--scheme", "auto", "--min-sqnr", "90"]).arg("--calib").arg(Fixture::CONV1D.calib());
    let run = Run::of(&mut command);
    assert_eq!(run.code, Some(1), "{}", run.stderr);
    assert!(run.stderr.contains("90.00 dB wanted") && output.exists(), "{}", run.stderr);
}

#[test]
fn what_integers_cannot_do_is_a_usage_error() {
    let folder = folder();
    let output = folder.path().join("out.onnx");
    let table: [(&[&str], &str); 8] = [
        (&["--scheme", "w8a8", "--asymmetric"], "symmetric weights"),
        (&["--scheme", "auto", "--granularity", "block:32"], "not in blocks"),
        (&["--scheme", "w8a8", "--range", "median"], "--range"),
        (&["--scheme", "w8a8", "--opset-max", "12"], "opset 13"),
        (&["--scheme", "w8a8", "--activation-bits", "16"], "no kernels for activations of 16 bits"),
        (&["--scheme", "w8a8", "--power-of-two-scales"], "--target qdq-strict"),
        (&["--scheme", "w8a8", "--max-loss=-1"], "a loss is a number"),
        (&["--scheme", "w8a8", "--target", "qdq-strict", "--activation-bits", "16", "--opset-max", "20"], "opset 21"),
    ];
    let mut failures = Failures::default();
    for (args, text) in table {
        let mut command = onnxquant(&[Fixture::CNN.model(), output.clone()]);
        let run = Run::of(command.args(args).arg("--calib").arg(Fixture::CNN.calib()));
        let problem = refused(&run, &[text]);
        failures.check(problem.is_none(), || format!("{args:?}: {problem:?}"));
    }
    let mut command = onnxquant(&[Fixture::MLP.model(), output.clone()]);
    let run = Run::of(command.args(["--scheme", "w8a8", "--weights-only"]));
    let problem = refused(&run, &["calibration data"]);
    failures.check(problem.is_none(), || format!("without data: {problem:?}"));
    failures.check(!output.exists(), || "something was written".to_owned());
    failures.finish();
}

/// The options of `--target qdq-strict` that change codes and scales.
#[test]
fn codes_and_scales_for_accelerators_are_those_asked_for() {
    let folder = folder();
    let strict = ["--scheme", "w8a8", "--target", "qdq-strict", "--method", "msq"];
    let table: [(&[&str], &str, bool, f64); 5] = [
        (&[], "unsigned", false, 25.0),
        (&["--activation-type", "s8"], "signed", false, 25.0),
        (&["--power-of-two-scales"], "unsigned", true, 20.0),
        (&["--activation-bits", "16"], "unsigned16", false, 30.0),
        (&["--activation-bits", "16", "--activation-type", "s8"], "signed16", false, 30.0),
    ];
    let fixture = Fixture::CNN;
    let mut failures = Failures::default();
    let (mut jobs, mut found) = (Vec::new(), Vec::new());
    for (args, ..) in &table {
        let path = folder.path().join(format!("{}.onnx", found.len()));
        found.push(report(&fixture.model(), &path, &[&strict, *args].concat(), Some(&fixture.calib())));
        jobs.push(Job::compare(&path, &fixture.model(), &fixture.held_out()));
    }
    for ((args, grid, power, least), (report, measured)) in table.iter().zip(found.iter().zip(measure(&jobs))) {
        let tensors = report["integers"]["tensors"].as_array().expect("there are tensors on fixed scales");
        for tensor in tensors {
            let scale = tensor["scale"].as_f64().expect("a scale is a number");
            failures.check(tensor["grid"] == *grid, || format!("{args:?}: {tensor}"));
            failures.check(!power || scale.log2().fract() == 0.0, || format!("{args:?}: {tensor}"));
        }
        failures.check(measured.faults().is_empty(), || format!("{args:?}: {}", measured.faults()));
        let reached = measured.sqnr_db.is_some_and(|found| found >= *least);
        failures.check(reached, || format!("{args:?}: {:?} dB, expected {least}", measured.sqnr_db));
        let told = report["held_out"]["sqnr_db"].as_f64();
        let agrees = measured.sqnr_db.zip(told).is_some_and(|(found, told)| agree(found, told, SIMULATION_MARGIN_DB));
        failures.check(agrees, || format!("{args:?}: {:?} dB measured, {told:?} told", measured.sqnr_db));
    }
    failures.finish();
}

#[test]
fn accuracy_is_bought_round_by_round() {
    let folder = folder();
    let output = folder.path().join("out.onnx");
    let strict = ["--scheme", "w8a8", "--target", "qdq-strict", "--method", "msq", "--range", "mse"];
    let fixture = Fixture::CONV1D;
    let run = |args: &[&str]| report(&fixture.model(), &output, &[&strict, args].concat(), Some(&fixture.calib()));
    let found = run(&["--max-loss", "0.0001"]);
    let trade = found["integers"]["trade"].as_array().expect("a goal was set");
    let (first, last) = (&trade[0], &trade[trade.len() - 1]);
    assert!(first["loss"].as_f64() > Some(0.0001) && trade.len() > 1, "{first}");
    assert!(last["loss"].as_f64() <= Some(0.0001), "{last}");
    assert!(last["integer_layers"].as_u64() < first["integer_layers"].as_u64(), "{trade:?}");
    assert!(found["held_out"]["loss"].as_f64() <= Some(0.0001));
    assert!(found["integers"]["sensitivity"].as_array().is_some_and(|layers| !layers.is_empty()));
    let mixed = run(&["--activation-bits", "mixed", "--max-loss", "0.0008"]);
    let rounds = mixed["integers"]["trade"].as_array().expect("a goal was set");
    assert!(rounds.iter().skip(1).any(|round| round.get("to_16_bits").is_some()), "{rounds:?}");
}

#[test]
fn layers_on_scales_of_the_run_time_are_judged_one_by_one() {
    let (folder, fixture) = (folder(), Fixture::TRANSFORMER);
    let goal = ["--ort-min", "1.19", "--max-loss", "0.00007"];
    let args = [&["--scheme", "w8a8-dynamic", "--method", "msq"], &goal[..]].concat();
    let found = report(&fixture.model(), &folder.path().join("out.onnx"), &args, Some(&fixture.calib()));
    let layers = found["integers"]["sensitivity"].as_array().expect("the goal is missed at first");
    assert!(layers.len() > 1 && layers.iter().all(|layer| layer["sqnr_db"].is_f64()), "{layers:?}");
}

#[test]
fn uneven_channels_are_evened_out() {
    let fixture = Fixture::CNN;
    let strict = ["--scheme", "w8a8", "--target", "qdq-strict", "--method", "msq", "--range", "min-max"];
    let found = report(&fixture.model(), &folder().path().join("out.onnx"), &strict, Some(&fixture.calib()));
    assert!(found["integers"]["equalized"].as_u64() > Some(0), "{}", found["integers"]);
}

#[test]
fn statistics_are_used_again_and_never_for_another_model_or_other_samples() {
    let folder = folder();
    let at = |name: &str| folder.path().join(name);
    let (fixture, cache) = (Fixture::CNN, at("cache.json"));
    let strict = ["--scheme", "w8a8", "--target", "qdq-strict", "--method", "msq"];
    let file = cache.to_str().expect("the path is text").to_owned();
    let run = |fixture: &Fixture, output: &str, more: &[&str]| {
        let args = [strict.as_slice(), more].concat();
        let report = report(&fixture.model(), &at(output), &args, Some(&fixture.calib()));
        (report["integers"]["cache"].clone(), std::fs::read(at(output)).expect("the model was written"))
    };
    let with = ["--calibration-cache", file.as_str()];
    let (_, plain) = run(&fixture, "plain.onnx", &[]);
    let (first, written) = run(&fixture, "first.onnx", &with);
    let (again, read) = run(&fixture, "again.onnx", &with);
    assert_eq!(first["reused"], 0);
    assert_eq!((&again["gathered"], &again["reused"]), (&Value::from(0), &first["gathered"]));
    assert!(plain == written && plain == read, "the cache changes what is written");
    let (fewer, _) = run(&fixture, "fewer.onnx", &[with.as_slice(), &["--samples", "20"]].concat());
    assert!(fewer["reused"] == 0 && fewer["rebuilt"].as_str().is_some_and(|why| why.contains("samples")), "{fewer}");
    let (other, _) = run(&Fixture::CONV1D, "other.onnx", &with);
    assert!(other["reused"] == 0 && other["rebuilt"].as_str().is_some_and(|why| why.contains("model")), "{other}");
    std::fs::write(&cache, r#"{"format": 0, "what": "ever"}"#).expect("the file can be written");
    let (old, _) = run(&fixture, "old.onnx", &with);
    assert!(old["rebuilt"].as_str().is_some_and(|why| why.contains("format")), "{old}");
    let text = std::fs::read_to_string(&cache).expect("the cache is text");
    for corrupt in ["no cache", &text[..text.len() / 2], &text.replacen("\"count\":", "\"count\":1", 1)] {
        std::fs::write(&cache, corrupt).expect("the file can be written");
        let mut command = onnxquant(&[fixture.model(), at("refused.onnx")]);
        command.args(strict).args(with).arg("--calib").arg(fixture.calib());
        let problem = refused(&Run::of(&mut command), &["calibration cache", "delete it"]);
        assert!(problem.is_none() && !at("refused.onnx").exists(), "{problem:?}");
    }
}
