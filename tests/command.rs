//! The command itself: exit codes, messages, what it prints, what it leaves behind.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::support::{Failures, Fixture, MatMulModel, Run, files_in, folder, inspect, onnxquant, report, root, write};

/// What `compare --json` says.
pub fn compare(first: &Path, second: &Path, data: &Path) -> Value {
    compare_with(first, second, data, &[])
}

/// The same with more arguments.
pub fn compare_with(first: &Path, second: &Path, data: &Path, args: &[&str]) -> Value {
    let mut command = onnxquant(&["compare", "--json"]);
    let run = Run::of(command.args([first, second]).arg("--data").arg(data).args(args)).succeeded();
    serde_json::from_str(&run.stdout).expect("compare --json prints JSON")
}

pub fn bytes(path: &Path) -> Vec<u8> {
    std::fs::read(path).expect("the file can be read")
}

#[test]
fn result_has_usual_permissions_and_the_input_is_untouched() {
    use std::os::unix::fs::PermissionsExt;
    let folder = folder();
    let (input, output) = (folder.path().join("in.onnx"), folder.path().join("out.onnx"));
    std::fs::copy(Fixture::CNN.model(), &input).expect("the fixture can be copied");
    let before = (bytes(&input), std::fs::metadata(&input).and_then(|found| found.modified()).expect("it has a time"));
    report(&input, &output, &[], Some(&Fixture::CNN.calib()));
    let after = (bytes(&input), std::fs::metadata(&input).and_then(|found| found.modified()).expect("it has a time"));
    assert!(before == after, "the input changed");
    for name in ["out.onnx", "out.report.json"] {
        let mode = std::fs::metadata(folder.path().join(name)).expect("it was written").permissions().mode();
        assert_eq!(mode & 0o777, 0o644, "of {name}");
    }
    assert_eq!(files_in(folder.path()), ["in.onnx", "out.onnx", "out.report.json"]);
}

#[test]
fn result_replaces_an_older_file() {
    let folder = folder();
    let output = folder.path().join("out.onnx");
    std::fs::write(&output, "something older").expect("it can be written");
    report(&Fixture::MLP.model(), &output, &[], None);
    assert!(inspect(&output, &[])["skipped"].as_array().is_some_and(|skipped| skipped.len() == 3));
}

/// Kills the process while it has the unfinished output open.
#[cfg(target_os = "linux")]
#[test]
fn killed_run_leaves_no_file() {
    let folder = folder();
    let (input, output) = (folder.path().join("in.onnx"), folder.path().join("out.onnx"));
    write(&MatMulModel::new(4096, 4096).proto(), &input);
    // The process may end between two looks; it is killed in one of a few rounds.
    for _ in 0..20 {
        let mut command = onnxquant(&[&input, &output]);
        let mut child =
            command.args(["--weights-only", "--quiet", "--external-data"]).spawn().expect("it can be started");
        let opened = loop {
            let ended = child.try_wait().expect("it can be waited for").is_some();
            if ended || has_open(child.id(), folder.path()) {
                break !ended;
            }
            std::thread::yield_now();
        };
        child.kill().expect("it can be killed");
        let status = child.wait().expect("it can be waited for");
        if opened && status.code().is_none() {
            assert_eq!(files_in(folder.path()), ["in.onnx"]);
            return;
        }
        std::fs::remove_file(&output).expect("it was written");
        std::fs::remove_file(folder.path().join("out.onnx.data")).expect("it was written");
    }
    panic!("the process was never caught while it wrote");
}

/// Whether the process has a file of `folder` open other than the input.
#[cfg(target_os = "linux")]
fn has_open(process: u32, folder: &Path) -> bool {
    let Ok(entries) = std::fs::read_dir(format!("/proc/{process}/fd")) else { return false };
    let targets = entries.flatten().filter_map(|entry| std::fs::read_link(entry.path()).ok());
    targets.into_iter().any(|target| target.starts_with(folder) && !target.ends_with("in.onnx"))
}

#[test]
fn pipes_get_no_progress_bars_and_quiet_prints_nothing() {
    let folder = folder();
    let run = |more: &[&str]| {
        let mut command = onnxquant(&[Fixture::CNN.model(), folder.path().join("out.onnx")]);
        Run::of(command.arg("--calib").arg(Fixture::CNN.calib()).args(more)).succeeded()
    };
    let usual = run(&[]);
    assert!(usual.complaints().is_empty(), "{}", usual.stderr);
    assert!(!usual.stdout.contains('\x1b') && !usual.stdout.contains('\r'), "{}", usual.stdout);
    let quiet = run(&["--quiet"]);
    assert_eq!((quiet.stdout, quiet.stderr), (String::new(), String::new()));
}

