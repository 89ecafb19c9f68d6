//! What people see: a summary that fits the screen, how far a run is, what would be done, and what happens where nobody reads.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::support::{Failures, Fixture, Run, files_in, folder, inspect, onnxquant, report, root};

/// What a terminal of so many columns showed, and the exit code.
fn on_terminal(columns: usize, args: &[&str], folder: &Path) -> (Vec<String>, i64) {
    let script = root().join("tests/python/terminal.py");
    let mut command = Command::new("python3");
    command.arg(script).arg(columns.to_string()).arg(env!("CARGO_BIN_EXE_onnxquant")).args(args).current_dir(folder);
    let run = Run::of(&mut command).succeeded();
    let found: Value = serde_json::from_str(&run.stdout).expect("the script prints JSON");
    let lines = found["lines"].as_array().expect("it lists lines");
    let lines = lines.iter().filter_map(|line| line.as_str().map(str::to_owned)).collect();
    (lines, found["code"].as_i64().expect("it has an exit code"))
}

fn words<'a>(fixture: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    [&[fixture, "out.onnx"], more].concat()
}

fn path(path: &Path) -> String {
    path.to_str().expect("the path is text").to_owned()
}

#[test]
fn screens_of_any_width_are_not_exceeded() {
    let folder = folder();
    let mut failures = Failures::default();
    for (fixture, scheme) in [(Fixture::CNN, "w8a8"), (Fixture::TRANSFORMER, "w4"), (Fixture::TRANSFORMER, "auto")] {
        let (model, calib) = (path(&fixture.model()), path(&fixture.calib()));
        for columns in [50, 80, 132] {
            let (lines, code) =
                on_terminal(columns, &words(&model, &["--calib", &calib, "--scheme", scheme]), folder.path());
            let most = columns.min(80);
            let is_bar = |line: &&String| line.contains(" [") && line.contains(" %");
            let wide: Vec<&String> = lines.iter().filter(|line| !is_bar(line) && line.chars().count() > most).collect();
            // Words of a line may go on below.
            let shown = lines.join("\n").replace("\n        ", " ");
            failures.check(wide.is_empty() && code == 0, || format!("{columns}: {wide:?} in\n{shown}"));
            for part in
                ["size    ", "speed   ", "output  ", "time    ", "wrote   out.onnx", "on new data", " of memory"]
            {
                failures.check(shown.contains(part), || format!("{columns}: no `{part}` in\n{shown}"));
            }
            failures.check(lines.iter().any(|line| line.contains(" %")), || format!("no bar in\n{shown}"));
            failures.check(!shown.contains(" s  calibrating"), || format!("lines beside a bar in\n{shown}"));
        }
    }
    failures.finish();
}

#[test]
fn bars_never_go_back() {
    let folder = folder();
    let (model, calib) = (path(&Fixture::TRANSFORMER.model()), path(&Fixture::TRANSFORMER.calib()));
    let (lines, _) = on_terminal(80, &words(&model, &["--calib", &calib, "--scheme", "auto"]), folder.path());
    let percent = |line: &String| {
        let before = line.split_once("] ")?.1.trim_start();
        before.split_once(" %")?.0.trim().parse::<u64>().ok()
    };
    let parts: Vec<u64> = lines.iter().filter_map(percent).collect();
    assert!(!parts.is_empty() && parts.is_sorted(), "{lines:?}");
}

#[test]
fn pipes_get_a_timed_line_for_each_phase() {
    let folder = folder();
    let run = |more: &[&str]| {
        let mut command = onnxquant(&[Fixture::CNN.model(), folder.path().join("out.onnx")]);
        Run::of(command.arg("--calib").arg(Fixture::CNN.calib()).args(["--ort-lib", "off"]).args(more)).succeeded()
    };
    for run in [run(&[]), run(&["--log", "plain"])] {
        for phase in ["calibrating ", "quantizing ", "comparing ", "writing "] {
            let told = run.stderr.lines().any(|line| line.contains(&format!(" s  {phase}")) && line.contains(" of "));
            assert!(told, "{phase}: {}", run.stderr);
        }
        assert!(run.stderr.lines().all(|line| line.chars().count() <= 80), "{}", run.stderr);
        assert!(run.stdout.lines().all(|line| line.chars().count() <= 80), "{}", run.stdout);
    }
    assert_eq!(run(&["--quiet"]).stderr, "");
}

