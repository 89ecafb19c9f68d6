//! Single layers get bits of their own, or stay in float, by rules of the command line and of files.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::support::{Failures, Fixture, Run, folder, inspect, onnxquant, refused, report};

/// `node_fc1`, `node_fc2` and `node_logits`, all Gemm.
const MODEL: Fixture = Fixture::MLP;
/// Five Conv, and a Gemm behind them.
const CNN: Fixture = Fixture::CNN;

/// Bits of every layer, in their order; 0 of those that stay in float.
fn bits(found: &Value) -> Vec<u64> {
    let of = |key: &str| found[key].as_array().cloned().unwrap_or_default();
    let quantized = of("layers").into_iter().map(|layer| layer["bits"].as_u64().expect("a layer has bits"));
    quantized.chain(of("skipped").into_iter().map(|_| 0)).collect()
}

fn text(path: &Path) -> &str {
    path.to_str().expect("the path is text")
}

fn config(folder: &Path, said: &str) -> PathBuf {
    let path = folder.join("c.toml");
    std::fs::write(&path, said).expect("the folder can be written");
    path
}

/// A run with samples, and what it wrote.
fn quantized(folder: &Path, args: &[&str]) -> (Run, Vec<u8>) {
    let output = folder.join("out.onnx");
    let mut command = onnxquant(&[MODEL.model(), output.clone()]);
    let run = Run::of(command.args(args).arg("--calib").arg(MODEL.calib()));
    (run, std::fs::read(output).unwrap_or_default())
}

#[test]
fn rules_pick_layers_by_name_operator_and_place_and_the_last_one_holds() {
    let cases: [(Fixture, &[&str], &[u64]); 6] = [
        (MODEL, &["match = '*fc2', bits = 4"], &[8, 4, 8]),
        (MODEL, &["position = 'last', bits = 3", "match = '*fc[12]', bits = 4"], &[4, 4, 3]),
        (MODEL, &["match = '*', bits = 4", "position = 1, float = true", "match = '*logits', bits = 6"], &[4, 6, 0]),
        (CNN, &["op-type = 'Conv', bits = 4"], &[4, 4, 4, 4, 4, 8]),
        (CNN, &["op-type = 'Conv', position = 'last', bits = 5"], &[8, 8, 8, 8, 5, 8]),
        (CNN, &["op-type = 'Gemm', float = true", "position = 'first', bits = 7"], &[7, 8, 8, 8, 8, 0]),
    ];
    let mut failures = Failures::default();
    for (fixture, rules, expected) in cases {
        let words: Vec<&str> = rules.iter().flat_map(|rule| ["--layer", rule]).chain(["--scheme", "w8"]).collect();
        let found = inspect(&fixture.model(), &words);
        failures.check(bits(&found) == expected, || format!("{rules:?}: {:?}", bits(&found)));
        failures.check(found["unmatched"] == serde_json::json!([]), || format!("{rules:?}: {}", found["unmatched"]));
    }
    failures.finish();
}

#[test]
fn tables_of_a_file_and_flags_give_the_same_bytes_and_are_printed_to_be_read_again() {
    let folder = folder();
    let said = "scheme = \"w8\"\n\n[[layer]]\nmatch = \"*fc[12]\" # both\nbits = 4\n\n[[layer]]\nop_type = 'Gemm'\n\
                position = \"first\"\nfloat = true\n";
    let path = config(folder.path(), said);
    let (run, of_file) = quantized(folder.path(), &["--config", text(&path)]);
    run.succeeded();
    let rules = ["--layer", "match = '*fc[12]', bits = 4", "--layer", "op-type='Gemm',position='first',float=true"];
    let flags = [&["--scheme", "w8"][..], &rules].concat();
    let (run, of_flags) = quantized(folder.path(), &flags);
    run.succeeded();
    assert!(of_file == of_flags && !of_file.is_empty(), "other bytes");
    let (run, of_none) = quantized(folder.path(), &["--scheme", "w8"]);
    run.succeeded();
    assert!(of_none != of_flags, "rules change nothing");
    let printed = Run::of(onnxquant(&["--print-config", "--config", text(&path)]).args(["--calib", "c"])).succeeded();
    let again = config(
        folder.path(),
        &printed
            .stdout
            .lines()
            .filter(|line| !line.starts_with("calib = "))
            .fold(String::new(), |text, line| text + line + "\n"),
    );
    let (run, of_printed) = quantized(folder.path(), &["--config", text(&again)]);
    run.succeeded();
    assert!(of_printed == of_flags, "other bytes from what was printed: {}", printed.stdout);
    // Rules of the command line take the place of those of the file.
    let typed = ["--config", text(&path), "--layer", "position = 'last', bits = 2", "--print-config"];
    let printed = Run::of(&mut onnxquant(&typed)).succeeded().stdout;
    assert!(printed.contains("layer = [{ position = \"last\", bits = 2 }]"), "{printed}");
}

#[test]
fn bits_of_rules_are_written_and_reported() {
    let folder = folder();
    for scheme in ["w8", "w4", "w8a8", "w8a8-dynamic"] {
        let args = ["--scheme", scheme, "--layer", "match = '*fc2', bits = 3", "--layer", "position = 3, float = true"];
        let found = report(&MODEL.model(), &folder.path().join("out.onnx"), &args, Some(&MODEL.calib()));
        let of_all = if scheme == "w4" { 4 } else { 8 };
        assert_eq!(bits(&found), [of_all, 3, 0], "{scheme}: {found:#}");
        assert_eq!(found["settings"]["layer_rules"][1], "position = 3, float = true");
    }
}

