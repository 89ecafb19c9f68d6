//! Bits layer by layer, plans, and runs that go on.

use std::path::Path;

use onnxquant_ir::{ExternalData, Model, write_model};
use serde_json::Value;

use crate::support::{Failures, Fixture, Job, Run, files_in, folder, inspect, measure, onnxquant, refused, report};

const MODEL: Fixture = Fixture::TRANSFORMER;

/// Label and bits of every layer of a report or of `inspect`.
fn bits(value: &Value) -> Vec<(String, u64)> {
    let layers = value["layers"].as_array().expect("there are layers");
    let layer = |layer: &Value| {
        (layer["label"].as_str().expect("a layer has a name").to_owned(), layer["bits"].as_u64().expect("it has bits"))
    };
    layers.iter().map(layer).collect()
}

/// Bits a weight on the average.
fn average_bits(report: &Value) -> f64 {
    let layers = report["layers"].as_array().expect("there are layers");
    let parameters = |layer: &Value| layer["parameters"].as_f64().expect("a number");
    let total: f64 = layers.iter().map(|layer| parameters(layer) * layer["bits"].as_f64().expect("a number")).sum();
    total / layers.iter().map(parameters).sum::<f64>()
}

fn sqnr_db(report: &Value) -> f64 {
    report["held_out"]["sqnr_db"].as_f64().expect("outputs differ")
}

fn quantize(output: &Path, args: &[&str]) -> Value {
    report(&MODEL.model(), output, args, Some(&MODEL.calib()))
}

/// Outputs are compared on the test set: which of two files is more exact on a few samples, chance decides. The classes'
/// scores gain at every width; the embedding gains 0.3 to 1.9 dB over both widths together, and hardly at 4 bits alone.
#[test]
fn the_average_of_bits_is_kept_and_outputs_are_more_exact_than_with_one_width() {
    let folder = folder();
    let [alike, mixed] = ["alike.onnx", "mixed.onnx"].map(|name| folder.path().join(name));
    let mut failures = Failures::default();
    let mut gained_db = 0.0;
    for width in ["3", "4"] {
        let of_one = quantize(&alike, &["--bits", width]);
        let of_mixed = quantize(&mixed, &["--average-bits", width]);
        let average = average_bits(&of_mixed);
        failures.check(average <= average_bits(&of_one) + 1e-9, || format!("{width}: {average} bits"));
        let found = measure(&[&alike, &mixed].map(|file| Job::compare(file, &MODEL.model(), &[MODEL.test_set()])));
        let [alike_db, mixed_db] = [0, 1].map(|at| &found[at].default_by_output_db);
        failures.check(mixed_db["logits"] > alike_db["logits"], || {
            format!("{width} bits: {mixed_db:?} dB mixed, {alike_db:?} dB alike")
        });
        gained_db += mixed_db["embedding"] - alike_db["embedding"];
    }
    failures.check(gained_db > 0.0, || format!("mixed bits gain {gained_db} dB in the embedding"));
    failures.finish();
}

#[test]
fn what_fixes_bits_is_refused_beside_what_chooses_them() {
    let folder = folder();
    let (output, plan) = (folder.path().join("out.onnx"), folder.path().join("plan.toml"));
    quantize(&output, &["--bits", "4", "--method", "msq", "--save-plan", plan.to_str().expect("the path is text")]);
    std::fs::remove_file(&output).expect("it was written");
    let mut failures = Failures::default();
    for (option, value) in [("--average-bits", "4"), ("--target-size", "1"), ("--plan", "plan.toml")] {
        for (fixed, word) in [("--scheme", "w4"), ("--scheme", "w8"), ("--scheme", "w4a8"), ("--bits", "3")] {
            let mut command = onnxquant(&[MODEL.model(), output.clone()]);
            command.args([option, value, fixed, word]).arg("--calib").arg(MODEL.calib());
            let fault = refused(&Run::of(command.current_dir(folder.path())), &[option, fixed]);
            failures.check(fault.is_none(), || format!("{option} {fixed} {word}: {}", fault.unwrap_or_default()));
        }
    }
    failures.check(files_in(folder.path()) == ["out.report.json", "plan.toml"], || "something was written".to_owned());
    failures.finish();
}