#[test]
fn lines_for_programs_are_json_each() {
    let folder = folder();
    let mut command = onnxquant(&[Fixture::CNN.model(), folder.path().join("out.onnx")]);
    command.arg("--calib").arg(Fixture::CNN.calib()).args(["--log", "json", "--min-sqnr", "99", "--scheme", "w8a8"]);
    let run = Run::of(command.args(["--exclude", "*", "--report", "-"]));
    let events: Vec<Value> =
        run.stderr.lines().map(|line| serde_json::from_str(line).expect("a line is JSON")).collect();
    let times: Vec<f64> = events.iter().filter_map(|event| event["time"].as_f64()).collect();
    assert!(times.len() == events.len() && times.is_sorted(), "{}", run.stderr);
    let steps: Vec<&Value> = events.iter().filter(|event| event["phase"].is_string()).collect();
    let is_whole = |event: &&Value| event["done"].is_u64() && event["total"].is_u64() && event["message"].is_string();
    assert!(!steps.is_empty() && steps.iter().all(is_whole), "{}", run.stderr);
    let last = events.last().expect("there are events");
    assert_eq!((run.code, last["level"].as_str()), (Some(1), Some("error")), "{}", run.stderr);
    let summary =
        events.iter().any(|event| event["message"].as_str().is_some_and(|text| text.contains("layers quantized")));
    assert!(summary, "{}", run.stderr);
}

#[test]
fn log_and_quiet_contradict_each_other() {
    let folder = folder();
    let mut command = onnxquant(&[Fixture::CNN.model(), folder.path().join("out.onnx")]);
    let run = Run::of(command.args(["--weights-only", "--quiet", "--log", "json"]));
    assert!(run.code == Some(2) && run.stderr.contains("--log has no effect here"), "{run:?}");
}

#[test]
fn dry_runs_tell_the_plan_and_its_price_and_write_nothing() {
    let folder = folder();
    let mut failures = Failures::default();
    for (fixture, args) in [
        (Fixture::CNN, &["--scheme", "w8", "--ort-lib", "off"][..]),
        (Fixture::TRANSFORMER, &["--scheme", "w4", "--ort-lib", "off"]),
        (Fixture::MLP, &["--scheme", "w8a8", "--ort-lib", "off", "--state", "state", "--report", "r.json"]),
    ] {
        let mut command = onnxquant(&[fixture.model(), "out.onnx".into()]);
        command.arg("--calib").arg(fixture.calib()).args(args).current_dir(folder.path());
        let run = Run::of(command.arg("--dry-run")).succeeded();
        failures.check(files_in(folder.path()).is_empty(), || format!("{:?}", files_in(folder.path())));
        for layer in inspect(&fixture.model(), &args[..2])["layers"].as_array().expect("it lists layers") {
            let label = layer["label"].as_str().expect("it has a name");
            failures.check(run.says(label), || format!("no `{label}` in\n{}", run.stdout));
        }
        for part in ["layers to quantize", "size ", "time about", "estimated", "memory about", "wrote nothing"] {
            failures.check(run.says(part), || format!("no `{part}` in\n{}", run.stdout));
        }
    }
    failures.finish();
}

