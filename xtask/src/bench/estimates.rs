//! `cargo xtask bench estimates`: what `--dry-run` tells of the time, and what the run then takes.
//!
//! Without words it does so for fixtures, which take few seconds each; with a model and samples for these, with the options
//! behind `--`. Step by step it is what the constants of `crates/onnxquant/src/forecast/costs.rs` are fitted to. The machine
//! should have nothing else to do.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context;

use crate::process;

/// What is run by itself: a fixture and options.
const RUNS: [(&str, &[&str]); 8] = [
    ("digits_resnet", &[]),
    ("digits_resnet", &["--scheme", "w8a8"]),
    ("digits_resnet", &["--scheme", "w4"]),
    ("mnist_cnn", &["--scheme", "w8a8", "--method", "msq"]),
    ("digits_transformer", &[]),
    ("digits_transformer", &["--scheme", "w4"]),
    ("digits_transformer", &["--scheme", "w8a8", "--min-sqnr", "35"]),
    ("digits_conv1d", &["--average-bits", "4"]),
];

#[derive(clap::Args)]
pub(super) struct Args {
    /// A float model; without it, fixtures.
    #[arg(requires = "calib")]
    model: Option<PathBuf>,

    /// Its calibration samples.
    #[arg(long, requires = "model")]
    calib: Option<PathBuf>,

    /// Options of the run, behind `--`.
    #[arg(last = true)]
    options: Vec<String>,
}

pub(super) fn run(args: &Args) -> anyhow::Result<()> {
    process::built_onnxquant()?;
    let folder = tempfile::tempdir().context("cannot make a temporary folder")?;
    let output = folder.path().join("out.onnx");
    println!("| model | options | told | took | told / took | told by step |\n|---|---|---|---|---|---|");
    if let (Some(model), Some(calib)) = (&args.model, &args.calib) {
        return print_row(&model.display().to_string(), model, calib, &args.options, &output);
    }
    for (name, options) in RUNS {
        let fixture = process::root().join("fixtures").join(name);
        let options: Vec<String> = options.iter().map(|&word| word.to_owned()).collect();
        print_row(name, &fixture.join("model.onnx"), &fixture.join("calib"), &options, &output)?;
    }
    Ok(())
}

fn print_row(name: &str, model: &Path, calib: &Path, options: &[String], output: &Path) -> anyhow::Result<()> {
    let summary = |more: &[&str]| -> anyhow::Result<String> {
        let mut command = Command::new(process::onnxquant()?);
        command.arg(model).arg(output).arg("--calib").arg(calib).args(options).args(more);
        let found = process::run_onnxquant(&mut command)?;
        Ok(String::from_utf8_lossy(&found.stdout).into_owned())
    };
    let (told, took) = (summary(&["--dry-run"])?, summary(&[])?);
    let told = line(&told).context("the dry run tells no time")?;
    let took = line(&took).context("the run tells no time")?;
    let (told_seconds, took_seconds) = (seconds(&told)?, seconds(&took)?);
    let (_, steps) = told.split_once(": ").unwrap_or_default();
    let ratio = told_seconds / took_seconds;
    println!("| {name} | `{}` | {told_seconds:.1} s | {took_seconds:.1} s | {ratio:.2} | {steps} |", options.join(" "));
    Ok(())
}

/// What a summary says of time, in one line.
fn line(summary: &str) -> Option<String> {
    let mut lines = summary.lines().skip_while(|line| !line.starts_with("time "));
    let first = lines.next()?.trim_start_matches("time").trim().to_owned();
    let more = lines.take_while(|line| line.starts_with(' '));
    Some(more.fold(first, |text, line| text + " " + line.trim()))
}

/// The first time of a line: `about 31 s, estimated: ...` or `23.1 s with 2 threads`.
fn seconds(line: &str) -> anyhow::Result<f64> {
    let mut words = line.trim_start_matches("about ").split([' ', ',']);
    let number = words.next().and_then(|word| word.parse::<f64>().ok());
    let unit = match words.next() {
        Some("s") => 1.0,
        Some("min") => 60.0,
        Some("h") => 3600.0,
        _ => f64::NAN,
    };
    number.filter(|_| !unit.is_nan()).map(|number| number * unit).with_context(|| format!("no time in `{line}`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_from_summaries() {
        let told = "size    1 MB\ntime    about 2 min, estimated: prepare 1.2 s, calibrate\n        22 s\nmemory  3\n";
        let told = line(told).unwrap();
        assert_eq!(told, "about 2 min, estimated: prepare 1.2 s, calibrate 22 s");
        assert_eq!(seconds(&told).unwrap(), 120.0);
        assert_eq!(seconds(&line("time    0.4 s with 2 threads, at most 9 MB\n").unwrap()).unwrap(), 0.4);
        assert!(line("size 1").is_none() && seconds("soon").is_err());
    }
}
