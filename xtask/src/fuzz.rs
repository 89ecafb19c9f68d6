//! `cargo xtask fuzz`: builds the fuzz targets and runs each for a while.
//!
//! It needs `cargo-fuzz` and a nightly compiler, and builds in a folder of its own, without tract. What makes a target fail
//! is kept in `tests/fuzz/regressions/TARGET`, where a test of the workspace replays it ever after. What a target found
//! worth keeping on its way (its corpus) stays in `target/fuzz`; it begins with files of this repository.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, ensure};

use crate::process;

/// Where the targets are.
const FOLDER: &str = "tests/fuzz";
/// Memory that one input may take, in MiB; the readers' own limits are below.
const MEMORY_MIB: u32 = 4096;
/// An input that takes longer is a finding.
const LONGEST_SECONDS: u32 = 30;
/// Bytes of an input, at most.
const LONGEST_BYTES: u32 = 1 << 16;

#[derive(clap::Args)]
pub struct Args {
    /// How long each target runs.
    #[arg(long, default_value_t = 30)]
    seconds: u64,

    /// The targets; all where none is named.
    targets: Vec<String>,
}

pub fn run(args: &Args) -> anyhow::Result<()> {
    let listed = output(fuzz("list").args(["--fuzz-dir", FOLDER]))?;
    let all: Vec<&str> = listed.lines().collect();
    for target in &args.targets {
        ensure!(all.contains(&target.as_str()), "there is no target `{target}`; there are {}", all.join(", "));
    }
    let chosen = all.iter().filter(|name| args.targets.is_empty() || args.targets.iter().any(|target| target == *name));
    process::run(&mut build()?)?;
    let mut failed = Vec::new();
    for target in chosen {
        let begun = Instant::now();
        let is_fine = run_one(target, args.seconds)?;
        println!("{target}: {} s, {}", begun.elapsed().as_secs(), if is_fine { "nothing found" } else { "it failed" });
        if !is_fine {
            failed.push(*target);
        }
    }
    ensure!(failed.is_empty(), "inputs that fail are in `{FOLDER}/regressions` now, of {}", failed.join(", "));
    Ok(())
}

/// `cargo +nightly fuzz COMMAND`.
fn fuzz(command: &str) -> Command {
    let mut cargo = process::nightly();
    cargo.args(["fuzz", command]);
    cargo
}

/// The code is safe but for a few lines: a sanitizer would find little and take half of the speed.
const WITHOUT_SANITIZER: [&str; 6] = ["--fuzz-dir", FOLDER, "--sanitizer", "none", "-O", "--debug-assertions"];

fn build() -> anyhow::Result<Command> {
    let mut command = fuzz("build");
    command.args(WITHOUT_SANITIZER).env("CARGO_TARGET_DIR", own_folder()?.join("target"));
    Ok(command)
}

/// Whether no input failed.
fn run_one(target: &str, seconds: u64) -> anyhow::Result<bool> {
    let (corpus, kept) =
        (own_folder()?.join("corpus").join(target), process::root().join(FOLDER).join("regressions").join(target));
    for folder in [&corpus, &kept] {
        std::fs::create_dir_all(folder).with_context(|| format!("cannot make `{}`", folder.display()))?;
    }
    seed(target, &corpus)?;
    let mut command = fuzz("run");
    command.args(WITHOUT_SANITIZER).env("CARGO_TARGET_DIR", own_folder()?.join("target"));
    command.arg(target).arg(&corpus).arg(&kept).arg("--");
    command.arg(format!("-max_total_time={seconds}")).arg(format!("-rss_limit_mb={MEMORY_MIB}"));
    command.arg(format!("-timeout={LONGEST_SECONDS}")).arg(format!("-max_len={LONGEST_BYTES}"));
    command.arg(format!("-artifact_prefix={}/", kept.display())).args(["-print_final_stats=1", "-verbosity=1"]);
    let status = command.status().with_context(|| format!("cannot start {command:?}"))?;
    Ok(status.success())
}

/// Gives a target files of the kind that it reads to begin with.
fn seed(target: &str, corpus: &Path) -> anyhow::Result<()> {
    let seeds = process::root().join(FOLDER).join("seeds").join(target);
    let models = matches!(target, "decode" | "import" | "raise_opset").then(|| process::root().join("fixtures/traps"));
    for file in files(&seeds).into_iter().chain(models.iter().flat_map(|folder| files(folder))) {
        if file.metadata().is_ok_and(|found| found.len() <= u64::from(LONGEST_BYTES)) {
            let name = file.file_name().unwrap_or_default();
            std::fs::copy(&file, corpus.join(name)).with_context(|| format!("cannot copy `{}`", file.display()))?;
        }
    }
    Ok(())
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

fn own_folder() -> anyhow::Result<PathBuf> {
    Ok(process::target_folder()?.join("fuzz"))
}

fn output(command: &mut Command) -> anyhow::Result<String> {
    let found = command.output().with_context(|| format!("cannot start {command:?}"))?;
    let said = String::from_utf8_lossy(&found.stderr);
    ensure!(
        found.status.success(),
        "{command:?} failed: {said}\nit needs `cargo install cargo-fuzz` and a nightly compiler"
    );
    Ok(String::from_utf8_lossy(&found.stdout).into_owned())
}
