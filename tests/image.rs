//! The image of `Containerfile`: a root folder with the program and nothing else, in which it is the first process.
//!
//! The program of these tests is linked with libraries of this machine, which go along. That of an archive needs none:
//! `cargo xtask dist --static --check` makes the image itself where Buildah is installed.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::{Fixture, Run, files_in, folder, root};

/// What `Containerfile` says: instructions by name, each with what stands behind it, in order.
fn instructions() -> BTreeMap<String, Vec<String>> {
    let text = std::fs::read_to_string(root().join("Containerfile")).expect("it can be read");
    let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let (name, rest) = line.split_once(' ').expect("an instruction has words behind it");
        found.entry(name.to_owned()).or_default().push(rest.to_owned());
    }
    found
}

/// Words of an instruction that are written as a list in JSON.
fn words(text: &str) -> Vec<String> {
    serde_json::from_str(text).expect("it is a list of words")
}

/// Puts a file where the image has it.
fn put(from: &Path, image: &Path, to: &str) {
    let to = image.join(to.trim_start_matches('/'));
    std::fs::create_dir_all(to.parent().expect("it lies in a folder")).expect("the folder can be made");
    std::fs::copy(from, to).expect("it can be copied");
}

/// The libraries that a program loads, as paths of this machine.
fn libraries(program: &str) -> Vec<String> {
    let told = Run::of(Command::new("ldd").arg(program)).succeeded().stdout;
    told.split_whitespace().filter(|word| word.starts_with('/')).map(str::to_owned).collect()
}

/// The command of the image with these words behind it, as the first process in `image`.
fn start(image: &Path, said: &BTreeMap<String, Vec<String>>, words: &[String]) -> Command {
    let mut command = Command::new("unshare");
    command.args(["--map-root-user", "--pid", "--fork", "--kill-child"]).arg(format!("--root={}", image.display()));
    command.arg(format!("--wd={}", said["WORKDIR"][0])).args(words);
    let path = std::env::var_os("PATH").expect("this machine has programs");
    command.env_clear().env("PATH", path).envs(said["ENV"].iter().map(|pair| pair.split_once('=').expect("a value")));
    command
}

#[test]
fn the_image_needs_nothing_else_and_keeps_nothing() {
    let said = instructions();
    assert_eq!(said["FROM"], ["scratch"]);
    let made = folder();
    let (image, program) = (made.path(), env!("CARGO_BIN_EXE_onnxquant"));
    let to = said["COPY"].iter().find_map(|words| words.strip_prefix("onnxquant ")).expect("the program is copied");
    put(Path::new(program), image, to);
    for library in libraries(program) {
        put(Path::new(&library), image, &library);
    }
    let work: PathBuf = image.join(said["WORKDIR"][0].trim_start_matches('/'));
    put(&Fixture::MLP.model(), &work, "model.onnx");
    let samples = Fixture::MLP.calib();
    for name in files_in(&samples) {
        put(&samples.join(&name), &work, &format!("samples/{name}"));
    }
    let entry = words(&said["ENTRYPOINT"][0]);
    let may = start(image, &said, &[entry[0].clone(), "--version".to_owned()]).output().expect("unshare is there");
    if String::from_utf8_lossy(&may.stderr).starts_with("unshare: unshare failed") {
        println!("not tested: no namespaces can be made here");
        return;
    }
    let help = Run::of(&mut start(image, &said, &[&entry[..], &words(&said["CMD"][0])].concat())).succeeded();
    assert!(help.stdout.contains("Usage: onnxquant"), "{}", help.stdout);

    let before = files_in(image);
    let arguments = ["model.onnx", "small.onnx", "--calib", "samples"].map(str::to_owned);
    Run::of(&mut start(image, &said, &[&entry[..], &arguments].concat())).succeeded();
    assert_eq!(
        (files_in(image), files_in(&work)),
        (before, ["model.onnx", "samples", "small.onnx"].map(str::to_owned).to_vec())
    );
}