#[test]
fn the_size_that_a_dry_run_tells_is_near() {
    let folder = folder();
    let mut failures = Failures::default();
    for (fixture, scheme) in
        [(Fixture::CNN, "w8"), (Fixture::TRANSFORMER, "w4"), (Fixture::MLP, "w8"), (Fixture::CONV1D, "w8")]
    {
        let output = folder.path().join("out.onnx");
        let found = report(&fixture.model(), &output, &["--scheme", scheme, "--method", "msq"], Some(&fixture.calib()));
        let mut command = onnxquant(&[&fixture.model(), &output]);
        let run =
            Run::of(command.arg("--calib").arg(fixture.calib()).args(["--scheme", scheme, "--dry-run"])).succeeded();
        let told =
            run.stdout.lines().find_map(|line| line.strip_prefix("size ")).and_then(|line| line.split_once("about "));
        let mut told = told.map_or("", |(_, rest)| rest).split(' ');
        let number = told.next().and_then(|number| number.parse::<f64>().ok()).expect("a size is told");
        let unit = match told.next() {
            Some("MB") => 1e6,
            Some("kB") => 1e3,
            _ => 1.0,
        };
        let ratio = number * unit / found["bytes_after"].as_f64().expect("a size is reported");
        failures.check((0.9..1.1).contains(&ratio), || format!("{} {scheme}: {ratio}", fixture.name));
    }
    failures.finish();
}

#[test]
fn dry_runs_refuse_what_runs_refuse() {
    let folder = folder();
    let model = path(&Fixture::CNN.model());
    let calib = path(&Fixture::TRANSFORMER.calib());
    for args in [
        &[model.as_str(), "out.onnx", "--calib", calib.as_str()][..],
        &[model.as_str(), model.as_str(), "--weights-only"],
        &["none.onnx", "out.onnx", "--weights-only"],
        &[model.as_str(), "out.onnx", "--weights-only", "--range", "mse"],
        &[model.as_str(), "none/out.onnx", "--weights-only"],
    ] {
        let run = |more: &[&str]| Run::of(onnxquant(args).args(more).current_dir(folder.path()));
        let (plain, dry) = (run(&[]), run(&["--dry-run"]));
        assert_eq!((dry.code, dry.complaints()), (Some(2), plain.complaints()), "{args:?}");
    }
}

#[test]
fn bits_that_buy_nothing_are_said() {
    let folder = folder();
    let mut command = onnxquant(&[Fixture::CNN.model(), folder.path().join("out.onnx")]);
    let run =
        Run::of(command.arg("--calib").arg(Fixture::CNN.calib()).args(["--bits", "6", "--method", "msq"])).succeeded();
    assert!(run.says("6 layers of 6 bits: stored in 8, so that 8 bits take as many bytes"), "{}", run.stdout);
    // So small that planes of 3 bits would take more bytes than they save.
    let report = report(
        &Fixture::MLP.model(),
        &folder.path().join("w3.onnx"),
        &["--scheme", "w3", "--method", "msq"],
        Some(&Fixture::MLP.calib()),
    );
    let stored =
        report["layers"].as_array().expect("it lists layers").iter().map(|layer| layer["stored_bits"].as_u64());
    let stored: Vec<Option<u64>> = stored.collect();
    assert!(stored.contains(&Some(4)), "{stored:?}");
}

#[test]
fn advice_to_keep_a_layer_in_float_makes_the_outputs_more_exact() {
    let folder = folder();
    let (model, calib) = (Fixture::CNN.model(), Fixture::CNN.calib());
    let args = ["--bits", "8", "--method", "msq", "--ort-lib", "off"];
    let coarse = [&args[..], &["--layer", "position = \"last\", bits = 2"]].concat();
    let found = report(&model, &folder.path().join("out.onnx"), &coarse, Some(&calib));
    let advice = found["outcome"]["advice"].as_array().expect("there is advice");
    let of_layer = advice.iter().filter_map(|line| line.as_str()?.split_once("`--exclude "));
    let label =
        of_layer.map(|(_, rest)| rest.split_once('`').expect("it is quoted").0).next().expect("a layer stands out");
    let without = [&args[..], &["--exclude", label]].concat();
    let better = report(&model, &folder.path().join("better.onnx"), &without, Some(&calib));
    let sqnr = |report: &Value| report["held_out"]["sqnr_db"].as_f64().expect("it is measured");
    assert!(sqnr(&better) > sqnr(&found), "{} after {}", sqnr(&better), sqnr(&found));
}

