//! Quantizes and measures.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, ensure};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::process;
use crate::python::Python;

const FIXTURES: [&str; 5] =
    ["digits_mlp", "mnist_cnn", "digits_transformer", "digits_transformer_op14", "digits_conv1d"];
const METHODS: [&str; 5] = ["msq", "maly-saab", "cell-walk", "optq", "auto"];
const BITS: [u32; 5] = [8, 4, 3, 2, 1];
/// Integer activations and floats of 8 bits, by the name that stands for the method.
const SCHEMES: [(&str, &[&str]); 5] = [
    ("w8a8-strict", &["--scheme", "w8a8", "--target", "qdq-strict"]),
    ("w8a8-dynamic", &["--scheme", "w8a8-dynamic"]),
    ("w8a8-auto", &["--scheme", "auto"]),
    ("fp8-msq", &["--scheme", "fp8", "--method", "msq"]),
    ("fp8-auto", &["--scheme", "fp8"]),
];

/// How far rounding alone may lift an error above its bound.
const BOUND_SLACK: f64 = 1e-6;
/// ONNX Runtime's fast kernels round activations to 8 bits; they change the outputs by that and no more.
const AGREEMENT_DB: f64 = 30.0;
/// The same of models whose outputs are more error than signal: wild weights on few levels make the most of it.
const RUINED_AGREEMENT_DB: f64 = 25.0;

/// What is quantized, and how.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Case {
    fixture: String,
    method: String,
    bits: u32,
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Figures {
    /// Share of the labelled test samples that are recognised.
    pub accuracy: f64,
    /// The same of the float model.
    pub float_accuracy: f64,
    /// Of all outputs on the test samples, against the float model, as ONNX Runtime computes by default.
    pub sqnr_db: f64,
    /// Size of the file.
    pub bytes: u64,
    /// The largest relative error of a layer on calibration samples.
    pub worst_error: f64,
    /// What is wrong whatever the figures were before.
    #[serde(skip)]
    pub faults: Vec<String>,
}

impl Case {
    fn all() -> Vec<Self> {
        let mut cases = Vec::new();
        for fixture in FIXTURES {
            let case = |method: &str, bits| Self { fixture: fixture.to_owned(), method: method.to_owned(), bits };
            for bits in BITS {
                cases.extend(METHODS.map(|method| case(method, bits)));
            }
            cases.extend(SCHEMES.map(|(name, _)| case(name, 8)));
        }
        cases
    }

    /// Fixture, method and bits.
    pub fn name(&self) -> String {
        format!("{} {} {}", self.fixture, self.method, self.bits)
    }

    fn settings(&self) -> Vec<String> {
        match SCHEMES.iter().find(|(name, _)| *name == self.method) {
            Some((_, args)) => args.iter().map(|&arg| arg.to_owned()).collect(),
            None => {
                let walks = ["maly-saab", "cell-walk"].contains(&self.method.as_str());
                let insists = walks.then_some("--no-fallback");
                let method = ["--method", &self.method, "--bits", &self.bits.to_string()];
                insists.into_iter().chain(method).map(str::to_owned).collect()
            }
        }
    }

    fn folder(&self) -> PathBuf {
        process::root().join("fixtures").join(&self.fixture)
    }
}

impl Figures {
    /// With the digits that are worth committing.
    pub fn rounded(&self) -> Self {
        let to = |number: f64, digits: i32| (number * 10f64.powi(digits)).round() / 10f64.powi(digits);
        Self {
            accuracy: to(self.accuracy, 4),
            float_accuracy: to(self.float_accuracy, 4),
            sqnr_db: to(self.sqnr_db, 2),
            worst_error: to(self.worst_error, 5),
            ..self.clone()
        }
    }
}

/// Quantizes and measures every case that `wanted` accepts.
pub fn all(python: &Python, wanted: impl Fn(&Case) -> bool) -> anyhow::Result<Vec<(Case, Figures)>> {
    let cases = Case::all().into_iter().filter(wanted).collect::<Vec<_>>();
    let folder = tempfile::tempdir().context("cannot make a temporary folder")?;
    let mut jobs = FIXTURES.map(float_job).to_vec();
    let mut reports = Vec::new();
    for (index, case) in cases.iter().enumerate() {
        let output = folder.path().join(format!("{index}.onnx"));
        reports.push(quantize(case, &output)?);
        jobs.push(job(case, &output));
    }
    let mut float = measure(python, &jobs)?;
    let quantized = float.split_off(FIXTURES.len());
    let float_accuracy = |case: &Case| {
        let position = FIXTURES.iter().position(|name| *name == case.fixture);
        position.and_then(|index| float[index].accuracy).with_context(|| format!("{}: no float accuracy", case.fixture))
    };
    let rows = cases.into_iter().zip(quantized).zip(reports);
    rows.map(|((case, measured), report)| {
        let figures = figures(&measured, &report, float_accuracy(&case)?).with_context(|| case.name())?;
        Ok((case, figures))
    })
    .collect()
}