#[test]
fn named_bits_are_kept_and_no_other_layer_makes_up_for_them_where_a_goal_is_missed() {
    let folder = folder();
    let report = folder.path().join("report.json");
    let args = ["--scheme", "auto", "--layer", "match = '*fc2', bits = 2", "--report", text(&report)];
    let (run, _) = quantized(folder.path(), &args);
    assert!(run.code == Some(1) && run.stderr.contains("20.00 dB wanted"), "{run:?}");
    let found = std::fs::read_to_string(&report).expect("the report was written");
    assert_eq!(bits(&serde_json::from_str(&found).expect("it is JSON")), [8, 2, 8]);
}

#[test]
fn mistakes_in_rules_are_told_with_their_line() {
    let folder = folder();
    let cases: [(&str, &[&str]); 8] = [
        ("bits = 8\n[[layer]]\nmatch = \"a\"\nbtis = 4\n", &["c.toml`, line 4", "`btis`", "`bits`"]),
        ("\n[[layer]]\nmatch = \"a\"\nbits = 4\nrange = \"mse\"\n", &["line 5", "`range`", "whole model"]),
        ("[[layer]]\nmatch = \"a\"\nscheme = \"w8a8\"\n", &["line 3", "`scheme`", "whole model"]),
        ("[[layer]]\nmatch = \"a\"\nbits = 4\n\n[[layer]]\nbits = 3\n", &["line 5", "which layers"]),
        ("[[layer]]\nmatch = \"a\"\nbits = \"four\"\n", &["line 3", "`bits`", "1 to 8"]),
        ("[[layer]]\nmatch = \"a[\"\nbits = 4\n", &["line 2", "bad pattern"]),
        ("layer = 4\n", &["line 1", "`layer` is a table", "integer"]),
        ("[[layer]]\nmatch = \"a\"\nfloat = true\nbits = 2\n", &["c.toml`, line", "not both"]),
    ];
    let mut failures = Failures::default();
    for (said, parts) in cases {
        let path = config(folder.path(), said);
        let (run, _) = quantized(folder.path(), &["--config", text(&path)]);
        let problem = refused(&run, parts);
        failures.check(problem.is_none(), || format!("{said}: {}", problem.unwrap_or_default()));
    }
    let (run, _) = quantized(folder.path(), &["--layer", "match = 'a', bits = 9"]);
    let problem = refused(&run, &["--layer", "1 to 8"]);
    failures.check(problem.is_none(), || problem.unwrap_or_default());
    failures.finish();
}

#[test]
fn bits_of_single_layers_are_refused_beside_what_says_all_bits_and_floats_are_not() {
    let folder = folder();
    let plan = folder.path().join("plan.toml");
    let saving = ["--bits", "4", "--exclude", "*logits", "--save-plan", text(&plan)];
    quantized(folder.path(), &saving).0.succeeded();
    std::fs::remove_file(folder.path().join("out.onnx")).expect("it was written");
    let beside: [(&[&str], &str); 5] = [
        (&["--average-bits", "4"], "--average-bits"),
        (&["--target-size", "1"], "--target-size"),
        (&["--plan", text(&plan)], "--plan"),
        (&["--scheme", "w8", "--min-sqnr", "20"], "--min-sqnr"),
        (&["--scheme", "fp8"], "FP8"),
    ];
    let mut failures = Failures::default();
    for (args, part) in beside {
        let bits = [args, &["--layer", "match = '*logits', bits = 4"]].concat();
        let (run, written) = quantized(folder.path(), &bits);
        let problem = refused(&run, &[part, "--layer", "leave one out"]).or((!written.is_empty()).then(String::new));
        failures.check(problem.is_none(), || format!("{args:?}: {}", problem.unwrap_or_default()));
    }
    for (args, _) in beside {
        let floats = [args, &["--layer", "match = '*logits', float = true"]].concat();
        let (run, _) = quantized(folder.path(), &floats);
        failures.check(run.code == Some(0), || format!("{args:?}: {run:?}"));
    }
    failures.finish();
}

#[test]
fn a_rule_that_matches_no_layer_is_no_success_unless_that_is_allowed() {
    let folder = folder();
    let rules: [&[&str]; 3] = [
        &["--layer", "match = 'zz*', bits = 4"],
        &["--layer", "op-type = 'Conv', float = true"],
        // It stays in float, so that bits change nothing.
        &["--exclude", "*fc1", "--layer", "match = '*fc1', bits = 4"],
    ];
    let mut failures = Failures::default();
    for rule in rules {
        let args = [&["--scheme", "w8"], rule].concat();
        let (run, written) = quantized(folder.path(), &args);
        let is_told = run.stderr.contains("`--layer '") && run.stderr.contains("matches no layer");
        failures.check(run.code == Some(1) && is_told && !written.is_empty(), || format!("{rule:?}: {run:?}"));
        let (run, _) = quantized(folder.path(), &[&args[..], &["--allow-float"]].concat());
        failures.check(run.code == Some(0), || format!("{rule:?}: {run:?}"));
    }
    failures.finish();
}
