//! Every graph in `fixtures/traps` ends as its entry in `index.json` says.
//!
//! Each legal one is quantized without data and with its sample. What is written passes the checker and loads in ONNX
//! Runtime as far as the float model does, and its outputs stay close to the float ones. Each invalid one is
//! refused with a message, by every command.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::support::{Failures, Job, Run, files_in, folder, inspect, measure, onnxquant, refused, root};

/// An entry of `index.json`.
#[derive(Clone, Debug, Deserialize)]
pub struct Trap {
    pub file: String,
    /// `runs`, `unrunnable` or `invalid`.
    pub state: String,
    /// `quantized`, `partly`, `skipped` or `refused`.
    pub outcome: String,
    /// Whether there is a sample beside it.
    pub sample: bool,
}

/// All traps.
pub fn index() -> Vec<Trap> {
    let text = std::fs::read_to_string(folder_of_traps().join("index.json")).expect("the index can be read");
    serde_json::from_str(&text).expect("the index is JSON")
}

fn folder_of_traps() -> PathBuf {
    root().join("fixtures/traps")
}

impl Trap {
    fn name(&self) -> &str {
        self.file.trim_end_matches(".onnx")
    }

    fn model(&self) -> PathBuf {
        folder_of_traps().join(&self.file)
    }

    fn samples(&self) -> Vec<PathBuf> {
        let path = self.model().with_extension("npz");
        if self.sample { vec![path] } else { vec![] }
    }

    fn is_legal(&self) -> bool {
        self.outcome != "refused"
    }
}

/// What becomes of the layers of a trap.
struct Layers {
    quantized: usize,
    /// Why the others stay in float, in the order in which they are listed.
    skipped: &'static [&'static str],
}

/// Traps whose layers are not all quantized, and those without layers.
///
/// One set of codes a layer makes two things possible that the index leaves open: a weight whose readers see it
/// differently, and a product of constants, are quantized like others. So are weights in 16 bits.
const LAYERS: [(&str, usize, &[&str]); 50] = [
    ("conv_computed_weight", 0, &["no-constant-weight"]),
    ("domain_matmul", 0, &[]),
    ("domain_unknown", 2, &[]),
    ("function_matmul", 2, &[]),
    ("function_old_opset", 1, &[]),
    ("function_weight_argument", 2, &[]),
    ("gemm_left_constant", 0, &["constant-on-the-left"]),
    ("graph_empty", 0, &[]),
    ("graph_of_constant", 0, &[]),
    ("if_captures_constant_node", 1, &[]),
    ("if_captures_value", 2, &[]),
    ("if_captures_weight", 2, &[]),
    ("if_nested_capture", 1, &[]),
    ("if_old_opset", 1, &[]),
    ("if_returns_capture", 1, &[]),
    ("initializer_is_input_ir8", 0, &["overridable"]),
    ("input_scalar", 0, &[]),
    ("k_is_zero", 1, &["empty"]),
    ("loop_matmul", 1, &[]),
    ("matmul_int32", 0, &["unsupported-type"]),
    ("matmul_integer", 0, &[]),
    ("matmul_no_constant", 0, &["no-constant-weight"]),
    ("matmul_of_constants", 2, &[]),
    ("matmul_rank3_constant", 0, &["rank"]),
    ("matmul_rank3_unit_constant", 0, &["rank"]),
    ("matmul_vector_constant", 0, &["rank"]),
    ("matmul_with_itself", 0, &["no-constant-weight"]),
    ("n_is_zero", 0, &["empty"]),
    ("name_taken_in_body", 1, &[]),
    ("output_is_input", 0, &[]),
    ("qdq_mixed", 1, &["already-quantized"]),
    ("qdq_static", 0, &["already-quantized"]),
    ("qlinear_conv", 0, &[]),
    ("scan_matmul", 1, &[]),
    ("sequence_values", 0, &[]),
    ("weight_behind_dequantize", 0, &["already-quantized"]),
    ("weight_bf16", 1, &[]),
    ("weight_computed", 0, &["no-constant-weight"]),
    ("weight_f16", 1, &[]),
    ("weight_f16_in_int32_data", 1, &[]),
    ("weight_f64", 0, &["unsupported-type"]),
    ("weight_f64_in_double_data", 0, &["unsupported-type"]),
    ("weight_fake_quantized", 0, &["already-quantized"]),
    ("weight_int4_blocks", 0, &["already-quantized"]),
    ("weight_is_output", 0, &["weight-is-output"]),
    ("weight_shared_by_gemm_and_matmul", 2, &[]),
    ("weight_sparse", 0, &["no-constant-weight"]),
    ("weight_tied_embedding", 0, &["shared-with-other"]),
    ("weight_with_other_user", 0, &["shared-with-other"]),
    ("op8_scan", 1, &[]),
];

