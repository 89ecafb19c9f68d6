//! Weights in a file beside the model.

use std::path::Path;

use crate::support::{Failures, Fixture, Job, Run, files_in, folder, measure, onnxquant, refused, report, root};

#[test]
fn external_data_is_written_beside_the_model_and_loads() {
    let folder = folder();
    let fixture = Fixture::TRANSFORMER;
    let (inside, outside) = (folder.path().join("inside.onnx"), folder.path().join("outside.onnx"));
    let plain = report(&fixture.model(), &inside, &[], Some(&fixture.calib()));
    let split = report(&fixture.model(), &outside, &["--external-data"], Some(&fixture.calib()));
    let written = ["inside.onnx", "inside.report.json", "outside.onnx", "outside.onnx.data", "outside.report.json"];
    assert_eq!(files_in(folder.path()), written);

    let bytes = |name: &str| std::fs::metadata(folder.path().join(name)).expect("it was written").len();
    assert_eq!(split["bytes_after"], bytes("outside.onnx") + bytes("outside.onnx.data"));
    assert_eq!(plain["bytes_after"], bytes("inside.onnx"));
    assert!(bytes("outside.onnx.data") > bytes("outside.onnx") / 2, "most of the weights lie in the other file");

    let found = measure(&[Job::compare(&outside, &inside, &fixture.held_out())]);
    assert_eq!(found[0].faults(), "");
    assert_eq!(found[0].sqnr_db, None, "where the weights lie changes no output");
}

#[test]
fn model_with_external_data_is_read_and_its_result_quantized_again() {
    let folder = folder();
    let fixture = Fixture::MLP;
    let (first, second) = (folder.path().join("first.onnx"), folder.path().join("second.onnx"));
    let args = ["--external-data", "--exclude", "*fc1*"];
    report(&fixture.model(), &first, &args, Some(&fixture.calib()));
    let again = report(&first, &second, &["--bits", "4"], Some(&fixture.calib()));
    let labels = again["layers"].as_array().expect("it lists layers").iter().map(|layer| &layer["label"]);
    assert_eq!(labels.collect::<Vec<_>>(), ["node_fc1"], "the other layers are quantized already");
    let files = files_in(folder.path());
    assert!(files.contains(&"second.onnx.data".to_owned()), "data that came from a file go to a file: {files:?}");

    let found = measure(&[Job::compare(&second, &fixture.model(), &fixture.held_out())]);
    assert_eq!(found[0].faults(), "");
    assert!(found[0].sqnr_db.is_some_and(|sqnr_db| sqnr_db > 10.0), "{:?}", found[0].sqnr_db);
}

#[test]
fn external_data_are_found_from_any_working_folder_and_left_as_they_were() {
    let folder = folder();
    let traps = root().join("fixtures/traps");
    let names = ["external_data", "external_data_shared_file"];
    let data = || {
        let files = files_in(&traps).into_iter().filter(|name| name.ends_with(".data"));
        files.map(|name| std::fs::read(traps.join(name)).expect("it can be read")).collect::<Vec<_>>()
    };
    let before = data();
    let mut failures = Failures::default();
    for name in names {
        let mut command = onnxquant(&[format!("{name}.onnx")]);
        command.arg(folder.path().join(name)).arg("--weights-only").current_dir(&traps);
        let inside = Run::of(&mut command);
        failures.check(inside.code == Some(0), || format!("{name} from its own folder: {}", inside.stderr));
        let mut command = onnxquant(&[traps.join(format!("{name}.onnx")), Path::new(&format!("{name}.2")).to_owned()]);
        let elsewhere = Run::of(command.arg("--weights-only").current_dir(folder.path()));
        failures.check(elsewhere.code == Some(0), || format!("{name} from elsewhere: {}", elsewhere.stderr));
    }
    failures.check(data() == before, || "the data of the input changed".to_owned());
    failures.finish();
}

#[test]
fn output_that_would_overwrite_the_input_s_data_is_refused() {
    let folder = folder();
    let fixture = Fixture::MLP;
    let first = folder.path().join("first.onnx");
    report(&fixture.model(), &first, &["--external-data", "--exclude", "*fc1*"], Some(&fixture.calib()));
    let renamed = folder.path().join("renamed.onnx");
    std::fs::rename(&first, &renamed).expect("it can be renamed");
    let (files, data) =
        (files_in(folder.path()), std::fs::read(folder.path().join("first.onnx.data")).expect("it is there"));
    let run = Run::of(onnxquant(&[&renamed, &first]).args(["--weights-only", "--external-data"]));
    assert_eq!(refused(&run, &["first.onnx.data", "the input model keeps its weights there"]), None);
    assert_eq!(files_in(folder.path()), files);
    assert_eq!(std::fs::read(folder.path().join("first.onnx.data")).expect("it is there"), data);
}
