//! Models and samples behind addresses: in a store of S3's kind (moto) and on web servers with faults.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use crate::support::{Failures, Fault, Fixture, Run, Web, files_in, folder, onnxquant, python, python_code, refused};

/// What must be seen nowhere.
const SECRET: &str = "SECRET-OF-THE-TEST";

/// A store with one bucket, `models`; see `tests/python/store.py`.
struct Store {
    server: Child,
    lines: BufReader<ChildStdout>,
    input: ChildStdin,
    address: String,
}

impl Store {
    fn of(folder: &Path) -> Self {
        let mut command = python("store.py");
        command.arg(folder).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut server = command.spawn().expect("Python can be started");
        let (input, lines) = (server.stdin.take().expect("piped"), server.stdout.take().expect("piped"));
        let mut store = Self { server, lines: BufReader::new(lines), input, address: String::new() };
        store.address = store.line();
        assert!(store.address.starts_with("http://"), "store.py failed: {}", store.address);
        store
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.lines.read_line(&mut line).expect("store.py answers");
        line.trim().to_owned()
    }

    fn ask(&mut self, question: &str) -> String {
        writeln!(self.input, "{question}").expect("store.py listens");
        self.line()
    }

    fn get(&mut self, key: &str, to: &Path) -> Vec<u8> {
        assert_eq!(self.ask(&format!("get {key} {}", to.display())), "done");
        fs::read(to).expect("it was fetched")
    }

    /// The command, which finds the store.
    fn onnxquant(&self, words: &[&str]) -> Command {
        let mut command = at(&self.address, words);
        command.env("AWS_SECRET_ACCESS_KEY", SECRET);
        command
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.server.kill().and_then(|()| self.server.wait()).expect("it can be ended");
    }
}

/// The command with a store of S3's kind at `address`.
fn at(address: &str, words: &[&str]) -> Command {
    let mut command = onnxquant(words);
    let names = std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("AWS_"));
    for (name, _) in names {
        command.env_remove(name);
    }
    command.env("AWS_ENDPOINT", address).env("AWS_ALLOW_HTTP", "true").env("AWS_REGION", "us-east-1");
    command.env("AWS_ACCESS_KEY_ID", "test").env("AWS_SECRET_ACCESS_KEY", "test");
    command
}

fn text(path: &Path) -> &str {
    path.to_str().expect("it is UTF-8")
}

/// A folder as it is in the store: a model with weights in a file of their own, and samples in every form.
fn stored(folder: &Path) -> (PathBuf, PathBuf) {
    let model = folder.join("mlp/model.onnx");
    let calib = folder.join("calib");
    fs::create_dir_all(model.parent().expect("it has a folder")).expect("it can be made");
    fs::create_dir_all(&calib).expect("it can be made");
    let save = "import onnx, sys; onnx.save(onnx.load(sys.argv[1]), sys.argv[2], save_as_external_data=True, \
                location='weights.bin', size_threshold=0)";
    let made = python_code(save).arg(Fixture::MLP.model()).arg(&model).status().expect("Python can be started");
    assert!(made.success());
    for sample in Fixture::MLP.seen().iter().take(24) {
        fs::copy(sample, calib.join(sample.file_name().expect("it has a name"))).expect("it can be copied");
    }
    let tar = Command::new("tar")
        .args(["--sort=name", "-cf"])
        .arg(folder.join("calib.tar"))
        .arg("-C")
        .arg(&calib)
        .arg(".")
        .status();
    assert!(tar.expect("tar can be started").success());
    (model, calib)
}