/// Legal models that are refused all the same, by what the message must say.
const REFUSED: [(&str, &[&str]); 2] = [("weight_nan", &["`w`", "[2, 1]"]), ("weight_infinite", &["`w`", "[0, 2]"])];

/// Models whose opset cannot be raised, by what the message must say where codes need a higher one.
const NOT_RAISED: [(&str, &[&str]); 2] = [
    ("op11_dropout", &["cannot raise the opset from 11", "`Dropout_d`", "mask"]),
    ("op8_scan", &["cannot raise the opset from 8", "Scan_last"]),
];

/// Models with a node behind a layer that the calibration engine does not run: its name, which the summary must say.
const PARTLY_RUN: [(&str, &str); 5] = [
    ("domain_unknown", "Mystery_m"),
    ("norm_training_op14", "BatchNormalization_y"),
    ("norm_training_op9", "BatchNormalization_y"),
    ("op8_scan", "Scan_last"),
    ("strings_and_ints", "Gather_picked"),
];

/// Samples that are refused, by what the message must say.
const SAMPLE_REFUSED: [(&str, &str); 2] = [("k_is_zero", "no elements"), ("weight_bf16", "`x`")];

/// Integers of a higher opset than weights need are not asked for.
const WEIGHTS: [&str; 2] = ["--scheme", "w8"];

/// A model without a scale for its activations.
const INFINITE_ACTIVATIONS: &str = "weight_largest";

/// Output SQNR at 8 bits, at least.
const QUANTIZED_DB: f64 = 30.0;
/// With one scale for each activation.
const INTEGERS_DB: f64 = 18.0;
/// Of a model in which nothing was quantized.
const KEPT_DB: f64 = 100.0;

fn entry<T>(table: &'static [(&'static str, T)], name: &str) -> Option<&'static T> {
    table.iter().find(|(known, _)| *known == name).map(|(_, value)| value)
}

fn expected_layers(trap: &Trap) -> Option<Layers> {
    let row = LAYERS.iter().find(|(name, _, _)| *name == trap.name());
    row.map(|&(_, quantized, skipped)| Layers { quantized, skipped })
}

#[test]
fn index_and_tables_name_the_same_traps() {
    let traps = index();
    let mut failures = Failures::default();
    let known = |name: &str| traps.iter().any(|trap| trap.name() == name);
    let tables = [
        LAYERS.iter().map(|row| row.0).collect::<Vec<_>>(),
        REFUSED.iter().map(|row| row.0).collect(),
        NOT_RAISED.iter().map(|row| row.0).collect(),
        PARTLY_RUN.iter().map(|row| row.0).collect(),
        SAMPLE_REFUSED.iter().map(|row| row.0).collect(),
    ];
    for name in tables.concat() {
        failures.check(known(name), || format!("{name} is no trap"));
    }
    for trap in traps.iter().filter(|trap| ["partly", "skipped"].contains(&trap.outcome.as_str())) {
        failures.check(expected_layers(trap).is_some(), || format!("{} has no row of layers", trap.name()));
    }
    failures.finish();
}

#[test]
fn inspect_lists_what_is_quantized_and_why_the_rest_is_not() {
    let mut failures = Failures::default();
    for trap in index().iter().filter(|trap| trap.is_legal()) {
        let found = inspect(&trap.model(), &[]);
        let list = |key: &str| found[key].as_array().expect("it is a list").clone();
        let reasons = list("skipped").iter().map(|layer| layer["reason"].clone()).collect::<Vec<_>>();
        let quantized = list("layers").len();
        let name = trap.name();
        match expected_layers(trap) {
            Some(expected) => {
                failures.check(quantized == expected.quantized, || format!("{name}: {quantized} layers to quantize"));
                failures.check(reasons == expected.skipped, || format!("{name}: skipped for {reasons:?}"));
            }
            None => {
                failures.check(quantized > 0, || format!("{name}: no layer to quantize"));
                failures.check(reasons.is_empty(), || format!("{name}: skipped for {reasons:?}"));
            }
        }
    }
    failures.finish();
}