#[test]
fn a_file_is_as_small_as_asked_for_or_the_run_says_what_is_possible() {
    let folder = folder();
    let output = folder.path().join("out.onnx");
    let smallest = quantize(&output, &["--bits", "2", "--method", "msq"])["bytes_after"].as_u64().expect("a size");
    let largest = quantize(&output, &["--bits", "8", "--method", "msq"])["bytes_after"].as_u64().expect("a size");
    let target = (smallest + largest) / 2;
    let found = quantize(&output, &["--target-size", &(target as f64 / 1e6).to_string()]);
    let size = std::fs::metadata(&output).expect("it was written").len();
    assert!(size <= target && size > smallest, "{size} bytes of {target}");
    assert_eq!(found["bytes_after"].as_u64(), Some(size));
    let mut command = onnxquant(&[MODEL.model(), output]);
    command.args(["--target-size", "0.001"]).arg("--calib").arg(MODEL.calib());
    assert_eq!(refused(&Run::of(&mut command), &["the budget is too small", "bytes"]), None);
}

#[test]
fn an_sqnr_is_reached_with_fewer_bits_than_8() {
    let folder = folder();
    let found = quantize(&folder.path().join("out.onnx"), &["--scheme", "w8", "--min-sqnr", "20"]);
    let reached = sqnr_db(&found);
    assert!(reached >= 20.0 && average_bits(&found) < 6.0, "{reached} dB, {} bits", average_bits(&found));
}

#[test]
fn a_plan_that_was_saved_gives_the_same_file_again() {
    let folder = folder();
    let [plan, first, second] = ["plan.toml", "a.onnx", "b.onnx"].map(|name| folder.path().join(name));
    let plan_name = plan.to_str().expect("the path is text");
    let args = ["--average-bits", "3.5", "--granularity", "block:16", "--save-plan", plan_name];
    let chosen = quantize(&first, &args);
    let replayed = quantize(&second, &["--plan", plan_name]);
    assert_eq!(bits(&chosen), bits(&replayed));
    let layers = |report: &Value| report["layers"].clone();
    assert_eq!(layers(&chosen), layers(&replayed));
    assert_eq!(bits(&inspect(&MODEL.model(), &["--plan", plan_name])), bits(&chosen));
    // It is a configuration file, too.
    let configured = quantize(&second, &["--config", plan_name]);
    assert_eq!(layers(&chosen), layers(&configured));
}

#[test]
fn layers_whose_nodes_share_a_name_or_have_none_are_told_apart() {
    let folder = folder();
    let [model, plan, first, second] =
        ["in.onnx", "plan.toml", "a.onnx", "b.onnx"].map(|name| folder.path().join(name));
    let plan_name = plan.to_str().expect("the path is text");
    for name in ["fc", ""] {
        let mut proto = Model::read(&Fixture::MLP.model()).expect("the fixture can be read").to_proto();
        let nodes = proto.graph.iter_mut().flat_map(|graph| &mut graph.node);
        nodes.for_each(|node| node.name = Some(name.to_owned()));
        let renamed = Model::from_proto(proto).expect("names of nodes may be anything");
        write_model(&renamed, &model, ExternalData::Auto).expect("the model can be written");
        let quantize = |output: &Path, args: &[&str]| report(&model, output, args, Some(&Fixture::MLP.calib()));
        let chosen = quantize(&first, &["--average-bits", "4", "--save-plan", plan_name]);
        assert_eq!(bits(&chosen), bits(&quantize(&second, &["--plan", plan_name])), "nodes called `{name}`");
    }
}

