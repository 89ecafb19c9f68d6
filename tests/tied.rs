//! A weight that several layers read lies in the file once, and they run as fast and as exactly as reported.

use std::path::{Path, PathBuf};

use onnxquant::calib::Split;
use onnxquant_ir::onnx::{ModelProto, NodeProto, TensorProto};
use onnxquant_ir::{int_attribute, ints_attribute};
use serde_json::Value;

use crate::support::{
    Failures, Job, Net, Run, TiedModel, Told, check_told, folder, inspect, measure, node, noise_samples, onnxquant,
    report, write,
};

const SAMPLES: usize = 30;
/// Tract and ONNX Runtime round near ties differently.
const SIMULATION_MARGIN_DB: f64 = 1.0;
/// Least SQNR in dB, as users run the model.
const LEAST_DB: f64 = 10.0;

struct Case {
    model: TiedModel,
    args: &'static [&'static str],
    /// What each layer becomes, and how many there are.
    operator: &'static str,
    layers: u64,
    /// Bits of a weight in the file.
    bits: usize,
}

fn cases() -> Vec<Case> {
    let case = |args, operator, bits| {
        let model = if operator == "QLinearConv" || operator == "Conv" {
            (TiedModel::convolutions(2, 32), 2)
        } else {
            (TiedModel::products(3, 64), 3)
        };
        Case { model: model.0, args, operator, layers: model.1, bits }
    };
    vec![
        case(&["--scheme", "w8", "--format", "matmulnbits"], "MatMulNBits", 8),
        case(&["--scheme", "w4"], "MatMulNBits", 4),
        case(&["--scheme", "w3", "--method", "optq", "--granularity", "channel"], "MatMulNBits", 3),
        case(&["--scheme", "w4", "--one-pass"], "MatMulNBits", 4),
        case(&["--average-bits", "4"], "MatMulNBits", 4),
        case(&["--scheme", "fp8"], "FusedGemm", 8),
        case(&["--scheme", "fp8", "--method", "msq"], "Conv", 8),
        case(&["--scheme", "w8a8-dynamic"], "DynamicQuantizeMatMul", 8),
        case(&["--scheme", "w8"], "Conv", 8),
        case(&["--scheme", "w4", "--method", "msq"], "Conv", 4),
        case(&["--scheme", "w8a8", "--target", "qdq-strict"], "QLinearConv", 8),
    ]
}

/// Writes samples of the model; returns those that are held out.
fn samples(model: &TiedModel, folder: &Path) -> Vec<PathBuf> {
    let all = noise_samples(folder, &model.shape, SAMPLES);
    Split::of(SAMPLES).held_out.into_iter().map(|at| all[at].clone()).collect()
}

#[test]
fn weight_that_layers_share_is_stored_once_and_runs_as_reported() {
    let folder = folder();
    let mut failures = Failures::default();
    let (mut jobs, mut found) = (Vec::new(), Vec::new());
    for (index, case) in cases().into_iter().enumerate() {
        let at = |name: &str| folder.path().join(format!("{index}{name}"));
        let (model, output, calib) = (at(".onnx"), at("_out.onnx"), at(""));
        write(&case.model.proto(), &model);
        let held_out = samples(&case.model, &calib);
        let report = report(&model, &output, case.args, Some(&calib));
        jobs.push(Job { nodes: true, ..Job::compare(&output, &model, &held_out) });
        found.push((case, report));
    }
    for ((case, report), measured) in found.iter().zip(measure(&jobs)) {
        let name = format!("{} {:?}", case.operator, case.args);
        let faults = measured.faults();
        failures.check(faults.is_empty(), || format!("{name}: {faults}"));
        failures.check(measured.count(case.operator) == case.layers, || format!("{name}: {:?}", measured.nodes));
        check_bytes(&name, case, report, &mut failures);
        let reported = report["held_out"]["sqnr_db"].as_f64();
        let found = measured.default_sqnr_db;
        let agree = reported.zip(found).is_some_and(|(a, b)| (a - b).abs() <= SIMULATION_MARGIN_DB);
        failures.check(agree, || format!("{name}: {found:?} dB as users run it, reported {reported:?}"));
        failures.check(found.is_some_and(|db| db >= LEAST_DB), || format!("{name}: {found:?} dB as users run it"));
    }
    failures.finish();
}

/// Three layers at 4 bits that read one weight, and one as large at 8.
#[test]
fn weight_that_layers_share_counts_once_for_the_average_of_bits() {
    let folder = folder();
    let at = |name: &str| folder.path().join(name);
    let mut model = TiedModel::products(3, 64).proto();
    let graph = model.graph.as_mut().expect("it has a graph");
    let weight = graph.initializer.first().cloned().expect("it has a weight");
    graph.initializer.push(TensorProto { name: Some("v".to_owned()), ..weight });
    let result = graph.output[0].name.replace("z".to_owned()).expect("it has a name");
    let last = node("MatMul", &[&result, "v"], &["z"]);
    graph.node.push(NodeProto { name: Some("last".to_owned()), ..last });
    write(&model, &at("in.onnx"));
    let layer = |name: &str, bits: u32| format!("[[layer]]\nname = \"{name}\"\nbits = {bits}\n");
    let labels = |report: &Value| -> Vec<String> {
        let layers = report["layers"].as_array().expect("there are layers").iter();
        layers.map(|layer| layer["label"].as_str().expect("it has a name").to_owned()).collect()
    };
    let names = labels(&inspect(&at("in.onnx"), &[]));
    let plan: String = names.iter().map(|name| layer(name, if name == "last" { 8 } else { 4 })).collect();
    let settings = "granularity = \"channel\"\nsymmetric = true\n";
    std::fs::write(at("plan.toml"), settings.to_owned() + &plan).expect("it can be written");
    let mut command = onnxquant(&[at("in.onnx"), at("out.onnx")]);
    let run = Run::of(command.arg("--weights-only").arg("--plan").arg(at("plan.toml"))).succeeded();
    let text = "4 layers quantized to 6.00 bits on the average (3 x 4, 1 x 8) per channel, 0 layers left in float; 8192 weights";
    assert!(run.says(text), "{}", run.stdout);
}