#[test]
fn invalid_models_are_refused_by_every_command() {
    let folder = folder();
    let output = folder.path().join("out.onnx");
    let samples = root().join("fixtures/digits_mlp/calib");
    let mut failures = Failures::default();
    for trap in index().iter().filter(|trap| trap.state == "invalid") {
        let model = trap.model();
        let runs = [
            ("inspect", Run::of(onnxquant(&["inspect"]).arg(&model))),
            ("compare", Run::of(onnxquant(&["compare"]).args([&model, &model]).arg("--data").arg(&samples))),
            ("without data", Run::of(onnxquant(&[&model, &output]).arg("--weights-only"))),
            ("with data", Run::of(onnxquant(&[&model, &output]).arg("--calib").arg(&samples))),
        ];
        for (how, run) in runs {
            let fault = refused(&run, &[&trap.file]);
            failures.check(fault.is_none(), || format!("{} {how}: {}", trap.name(), fault.unwrap_or_default()));
        }
        let left = files_in(folder.path());
        failures.check(left.is_empty(), || format!("{}: left {left:?}", trap.name()));
    }
    failures.finish();
}

#[test]
fn traps_quantized_without_data_run_in_onnx_runtime() {
    let mut failures = Failures::default();
    let folder = folder();
    let mut written = Vec::new();
    for trap in index().into_iter().filter(|trap| trap.state != "invalid") {
        let output = folder.path().join(&trap.file);
        let run = Run::of(onnxquant(&[trap.model(), output.clone()]).args([
            "--method",
            "msq",
            "--weights-only",
            "--allow-float",
        ]));
        match entry(&REFUSED, trap.name()) {
            Some(texts) => expect_refused(&trap, &run, texts, &output, &mut failures),
            None if run.code == Some(0) => written.push((trap, output)),
            None => failures.check(false, || format!("{}: {:?} {}", trap.name(), run.code, run.stderr)),
        }
    }
    check_written(&written, QUANTIZED_DB, &mut failures);
    failures.finish();
}

#[test]
fn opset_that_cannot_be_raised_is_told() {
    let mut failures = Failures::default();
    let folder = folder();
    for trap in index().into_iter() {
        let Some(texts) = entry(&NOT_RAISED, trap.name()) else { continue };
        let output = folder.path().join(&trap.file);
        let args = ["--method", "msq", "--weights-only", "--format", "dq"];
        let run = Run::of(onnxquant(&[trap.model(), output.clone()]).args(args));
        expect_refused(&trap, &run, texts, &output, &mut failures);
    }
    failures.finish();
}

#[test]
fn traps_quantized_with_their_sample_run_in_onnx_runtime() {
    quantize_with_samples(&WEIGHTS, QUANTIZED_DB);
}

/// Of a model whose opset cannot be raised weights alone have codes, and strings beside the numbers keep nothing from being
/// measured.
#[test]
fn the_default_writes_what_the_model_allows() {
    let (folder, mut failures, mut written) = (folder(), Failures::default(), Vec::new());
    let table = [
        ("op11_dropout", "they need opset 13"),
        ("op8_scan", "they need opset 13"),
        ("strings_and_ints", "measured in"),
    ];
    for (name, text) in table {
        let trap = index().into_iter().find(|trap| trap.name() == name).expect("there is such a model");
        let output = folder.path().join(&trap.file);
        let mut command = onnxquant(&[trap.model(), output.clone()]);
        let run = Run::of(command.arg("--calib").args(trap.samples()));
        let fine = run.code == Some(0) && run.says(text);
        failures.check(fine, || format!("{name}: {:?} {}{}", run.code, run.stdout, run.stderr));
        written.push((trap, output));
    }
    check_written(&written, QUANTIZED_DB, &mut failures);
    failures.finish();
}

#[test]
fn traps_with_integer_activations_run_in_onnx_runtime() {
    quantize_with_samples(&["--scheme", "w8a8", "--target", "qdq-strict", "--method", "msq"], INTEGERS_DB);
    quantize_with_samples(&["--scheme", "w8a8-dynamic", "--method", "msq"], INTEGERS_DB);
}