#[test]
fn summary_tells_layers_bits_sizes_worst_layers_and_error() {
    let folder = folder();
    let mut command = onnxquant(&[Fixture::CNN.model(), folder.path().join("out.onnx")]);
    command.arg("--calib").arg(Fixture::CNN.calib()).args(["--bits", "4", "--exclude", "*logits*"]);
    let run = Run::of(&mut command).succeeded();
    let parts = [
        "5 layers quantized to 4 bits per channel, 1 layers left in float; 31904 weights",
        "worst layers",
        "node_conv1",
        "1 layers: excluded by the settings",
        "runs as 5 float",
        "size ",
        "opset 18",
        "on 9 samples held out",
    ];
    let missing = parts.iter().filter(|part| !run.says(part)).collect::<Vec<_>>();
    assert!(missing.is_empty(), "{missing:?} not in\n{}", run.stdout);
}

#[test]
fn report_has_the_documented_shape() {
    let folder = folder();
    let output = folder.path().join("out.onnx");
    let mut paths = BTreeSet::new();
    let auto: &[&str] = &["--method", "auto"];
    let walk: &[&str] = &["--scheme", "w8", "--method", "maly-saab", "--no-fallback"];
    let integers: &[&str] = &[
        "--scheme",
        "auto",
        "--target",
        "qdq-strict",
        "--range",
        "mse",
        "--min-sqnr",
        "25",
        "--max-loss",
        "0.5",
        "--method",
        "msq",
    ];
    for (fixture, args) in [(Fixture::CNN, auto), (Fixture::TRANSFORMER, walk), (Fixture::CONV1D, integers)] {
        shape("", &report(&fixture.model(), &output, args, Some(&fixture.calib())), &mut paths);
    }
    let found = paths.into_iter().map(|path| path + "\n").collect::<String>();
    let expected = include_str!("report_shape.txt");
    assert_eq!(found, expected, "found:\n{found}");
}

/// Every path in a JSON value with the type at its end; elements of lists have one path.
fn shape(path: &str, value: &Value, paths: &mut BTreeSet<String>) {
    let kind = match value {
        // How a candidate fared depends on the data.
        Value::Object(_) if path.ends_with(".outcome") => return,
        Value::Object(fields) => {
            return fields.iter().for_each(|(key, value)| shape(&format!("{path}.{key}"), value, paths));
        }
        Value::Array(elements) if !elements.is_empty() => {
            return elements.iter().for_each(|element| shape(&format!("{path}[]"), element, paths));
        }
        Value::Array(_) => return,
        Value::Null => return,
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) if path.ends_with(".outcome") => return,
        Value::String(_) => "string",
    };
    paths.insert(format!("{}: {kind}", path.trim_start_matches('.')));
}

#[test]
fn include_and_exclude_choose_layers_by_name() {
    let model = Fixture::CNN.model();
    let labels = |args: &[&str]| {
        let found = inspect(&model, args);
        let layers = found["layers"].as_array().expect("it lists layers").clone();
        layers.iter().map(|layer| layer["label"].as_str().unwrap_or_default().to_owned()).collect::<Vec<_>>()
    };
    let all = ["node_conv1", "node_depthwise", "node_pointwise", "node_grouped", "node_conv5", "node_logits"];
    let cases: [(&[&str], &[&str]); 6] = [
        (&[], &all),
        (&["--include", "node_conv1"], &all[..1]),
        (&["--include", "*wise", "--include", "*logits"], &[all[1], all[2], all[5]]),
        (&["--exclude", "*wise"], &[all[0], all[3], all[4], all[5]]),
        (&["--include", "*wise", "--exclude", "*depth*"], &all[2..3]),
        (&["--include", "nothing"], &[]),
    ];
    let mut failures = Failures::default();
    for (args, expected) in cases {
        let found = labels(args);
        failures.check(found == expected, || format!("{args:?}: {found:?}"));
    }
    failures.finish();
}

