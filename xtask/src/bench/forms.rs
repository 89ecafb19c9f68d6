//! `cargo xtask bench forms`: the speed of every written form in ONNX Runtime, against float.
//!
//! Models of one kind of operator each, with random weights, are quantized as users would; ONNX Runtime then runs every
//! file on one thread, in turn with the others, and the least time counts (`tests/python/speed.py`). What is printed is
//! a table in Markdown.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, ensure};
use serde_json::{Value, json};

use crate::process;
use crate::python::Python;

/// Forms of one kind of operator.
struct Set {
    model: &'static str,
    title: &'static str,
    /// Rows of the input in its columns.
    rows: [usize; 2],
    forms: &'static [(&'static str, &'static [&'static str])],
}

const DQ: [&str; 2] = ["--format", "dq"];
const BLOCK_32: [&str; 2] = ["--granularity", "block:32"];
const BLOCK_128: [&str; 2] = ["--granularity", "block:128"];

const SETS: [Set; 3] = [
    Set {
        model: "dense",
        title: "MatMul, 1024 x 4096 and back",
        rows: [1, 128],
        forms: &[
            ("8 bits per channel", &[]),
            ("8 bits, blocks of 32", &[BLOCK_32[0], BLOCK_32[1]]),
            ("8 bits, blocks of 128", &[BLOCK_128[0], BLOCK_128[1]]),
            ("8 bits per channel, `--format dq`", &DQ),
            ("8 bits, blocks of 32, `--format dq`", &[DQ[0], DQ[1], BLOCK_32[0], BLOCK_32[1]]),
            ("4 bits, blocks of 32", &["--bits", "4", BLOCK_32[0], BLOCK_32[1]]),
            ("4 bits, blocks of 128", &["--bits", "4", BLOCK_128[0], BLOCK_128[1]]),
            ("4 bits, blocks of 32, `--format dq`", &["--bits", "4", DQ[0], DQ[1], BLOCK_32[0], BLOCK_32[1]]),
            ("4 bits, blocks of 128, `--format dq`", &["--bits", "4", DQ[0], DQ[1], BLOCK_128[0], BLOCK_128[1]]),
            ("3 bits in planes, blocks of 128", &["--bits", "3", BLOCK_128[0], BLOCK_128[1]]),
            ("2 bits in planes, blocks of 128", &["--bits", "2", BLOCK_128[0], BLOCK_128[1]]),
            ("`w8a8-dynamic`", &["--scheme", "w8a8-dynamic"]),
            ("`fp8`", &["--scheme", "fp8"]),
        ],
    },
    Set {
        model: "conv",
        title: "Conv, 128 channels, 3 x 3, 28 x 28 pixels",
        rows: [1, 8],
        forms: &[
            ("8 bits per channel", &[]),
            ("4 bits per channel, in planes", &["--bits", "4"]),
            ("`fp8`", &["--scheme", "fp8"]),
            ("`w8a8 --target qdq-strict`", &["--scheme", "w8a8", "--target", "qdq-strict", "--method", "msq"]),
        ],
    },
    Set {
        model: "embedding",
        title: "Gather, 30000 x 384",
        rows: [1, 128],
        forms: &[("8 bits a row", &[]), ("4 bits a row", &["--embeddings", "4"])],
    },
];

pub(super) fn run() -> anyhow::Result<()> {
    process::run(process::cargo().args(["build", "--release", "--workspace", "--quiet"]))?;
    let python = Python::set_up()?;
    let folder = tempfile::tempdir().context("cannot make a temporary folder")?;
    let script = process::root().join("tests/python/speed.py");
    process::run_quietly(python.command().arg(&script).arg("make").arg(folder.path()))?;
    let mut jobs = Vec::new();
    for set in &SETS {
        let models = set.quantize(folder.path())?;
        jobs.push(json!({ "models": models, "rows": set.rows }));
    }
    let times = measure(&python, &script, &jobs)?;
    for ((set, job), times) in SETS.iter().zip(&jobs).zip(times) {
        println!("{}", set.table(job, &times)?);
    }
    Ok(())
}

impl Set {
    /// Writes every form; the float model is the first.
    fn quantize(&self, folder: &Path) -> anyhow::Result<Vec<String>> {
        let program = process::onnxquant()?;
        let float = folder.join(self.model).with_extension("onnx");
        let mut models = vec![float.to_string_lossy().into_owned()];
        for (index, (name, args)) in self.forms.iter().enumerate() {
            let output = folder.join(format!("{}_{index}.onnx", self.model));
            let mut command = Command::new(&program);
            command.arg(&float).arg(&output).arg("--quiet").args(*args);
            match args.contains(&"w8a8") {
                true => command.arg("--calib").arg(folder.join("calib")),
                false => command.arg("--weights-only"),
            };
            process::run_quietly(&mut command).with_context(|| (*name).to_owned())?;
            models.push(output.to_string_lossy().into_owned());
        }
        Ok(models)
    }

    /// Speed over float at both numbers of rows, and size.
    fn table(&self, job: &Value, times: &[Vec<f64>]) -> anyhow::Result<String> {
        let models = job["models"].as_array().context("a set has models")?;
        let bytes = |model: &Value| anyhow::Ok(std::fs::metadata(model.as_str().unwrap_or(""))?.len() as f64);
        let [few, many] = self.rows;
        let mut text = format!("| {} | {few} | {many} | file |\n|---|---|---|---|\n", self.title);
        for (index, (name, _)) in self.forms.iter().enumerate() {
            let speeds = times.iter().map(|times| format!("{:.2}", times[0] / times[index + 1]));
            let size = 100.0 * bytes(&models[index + 1])? / bytes(&models[0])?;
            text += &format!("| {name} | {} | {size:.1} % |\n", speeds.collect::<Vec<_>>().join(" | "));
        }
        Ok(text)
    }
}

/// By set, number of rows and model: the least time of a run in seconds.
fn measure(python: &Python, script: &Path, jobs: &[Value]) -> anyhow::Result<Vec<Vec<Vec<f64>>>> {
    let mut command = python.command();
    command.arg(script).arg("measure").stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().with_context(|| format!("cannot start {command:?}"))?;
    serde_json::to_writer(child.stdin.take().context("the script has no standard input")?, jobs)?;
    let output = child.wait_with_output()?;
    ensure!(output.status.success(), "{command:?} failed: {}", output.status);
    let found: Vec<Vec<Vec<f64>>> =
        serde_json::from_slice(&output.stdout).context("cannot read what speed.py printed")?;
    let complete = |(found, job): (&Vec<Vec<f64>>, &Value)| {
        let models = job["models"].as_array().map_or(0, Vec::len);
        found.len() == 2 && found.iter().all(|times| times.len() == models)
    };
    ensure!(found.len() == jobs.len() && found.iter().zip(jobs).all(complete), "speed.py left something out");
    Ok(found)
}