#[test]
fn what_lies_in_a_store_gives_the_bytes_of_what_lies_here() {
    let (here, stored_in) = (folder(), folder());
    let (model, calib) = stored(stored_in.path());
    let mut store = Store::of(stored_in.path());
    let written = |name: &str| here.path().join(name);
    // The model names the file of its weights, which is called after its own.
    let named = |folder: &str| {
        fs::create_dir_all(written(folder)).expect("it can be made");
        written(folder).join("small.onnx")
    };
    let local = named("local");
    Run::of(onnxquant(&[&model, &local]).arg("--calib").arg(&calib)).succeeded();
    let expected = fs::read(&local).expect("it was written");

    // Samples one by one, and from an archive.
    for (calib, name) in [("s3://models/calib", "folder"), ("s3://models/calib.tar", "tar")] {
        let output = named(name);
        Run::of(&mut store.onnxquant(&["s3://models/mlp/model.onnx", text(&output), "--calib", calib])).succeeded();
        assert!(fs::read(&output).expect("it was written") == expected, "{name} differs");
    }

    // The result goes back, with its report; the model's own name and the hash of its content are told.
    let (out, report) = ("s3://models/out/small.onnx", "s3://models/out/small.json");
    let words = ["s3://models/mlp/model.onnx", out, "--calib", "s3://models/calib", "--report", report];
    let run = Run::of(&mut store.onnxquant(&words)).succeeded();
    assert!(run.says(&format!("wrote {out}")), "{}", run.stdout);
    assert!(store.get("out/small.onnx", &written("sent.onnx")) == expected, "what was sent differs");
    let told = String::from_utf8(store.get("out/small.json", &written("sent.json"))).expect("it is text");
    let report: serde_json::Value = serde_json::from_str(&told).expect("it is JSON");
    assert_eq!(report["files"]["input"]["name"], "model.onnx");
    assert_eq!(report["files"]["input"]["external"][0]["name"], "weights.bin");
    assert!(!format!("{told}{}{}", run.stdout, run.stderr).contains(SECRET));
    assert_eq!(store.ask("uploads"), "0", "every upload was finished or given up");
}

#[test]
fn weights_beside_a_model_are_sent_with_it_and_other_commands_take_addresses() {
    let (here, stored_in) = (folder(), folder());
    stored(stored_in.path());
    let mut store = Store::of(stored_in.path());
    let out = "s3://models/out/small.onnx";
    let words = ["s3://models/mlp/model.onnx", out, "--calib", "s3://models/calib", "--external-data"];
    Run::of(&mut store.onnxquant(&words)).succeeded();
    let both =
        ["out/small.onnx", "out/small.onnx.data"].map(|key| here.path().join(key.rsplit('/').next().unwrap_or(key)));
    store.get("out/small.onnx", &both[0]);
    store.get("out/small.onnx.data", &both[1]);
    let words = ["compare", "s3://models/mlp/model.onnx", text(&both[0]), "--data", "s3://models/calib.tar"];
    assert!(Run::of(&mut store.onnxquant(&words)).succeeded().stdout.contains(" dB"));
    let inspected = Run::of(&mut store.onnxquant(&["inspect", "s3://models/mlp/model.onnx"])).succeeded();
    assert!(inspected.stdout.contains("fc1"), "{}", inspected.stdout);
    // A folder of a store is fetched whole, and becomes one of this machine.
    let made = here.path().join("made");
    let words = ["s3://models/mlp/", text(&made), "--calib", "s3://models/calib"];
    Run::of(&mut store.onnxquant(&words)).succeeded();
    assert!(files_in(&made).contains(&"model.onnx".to_owned()));
    let dry = ["s3://models/mlp/model.onnx", out, "--calib", "s3://models/calib", "--dry-run"];
    assert!(Run::of(&mut store.onnxquant(&dry)).succeeded().says(out));
}

#[test]
fn processes_share_a_run_over_a_store() {
    let here = folder();
    let store = Store::of(here.path());
    let (model, calib) = (Fixture::MLP.model(), Fixture::MLP.calib());
    let (alone, together) = (here.path().join("alone.onnx"), here.path().join("together.onnx"));
    let run = |words: &[&str]| Run::of(&mut store.onnxquant(words));
    let mut failures = Failures::default();
    for more in [&["--scheme", "w4", "--one-pass"][..], &["--average-bits", "3.5"]] {
        let (model, calib, state) = (text(&model), text(&calib), format!("--state=s3://models/{}", more.len()));
        run(&[&[model, text(&alone), "--calib", calib, "--ort-lib", "off"], more].concat()).succeeded();
        let finish = ["finish", &state, text(&together), "--ort-lib", "off"];
        let waits = run(&["solve", &state]);
        failures.check(waits.code == Some(75), || format!("{waits:?}"));
        // In rounds, for they wait for each other where the networks go side by side.
        for _ in 0..20 {
            let calibrate = [&["calibrate", model, "--calib", calib, &state, "--ort-lib", "off"], more].concat();
            let shares = ["--shard=1/2", "--shard=2/2"].map(|shard| {
                let ran = [run(&[&calibrate[..], &[shard]].concat()), run(&["solve", &state, shard])];
                assert!(ran.iter().all(|run| [Some(0), Some(75)].contains(&run.code)), "{ran:?}");
                ran.iter().all(|run| run.code == Some(0))
            });
            if shares == [true; 2] {
                break;
            }
        }
        run(&finish).succeeded();
        let is_same = fs::read(&alone).expect("it was written") == fs::read(&together).expect("it was written");
        failures.check(is_same, || format!("{more:?} differs"));
        let other = run(&[model, text(&together), "--calib", calib, &state, "--bits", "5"]);
        let fault = refused(&other, &["cannot continue from `s3://models/", "another settings"]);
        failures.check(fault.is_none(), || fault.unwrap_or_default());
    }
    failures.finish();
}