#[test]
fn excluded_layers_keep_their_float_weights() {
    let folder = folder();
    let output = folder.path().join("out.onnx");
    let found = report(&Fixture::MLP.model(), &output, &["--exclude", "node_fc*"], Some(&Fixture::MLP.calib()));
    let reasons = found["skipped"].as_array().expect("it lists skipped layers").iter().map(|layer| &layer["reason"]);
    assert_eq!(reasons.collect::<Vec<_>>(), ["excluded", "excluded"]);
    let weights = |path: &Path| {
        let graph = onnxquant::read(path).expect("it can be read").to_proto().graph.expect("it has a graph");
        let mut kept =
            graph.initializer.into_iter().filter(|tensor| !tensor.name().starts_with("fc3")).collect::<Vec<_>>();
        kept.sort_by(|a, b| a.name().cmp(b.name()));
        kept
    };
    let before = weights(&Fixture::MLP.model());
    assert_eq!(before.len(), 4, "two weights and two biases");
    assert_eq!(weights(&output), before);
}

#[test]
fn inspect_prints_a_table_of_all_layers() {
    let mut command = onnxquant(&["inspect"]);
    let run = Run::of(command.arg(Fixture::TRANSFORMER.model()).args(["--bits", "4"])).succeeded();
    let lines = run.stdout.lines().collect::<Vec<_>>();
    let layers = lines.iter().skip(1).take_while(|line| line.starts_with("node_")).count();
    assert_eq!(layers, 18, "a head, 18 layers and sums:\n{}", run.stdout);
    assert!(lines[0].starts_with("layer"), "{}", lines[0]);
    assert_eq!(lines[1..19].iter().filter(|line| line.contains("INT4")).count(), 14);
    assert_eq!(lines[1..19].iter().filter(|line| line.contains("both operands are activations")).count(), 4);
    let sum = "14 layers to quantize, 4 left in float, opset 17";
    assert!(lines[19..].contains(&sum), "{}", run.stdout);
}

#[test]
fn inspect_prints_what_each_pass_did() {
    let trap = root().join("fixtures/traps/norm_after_conv_bias.onnx");
    let run = Run::of(onnxquant(&["inspect", "--passes"]).arg(&trap)).succeeded();
    let lines = run.stdout.lines().collect::<Vec<_>>();
    assert!(lines[0].starts_with("pass ") && lines.len() == 11, "a head and ten passes:\n{}", run.stdout);
    let words = |line: &str| line.split_whitespace().take(2).map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(words(lines[6]), ["fold_batchnorm", "1"], "{}", run.stdout);
    let found = inspect(&trap, &["--passes"]);
    assert_eq!(found["passes"][5]["name"], "fold_batchnorm");
    assert_eq!((&found["passes"][5]["changed"], &found["layers"]), (&1.into(), &serde_json::Value::Null));
}

#[test]
fn inspect_tells_as_json_what_would_be_done() {
    let found = inspect(&Fixture::CONV1D.model(), &["--bits", "2", "--granularity", "block:32"]);
    let layer = |index: usize| &found["layers"][index];
    let label = |index: usize| layer(index)["label"].as_str();
    assert_eq!(found["layers"].as_array().map(Vec::len), Some(5));
    assert_eq!((label(0), layer(0)["op_type"].as_str()), (Some("node_conv1"), Some("Conv")));
    assert_eq!((label(4), layer(4)["op_type"].as_str()), (Some("node_head"), Some("MatMul")));
    assert_eq!(layer(4)["parameters"], 5120);
    assert_eq!(layer(4)["weight_shape"], serde_json::json!([512, 10]));
    let storage = |index: usize| (layer(index)["bits"].as_u64(), layer(index)["storage"].as_str());
    // So small that planes would take more bytes than they save.
    assert_eq!((storage(0), storage(4)), ((Some(2), Some("INT8")), (Some(2), Some("UINT4"))));
    assert_eq!((&layer(0)["operators"], &layer(4)["operators"]), (&"Cast, Mul".into(), &"MatMulNBits".into()));
    assert_eq!(layer(0)["granularity"], "channel");
    assert_eq!(layer(4)["granularity"], serde_json::json!({ "block": 32 }));
    assert_eq!((found["opset"].as_i64(), found["skipped"].as_array().map(Vec::len)), (Some(18), Some(0)));
}

#[test]
fn compare_of_a_model_with_itself_finds_nothing() {
    let model = Fixture::TRANSFORMER.model();
    let found = compare(&model, &model, &Fixture::TRANSFORMER.calib());
    let outputs = found["outputs"].as_array().expect("it lists outputs");
    assert_eq!(outputs.iter().map(|output| &output["name"]).collect::<Vec<_>>(), ["logits", "embedding"]);
    for output in outputs {
        assert_eq!((output["max_abs_error"].as_f64(), output["sqnr_db"].as_f64()), (Some(0.0), None), "{output}");
        assert!(output["mean_cosine"].as_f64().is_some_and(|cosine| (cosine - 1.0).abs() < 1e-9), "{output}");
    }
}

