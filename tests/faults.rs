//! Kills, full disks, folders that cannot be written or vanish, runs beside each other, odd names, failing renames: what is
//! written is absent or whole, and nothing is left behind.
//!
//! `cargo xtask faults --kills N --seed S` runs these tests with more kills.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use onnxquant_cli::{Around, Failure, Host};
use onnxquant_ir::atomic::faults::{Step, fail};

use crate::support::{Failures, Fixture, Run, files_in, folder, onnxquant, refused};

/// Kills where nobody asks for more.
const KILLS: usize = 12;
/// A run that is killed takes so many layers that something is kept on the way.
const KILLED: [&str; 4] = ["--average-bits", "3.5", "--ort-lib", "off"];

fn number(variable: &str, default: usize) -> usize {
    let text = std::env::var(variable).ok();
    text.map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{variable} is `{text}`, expected a number")))
}

/// The command that is killed: it keeps its state and writes two reports beside the model.
fn killed(folder: &Path) -> Command {
    let at = |name: &str| folder.join(name);
    let mut command = onnxquant(&[Fixture::MLP.model(), at("out.onnx")]);
    command.args(KILLED).arg("--state").arg(at("state")).arg("--report").arg(at("out.json"));
    command.arg("--calib").arg(Fixture::MLP.calib()).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

fn bytes(path: &Path) -> Vec<u8> {
    std::fs::read(path).unwrap_or_else(|error| panic!("`{}`: {error}", path.display()))
}

fn start(command: &mut Command) -> Child {
    command.spawn().expect("the command can be started")
}

#[test]
fn a_run_that_is_killed_leaves_nothing_half_and_goes_on() {
    let (kills, mut state) = (number("ONNXQUANT_KILLS", KILLS), number("ONNXQUANT_SEED", 1) as u64);
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as f64 / (1u64 << 31) as f64
    };
    let whole = folder();
    let begun = Instant::now();
    assert!(start(&mut killed(whole.path())).wait().expect("it ends").success());
    let (took, expected) = (begun.elapsed(), bytes(&whole.path().join("out.onnx")));
    let mut failures = Failures::default();
    let folder = folder();
    let (output, report) = (folder.path().join("out.onnx"), folder.path().join("out.json"));
    for kill in 0..kills {
        // Every other one replaces files that are there; now and then all is done anew.
        let replaces = kill % 2 == 1;
        [&output, &report].into_iter().for_each(|path| drop(std::fs::remove_file(path)));
        if replaces {
            [&output, &report].into_iter().for_each(|path| std::fs::write(path, "old").expect("it can be written"));
        }
        if kill % 4 == 0 {
            drop(std::fs::remove_dir_all(folder.path().join("state")));
        }
        let mut child = start(&mut killed(folder.path()));
        std::thread::sleep(took.mul_f64(next() * 1.1));
        child.kill().expect("it can be killed");
        child.wait().expect("it ends");
        let found = std::fs::read(&output).ok();
        let is_right = match &found {
            None => !replaces,
            Some(found) => *found == expected || (replaces && found == b"old"),
        };
        failures.check(is_right, || format!("kill {kill}: {:?} bytes are there", found.map(|found| found.len())));
        if kill % 3 == 2 {
            let ended = start(&mut killed(folder.path())).wait().expect("it ends");
            failures.check(ended.success(), || format!("behind kill {kill}: {ended}"));
            failures.check(bytes(&output) == expected, || format!("behind kill {kill}: other bytes"));
        }
    }
    let ended = start(&mut killed(folder.path())).wait().expect("it ends");
    failures.check(ended.success() && bytes(&output) == expected, || format!("the last run: {ended}"));
    failures.check(files_in(folder.path()) == ["out.json", "out.onnx", "state"], || {
        format!("left behind: {:?}", files_in(folder.path()))
    });
    let kept = |folder: &Path| files_in(&folder.join("state"));
    failures.check(kept(folder.path()) == kept(whole.path()), || format!("in the state: {:?}", kept(folder.path())));
    println!("{kills} kills within {took:?} each");
    failures.finish();
}

