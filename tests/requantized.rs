//! Models that are quantized already.

use crate::support::{Fixture, Job, Run, folder, measure, onnxquant, python, refused, report};

#[test]
fn what_is_quantized_already_stays_or_is_quantized_anew() {
    let folder = folder();
    let at = |name: &str| folder.path().join(name);
    let calib = Fixture::RESNET.calib();
    let strict = ["--scheme", "w8a8", "--target", "qdq-strict"];
    let first = report(&Fixture::RESNET.model(), &at("first.onnx"), &strict, Some(&calib));
    let layers = |found: &serde_json::Value| found["layers"].as_array().map_or(0, Vec::len);
    assert!(layers(&first) > 2);
    let kept = report(&at("first.onnx"), &at("kept.onnx"), &["--scheme", "w4", "--allow-float"], Some(&calib));
    assert_eq!(layers(&kept), 0, "{}", kept["layers"]);
    let anew = report(&at("first.onnx"), &at("anew.onnx"), &["--scheme", "w4", "--requantize"], Some(&calib));
    assert_eq!(layers(&anew), layers(&first));
    assert!(anew["layers"].as_array().expect("layers are listed").iter().all(|layer| layer["bits"] == 4));
    assert!(
        anew["bytes_after"].as_u64() < first["bytes_after"].as_u64(),
        "{} {}",
        anew["bytes_after"],
        first["bytes_after"]
    );
    let sqnr = anew["held_out"]["sqnr_db"].as_f64().expect("it is measured");
    let direct = report(&Fixture::RESNET.model(), &at("direct.onnx"), &["--scheme", "w4"], Some(&calib));
    let of_float = direct["held_out"]["sqnr_db"].as_f64().expect("it is measured");
    assert!((sqnr - of_float).abs() < 3.0, "{sqnr} dB from codes, {of_float} dB from floats");
}

#[test]
fn nothing_to_decode_is_an_error() {
    let folder = folder();
    let run = Run::of(
        onnxquant(&[Fixture::MLP.model(), folder.path().join("out.onnx")]).args(["--weights-only", "--requantize"]),
    );
    assert_eq!(refused(&run, &["--requantize has no effect here", "nothing in the model is quantized"]), None);
}

#[test]
fn what_other_tools_wrote_on_codes_is_quantized_anew() {
    let folder = folder();
    let cases = [
        (Fixture::CNN, "static"),
        (Fixture::MLP, "static"),
        (Fixture::CNN, "dynamic"),
        (Fixture::TRANSFORMER, "dynamic"),
    ];
    for (fixture, form) in cases {
        let what = format!("{} {form}", fixture.name);
        let [given, anew] = ["given.onnx", "anew.onnx"].map(|name| folder.path().join(name));
        let script = &mut python("quantized_elsewhere.py");
        Run::of(script.args([fixture.model(), fixture.calib()]).arg(form).arg(&given)).succeeded();
        let found = report(&given, &anew, &["--scheme", "w8", "--requantize"], Some(&fixture.calib()));
        let layers = found["layers"].as_array().map_or(0, Vec::len);
        assert!(layers as u64 >= fixture.n_dense + fixture.n_conv, "{what}: {layers} layers");
        let jobs = [&given, &anew].map(|model| Job::compare(model, &fixture.model(), &fixture.held_out()));
        let [of_given, of_anew] = measure(&jobs).try_into().expect("two files were measured");
        assert_eq!(of_anew.faults(), "", "{what}");
        // What was lost already stays lost, but for activations, which are floats again.
        let [of_given, of_anew] = [of_given, of_anew].map(|found| found.default_sqnr_db.expect("it was compared"));
        assert!(of_anew > of_given - 0.5 && of_anew > 30.0, "{what}: {of_anew} dB of {of_given} dB");
    }
}
