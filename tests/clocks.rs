//! Clocks that are wrong, and times of files in the future and the past: nothing that is written depends on them.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::support::{Failures, Fixture, Run, files_in, folder, onnxquant, root};

/// Others have to do something first.
const WAITING: i32 = 75;
/// Longer than a wait of a second takes on a machine that is busy.
const LONGEST: Duration = Duration::from_secs(60);

/// A run that keeps its state, in `folder`.
fn command(folder: &Path) -> Command {
    let at = |name: &str| folder.join(name);
    let mut command = onnxquant(&[Fixture::MLP.model(), at("out.onnx")]);
    command.args(["--average-bits", "3.5", "--ort-lib", "off", "--quiet"]).arg("--calib").arg(Fixture::MLP.calib());
    command.arg("--state").arg(at("state")).arg("--report").arg(at("out.json"));
    command
}

fn bytes(path: &Path) -> Vec<u8> {
    fs::read(path).unwrap_or_else(|error| panic!("`{}`: {error}", path.display()))
}

/// All files in `folder` and the folders in it.
fn files_below(folder: &Path) -> Vec<PathBuf> {
    let paths = files_in(folder).into_iter().map(|name| folder.join(name));
    paths.flat_map(|path| if path.is_dir() { files_below(&path) } else { vec![path] }).collect()
}

#[test]
fn times_of_files_are_not_looked_at() {
    let folder = folder();
    let output = folder.path().join("out.onnx");
    Run::of(&mut command(folder.path())).succeeded();
    let expected = bytes(&output);
    let mut failures = Failures::default();
    let in_2100 = UNIX_EPOCH + Duration::from_secs(130 * 365 * 86_400);
    for (name, time) in [("1970", UNIX_EPOCH), ("now", SystemTime::now()), ("2100", in_2100)] {
        let [stray, held] = ["stray", "held"].map(|name| folder.path().join(format!(".onnxquant-{name}")));
        fs::write(&stray, "of a run that was killed").expect("it can be written");
        let held_file = File::create(&held).expect("it can be made");
        held_file.lock().expect("it can be locked");
        fs::write(&output, "old").expect("it can be written");
        for path in files_below(folder.path()) {
            let file = File::options().append(true).open(&path).expect("it can be opened");
            file.set_modified(time).expect("its time can be set");
        }
        let run = Run::of(&mut command(folder.path()));
        failures.check(run.code == Some(0), || format!("{name}: {run:?}"));
        failures.check(bytes(&output) == expected, || format!("{name}: other bytes"));
        failures.check(!stray.exists() && held.exists(), || format!("{name}: {:?}", files_in(folder.path())));
        fs::remove_file(held).expect("it can be removed");
    }
    failures.finish();
}

/// `tests/clock.c`, compiled by what links Rust's programs.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn clock(folder: &Path) -> PathBuf {
    let library = folder.join("clock.so");
    let mut compiler = Command::new("cc");
    compiler.args(["-shared", "-fPIC", "-o"]).arg(&library).arg(root().join("tests/clock.c")).arg("-ldl");
    Run::of(&mut compiler).succeeded();
    library
}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[test]
fn a_clock_that_goes_back_changes_nothing_and_ends_no_wait() {
    let (alone, tools, mut failures) = (folder(), folder(), Failures::default());
    Run::of(&mut command(alone.path())).succeeded();
    let expected = bytes(&alone.path().join("out.onnx"));
    let clock = clock(tools.path());
    for (start, year) in [("4102444799", "2099"), ("0", "1970")] {
        let folder = folder();
        let wrong = |command: &mut Command| Run::of(command.env("LD_PRELOAD", &clock).env("CLOCK_START", start));
        let run = wrong(&mut command(folder.path()));
        failures.check(run.code == Some(0), || format!("{start}: {run:?}"));
        failures.check(bytes(&folder.path().join("out.onnx")) == expected, || format!("{start}: other bytes"));
        let report = String::from_utf8_lossy(&bytes(&folder.path().join("out.json"))).into_owned();
        let report: serde_json::Value = serde_json::from_str(&report).expect("the report is JSON");
        let told = &report["run"];
        let is_wrong = told["started"].as_str().is_some_and(|started| started.starts_with(year));
        let seconds = told["seconds"].as_f64().unwrap_or(-1.0);
        failures.check(is_wrong && (0.0..LONGEST.as_secs_f64()).contains(&seconds), || format!("{start}: {told}"));
        let begun = Instant::now();
        let run = wrong(onnxquant(&["solve", "--wait=1", "--state"]).arg(folder.path().join("nothing")));
        let waited = begun.elapsed();
        let is_right = run.code == Some(WAITING) && (Duration::from_secs(1)..LONGEST).contains(&waited);
        failures.check(is_right, || format!("{start}: waited {waited:?}, {run:?}"));
    }
    failures.finish();
}
