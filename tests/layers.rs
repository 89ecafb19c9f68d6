//! `compare --layers`: where does an error enter?

use std::path::Path;

use serde_json::Value;

use crate::support::{
    Failures, Fixture, Page, Run, chain_around, folder, noise_samples, onnxquant, report, shadowing_loop, unescaped,
    write,
};

fn compare(first: &Path, second: &Path, data: &Path, args: &[&str]) -> Run {
    let mut command = onnxquant(&["compare"]);
    Run::of(command.args([first, second]).arg("--data").arg(data).args(args))
}

fn parsed(run: &Run) -> Value {
    serde_json::from_str(&run.stdout).unwrap_or_else(|error| panic!("{error}: {run:?}"))
}

/// Name and SQNR of every tensor; nothing where it is equal.
fn tensors(found: &Value) -> Vec<(String, Option<f64>)> {
    let tensors = found["tensors"].as_array().expect("it lists tensors");
    let of = |tensor: &Value| (tensor["name"].as_str().unwrap_or_default().to_owned(), tensor["sqnr_db"].as_f64());
    tensors.iter().map(of).collect()
}

#[test]
fn an_error_enters_at_the_layer_that_was_quantized() {
    let folder = folder();
    let (fixture, output) = (Fixture::CNN, folder.path().join("out.onnx"));
    let args = ["--scheme", "w2", "--include", "*pointwise*", "--embeddings", "off"];
    let made = report(&fixture.model(), &output, &args, Some(&fixture.calib()));
    let label = made["layers"][0]["label"].as_str().expect("a layer has a name").to_owned();
    let found =
        parsed(&compare(&fixture.model(), &output, &fixture.calib(), &["--layers", "--json", "--engine", "tract"]));
    let all = tensors(&found);
    let enters = all.iter().position(|(_, sqnr_db)| sqnr_db.is_some()).expect("something differs");
    assert!(enters > 2 && all.len() > enters + 3, "{all:?}");
    assert_eq!(found["tensors"][enters]["label"], label.as_str(), "{all:?}");
    let equal = |tensor: &Value| tensor["max_abs_error"].as_f64() == Some(0.0) && tensor.get("not_measured").is_none();
    let tensors = found["tensors"].as_array().expect("it lists tensors");
    assert!(tensors[..enters].iter().all(equal), "{all:?}");
    assert!(tensors[enters..].iter().all(|tensor| tensor["sqnr_db"].as_f64().is_some_and(|db| db > 0.0)), "{all:?}");
    assert!(
        tensors[enters]["before_db"].is_null() && tensors[enters + 1]["before_db"] == tensors[enters]["sqnr_db"],
        "{all:?}"
    );
    let text = compare(&fixture.model(), &output, &fixture.calib(), &["--layers"]).succeeded().stdout;
    assert!(text.contains(&format!("enters  at `{label}` (Conv): inf (equal) before, ")), "{text}");
    let table = text.split("\ntensor ").nth(1).expect("it lists tensors");
    let order: Vec<Option<usize>> = all.iter().map(|(name, _)| table.find(&format!("\n{name} "))).collect();
    assert!(order.iter().all(Option::is_some) && order.is_sorted(), "{text}");
}

#[test]
fn both_engines_find_the_same() {
    let folder = folder();
    let (fixture, output) = (Fixture::TRANSFORMER, folder.path().join("out.onnx"));
    report(&fixture.model(), &output, &["--scheme", "w4"], Some(&fixture.calib()));
    let [here, there] = ["tract", "ort"].map(|engine| {
        let args = ["--layers", "--json", "--samples", "8", "--engine", engine];
        let found = parsed(&compare(&fixture.model(), &output, &fixture.calib(), &args).succeeded());
        let name = found["engine"]["name"].as_str().unwrap_or_default().to_lowercase();
        assert!(name.contains(if engine == "ort" { "onnx runtime" } else { "tract" }), "{name}");
        tensors(&found)
    });
    let mut failures = Failures::default();
    failures.check(here.len() == there.len() && here.len() > 20, || format!("{} and {}", here.len(), there.len()));
    for ((name, here), (other, there)) in here.iter().zip(&there) {
        let agree = match (here, there) {
            (Some(here), Some(there)) => (here - there).abs() < 0.1 || here.min(*there) > 100.0,
            (here, there) => here.or(*there).is_none_or(|db| db > 100.0),
        };
        failures.check(name == other && agree, || format!("{name} {here:?}, {other} {there:?}"));
    }
    failures.finish();
}