#[test]
fn compare_prints_a_line_for_each_output() {
    let folder = folder();
    let (model, output) = (Fixture::TRANSFORMER.model(), folder.path().join("out.onnx"));
    report(&model, &output, &[], Some(&Fixture::TRANSFORMER.calib()));
    let mut command = onnxquant(&["compare"]);
    command.args([&model, &output]).arg("--data").arg(Fixture::TRANSFORMER.calib()).args(["--samples", "5"]);
    let run = Run::of(&mut command).succeeded();
    let lines = run.stdout.lines().collect::<Vec<_>>();
    assert_eq!(lines.len(), 3, "{}", run.stdout);
    for (line, name) in lines[1..].iter().zip(["logits", "embedding"]) {
        assert!(line.starts_with(name) && line.contains(" dB") && line.ends_with(" 5"), "{line}");
    }
    assert_eq!(run.stderr, "");
}

#[test]
fn samples_limits_how_many_are_used() {
    let folder = folder();
    let args = ["--samples", "10"];
    let found = report(&Fixture::MLP.model(), &folder.path().join("out.onnx"), &args, Some(&Fixture::MLP.calib()));
    assert_eq!(
        (&found["held_out"]["calibration_samples"], &found["held_out"]["held_out_samples"]),
        (&6.into(), &3.into())
    );
}

#[test]
fn quantized_model_is_left_as_it_is() {
    let folder = folder();
    let (first, second) = (folder.path().join("first.onnx"), folder.path().join("second.onnx"));
    let mut failures = Failures::default();
    for fixture in Fixture::ALL {
        report(&fixture.model(), &first, &["--bits", "4"], Some(&fixture.calib()));
        let again_args = ["--bits", "2", "--allow-float"];
        let again = report(&first, &second, &again_args, None);
        failures.check(again["layers"] == serde_json::json!([]), || format!("{}: quantized twice", fixture.name));
        failures.check(bytes(&first) == bytes(&second), || format!("{}: other bytes", fixture.name));
        let with_data = report(&first, &second, &again_args, Some(&fixture.calib()));
        failures.check(bytes(&first) == bytes(&second), || format!("{}: other bytes with data", fixture.name));
        failures.check(with_data["layers"] == serde_json::json!([]), || format!("{}: quantized twice", fixture.name));
    }
    failures.finish();
}

#[test]
fn settings_and_certificates_stand_in_the_metadata() {
    let folder = folder();
    let output = folder.path().join("out.onnx");
    let found =
        report(&Fixture::MLP.model(), &output, &["--method", "msq", "--bits", "4"], Some(&Fixture::MLP.calib()));
    let model = onnxquant::read(&output).expect("it can be read");
    let entry = |key: &str| -> Value {
        serde_json::from_str(model.metadata(key).expect("the entry is there")).expect("the entry is JSON")
    };
    assert_eq!(entry("onnxquant.settings"), found["settings"]);
    let certificates = entry("onnxquant.certificates");
    for (index, label) in ["node_fc1", "node_fc2", "node_logits"].into_iter().enumerate() {
        let (entry, layer) = (&certificates[index], &found["layers"][index]);
        assert_eq!((entry["layer"].as_str(), &entry["error"]), (Some(label), &layer["certificate"]["achieved"]));
    }
}

#[test]
fn help_has_examples_and_exit_codes_and_completions_are_printed() {
    let help = Run::of(&mut onnxquant(&["--help"])).succeeded().stdout;
    for part in ["Examples:", "Exit codes:", "--calib", "inspect", "compare"] {
        assert!(help.contains(part), "`{part}` not in\n{help}");
    }
    for shell in ["bash", "zsh", "fish"] {
        let script = Run::of(&mut onnxquant(&["completions", shell])).succeeded().stdout;
        assert!(script.contains("onnxquant") && script.contains("granularity"), "for {shell}");
    }
    let folder = folder();
    let path = folder.path().join("onnxquant.bash");
    std::fs::write(&path, Run::of(&mut onnxquant(&["completions", "bash"])).stdout).expect("it can be written");
    Run::of(Command::new("bash").arg("-n").arg(path)).succeeded();
    let version = Run::of(&mut onnxquant(&["--version"])).succeeded().stdout;
    assert_eq!(version.trim(), format!("onnxquant {}", env!("CARGO_PKG_VERSION")));
}