#[test]
fn the_goal_that_is_advised_keeps_in_float_what_loses_most() {
    let folder = folder();
    let run = |name: &str, goal: &str| {
        let args = ["--scheme", "w8a8", "--ort-lib", "off", "--min-sqnr", goal];
        report(&Fixture::RESNET.model(), &folder.path().join(name), &args, Some(&Fixture::RESNET.calib()))
    };
    let found = run("out.onnx", "38");
    let advice = found["outcome"]["advice"].as_array().expect("there is advice");
    let line = advice.iter().find_map(|line| line.as_str()?.strip_prefix("most is lost in ")).expect("it has a goal");
    let (layers, rest) = line.split_once(": `--min-sqnr ").expect("it names layers");
    let goal = rest.split_once('`').expect("it is quoted").0;
    let better = run("better.onnx", goal);
    let sqnr = better["held_out"]["sqnr_db"].as_f64().expect("it is measured");
    assert!(sqnr >= goal.parse().expect("it is a number"), "{sqnr} dB: {line}");
    for layer in layers.split(", ").map(|name| name.trim_matches('`')) {
        let activations = |report: &Value| {
            let layers = report["layers"].as_array().expect("it lists layers").iter();
            layers.clone().find(|found| found["label"] == layer).expect("it is one of them")["activations"].clone()
        };
        assert_eq!((activations(&found), activations(&better)), ("static".into(), "float".into()), "{layer}");
    }
}

/// A shell with this line; the command is `$0`.
fn shell(line: &str) -> Run {
    let model = Fixture::CNN.model();
    let program = env!("CARGO_BIN_EXE_onnxquant");
    let folder = folder();
    let mut command = Command::new("timeout");
    command.args(["60", "bash", "-c", line, program]).arg(model).current_dir(folder.path());
    Run::of(&mut command)
}

#[test]
fn full_disks_and_readers_that_leave_end_a_run_with_the_right_code() {
    let mut failures = Failures::default();
    for (line, code) in [
        ("$0 inspect $1 >/dev/full", 2),
        ("$0 inspect $1 >/dev/full 2>&1", 2),
        ("$0 inspect none.onnx 2>/dev/full", 2),
        ("$0 $1 out.onnx --weights-only >/dev/full", 2),
        ("$0 $1 out.onnx --weights-only >/dev/full 2>&1", 2),
        ("$0 $1 out.onnx --weights-only 2>/dev/full", 0),
        ("$0 $1 out.onnx --weights-only --exclude '*' >/dev/full 2>&1", 2),
        ("$0 $1 out.onnx --weights-only --exclude '*' 2>/dev/full", 1),
        ("$0 --help >/dev/full", 2),
        ("$0 --help >/dev/full 2>&1", 2),
        ("$0 --version >&-", 0),
        ("$0 completions bash >/dev/full", 2),
        ("$0 --bits 99 2>/dev/full", 2),
        ("$0 $1 out.onnx --weights-only >&- 2>&-", 0),
        ("set -o pipefail; $0 $1 out.onnx --weights-only | true", 0),
        ("set -o pipefail; $0 $1 out.onnx --weights-only 2>&1 | head -1", 0),
        ("set -o pipefail; $0 --help | true", 0),
        ("set -o pipefail; $0 inspect $1 | head -1", 0),
    ] {
        let run = shell(line);
        failures.check(run.code == Some(code) && !run.stderr.contains("panicked"), || format!("{line}: {run:?}"));
    }
    failures.finish();
}
