//! `cargo xtask fuzz`: builds the fuzz targets and runs each for a while, as many at once as there are processors.
//!
//! The targets are programs of their own with libFuzzer in them. The compiler counts which branches they take by flags that
//! every release of it has, so neither a nightly one nor `cargo-fuzz` is needed. They are built in a folder of their own,
//! without tract. What makes a target fail is kept in `tests/fuzz/regressions/TARGET`, where a test of the workspace replays
//! it ever after. What a target found worth keeping on its way (its corpus) stays in `target/fuzz/corpus`; it begins with
//! files of this repository. What targets say is in `target/fuzz/logs`.

use std::fs;
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::sync::{Mutex, PoisonError};
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
/// Lines of a target that failed which are shown.
const LAST_LINES: usize = 40;
/// A folder in memory, where the system has one: most targets write a file for every input.
const IN_MEMORY: &str = "/dev/shm";

/// Flags of the compiler: those by which `cargo-fuzz --sanitizer none` counts edges, comparisons and the stack's depth for
/// libFuzzer. The code is safe but for a few lines: a sanitizer would find little and take half of the speed.
const FLAGS: [&str; 9] = [
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    "--cfg",
    "fuzzing",
    "-Cllvm-args=-simplifycfg-branch-fold-threshold=0",
    "-Cllvm-args=-sanitizer-coverage-stack-depth",
];

#[derive(clap::Args)]
pub struct Args {
    /// How long each target runs.
    #[arg(long, default_value_t = 30)]
    seconds: u64,

    /// How many run at once; as many as there are processors where it is not given.
    #[arg(long)]
    jobs: Option<NonZero<usize>>,

    /// Where corpora grow, one folder a target; `target/fuzz/corpus` where it is not given.
    #[arg(long, value_name = "FOLDER")]
    corpus: Option<PathBuf>,

    /// The targets; all where none is named.
    targets: Vec<String>,
}

pub fn run(args: &Args) -> anyhow::Result<()> {
    let all = targets()?;
    for target in &args.targets {
        ensure!(all.contains(target), "there is no target `{target}`; there are {}", all.join(", "));
    }
    let chosen = all.iter().filter(|name| args.targets.is_empty() || args.targets.contains(name));
    let begun = Instant::now();
    let bench = Bench::new(args, build()?)?;
    println!("built in {} s", begun.elapsed().as_secs());
    let jobs = args.jobs.or(std::thread::available_parallelism().ok()).map_or(1, NonZero::get);
    let failed = bench.run_all(chosen.map(String::as_str), jobs)?;
    println!("all in {} s", begun.elapsed().as_secs());
    ensure!(failed.is_empty(), "inputs that fail are in `{FOLDER}/regressions` now, of {}", failed.join(", "));
    Ok(())
}

/// The names of all targets, in order.
fn targets() -> anyhow::Result<Vec<String>> {
    let mut names: Vec<String> = files(&process::root().join(FOLDER).join("fuzz_targets"))
        .iter()
        .filter_map(|path| Some(path.file_stem()?.to_str()?.to_owned()))
        .collect();
    names.sort();
    ensure!(!names.is_empty(), "there are no targets in `{FOLDER}/fuzz_targets`");
    Ok(names)
}

/// Builds all targets; returns where they are.
fn build() -> anyhow::Result<PathBuf> {
    let (host, folder) = (process::host()?, own_folder("target")?);
    let mut cargo = process::cargo();
    // Named, so that build scripts and macros are built without the flags.
    cargo.args(["build", "--release", "--locked", "--bins", "--manifest-path"]).arg(format!("{FOLDER}/Cargo.toml"));
    cargo.args(["--target", &host, "--target-dir"]).arg(&folder);
    cargo.env("CARGO_ENCODED_RUSTFLAGS", FLAGS.join("\x1f"));
    process::run(&mut cargo)?;
    Ok(folder.join(host).join("release"))
}

/// Where targets run.
struct Bench<'a> {
    args: &'a Args,
    programs: PathBuf,
    corpus: PathBuf,
    logs: PathBuf,
    /// For the files that targets write, and leave when they fail.
    scratch: tempfile::TempDir,
}

impl<'a> Bench<'a> {
    fn new(args: &'a Args, programs: PathBuf) -> anyhow::Result<Self> {
        let memory = Some(PathBuf::from(IN_MEMORY)).filter(|folder| folder.is_dir());
        let folder = memory.unwrap_or_else(std::env::temp_dir);
        let scratch = tempfile::Builder::new().prefix("onnxquant-fuzz-").tempdir_in(&folder);
        let scratch = scratch.with_context(|| format!("cannot make a folder in `{}`", folder.display()))?;
        let corpus = args.corpus.clone().map_or_else(|| own_folder("corpus"), Ok)?;
        Ok(Self { args, programs, corpus, logs: own_folder("logs")?, scratch })
    }