/// Rows and columns of a table that a layer reads too.
const TABLE: [usize; 2] = [512, 64];

/// Rows of a table are added to `x`, and the result is multiplied with the table the other way round, which the node `form`
/// reads.
fn with_head(form: &str) -> ModelProto {
    let mut net = Net::default();
    net.random("table", &TABLE, 1.0).random("w", &[64, 64], 0.2).integers("places", &[3, 500, 7, 3]);
    net.node("Gather", &["table", "places"], "rows", &[]).node("Add", &["x", "rows"], "sum", &[]);
    net.node("MatMul", &["sum", "w"], "product", &[]).node("Relu", &["product"], "hidden", &[]);
    match form {
        "Gemm" => net.node("Gemm", &["hidden", "table"], "y", &[int_attribute("transB", 1)]),
        _ => net.node("Transpose", &["table"], "turned", &[ints_attribute("perm", &[1, 0])]).node(
            "MatMul",
            &["hidden", "turned"],
            "y",
            &[],
        ),
    };
    net.model(17, &[4, 64], 2)
}

#[test]
fn a_table_and_a_layer_with_its_numbers_are_one_tensor() {
    let (folder, mut failures, mut jobs, mut found) = (folder(), Failures::default(), Vec::new(), Vec::new());
    let calib = folder.path().join("calib");
    let all = noise_samples(&calib, &[4, 64], SAMPLES);
    let held_out: Vec<PathBuf> = Split::of(SAMPLES).held_out.into_iter().map(|at| all[at].clone()).collect();
    for form in ["MatMul", "Gemm"] {
        let input = folder.path().join(format!("{form}.onnx"));
        write(&with_head(form), &input);
        for (scheme, bits, least) in [("w8", 8, 30.0), ("w4", 8, 15.0), ("w4", 4, 15.0), ("auto", 8, 20.0)] {
            let output = folder.path().join(format!("{form}_{scheme}_{bits}.onnx"));
            let args = ["--scheme", scheme, "--embeddings", if bits == 8 { "8" } else { "4" }, "--verify", "ort"];
            let told = report(&input, &output, &args, Some(&calib));
            let name = format!("{form} {scheme}, table of {bits} bits");
            let table = &told["embeddings"][0];
            let heads = table["heads"].as_array().map_or(0, Vec::len);
            failures.check(heads == 1 && table["bits"] == bits, || format!("{name}: {}", told["embeddings"]));
            let codes = (TABLE[0] * TABLE[1] * bits / 8) as u64;
            let size = told["bytes_after"].as_u64().expect("a number");
            failures.check(size < codes * 5 / 4 + 12_000, || format!("{name}: {size} bytes, {codes} of the table"));
            let sqnr_db = told["held_out"]["sqnr_db"].as_f64();
            found.push(Told { name, sqnr_db, least });
            jobs.push(Job::compare(&output, &input, &held_out));
        }
    }
    check_told(&found, &jobs, SIMULATION_MARGIN_DB, &mut failures);
    failures.finish();
}

#[test]
fn a_head_obeys_rules_where_its_weight_is_not_that_of_a_table_and_is_told_else() {
    let (folder, mut failures) = (folder(), Failures::default());
    let input = folder.path().join("in.onnx");
    let of = |rule: &str| inspect(&input, &["--scheme", "w4", "--layer", rule]);
    let count = |found: &Value, key: &str| found[key].as_array().map_or(0, Vec::len);
    for form in ["MatMul", "Gemm"] {
        write(&with_head(form), &input);
        let float = of("position = 'last', float = true");
        failures.check(float["skipped"][0]["reason"] == "excluded" && count(&float, "skipped") == 1, || {
            format!("{form} in float: {float:#}")
        });
        failures.check(count(&float, "unmatched") == 0, || format!("{form}: {}", float["unmatched"]));
        let bits = of("position = 'last', bits = 3");
        let (own, told) = (bits["layers"][1]["bits"] == 3, count(&bits, "unmatched") == 1);
        let shares = count(&bits["embeddings"][0], "heads") == 1;
        failures.check(own != told && told == shares, || format!("{form} of 3 bits: {bits:#}"));
    }
    failures.finish();
}

/// The first layer holds the codes, all layers have the same, and the file is as large as that.
fn check_bytes(name: &str, case: &Case, report: &Value, failures: &mut Failures) {
    let layers = report["layers"].as_array().expect("there are layers");
    let bytes: Vec<u64> = layers.iter().map(|layer| layer["bytes"].as_u64().expect("a number")).collect();
    let codes = (case.model.parameters() * case.bits / 8) as u64;
    let stored = (codes..codes * 5 / 4 + 512).contains(&bytes[0]) && bytes[1..].iter().all(|&bytes| bytes == 0);
    failures.check(stored, || format!("{name}: {bytes:?} bytes of the layers, {codes} of the codes"));
    let same = |what: &str| layers.iter().all(|layer| layer[what] == layers[0][what]);
    failures.check(same("bits") && same("method"), || format!("{name}: layers differ"));
}
