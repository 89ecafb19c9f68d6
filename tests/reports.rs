//! Reports: their schema, their page, and what changed from one to another.

use std::path::{Path, PathBuf};

use onnxquant_ir::onnx::NodeProto;
use serde_json::{Value, json};

use crate::support::{
    Failures, Fixture, Page, Run, float_tensor, float_value, folder, model_of, node, noise, onnxquant, refused, report,
    root, schema_faults, unescaped, write,
};

/// Runs, and the sections that their pages have beside those of all.
const RUNS: [(Fixture, &[&str], &[&str]); 5] = [
    (Fixture::MLP, &[], &[]),
    (
        Fixture::CNN,
        &["--scheme", "w8a8", "--target", "qdq-strict", "--min-sqnr", "35"],
        &["activations", "sensitivity"],
    ),
    (Fixture::TRANSFORMER, &["--average-bits", "3.5"], &["curve"]),
    (Fixture::CONV1D, &["--scheme", "fp8", "--exclude", "*conv1*"], &[]),
    (Fixture::MLP, &["--scheme", "w8", "--min-sqnr", "20"], &["curve"]),
];

/// Writes report and page of a run, which may miss its goal.
fn run(fixture: Fixture, args: &[&str], output: &Path) -> (Value, String) {
    let (json, html) = (output.with_extension("json"), output.with_extension("html"));
    let mut command = onnxquant(&[&fixture.model(), output]);
    command.args(args).arg("--calib").arg(fixture.calib()).arg("--report").arg(&json).arg("--report").arg(&html);
    let run = Run::of(&mut command);
    assert!(matches!(run.code, Some(0 | 1)), "{}{}", run.stdout, run.stderr);
    let text = |path: &PathBuf| std::fs::read_to_string(path).expect("it was written");
    (serde_json::from_str(&text(&json)).expect("the report is JSON"), text(&html))
}

fn labels(report: &Value) -> Vec<String> {
    let layers = report["layers"].as_array().expect("there are layers");
    layers.iter().map(|layer| layer["label"].as_str().expect("a layer has a name").to_owned()).collect()
}

/// What is wrong with the page of a run.
fn faults(report: &Value, html: &str, more: &[&str]) -> Vec<String> {
    let page = match Page::parse(html) {
        Ok(page) => page,
        Err(fault) => return vec![fault],
    };
    let mut faults = Vec::new();
    let sections = ["verdict", "outputs", "spine", "size", "error", "weights", "float", "run"].into_iter();
    for id in sections.chain(more.iter().copied()) {
        let Some(section) = page.section(id) else {
            faults.push(format!("no section `{id}`"));
            continue;
        };
        if ["size", "error", "weights"].contains(&id) {
            let section = unescaped(section);
            let missing = labels(report).into_iter().filter(|label| !section.contains(label));
            faults.extend(missing.map(|label| format!("`{label}` is not in section `{id}`")));
        }
        let is_plotted = !["verdict", "outputs", "spine", "float", "run"].contains(&id);
        if is_plotted && !section.contains("<svg") {
            faults.push(format!("no plot in section `{id}`"));
        }
    }
    faults.extend(page.links.iter().filter_map(|link| {
        let is_inner = link.strip_prefix('#').is_some_and(|id| page.ids.contains(id));
        (!is_inner).then(|| format!("`{link}` leads elsewhere"))
    }));
    let foreign = ["http:", "https:", "//cdn", "url(", "@import", "NaN", "undefined"];
    faults
        .extend(foreign.into_iter().filter(|word| html.contains(word)).map(|word| format!("`{word}` is in the page")));
    let active = ["script", "link", "iframe", "img", "object", "embed"];
    faults
        .extend(active.into_iter().filter(|name| page.elements.contains(*name)).map(|name| format!("it has <{name}>")));
    faults
}

#[test]
fn pages_hold_every_layer_and_need_nothing_else() {
    let folder = folder();
    let mut failures = Failures::default();
    for (at, (fixture, args, more)) in RUNS.into_iter().enumerate() {
        let (report, html) = run(fixture, args, &folder.path().join(format!("{at}.onnx")));
        let faults = faults(&report, &html, more);
        failures.check(faults.is_empty(), || format!("{} {args:?}: {faults:#?}", fixture.name));
    }
    failures.finish();
}