#[test]
fn plans_of_other_models_are_refused_by_name() {
    let folder = folder();
    let plan = folder.path().join("plan.toml");
    let plan_name = plan.to_str().expect("the path is text");
    quantize(&folder.path().join("a.onnx"), &["--bits", "4", "--save-plan", plan_name]);
    let text = std::fs::read_to_string(&plan).expect("the plan was written");
    let first = &bits(&inspect(&MODEL.model(), &[]))[0].0.clone();
    let missing = text.replacen(&format!("name = \"{first}\""), "name = \"elsewhere\"", 1);
    let extra = text.clone() + "\n[[layer]]\nname = \"nowhere\"\nbits = 4\n";
    let bad = text.replacen("bits = 4", "bits = 40", 1);
    for (text, parts) in
        [(missing, [first.as_str(), "--exclude"]), (extra, ["nowhere", "inspect"]), (bad, ["40", "1 to 8"])]
    {
        std::fs::write(&plan, text).expect("the plan can be changed");
        let mut command = onnxquant(&["inspect", "--plan", plan_name]);
        assert_eq!(refused(&Run::of(command.arg(MODEL.model())), &parts), None);
    }
}

/// A report without what is of the run itself: its times, the names of its files, and how it weighed bits, which a run that
/// goes on does not do again.
fn found_out(mut report: Value) -> Value {
    let fields = report.as_object_mut().expect("a report has fields");
    ["run", "files", "budget"].into_iter().for_each(|name| drop(fields.remove(name)));
    report
}

#[test]
fn a_run_that_was_killed_goes_on_and_gives_the_same_bytes() {
    let folder = folder();
    let [state, output, whole] = ["state", "out.onnx", "whole.onnx"].map(|name| folder.path().join(name));
    let state_name = state.to_str().expect("the path is text");
    let settings: [&[&str]; 3] = [
        &["--average-bits", "3", "--method", "auto"],
        &["--bits", "4", "--one-pass", "--method", "feedback"],
        &["--min-sqnr", "14", "--granularity", "block:16", "--method", "feedback", "--format", "matmulnbits"],
    ];
    let bytes = |path: &Path| std::fs::read(path).expect("it was written");
    for args in settings {
        let expected = quantize(&whole, args);
        let with_state = [args, &["--state", state_name]].concat();
        quantize(&output, &with_state);
        assert_eq!(bytes(&output), bytes(&whole), "{args:?}");
        // Killed: the second half of the layers is missing, in every set of bits that was tried.
        for set in files_in(&state).iter().filter(|name| !name.ends_with(".toml")) {
            let names = files_in(&state.join(set));
            assert_eq!(names.len(), 14, "{set}");
            names[7..].iter().for_each(|name| std::fs::remove_file(state.join(set).join(name)).expect("it is there"));
        }
        let resumed = quantize(&output, &with_state);
        assert_eq!(bytes(&output), bytes(&whole), "{args:?}");
        assert_eq!(found_out(resumed), found_out(expected), "{args:?}");
        std::fs::remove_dir_all(&state).expect("the state can be removed");
    }
}

#[test]
fn a_state_of_another_run_and_damaged_files_are_refused() {
    let folder = folder();
    let [state, output] = ["state", "out.onnx"].map(|name| folder.path().join(name));
    let run = |fixture: Fixture, args: &[&str]| {
        let mut command = onnxquant(&[fixture.model(), output.clone()]);
        Run::of(command.args(args).arg("--state").arg(&state).arg("--calib").arg(fixture.calib()))
    };
    run(MODEL, &["--bits", "4"]).succeeded();
    assert_eq!(refused(&run(MODEL, &["--bits", "3"]), &["another settings", "remove it"]), None);
    assert_eq!(refused(&run(MODEL, &["--bits", "4", "--samples", "20"]), &["another samples"]), None);
    assert_eq!(refused(&run(Fixture::MLP, &["--bits", "4"]), &["another model"]), None);
    let set = files_in(&state).into_iter().find(|name| !name.ends_with(".toml")).expect("layers were kept");
    let layer = state.join(set).join("0003.layer");
    let mut bytes = std::fs::read(&layer).expect("it was kept");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&layer, &bytes).expect("it can be written");
    assert_eq!(refused(&run(MODEL, &["--bits", "4"]), &["0003.layer", "damaged"]), None);
    std::fs::write(&layer, &bytes[..middle]).expect("it can be written");
    assert_eq!(refused(&run(MODEL, &["--bits", "4"]), &["0003.layer", "damaged"]), None);
}
