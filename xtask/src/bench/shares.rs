//! `cargo xtask bench shares`: how much faster several processes are than one.
//!
//! Processes that calibrate and solve have one thread, and run one after the other, so that none slows another down: of each
//! kind the slowest counts. That is a machine with a core for each. `finish`, which is one, has as many threads as there were
//! processes, as far as this machine has cores. Options of the run stand behind `--`.

use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::Context;

use crate::process;

/// Processes of each kind.
const COUNTS: [usize; 3] = [1, 2, 4];

#[derive(clap::Args)]
pub(super) struct Args {
    /// A float model.
    model: PathBuf,

    /// Its calibration samples.
    #[arg(long)]
    calib: PathBuf,

    /// Options of the run, behind `--`; `--one-pass` is given by itself.
    #[arg(last = true)]
    options: Vec<String>,
}

pub(super) fn run(args: &Args) -> anyhow::Result<()> {
    process::built_onnxquant()?;
    println!(
        "| processes of each kind | `calibrate` | `solve` | `finish` | together | faster |\n|---|---|---|---|---|---|"
    );
    let mut alone = None;
    for count in COUNTS {
        let [calibrate, solve, finish] = seconds(args, count)?;
        let together = calibrate + solve + finish;
        let faster = *alone.get_or_insert(together) / together;
        println!("| {count} | {calibrate:.1} s | {solve:.1} s | {finish:.1} s | {together:.1} s | {faster:.2}x |");
    }
    Ok(())
}

/// Seconds of the slowest process of each kind.
fn seconds(args: &Args, count: usize) -> anyhow::Result<[f64; 3]> {
    let folder = tempfile::tempdir().context("cannot make a temporary folder")?;
    let (state, output) = (folder.path().join("state"), folder.path().join("out.onnx"));
    let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
    let slowest = |words: &dyn Fn(&mut Command)| -> anyhow::Result<f64> {
        let all = (1..=count).map(|number| {
            timed(&state, 1, &|command| {
                words(command);
                command.args(["--shard", &format!("{number}/{count}")]);
            })
        });
        Ok(all.collect::<anyhow::Result<Vec<f64>>>()?.into_iter().fold(0.0, f64::max))
    };
    let calibrate = |command: &mut Command| {
        command.arg("calibrate").arg(&args.model).arg("--calib").arg(&args.calib).arg("--one-pass").args(&args.options);
    };
    let solve = |command: &mut Command| {
        command.arg("solve");
    };
    let finish = |command: &mut Command| {
        command.arg("finish").arg(&output);
    };
    Ok([slowest(&calibrate)?, slowest(&solve)?, timed(&state, count.min(cores), &finish)?])
}

/// Seconds of one process with so many threads.
fn timed(state: &Path, threads: usize, words: &dyn Fn(&mut Command)) -> anyhow::Result<f64> {
    let mut command = Command::new(process::onnxquant()?);
    words(&mut command);
    command.args(["--quiet", "--threads", &threads.to_string(), "--state"]).arg(state);
    let begun = Instant::now();
    process::run_onnxquant(&mut command)?;
    Ok(begun.elapsed().as_secs_f64())
}
