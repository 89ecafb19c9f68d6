//! Several processes make one model over a shared folder: the bytes are those of one run, whoever dies is started again, and
//! what is of another run or damaged is not used.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::support::{
    EMBEDDING_INPUT, Failures, Fixture, Run, embedding, files_in, folder, noise_samples, onnxquant, refused,
};

/// Others have to do something first.
const WAITING: i32 = 75;
/// More rounds than there are stages.
const MOST_ROUNDS: usize = 40;

/// One model that is to be made by several processes.
struct Shared<'a> {
    model: PathBuf,
    calib: PathBuf,
    settings: &'a [&'a str],
    folder: PathBuf,
}

impl<'a> Shared<'a> {
    fn of(fixture: Fixture, settings: &'a [&'a str], folder: &Path) -> Self {
        Self { model: fixture.model(), calib: fixture.calib(), settings, folder: folder.to_owned() }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// What one process writes.
    fn alone(&self) -> Vec<u8> {
        let output = self.at("alone.onnx");
        let mut command = onnxquant(&[&self.model, &output]);
        let run = Run::of(command.args(self.settings).arg("--calib").arg(&self.calib).args(OFF));
        assert!([Some(0), Some(1)].contains(&run.code), "{run:?}");
        fs::read(output).expect("it was written")
    }

    fn calibrate(&self) -> Command {
        let mut command = onnxquant(&["calibrate"]);
        command.arg(&self.model).arg("--calib").arg(&self.calib).args(self.settings).args(OFF);
        command.arg("--state").arg(self.at("state"));
        command
    }

    fn solve(&self) -> Command {
        let mut command = onnxquant(&["solve", "--state"]);
        command.arg(self.at("state"));
        command
    }

    fn finish(&self) -> Vec<u8> {
        let output = self.at("together.onnx");
        let mut command = onnxquant(&["finish", "--state"]);
        let run = Run::of(command.arg(self.at("state")).arg(&output).args(OFF));
        assert!([Some(0), Some(1)].contains(&run.code), "{run:?}");
        fs::read(output).expect("it was written")
    }

    /// Runs so many processes of each kind again and again, until none of them waits for another.
    fn in_rounds(&self, count: usize) {
        for _ in 0..MOST_ROUNDS {
            let mut waits = false;
            for number in 1..=count {
                for mut command in [self.calibrate(), self.solve()] {
                    let run = Run::of(command.arg("--shard").arg(format!("{number}/{count}")));
                    assert!([Some(0), Some(WAITING)].contains(&run.code), "{run:?}");
                    assert_eq!(run.code == Some(WAITING), run.stderr.contains("waiting for others: "), "{run:?}");
                    waits |= run.code == Some(WAITING);
                }
            }
            if !waits {
                return;
            }
        }
        panic!("after {MOST_ROUNDS} rounds they wait for each other");
    }

    /// Runs so many processes of each kind side by side.
    fn at_once(&self, count: usize) {
        let mut children: Vec<Child> = Vec::new();
        for number in 1..=count {
            for mut command in [self.calibrate(), self.solve()] {
                command.arg("--wait=100").arg("--shard").arg(format!("{number}/{count}"));
                children.push(start(&mut command));
            }
        }
        for mut child in children {
            let ended = child.wait().expect("it ends");
            assert!(ended.success(), "{ended}");
        }
    }
}

/// No figure of a runtime, so that outputs are compared by the processes together.
const OFF: [&str; 2] = ["--ort-lib", "off"];

fn start(command: &mut Command) -> Child {
    command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it can be started")
}

/// All files below a folder.
fn files_below(folder: &Path) -> Vec<PathBuf> {
    let paths = files_in(folder).into_iter().map(|name| folder.join(name));
    paths.flat_map(|path| if path.is_dir() { files_below(&path) } else { vec![path] }).collect()
}

fn with_ending(folder: &Path, ending: &str) -> Vec<PathBuf> {
    files_below(folder).into_iter().filter(|path| path.extension().is_some_and(|found| found == ending)).collect()
}