#[test]
fn what_grants_access_is_told_nowhere() {
    let (here, stored_in) = (folder(), folder());
    let (model, _) = stored(stored_in.path());
    let mut store = Store::of(stored_in.path());
    let signed = store.ask("sign calib.tar");
    assert!(signed.contains("Signature="), "{signed}");
    let (output, report) = (here.path().join("out.onnx"), here.path().join("report.json"));
    let mut command = onnxquant(&[text(&model), text(&output), "--calib", &signed, "--report", text(&report)]);
    let run = Run::of(&mut command).succeeded();
    let told = fs::read_to_string(&report).expect("it was written") + &run.stdout + &run.stderr;
    assert!(!told.contains("Signature") && told.contains("/models/calib.tar"), "{told}");
    let missing = signed.replace("calib.tar", "none.tar");
    let run = Run::of(&mut onnxquant(&[text(&model), text(&output), "--calib", &missing]));
    assert_eq!(refused(&run, &["none.tar"]), None);
    assert!(!run.stderr.contains("Signature"), "{}", run.stderr);
}

#[test]
fn what_cannot_be_had_is_told_and_leaves_nothing() {
    let (here, stored_in) = (folder(), folder());
    let (model, calib) = stored(stored_in.path());
    fs::write(stored_in.path().join("outside.onnx"), renamed(&model)).expect("it can be written");
    let store = Store::of(stored_in.path());
    let output = here.path().join("out.onnx");
    let (model, calib, output) = (text(&model), text(&calib), text(&output));
    let there = "s3://models/mlp/model.onnx";
    let rows: [(&[&str], &[&str]); 16] = [
        (&["s3://nowhere/m.onnx", output, "--calib", calib], &["s3://nowhere/m.onnx", "there is no bucket `nowhere`"]),
        (&["s3://models/no.onnx", output, "--calib", calib], &["s3://models/no.onnx", "nothing is at this address"]),
        (&[model, output, "--calib", "s3://models/none"], &["s3://models/none", "nothing is at this address"]),
        (&[model, output, "--calib", "s3://models/mlp/"], &["no calibration samples in `s3://models/mlp/`"]),
        (&["ftp://models/m.onnx", output, "--weights-only"], &["`ftp` are not supported, expected s3, gs, az"]),
        (&["s3://", output, "--weights-only"], &["names no bucket or host"]),
        (
            &["s3://models/calib.tar", output, "--weights-only"],
            &["`s3://models/calib.tar`", "it does not follow the ONNX schema"],
        ),
        (&["s3://models/outside.onnx", output, "--weights-only"], &["inside the model's folder"]),
        (&[model, "https://example.org/out.onnx", "--weights-only"], &["nothing is written to a web server"]),
        (&[model, "s3://nowhere/out.onnx", "--weights-only"], &["cannot write `s3://nowhere/out.onnx`", "no bucket"]),
        (&[there, there, "--weights-only"], &["it is the input model, which is never overwritten"]),
        (&["s3://models/mlp/", "s3://models/made/", "--weights-only"], &["expected a name that does not end in `/`"]),
        (&["s3://models/mlp/", "s3://models/made", "--weights-only"], &["a folder is not sent to an address"]),
        (
            &[model, output, "--calib", calib, "--calibration-cache", "s3://models/c"],
            &["--calibration-cache", "takes a path of this machine"],
        ),
        (&[model, output, "--calib", calib, "--state", "s3://nowhere/s"], &["s3://nowhere/s", "no bucket `nowhere`"]),
        (&[model, output, "--weights-only", "--state", "https://127.0.0.1:9/s"], &["the server cannot be reached"]),
    ];
    let mut failures = Failures::default();
    for (words, expected) in rows {
        let fault = refused(&Run::of(&mut store.onnxquant(words)), expected);
        failures.check(fault.is_none(), || format!("{words:?}: {}", fault.unwrap_or_default()));
    }
    failures.check(files_in(here.path()).is_empty(), || "something was left".to_owned());
    failures.finish();
}

