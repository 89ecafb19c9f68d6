//! SIGTERM and SIGINT end the command, as PID 1 too, and leave nothing behind.

use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::{Failures, Fixture, files_in, folder, onnxquant};

/// Starts a program that SIGINT ends, also where the tests run in the background of a shell, which ignores it.
const ENDED_BY_SIGINT: &[&str] = if cfg!(target_os = "linux") { &["env", "--default-signal=INT"] } else { &[] };
/// How long anything here may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// A run that stays in the middle of its work, with temporary folders beside the output and in the system's place, and
/// a program that it waits for.
struct Run {
    place: tempfile::TempDir,
    child: Child,
}

impl Run {
    /// Starts it behind these words, which start the rest of the command line.
    fn start(before: &[&str]) -> Self {
        let place = folder();
        let input = place.path().join("in");
        for made in ["in", "out", "tmp"] {
            std::fs::create_dir(place.path().join(made)).expect("it can be made");
        }
        std::fs::copy(Fixture::MLP.model(), input.join("model.onnx")).expect("the fixture can be copied");
        std::fs::write(input.join("config.json"), "{}").expect("it can be written");
        let metric = "touch started; exec sleep 600 # {model}";
        let command = onnxquant(&["in", "out/new", "--weights-only", "--metric-command", metric]);
        let mut all = match before {
            [] => command,
            [first, rest @ ..] => {
                let mut all = Command::new(first);
                all.args(rest).arg(command.get_program()).args(command.get_args());
                all
            }
        };
        all.current_dir(place.path()).env("TMPDIR", place.path().join("tmp"));
        let child = all.stdout(Stdio::null()).spawn().expect("it can be started");
        let run = Self { place, child };
        run.until("the metric is measured", || run.path("started").exists());
        assert_eq!((files_in(&run.path("tmp")).len(), files_in(&run.path("out")).len()), (1, 1), "nothing to remove");
        run
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.place.path().join(name)
    }

    fn until(&self, what: &str, mut holds: impl FnMut() -> bool) {
        let begin = Instant::now();
        while !holds() {
            assert!(begin.elapsed() < PATIENCE, "waited in vain: {what}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Waits for the end: exit code and signal, and what is wrong with what is left.
    fn ended(mut self) -> (Option<i32>, Option<i32>, Vec<String>) {
        let begin = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait().expect("it can be waited for") {
                break status;
            }
            if begin.elapsed() > PATIENCE {
                self.child.kill().expect("it can be killed");
            }
            std::thread::sleep(Duration::from_millis(10));
        };
        let left = ["tmp", "out"].iter().flat_map(|name| files_in(&self.path(name))).collect();
        (status.code(), status.signal(), left)
    }
}

fn send(signal: &str, process: u32) {
    let sent = Command::new("sh").args(["-c", &format!("kill -{signal} {process}")]).status();
    assert!(sent.expect("sh can be started").success(), "{signal} cannot be sent");
}

/// The processes that `process` started.
fn children(process: u32) -> Vec<u32> {
    let path = format!("/proc/{process}/task/{process}/children");
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.split_whitespace().filter_map(|number| number.parse().ok()).collect()
}

#[test]
fn signals_end_the_command_and_nothing_is_left() {
    let mut failures = Failures::default();
    for (signal, number) in [("TERM", 15), ("INT", 2)] {
        let run = Run::start(ENDED_BY_SIGINT);
        let waited_for = children(run.child.id());
        send(signal, run.child.id());
        let (code, by, left) = run.ended();
        failures.check((code, by) == (None, Some(number)), || format!("{signal}: code {code:?}, signal {by:?}"));
        failures.check(left.is_empty(), || format!("{signal}: {left:?} is left"));
        let lives = |process: &u32| Path::new(&format!("/proc/{process}")).exists();
        failures.check(!waited_for.is_empty() && !waited_for.iter().any(lives), || {
            format!("{signal}: of {waited_for:?}, which it waited for, some go on")
        });
    }
    failures.finish();
}

#[test]
fn signals_that_are_ignored_where_it_starts_stay_so() {
    let mut run = Run::start(&["sh", "-c", "trap '' INT; exec \"$@\"", "sh"]);
    send("INT", run.child.id());
    std::thread::sleep(Duration::from_millis(200));
    assert!(run.child.try_wait().expect("it can be waited for").is_none(), "SIGINT ended it");
    send("TERM", run.child.id());
    let (code, by, left) = run.ended();
    assert_eq!((code, by, left.len()), (None, Some(15), 0));
}

/// As in a container. The default of both signals is to do nothing there.
#[cfg(target_os = "linux")]
#[test]
fn signals_end_the_command_as_the_first_process() {
    let unshare = ["unshare", "--pid", "--fork", "--kill-child"];
    let may = Command::new(unshare[0]).args(&unshare[1..]).arg("true").stderr(Stdio::null()).status();
    if !may.is_ok_and(|status| status.success()) {
        println!("not tested: no namespace of processes can be made here");
        return;
    }
    let mut failures = Failures::default();
    for (signal, expected) in [("TERM", 143), ("INT", 130)] {
        let run = Run::start(&[ENDED_BY_SIGINT, &unshare].concat());
        let first = children(run.child.id());
        assert_eq!(first.len(), 1, "unshare has one child");
        send(signal, first[0]);
        let (code, by, left) = run.ended();
        failures.check((code, by) == (Some(expected), None), || format!("{signal}: code {code:?}, signal {by:?}"));
        failures.check(left.is_empty(), || format!("{signal}: {left:?} is left"));
    }
    failures.finish();
}