/// A disk that is full behaves as a file that may not grow does.
#[test]
fn a_full_disk_at_any_byte_is_an_error_and_leaves_nothing() {
    let folder = folder();
    let mut failures = Failures::default();
    let arguments = |folder: &Path, keeps: bool| -> Vec<OsString> {
        let at = |name: &str| folder.join(name).into_os_string();
        let option = |name: &str| OsString::from(name);
        let calib = Fixture::MLP.calib().into_os_string();
        let plain =
            [at("out.onnx"), option("--calib"), calib, option("--external-data"), option("--report"), at("r.html")];
        let plan = [option("--save-plan"), at("plan.toml"), option("--ort-lib=off")];
        let state = if keeps { vec![option("--state"), at("state")] } else { Vec::new() };
        [vec![Fixture::MLP.model().into_os_string()], plain.to_vec(), plan.to_vec(), state].concat()
    };
    let mut is_written = false;
    let sizes = (0..6).chain((6..80).step_by(9)).chain([100_000]);
    for (blocks, keeps) in sizes.flat_map(|blocks| [(blocks, false), (blocks, true)]) {
        let place = folder.path().join(format!("{blocks}-{keeps}"));
        std::fs::create_dir(&place).expect("a folder can be made");
        let mut shell = Command::new("bash");
        shell.args(["-c", &format!("ulimit -f {blocks} && exec \"$@\""), "bash", env!("CARGO_BIN_EXE_onnxquant")]);
        let run = Run::of(shell.args(arguments(&place, keeps)));
        let left: Vec<String> = files_in(&place).into_iter().filter(|name| name != "state").collect();
        is_written |= run.code == Some(0);
        if run.code == Some(0) {
            let all = ["out.onnx", "out.onnx.data", "plan.toml", "r.html"];
            failures.check(left == all, || format!("{blocks} KiB: written are {left:?}"));
        } else {
            let fault = refused(&run, &["cannot "]);
            failures.check(fault.is_none(), || format!("{blocks} KiB: {}", fault.unwrap_or_default()));
            failures.check(left.is_empty(), || format!("{blocks} KiB: left are {left:?}"));
        }
    }
    failures.check(is_written, || "nothing was ever written".to_owned());
    failures.finish();
}

#[test]
fn folders_that_cannot_be_written_are_told_before_the_work() {
    let folder = folder();
    // Even root can make no file there.
    let closed = Path::new("/proc/self");
    let at = |name: &str| folder.path().join(name);
    let cases: [(&str, PathBuf, Vec<OsString>); 4] = [
        ("the model", closed.join("out.onnx"), vec![]),
        ("the report", at("out.onnx"), vec!["--report".into(), "/sys/kernel/report.json".into()]),
        ("the plan", at("out.onnx"), vec!["--save-plan".into(), "/sys/kernel/plan.toml".into()]),
        ("the state", at("out.onnx"), vec!["--state".into(), "/sys/kernel/state".into()]),
    ];
    let mut failures = Failures::default();
    for (name, output, args) in cases {
        let witness = at("metric-was-measured");
        let metric = format!("touch '{}' && test {{model}} && echo 1", witness.display());
        let mut command = onnxquant(&[Fixture::MLP.model(), output]);
        let run = Run::of(command.args(args).args(["--weights-only", "--metric-command", &metric]));
        let fault = refused(&run, &["cannot "]);
        failures.check(fault.is_none(), || format!("{name}: {}", fault.unwrap_or_default()));
        failures.check(!witness.exists(), || format!("{name}: told behind the work"));
        failures.check(files_in(folder.path()).is_empty(), || format!("{name}: {:?}", files_in(folder.path())));
        drop(std::fs::remove_file(witness));
    }
    failures.finish();
}