    /// Runs the targets, so many at once; returns those that failed.
    fn run_all<'t>(&self, targets: impl Iterator<Item = &'t str> + Send, jobs: usize) -> anyhow::Result<Vec<&'t str>> {
        let (waiting, failed) = (Mutex::new(targets), Mutex::new(Vec::new()));
        let next = || waiting.lock().unwrap_or_else(PoisonError::into_inner).next();
        let work = || -> anyhow::Result<()> {
            while let Some(target) = next() {
                if !self.run_one(target)? {
                    failed.lock().unwrap_or_else(PoisonError::into_inner).push(target);
                }
            }
            Ok(())
        };
        std::thread::scope(|scope| {
            let workers: Vec<_> = (0..jobs).map(|_| scope.spawn(work)).collect();
            workers.into_iter().try_for_each(|worker| worker.join().expect("a worker does not panic"))
        })?;
        Ok(failed.into_inner().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether no input failed.
    fn run_one(&self, target: &str) -> anyhow::Result<bool> {
        let (corpus, kept) = (self.corpus.join(target), process::root().join(FOLDER).join("regressions").join(target));
        for folder in [&corpus, &kept, &self.logs] {
            fs::create_dir_all(folder).with_context(|| format!("cannot make `{}`", folder.display()))?;
        }
        seed(target, &corpus)?;
        let path = self.logs.join(format!("{target}.log"));
        let log = fs::File::create(&path).with_context(|| format!("cannot write `{}`", path.display()))?;
        let mut command = Command::new(self.programs.join(target));
        command.arg(&corpus).arg(&kept).env("TMPDIR", self.scratch.path());
        command.arg(format!("-max_total_time={}", self.args.seconds)).arg(format!("-rss_limit_mb={MEMORY_MIB}"));
        command.arg(format!("-timeout={LONGEST_SECONDS}")).arg(format!("-report_slow_units={LONGEST_SECONDS}"));
        command.arg(format!("-max_len={LONGEST_BYTES}")).arg(format!("-artifact_prefix={}/", kept.display()));
        command.args(["-print_final_stats=1", "-verbosity=1"]);
        // libFuzzer speaks on the standard error.
        let output = log.try_clone().with_context(|| format!("cannot write `{}`", path.display()))?;
        let begun = Instant::now();
        let status =
            command.stdout(output).stderr(log).status().with_context(|| format!("cannot start {command:?}"))?;
        let said = fs::read(&path).with_context(|| format!("cannot read `{}`", path.display()))?;
        let said = String::from_utf8_lossy(&said);
        println!("{target}: {} s, {}", begun.elapsed().as_secs(), outcome(status, &said));
        Ok(status.success())
    }
}

/// How a target ended that said this: what it did, or its last words.
fn outcome(status: ExitStatus, said: &str) -> String {
    if !status.success() {
        let lines: Vec<&str> = said.lines().collect();
        let last = lines[lines.len().saturating_sub(LAST_LINES)..].join("\n    ");
        return format!("it failed ({status}):\n    {last}");
    }
    let behind = |line: &str, word: &str| Some(line.split_once(word)?.1.split_whitespace().next()?.to_owned());
    let last = |word: &str| said.lines().rev().find_map(|line| behind(line, word)).unwrap_or("?".to_owned());
    let (inputs, edges) = (last("number_of_executed_units:"), last("cov:"));
    format!("{inputs} inputs, {edges} edges, nothing found")
}

/// Gives a target files of the kind that it reads to begin with.
fn seed(target: &str, corpus: &Path) -> anyhow::Result<()> {
    let seeds = process::root().join(FOLDER).join("seeds").join(target);
    let models = matches!(target, "decode" | "import" | "raise_opset").then(|| process::root().join("fixtures/traps"));
    for file in files(&seeds).into_iter().chain(models.iter().flat_map(|folder| files(folder))) {
        if file.metadata().is_ok_and(|found| found.len() <= u64::from(LONGEST_BYTES)) {
            let name = file.file_name().unwrap_or_default();
            fs::copy(&file, corpus.join(name)).with_context(|| format!("cannot copy `{}`", file.display()))?;
        }
    }
    Ok(())
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

/// A folder that no other build writes into.
fn own_folder(name: &str) -> anyhow::Result<PathBuf> {
    Ok(process::target_folder()?.join("fuzz").join(name))
}