#[test]
fn reports_are_as_the_schema_says() {
    let folder = folder();
    let schema = std::fs::read_to_string(root().join("docs/report.schema.json")).expect("it is published");
    let schema: Value = serde_json::from_str(&schema).expect("it is JSON");
    let mut failures = Failures::default();
    for (at, (fixture, args, _)) in RUNS.into_iter().enumerate() {
        let (report, _) = run(fixture, args, &folder.path().join(format!("{at}.onnx")));
        let faults = schema_faults(&schema, &report);
        failures.check(faults.is_empty(), || format!("{} {args:?}: {faults:#?}", fixture.name));
        let without = json!({ "schema_version": 1, "colour": "red" });
        failures.check(!schema_faults(&schema, &without).is_empty(), || "anything is a report".to_owned());
    }
    let output = folder.path().join("none.onnx");
    let faults = schema_faults(&schema, &report(&Fixture::MLP.model(), &output, &[], None));
    failures.check(faults.is_empty(), || format!("without data: {faults:#?}"));
    let printed = Run::of(&mut onnxquant(&["report", "--schema"])).succeeded().stdout;
    failures
        .check(serde_json::from_str::<Value>(&printed).ok() == Some(schema), || "another schema is printed".to_owned());
    failures.finish();
}

#[test]
fn reports_say_how_they_were_made() {
    let folder = folder();
    let output = folder.path().join("out.onnx");
    let (found, html) = run(Fixture::MLP, &["--scheme", "w4", "--threads", "1"], &output);
    assert_eq!(found["files"]["input"]["name"], "model.onnx", "{}", found["files"]);
    let bytes = std::fs::metadata(&output).expect("it was written").len();
    assert_eq!((&found["files"]["output"]["bytes"], &found["bytes_after"]), (&bytes.into(), &bytes.into()));
    let hash = found["files"]["output"]["sha256"].as_str().expect("it has a hash");
    assert!(hash.len() == 64 && html.contains(hash), "{hash}");
    let run = &found["run"];
    let command = run["command"].as_array().expect("it has a command");
    assert_eq!(
        (&command[0], command.last()),
        (&"onnxquant".into(), Some(&folder.path().join("out.html").to_str().into()))
    );
    assert!(run["machine"]["threads"] == 1 && run["started"].as_str().is_some_and(|at| at.ends_with('Z')), "{run}");
    assert_eq!(run["steps"].as_array().map(Vec::len), Some(3), "{run}");
}

#[test]
fn weights_and_codes_are_counted_once_each() {
    let folder = folder();
    let (found, _) = run(Fixture::TRANSFORMER, &["--scheme", "w4"], &folder.path().join("out.onnx"));
    let sum = |counts: &Value| counts.as_array().into_iter().flatten().filter_map(Value::as_u64).sum::<u64>();
    for layer in found["layers"].as_array().expect("there are layers") {
        let (weights, all) = (&layer["weights"], layer["parameters"].as_u64());
        assert_eq!((Some(sum(&weights["counts"])), Some(sum(&weights["codes"]["counts"]))), (all, all), "{layer}");
        let codes = &weights["codes"];
        assert!(codes["levels"].as_u64() <= Some(16) && codes["used"].as_u64() <= codes["levels"].as_u64(), "{codes}");
        assert!(weights["least"].as_f64() < weights["greatest"].as_f64(), "{weights}");
    }
}