#[test]
fn a_folder_that_vanishes_is_an_error() {
    let folder = folder();
    let place = folder.path().join("place");
    let mut failures = Failures::default();
    for more in [&[][..], &["--report", "place/out.json"], &["--external-data"]] {
        std::fs::create_dir(&place).expect("a folder can be made");
        let vanish = format!("rm -rf '{}' && test {{model}} && echo 1", place.display());
        let mut command = onnxquant(&[Fixture::MLP.model(), place.join("out.onnx")]);
        command.args(["--weights-only", "--metric-command", &vanish]).args(more).current_dir(folder.path());
        let fault = refused(&Run::of(&mut command), &["cannot write"]);
        failures.check(fault.is_none(), || format!("{more:?}: {}", fault.unwrap_or_default()));
        failures.check(files_in(folder.path()).is_empty(), || format!("{more:?}: {:?}", files_in(folder.path())));
    }
    failures.finish();
}

/// Whoever finds the state of the other one is told; where neither does, nothing of one is in the model of the other.
#[test]
fn two_runs_of_other_settings_do_not_mix_in_one_state() {
    let all_bits = ["3.5", "4"];
    let command = |folder: &Path, bits: &str| {
        let mut command = onnxquant(&[Fixture::MLP.model(), folder.join(bits)]);
        command.args(["--average-bits", bits, "--ort-lib", "off", "--calib"]).arg(Fixture::MLP.calib());
        command.arg("--state").arg(folder.join("state"));
        command
    };
    let expected = all_bits.map(|bits| {
        let folder = folder();
        Run::of(&mut command(folder.path(), bits)).succeeded();
        bytes(&folder.path().join(bits))
    });
    let mut failures = Failures::default();
    for round in 0..3 {
        let folder = folder();
        let runs = std::thread::scope(|scope| {
            let begun = all_bits.map(|bits| scope.spawn(|| Run::of(&mut command(folder.path(), bits))));
            begun.map(|run| run.join().expect("it ends"))
        });
        failures.check(runs.iter().any(|run| run.code == Some(0)), || format!("round {round}: {runs:?}"));
        for ((run, bits), expected) in runs.iter().zip(all_bits).zip(&expected) {
            let output = folder.path().join(bits);
            let fault = match run.code {
                Some(0) => (bytes(&output) != *expected).then(|| "other bytes".to_owned()),
                _ => refused(run, &["cannot continue from", "another settings"])
                    .or_else(|| output.exists().then(|| "refused and written".to_owned())),
            };
            failures.check(fault.is_none(), || format!("round {round}, {bits}: {}", fault.unwrap_or_default()));
        }
    }
    failures.finish();
}

#[test]
fn two_runs_of_one_output_and_one_state_write_the_same() {
    let (alone, folder) = (folder(), folder());
    assert!(start(&mut killed(alone.path())).wait().expect("it ends").success());
    for _ in 0..3 {
        let children = [(), ()].map(|()| start(&mut killed(folder.path())));
        for mut child in children {
            assert!(child.wait().expect("it ends").success());
        }
        let [found, expected] = [&folder, &alone].map(|folder| bytes(&folder.path().join("out.onnx")));
        assert!(found == expected, "other bytes");
        assert_eq!(files_in(folder.path()), ["out.json", "out.onnx", "state"]);
    }
}

/// A name that is no text, with this end.
fn odd(end: &str) -> OsString {
    OsString::from_vec([b"not \xff text", end.as_bytes()].concat())
}

#[test]
fn odd_names_are_written_or_refused_with_words() {
    let folder = folder();
    let long = |end: &str| OsString::from("n".repeat(255 - end.len()) + end);
    let no_text = odd(".onnx");
    let mut failures = Failures::default();
    let mut run = |name: &OsStr, args: &[&str], problem: Option<&str>| {
        let output = folder.path().join(name);
        let run = Run::of(onnxquant(&[Fixture::MLP.model(), output.clone()]).arg("--weights-only").args(args));
        let fault = match problem {
            Some(problem) => refused(&run, &[problem]),
            None => (run.code != Some(0) || !output.exists()).then(|| run.stderr.clone()),
        };
        failures.check(fault.is_none(), || format!("{name:?} {args:?}: {}", fault.unwrap_or_default()));
    };
    // Each twice: the second one replaces the first.
    for _ in 0..2 {
        run(&long(".onnx"), &[], None);
        run(&no_text, &[], None);
    }
    run(&OsString::from("n".repeat(250) + ".onnxx"), &[], Some("too long"));
    run(&long(".onnx"), &["--external-data"], Some("too long"));
    run(&no_text, &["--external-data"], Some("UTF-8"));
    run(OsStr::new("out.onnx"), &["--report", &"n".repeat(256)], Some("too long"));
    run(OsStr::new("out.onnx"), &["--state", &"n".repeat(256)], Some("too long"));
    failures.check(files_in(folder.path()).len() == 2, || format!("{:?}", files_in(folder.path())));
    failures.finish();
}