fn quantize_with_samples(args: &[&str], least_db: f64) {
    let mut failures = Failures::default();
    let folder = folder();
    let mut written = Vec::new();
    for trap in index().into_iter().filter(|trap| trap.state != "invalid" && trap.sample) {
        let output = folder.path().join(&trap.file);
        let mut command = onnxquant(&[trap.model(), output.clone()]);
        let run = Run::of(
            command.args(["--engine", "tract", "--allow-float"]).args(args).arg("--calib").args(trap.samples()),
        );
        // Raising the opset may have made it a model that the engine runs.
        let partly = entry(&PARTLY_RUN, trap.name()).filter(|_| args == WEIGHTS);
        let told = partly.is_none_or(|node| run.says(&format!("not run `{node}`")));
        failures.check(told, || format!("{}: not told what is not run: {}", trap.name(), run.stdout));
        let sample = entry(&SAMPLE_REFUSED, trap.name()).map(|&text| vec![text]);
        // The engine may refuse such a model first, in other words.
        let refusal = entry(&REFUSED, trap.name()).map(|_| vec![]);
        match sample.or(refusal) {
            // Integers need a higher opset than weights.
            _ if args != WEIGHTS && refused(&run, &["cannot raise the opset"]).is_none() => {}
            Some(texts) => expect_refused(&trap, &run, &texts, &output, &mut failures),
            None if run.code == Some(0) => written.push((trap, output)),
            None if args != WEIGHTS && trap.name() == INFINITE_ACTIVATIONS => {
                expect_refused(&trap, &run, &["activations hold `inf`"], &output, &mut failures);
            }
            None => failures.check(false, || format!("{}: {:?} {}", trap.name(), run.code, run.stderr)),
        }
    }
    check_written(&written, least_db, &mut failures);
    failures.finish();
}

fn expect_refused(trap: &Trap, run: &Run, texts: &[&str], output: &Path, failures: &mut Failures) {
    let fault = refused(run, texts);
    failures.check(fault.is_none(), || format!("{}: {}", trap.name(), fault.unwrap_or_default()));
    failures.check(!output.exists(), || format!("{}: refused and written", trap.name()));
}

/// What was written is as legal as the float model, loads where that runs, and computes nearly the same.
fn check_written(written: &[(Trap, PathBuf)], quantized_db: f64, failures: &mut Failures) {
    let runs = |trap: &Trap| trap.state == "runs";
    let float = written.iter().map(|(trap, _)| Job { model: trap.model(), check: true, ..Job::default() });
    let quantized = written.iter().map(|(trap, path)| match runs(trap) {
        true if trap.sample => Job::compare(path, &trap.model(), &trap.samples()),
        runs => Job { load: runs, ..Job::load(path) },
    });
    let found = measure(&float.chain(quantized).collect::<Vec<_>>());
    let (float, quantized) = found.split_at(written.len());
    for (((trap, _), float), found) in written.iter().zip(float).zip(quantized) {
        let checked_before = float.problems.is_empty();
        let counts = |fault: &&String| checked_before || !fault.starts_with("checker");
        let faults = found.problems.iter().chain(&found.differences).filter(counts).collect::<Vec<_>>();
        failures.check(faults.is_empty(), || format!("{}: {faults:?}", trap.name()));
        let nothing_done = expected_layers(trap).is_some_and(|layers| layers.quantized == 0);
        let least = if nothing_done && quantized_db >= QUANTIZED_DB { KEPT_DB } else { quantized_db };
        let close = found.sqnr_db.is_none_or(|sqnr_db| sqnr_db >= least);
        failures.check(close, || format!("{}: SQNR {:?} dB, expected {least}", trap.name(), found.sqnr_db));
    }
}

#[test]
fn quantized_model_quantized_again_is_the_same_model() {
    let folder = folder();
    let (first, second) = (folder.path().join("first.onnx"), folder.path().join("second.onnx"));
    let mut failures = Failures::default();
    for trap in index().iter().filter(|trap| trap.state != "invalid" && entry(&REFUSED, trap.name()).is_none()) {
        let quantize = |from: &Path, to: &Path| {
            Run::of(onnxquant(&[from, to]).args(["--method", "msq", "--weights-only", "--allow-float", "--quiet"]))
        };
        let runs = [quantize(&trap.model(), &first), quantize(&first, &second)];
        let done = runs.iter().all(|run| run.code == Some(0));
        failures.check(done, || format!("{}: {} {}", trap.name(), runs[0].stderr, runs[1].stderr));
        let bytes = |path: &Path| std::fs::read(path).unwrap_or_default();
        failures.check(bytes(&first) == bytes(&second), || format!("{}: other bytes", trap.name()));
    }
    failures.finish();
}

#[test]
fn static_qdq_model_is_copied_byte_for_byte() {
    let trap = index().into_iter().find(|trap| trap.name() == "qdq_static").expect("it is a trap");
    let folder = folder();
    let output = folder.path().join("out.onnx");
    Run::of(onnxquant(&[trap.model(), output.clone()]).args(["--weights-only", "--allow-float"])).succeeded();
    assert_eq!(std::fs::read(trap.model()).expect("it can be read"), std::fs::read(output).expect("it was written"));
}