#[test]
fn processes_give_the_bytes_of_one_run_however_many_there_are() {
    let cases: [(Fixture, &[&str]); 7] = [
        (Fixture::TRANSFORMER, &["--scheme", "w4", "--method", "optq"]),
        (Fixture::TRANSFORMER, &["--scheme", "w4", "--one-pass"]),
        (Fixture::CNN, &["--scheme", "w8"]),
        (Fixture::CNN, &["--bits", "4", "--method", "feedback"]),
        (Fixture::MLP, &["--average-bits", "3.5"]),
        (Fixture::MLP, &["--scheme", "auto"]),
        (Fixture::CONV1D, &["--scheme", "w8a8", "--samples", "7"]),
    ];
    let mut failures = Failures::default();
    for (fixture, settings) in cases {
        let place = folder();
        let shared = Shared::of(fixture, settings, place.path());
        let expected = shared.alone();
        for count in [1, 2, 4] {
            shared.at_once(count);
            let same = shared.finish() == expected;
            failures.check(same, || format!("{} {}: {count} of each", fixture.name, settings.join(" ")));
            fs::remove_dir_all(shared.at("state")).expect("it can be removed");
        }
    }
    failures.finish();
}

#[test]
fn tables_of_embeddings_are_made_by_one_for_all() {
    let mut failures = Failures::default();
    for settings in [&["--scheme", "w4", "--one-pass"][..], &["--scheme", "w8"]] {
        let place = folder();
        let (model, calib) = (place.path().join("model.onnx"), place.path().join("samples"));
        embedding(&model);
        noise_samples(&calib, &EMBEDDING_INPUT, 16);
        let shared = Shared { model, calib, settings, folder: place.path().to_owned() };
        let expected = shared.alone();
        let run = Run::of(&mut shared.calibrate());
        let needs_none = settings.contains(&"--one-pass");
        assert_eq!(run.code, Some(if needs_none { 0 } else { WAITING }), "{run:?}");
        let by_calibrate = with_ending(&shared.at("state"), "table").len();
        failures.check(by_calibrate == usize::from(!needs_none), || format!("{settings:?}: {by_calibrate} tables"));
        shared.in_rounds(2);
        let kept = with_ending(&shared.at("state"), "table");
        failures.check(kept.len() == 1, || format!("{settings:?}: {kept:?}"));
        failures.check(shared.finish() == expected, || format!("{settings:?}: other bytes"));
        // What is damaged is made again.
        fs::write(&kept[0], "onnxquant part").expect("it can be written");
        failures.check(shared.finish() == expected, || format!("{settings:?}: other bytes with a damaged table"));
    }
    failures.finish();
}

#[test]
fn processes_that_do_not_wait_are_started_again_until_all_is_done() {
    let place = folder();
    let settings = ["--scheme", "w4", "--granularity", "block:16"];
    let shared = Shared::of(Fixture::MLP, &settings, place.path());
    let expected = shared.alone();
    shared.in_rounds(3);
    // Nothing is left to be computed: what nobody needs any more is gone.
    assert!(with_ending(&shared.at("state"), "moments").is_empty());
    assert_eq!(with_ending(&shared.at("state"), "layer").len(), 3);
    assert_eq!(shared.finish(), expected);
}

#[test]
fn what_nobody_has_done_is_done_in_the_end() {
    let place = folder();
    let shared = Shared::of(Fixture::TRANSFORMER, &["--scheme", "w4"], place.path());
    let expected = shared.alone();
    let run = Run::of(shared.calibrate().args(["--shard", "2/3"]));
    assert_eq!(run.code, Some(WAITING), "{run:?}");
    assert!(run.stderr.contains("stage 1 of"), "{run:?}");
    assert_eq!(shared.finish(), expected);
}

#[test]
fn whoever_is_killed_is_started_again() {
    let place = folder();
    let settings = ["--scheme", "w4", "--method", "feedback"];
    let shared = Shared::of(Fixture::TRANSFORMER, &settings, place.path());
    let expected = shared.alone();
    for pause in [30, 90, 200, 400] {
        let mut children: Vec<Child> = Vec::new();
        for number in ["1/2", "2/2"] {
            children.push(start(shared.calibrate().args(["--wait=60", "--shard", number])));
            children.push(start(shared.solve().args(["--wait=60", "--shard", number])));
        }
        std::thread::sleep(Duration::from_millis(pause));
        for mut child in children {
            child.kill().expect("it can be killed");
            child.wait().expect("it ends");
        }
    }
    shared.at_once(2);
    assert_eq!(shared.finish(), expected);
}

