//! Runs of the built command.

use std::ffi::OsStr;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

/// Address space of the process, in KiB. Threads' stacks and the program take most of what is used.
const MEMORY_KIB: u32 = 1 << 20;

/// Seconds after which a run counts as hanging: many times what the slowest takes.
const LONGEST_SECONDS: u32 = 120;

/// How a run ended.
#[derive(Debug)]
pub struct Run {
    /// Exit code; absent if the process was killed.
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Run {
    /// Of any program.
    pub fn of(command: &mut Command) -> Self {
        let output = command.output().expect("the program can be started");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Self { code: output.status.code(), stdout: text(&output.stdout), stderr: text(&output.stderr) }
    }

    /// Whether the standard output has this text, wherever lines of it end.
    pub fn says(&self, text: &str) -> bool {
        let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        words(&self.stdout).contains(&words(text))
    }

    /// What is not as usual: lines of the standard error that do not only tell how far the run is.
    pub fn complaints(&self) -> Vec<&str> {
        let is_time = |line: &&str| line.split_once(" s  ").is_some_and(|(time, _)| time.trim().parse::<f64>().is_ok());
        self.stderr.lines().filter(|line| !is_time(line)).collect()
    }

    /// Exit code 0; otherwise the test fails.
    pub fn succeeded(self) -> Self {
        assert_eq!(self.code, Some(0), "{}{}", self.stdout, self.stderr);
        self
    }
}

/// The command, ready for arguments.
pub fn onnxquant(args: &[impl AsRef<OsStr>]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_onnxquant"));
    command.args(args);
    command
}

/// The library of ONNX Runtime that `cargo xtask test` names.
pub fn library() -> String {
    std::env::var("ONNXQUANT_ORT_LIB").expect("ONNXQUANT_ORT_LIB is not set: run `cargo xtask test`, which sets it up")
}

/// Runs the command on `input` and returns its report.
pub fn report(input: &Path, output: &Path, args: &[&str], calib: Option<&Path>) -> Value {
    try_report(input, output, args, calib).unwrap_or_else(|said| panic!("{said}"))
}

/// The same, or what a failed run said.
pub fn try_report(input: &Path, output: &Path, args: &[&str], calib: Option<&Path>) -> Result<Value, String> {
    let report = output.with_extension("report.json");
    let mut command = onnxquant(&[input, output]);
    command.args(args).arg("--report").arg(&report);
    match calib {
        Some(calib) => command.arg("--calib").arg(calib),
        None => command.arg("--weights-only"),
    };
    let run = Run::of(&mut command);
    if run.code != Some(0) {
        return Err(format!("exit code {:?}: {}{}", run.code, run.stdout, run.stderr));
    }
    let text = std::fs::read_to_string(&report).expect("the report was written");
    Ok(serde_json::from_str(&text).expect("the report is JSON"))
}

/// What `inspect --json` says.
pub fn inspect(model: &Path, args: &[&str]) -> Value {
    let mut command = onnxquant(&["inspect", "--json"]);
    let run = Run::of(command.args(args).arg(model)).succeeded();
    serde_json::from_str(&run.stdout).expect("inspect --json prints JSON")
}

/// What is wrong with a run that should have been refused as bad input, or nothing.
///
/// A refusal has exit code 2 and one message; `texts` are parts of it.
pub fn refused(run: &Run, texts: &[&str]) -> Option<String> {
    let missing = texts.iter().find(|text| !run.stderr.contains(**text));
    match (run.code, missing) {
        (Some(2), _) if !run.stderr.contains("error: ") => Some(format!("no message: {}", run.stderr)),
        (Some(2), Some(text)) => Some(format!("`{text}` is not in the message: {}", run.stderr)),
        (Some(2), None) if run.stderr.contains("panicked") => Some(format!("panicked: {}", run.stderr)),
        (Some(2), None) => None,
        (code, _) => Some(format!("exit code {code:?}, expected 2: {}", run.stderr)),
    }
}

/// Names in a folder, hidden ones too, sorted.
pub fn files_in(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).expect("the folder can be listed");
    let name = |entry: std::io::Result<std::fs::DirEntry>| entry.expect("the folder can be listed").file_name();
    let mut names = entries.map(|entry| name(entry).to_string_lossy().into_owned()).collect::<Vec<_>>();
    names.sort();
    names
}

/// Runs a command in bounded memory; one that hangs is ended, with exit code 124.
pub fn bounded(command: &Command) -> Run {
    let mut shell = Command::new("bash");
    shell.args(["-c", &format!("ulimit -v {MEMORY_KIB} && exec timeout {LONGEST_SECONDS} \"$@\""), "bash"]);
    Run::of(shell.arg(command.get_program()).args(command.get_args()))
}