#[test]
fn what_only_one_engine_runs_is_run_by_that() {
    let folder = folder();
    let at = |name: &str| folder.path().join(name);
    let (nodes, constants) = shadowing_loop();
    write(&chain_around(nodes, constants), &at("loop.onnx"));
    noise_samples(&at("calib"), &[4, 32], 6);
    report(&at("loop.onnx"), &at("out.onnx"), &["--scheme", "w4"], Some(&at("calib")));
    let run = compare(&at("loop.onnx"), &at("out.onnx"), &at("calib"), &["--layers"]).succeeded();
    assert!(run.stdout.contains("ran both: the embedded engine cannot run `repeat` (Loop)"), "{}", run.stdout);
    let line = run.stdout.lines().find(|line| line.starts_with("y ")).expect("the output is compared");
    assert!(line.contains(" dB"), "{line}");
    let alone = compare(&at("loop.onnx"), &at("out.onnx"), &at("calib"), &["--layers", "--engine", "tract"]);
    assert!(alone.code == Some(2) && alone.stderr.contains("`repeat` (Loop)"), "{alone:?}");
}

#[test]
fn goals_of_a_comparison_are_its_exit_code() {
    let folder = folder();
    let (fixture, output) = (Fixture::MLP, folder.path().join("out.onnx"));
    report(&fixture.model(), &output, &["--scheme", "w4"], Some(&fixture.calib()));
    let cases: [(&[&str], i32, &str); 4] = [
        (&["--min-sqnr", "5", "--max-loss", "0.5"], 0, ""),
        (&["--min-sqnr", "90"], 1, "90.00 dB wanted"),
        (&["--max-loss", "1e-9"], 1, "at most 1.00e-9 wanted"),
        (&["--min-sqnr", "90", "--max-loss", "1e-9", "--json"], 1, "90.00 dB wanted; loss "),
    ];
    let mut failures = Failures::default();
    for (args, code, said) in cases {
        let run = compare(&fixture.model(), &output, &fixture.calib(), args);
        let right = run.code == Some(code) && run.stderr.contains(said) && run.stdout.contains("logits");
        failures.check(right, || format!("{args:?}: {run:?}"));
    }
    failures.finish();
}

#[test]
fn a_comparison_makes_a_page_with_every_tensor() {
    let folder = folder();
    let (fixture, output) = (Fixture::CONV1D, folder.path().join("out.onnx"));
    report(&fixture.model(), &output, &["--scheme", "w4"], Some(&fixture.calib()));
    let (html, json) = (output.with_extension("html"), output.with_extension("json"));
    let reports = [&html, &json].map(|path| path.to_str().expect("the path is text"));
    let args = ["--layers", "--report", reports[0], "--report", reports[1], "--min-sqnr", "99"];
    assert_eq!(compare(&fixture.model(), &output, &fixture.calib(), &args).code, Some(1));
    let text = |path| std::fs::read_to_string(path).expect("it was written");
    let page = Page::parse(&text(html)).unwrap_or_else(|fault| panic!("{fault}"));
    let found: Value = serde_json::from_str(&text(json)).expect("it is JSON");
    let section = unescaped(page.section("tensors").expect("it lists tensors"));
    assert!(section.contains("<svg") && tensors(&found).iter().all(|(name, _)| section.contains(name)), "{section}");
    assert!(
        page.text.contains("99.00 dB wanted") && page.links.is_empty() && !page.text.contains("http"),
        "{}",
        page.text
    );
}