#[test]
fn a_damaged_part_is_not_read_and_is_run_again() {
    let place = folder();
    let settings = ["--scheme", "w4", "--one-pass"];
    let shared = Shared::of(Fixture::MLP, &settings, place.path());
    let expected = shared.alone();
    Run::of(shared.calibrate().args(["--shard", "1/1"])).succeeded();
    let parts = with_ending(&shared.at("state"), "moments");
    let mut bytes = fs::read(&parts[1]).expect("it was kept");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&parts[1], &bytes).expect("it can be written");
    fs::write(&parts[3], &bytes[..middle]).expect("it can be written");
    let run = Run::of(&mut shared.solve());
    assert_eq!(run.code, Some(WAITING), "{run:?}");
    shared.in_rounds(1);
    assert_eq!(shared.finish(), expected);
}

#[test]
fn a_folder_of_another_run_is_refused() {
    let place = folder();
    let settings = ["--scheme", "w4", "--one-pass"];
    let shared = Shared::of(Fixture::MLP, &settings, place.path());
    Run::of(&mut shared.calibrate()).succeeded();
    let calibrate = |fixture: Fixture, words: &[&str]| {
        let mut command = onnxquant(&["calibrate"]);
        command.arg(fixture.model()).arg("--calib").arg(fixture.calib()).args(OFF).args(words);
        Run::of(command.arg("--state").arg(shared.at("state")))
    };
    assert_eq!(refused(&calibrate(Fixture::MLP, &["--scheme", "w4"]), &["another settings", "remove it"]), None);
    let fewer = ["--scheme", "w4", "--one-pass", "--samples", "20"];
    assert_eq!(refused(&calibrate(Fixture::MLP, &fewer), &["another samples"]), None);
    assert_eq!(refused(&calibrate(Fixture::TRANSFORMER, &settings), &["another model"]), None);
    // Those who find the run there are refused alike.
    let solve = |words: &[&str]| Run::of(shared.solve().args(words));
    let other = Fixture::CNN.model();
    assert!(solve(&["--model", &other.to_string_lossy()]).code == Some(2));
    let record = shared.at("state").join("run.toml");
    let text = fs::read_to_string(&record).expect("it was kept");
    fs::write(&record, text.replace("algorithms = ", "algorithms = 9")).expect("it can be written");
    assert_eq!(refused(&solve(&[]), &["another version of the algorithms"]), None);
    let nothing = Run::of(onnxquant(&["solve", "--state"]).arg(place.path()));
    assert_eq!(nothing.code, Some(WAITING), "{nothing:?}");
    let output = Run::of(calibrate_words(&shared).arg("out.onnx"));
    assert_eq!(refused(&output, &["writes no model"]), None);
}

fn calibrate_words(shared: &Shared<'_>) -> Command {
    let mut command = onnxquant(&["calibrate"]);
    command.arg(&shared.model).arg("--calib").arg(&shared.calib);
    command.arg("--state").arg(shared.at("state"));
    command
}

#[test]
fn schedulers_say_which_share_a_process_does() {
    let place = folder();
    let settings = ["--scheme", "w4", "--one-pass"];
    let shared = Shared::of(Fixture::MLP, &settings, place.path());
    let parts = || with_ending(&shared.at("state"), "done").len();
    let slurm = [("SLURM_ARRAY_TASK_ID", "7"), ("SLURM_ARRAY_TASK_COUNT", "2"), ("SLURM_ARRAY_TASK_MIN", "6")];
    Run::of(shared.calibrate().envs(slurm)).succeeded();
    let half = parts();
    Run::of(shared.calibrate().envs([("JOB_COMPLETION_INDEX", "1"), ("JOB_COMPLETIONS", "2")])).succeeded();
    assert_eq!(parts(), half, "that is the same half");
    Run::of(shared.calibrate().envs([("JOB_COMPLETION_INDEX", "0"), ("JOB_COMPLETIONS", "2")])).succeeded();
    assert!(half > 0 && parts() == 2 * half, "{half} and {}", parts());
    let lacking = Run::of(shared.calibrate().env("JOB_COMPLETION_INDEX", "0"));
    assert_eq!(refused(&lacking, &["JOB_COMPLETIONS is missing"]), None);
}