/// A model whose weights are said to lie in the folder above its own.
fn renamed(model: &Path) -> Vec<u8> {
    let mut bytes = fs::read(model).expect("it was made");
    let (from, to) = (b"weights.bin", b"../here.bin");
    while let Some(at) = bytes.windows(from.len()).position(|part| part == from) {
        bytes[at..at + to.len()].copy_from_slice(to);
    }
    bytes
}

/// An `.npz` file with an array that no input takes, which is larger than the rest by far.
fn with_much_else(folder: &Path) -> Vec<u8> {
    let path = folder.join("sample.npz");
    let code = "import numpy, sys\nwith numpy.load(sys.argv[1]) as given: arrays = dict(given)\n\
                numpy.savez(sys.argv[2], other=numpy.zeros(4 << 20, numpy.float32), **arrays)";
    let made = python_code(code).arg(Fixture::MLP.sample(0)).arg(&path).status().expect("Python can be started");
    assert!(made.success());
    fs::read(&path).expect("it was written")
}

#[test]
fn stretches_are_read_and_nothing_twice() {
    let here = folder();
    let bytes = with_much_else(here.path());
    let web = Web::of("sample.npz", bytes, Fault::None);
    let (model, output) = (Fixture::MLP.model(), here.path().join("out.onnx"));
    let args = [text(&model), text(&output), "--calib", &web.address(), "--calib-map", "other=", "--ort-lib", "off"];
    Run::of(&mut onnxquant(&args)).succeeded();
    // The run and the process that tries the engines read it, each its beginning and its end.
    assert!(web.sent() <= 2 << 20, "{} bytes were read of 16 MiB", web.sent());
    assert!(web.requests() <= 10, "{} requests", web.requests());
}

#[test]
fn servers_with_faults_are_borne_or_told() {
    let here = folder();
    let sample = fs::read(Fixture::MLP.sample(0)).expect("it is there");
    let (model, output) = (Fixture::MLP.model(), here.path().join("out.onnx"));
    let run = |fault: Fault, bytes: &[u8]| {
        let web = Web::of("sample.npz", bytes.to_vec(), fault);
        Run::of(&mut onnxquant(&[text(&model), text(&output), "--calib", &web.address()]))
    };
    run(Fault::NoRanges, &sample).succeeded();
    run(Fault::FailsFirst(2), &sample).succeeded();
    let mut failures = Failures::default();
    let mut check = |run: &Run, expected: &[&str]| {
        let fault = refused(run, expected);
        failures.check(fault.is_none(), || format!("{expected:?}: {}", fault.unwrap_or_default()));
    };
    check(&run(Fault::Denies, &sample), &["sample.npz", "the server denies access"]);
    check(&run(Fault::Truncates, &sample), &["sample.npz", "less than it promised"]);
    check(&run(Fault::Changes, &with_much_else(here.path())), &["sample.npz", "changed while it was read"]);
    check(&run(Fault::None, b""), &["sample.npz"]);
    let denies = Web::of("x", Vec::new(), Fault::Denies);
    let denied = at(&denies.root(), &["s3://models/m.onnx", text(&output), "--weights-only"]).output();
    let denied = denied.expect("the program can be started");
    let said = String::from_utf8_lossy(&denied.stderr).into_owned();
    check(&Run { code: denied.status.code(), stdout: String::new(), stderr: said }, &["AWS_ACCESS_KEY_ID"]);
    // A port that nobody listens on.
    let free = std::net::TcpListener::bind("127.0.0.1:0").and_then(|port| port.local_addr()).expect("a port is free");
    let address = format!("http://{free}/m.onnx");
    check(&Run::of(&mut onnxquant(&[&address, text(&output), "--weights-only"])), &["the server cannot be reached"]);
    failures.finish();
}