#[test]
fn a_state_and_reports_may_have_odd_names() {
    let (folder, mut failures) = (folder(), Failures::default());
    let names = |end: &str| [OsString::from("n".repeat(255 - end.len()) + end), odd(end)];
    let [states, reports, pages] = ["", ".json", ".html"].map(names);
    for ((state, report), page) in states.iter().zip(&reports).zip(&pages) {
        let at = |name: &OsStr| folder.path().join(name);
        let mut kept = Vec::new();
        // The second run finds the state of the first, and replaces its reports.
        for report in [report, report, page] {
            let mut command = onnxquant(&[Fixture::MLP.model(), at(OsStr::new("out.onnx"))]);
            command.args(KILLED).arg("--calib").arg(Fixture::MLP.calib()).arg("--quiet");
            let run = Run::of(command.arg("--state").arg(at(state)).arg("--report").arg(at(report)));
            failures.check(run.code == Some(0), || format!("{state:?} {report:?}: {run:?}"));
            failures.check(at(report).is_file(), || format!("{report:?} is not there"));
            kept.push(files_in(&at(state)));
        }
        let is_used = !kept[0].is_empty() && kept.iter().all(|found| *found == kept[0]);
        failures.check(is_used, || format!("{state:?}: {kept:?}"));
    }
    failures.check(files_in(folder.path()).len() == 7, || format!("{:?}", files_in(folder.path())));
    failures.finish();
}

/// The command within this process, where a test lets steps fail.
fn within(args: &[OsString]) -> Result<(), Failure> {
    let silent = |_: onnxquant::Phase, _: usize, _: usize| {};
    let host = Host {
        args,
        around: &Around::default(),
        progress: &silent,
        metric: None,
        store: None,
        warn: &|_| {},
        columns: None,
    };
    let ended = onnxquant_cli::run(&host).map(drop);
    // It keeps what panics say to itself; other tests of this process tell it.
    drop(std::panic::take_hook());
    ended
}

/// As file servers do that are gone, at each step of each file.
#[test]
fn a_step_that_fails_leaves_what_was_there() {
    let mut failures = Failures::default();
    for (step, replaces) in Step::ALL.into_iter().flat_map(|step| [(step, false), (step, true)]) {
        for before in 0.. {
            let folder = folder();
            let at = |name: &str| folder.path().join(name);
            if replaces {
                ["out.onnx", "out.onnx.data"].iter().for_each(|name| {
                    std::fs::write(at(name), "old").expect("it can be written");
                });
            }
            let words = ["--weights-only", "--external-data", "--quiet"].map(OsString::from);
            let paths = [Fixture::MLP.model(), at("out.onnx")].map(PathBuf::into_os_string);
            let report = [OsString::from("--report"), at("out.json").into_os_string()];
            let fault = fail(folder.path(), step, before);
            let ended = within(&[&paths[..], &words[..], &report[..]].concat());
            drop(fault);
            let case = || format!("{step:?} {before} {replaces}");
            match ended {
                Ok(()) => {
                    failures
                        .check(before > 0 || (step == Step::Rename && !replaces), || format!("{}: went well", case()));
                    break;
                }
                Err(failure) => {
                    let said = failure.message();
                    failures.check(said.contains("a test lets the step"), || format!("{}: {said}", case()));
                }
            }
            let is_old = std::fs::read(at("out.onnx")).map_or(!replaces, |found| found == b"old");
            failures.check(is_old, || format!("{}: a model is there", case()));
            let strays = files_in(folder.path()).into_iter().filter(|name| name.starts_with('.')).collect::<Vec<_>>();
            failures.check(strays.is_empty(), || format!("{}: left are {strays:?}", case()));
        }
    }
    failures.finish();
}