/// Runs the command; returns its report.
fn quantize(case: &Case, output: &Path) -> anyhow::Result<Value> {
    let report = output.with_extension("json");
    let mut command = Command::new(process::onnxquant()?);
    command.arg(case.folder().join("model.onnx")).arg(output).arg("--calib").arg(case.folder().join("calib"));
    command.arg("--quiet").args(case.settings()).arg("--report").arg(&report);
    process::run_quietly(&mut command).with_context(|| case.name())?;
    Ok(serde_json::from_slice(&std::fs::read(report)?)?)
}

/// What `tests/python/measure.py` found.
#[derive(Deserialize)]
struct Measured {
    problems: Vec<String>,
    default_sqnr_db: Option<f64>,
    agreement_db: Option<f64>,
    accuracy: Option<f64>,
    #[serde(default)]
    differences: Vec<String>,
}

fn float_job(fixture: &str) -> Value {
    let folder = process::root().join("fixtures").join(fixture);
    json!({ "model": folder.join("model.onnx"), "labels": folder.join("test.npz") })
}

fn job(case: &Case, model: &Path) -> Value {
    let labels = case.folder().join("test.npz");
    json!({ "model": model, "reference": case.folder().join("model.onnx"), "samples": [labels], "labels": labels })
}

fn measure(python: &Python, jobs: &[Value]) -> anyhow::Result<Vec<Measured>> {
    let mut command = python.command();
    command.arg(process::root().join("tests/python/measure.py")).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().with_context(|| format!("cannot start {command:?}"))?;
    let stdin = child.stdin.take().context("the script has no standard input")?;
    serde_json::to_writer(stdin, jobs)?;
    let output = child.wait_with_output()?;
    ensure!(output.status.success(), "{command:?} failed: {}", output.status);
    let found: Vec<Measured> = serde_json::from_slice(&output.stdout).context("cannot read what measure.py printed")?;
    ensure!(found.len() == jobs.len(), "measure.py answered {} of {} jobs", found.len(), jobs.len());
    Ok(found)
}

fn figures(measured: &Measured, report: &Value, float_accuracy: f64) -> anyhow::Result<Figures> {
    let problems = measured.problems.iter().chain(&measured.differences).cloned().collect::<Vec<_>>();
    ensure!(problems.is_empty(), "{}", problems.join("; "));
    let layers = report["layers"].as_array().context("the report has no layers")?;
    let error = |layer: &Value| layer["certificate"]["achieved"].as_f64();
    Ok(Figures {
        accuracy: measured.accuracy.context("no accuracy")?,
        float_accuracy,
        sqnr_db: measured.default_sqnr_db.context("the outputs are those of the float model")?,
        bytes: report["bytes_after"].as_u64().context("the report has no bytes_after")?,
        worst_error: layers.iter().filter_map(error).fold(0.0, f64::max),
        faults: faults(measured, layers),
    })
}

fn faults(measured: &Measured, layers: &[Value]) -> Vec<String> {
    let is_broken = |layer: &&Value| {
        let figure = |key: &str| layer["certificate"][key].as_f64();
        figure("achieved").zip(figure("bound")).is_some_and(|(error, bound)| error > bound * (1.0 + BOUND_SLACK))
    };
    let broken = layers.iter().filter(is_broken).map(|layer| format!("error above its bound in {}", layer["label"]));
    let is_ruined = measured.default_sqnr_db.is_some_and(|sqnr_db| sqnr_db < 0.0);
    let least_db = if is_ruined { RUINED_AGREEMENT_DB } else { AGREEMENT_DB };
    let disagreement = measured.agreement_db.filter(|&agreement_db| agreement_db < least_db);
    let disagreement = disagreement.map(|db| format!("fast and plain kernels agree to {db:.1} dB only"));
    broken.chain(disagreement).collect()
}