#[test]
fn names_from_files_are_shown_and_do_nothing() {
    let folder = folder();
    let name = "</section><script>alert(\"1\")</script>&'";
    let called = |name: &str, node: NodeProto| NodeProto { name: Some(name.to_owned()), ..node };
    let nodes = vec![
        called(name, node("MatMul", &["x", "w1"], &["h"])),
        node("Relu", &["h"], &["r"]),
        called("<b>left</b>", node("MatMul", &["r", "w2"], &["y"])),
    ];
    let weights = ["w1", "w2"].map(|name| float_tensor(name, &[32, 32], noise(name.len(), 1024, 0.3)));
    let model = model_of(nodes, weights.to_vec(), vec![float_value("x", &[4, 32])], vec![float_value("y", &[4, 32])]);
    let (input, output) = (folder.path().join("<i>in.onnx"), folder.path().join("out.onnx"));
    write(&model, &input);
    let html = output.with_extension("html");
    let mut command = onnxquant(&[&input, &output]);
    command.args(["--weights-only", "--exclude", "<b>*", "--report"]).arg(&html);
    Run::of(&mut command).succeeded();
    let page =
        Page::parse(&std::fs::read_to_string(html).expect("it was written")).unwrap_or_else(|fault| panic!("{fault}"));
    for shown in [name, "<b>left</b>", "<i>in.onnx"] {
        assert!(unescaped(&page.text).contains(shown) && !page.text.contains(shown), "{shown}");
    }
    assert!(!page.elements.contains("script") && !page.elements.contains("i"), "{:?}", page.elements);
}

#[test]
fn a_stored_report_makes_the_same_page() {
    let folder = folder();
    let output = folder.path().join("out.onnx");
    let (_, html) = run(Fixture::CNN, &["--scheme", "w8a8"], &output);
    let page = folder.path().join("again.html");
    let mut command = onnxquant(&["report"]);
    Run::of(command.arg(output.with_extension("json")).arg("--html").arg(&page)).succeeded();
    assert!(html == std::fs::read_to_string(page).expect("it was written"), "the pages differ");
}

#[test]
fn two_reports_tell_what_changed() {
    let folder = folder();
    let at = |name: &str| folder.path().join(name);
    let quantize = |name: &str, args: &[&str]| {
        let calib = Fixture::MLP.calib();
        report(&Fixture::MLP.model(), &at(&format!("{name}.onnx")), args, Some(&calib));
    };
    quantize("old", &["--scheme", "w8"]);
    quantize("new", &["--scheme", "w4", "--exclude", "*logits*"]);
    let changes = |old: &str, new: &str| {
        let reports = [old, new].map(|name| at(&format!("{name}.report.json")));
        Run::of(onnxquant(&["report"]).args(reports)).succeeded().stdout
    };
    let text = changes("old", "new");
    for part in [
        "setting bits: 8 -> 4\n",
        "setting exclude: not set -> [\"*logits*\"]\n",
        "layers gone 1: ",
        "better 0, worse 2",
        "8 -> 4",
    ] {
        assert!(text.contains(part), "`{part}` is not in\n{text}");
    }
    assert!(changes("new", "old").contains("better 2, worse 0"), "{}", changes("new", "old"));
    let same = changes("old", "old");
    assert!(
        same.contains("settings are the same\n")
            && same.contains("better 0, worse 0, otherwise changed 0\n")
            && !same.contains("->"),
        "{same}"
    );
}

#[test]
fn what_is_no_report_is_refused() {
    let folder = folder();
    let at = |name: &str| folder.path().join(name);
    std::fs::write(at("text.json"), "no").expect("it can be written");
    std::fs::write(at("other.json"), "{\"layers\": []}").expect("it can be written");
    report(&Fixture::MLP.model(), &at("out.onnx"), &[], None);
    let mut later: Value =
        serde_json::from_slice(&std::fs::read(at("out.report.json")).expect("it was written")).expect("it is JSON");
    later["schema_version"] = 99.into();
    std::fs::write(at("later.json"), later.to_string()).expect("it can be written");
    let cases = [
        ("none.json", "cannot use the report"),
        ("text.json", "it is no JSON"),
        ("other.json", "it is no report of onnxquant"),
        ("later.json", "it has version 99"),
    ];
    let mut failures = Failures::default();
    for (name, text) in cases {
        let run = Run::of(onnxquant(&["report"]).arg(at(name)).arg("--html").arg(at("page.html")));
        failures.check(refused(&run, &[text, name]).is_none(), || format!("{name}: {run:?}"));
    }
    let stored = at("out.report.json");
    let run = Run::of(onnxquant(&["report"]).arg(&stored).arg("--html").arg(&stored));
    failures.check(refused(&run, &["never overwritten"]).is_none(), || format!("{run:?}"));
    failures.finish();
}
