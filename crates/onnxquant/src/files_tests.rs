use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;

use super::*;

/// A folder with the files `a` and `b`, the folder `inner`, a link and a hard link to `a`, and links to nothing.
fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    std::fs::write(at("a"), "a").unwrap();
    std::fs::write(at("b"), "b").unwrap();
    std::fs::create_dir(at("inner")).unwrap();
    symlink("a", at("link")).unwrap();
    std::fs::hard_link(at("a"), at("hard")).unwrap();
    symlink("inner", at("door")).unwrap();
    symlink("../new", at("inner/dangling")).unwrap();
    symlink("loop", at("loop")).unwrap();
    folder
}

fn problem(files: &Files) -> String {
    files.check().map_or_else(|error| error.to_string(), |()| String::new())
}

#[test]
fn a_file_that_is_read_is_not_written_whatever_its_name() {
    let folder = folder();
    let at = |name: &str| folder.path().join(name);
    for same in ["a", "./a", "inner/../a", "door/../a", "link", "hard"] {
        for read in ["a", "link", "hard"] {
            let files = Files::default().reads("the plan", &at(read)).writes("the cache", &at(same));
            assert!(problem(&files).contains("it is the plan, which is never overwritten"), "{read} {same}");
            let files = Files::default().reports("the report", &at(same)).reads("the plan", &at(read));
            assert!(problem(&files).contains(&format!("cannot write `{}`", at(same).display())), "{read} {same}");
        }
    }
    let files = Files::default().reads("the plan", &at("a")).reads("a sample", &at("link")).writes("it", &at("b"));
    assert_eq!(problem(&files), "");
}

#[test]
fn nothing_is_written_twice_not_even_what_does_not_exist_yet() {
    let folder = folder();
    let at = |name: &str| folder.path().join(name);
    for (one, other) in
        [("new", "new"), ("new", "./inner/../new"), ("inner/dangling", "new"), ("door/new", "inner/new"), ("a", "hard")]
    {
        for (one, other) in [(one, other), (other, one)] {
            let files = Files::default().writes("the model", &at(one)).reports("the report", &at(other));
            assert!(problem(&files).ends_with("it is the model"), "{one} {other}: {}", problem(&files));
        }
    }
    for (one, other) in [("new", "newer"), ("new", "inner/new"), ("a", "b"), ("inner/dangling", "inner/new")] {
        let files = Files::default().writes("the model", &at(one)).reports("the report", &at(other));
        assert_eq!(problem(&files), "", "{one} {other}");
    }
}

#[test]
fn names_that_differ_in_case_are_told_apart_as_the_folder_does() {
    let folder = folder();
    let at = |name: &str| folder.path().join(name);
    let files = Files::default().writes("the model", &at("New.onnx")).reports("the report", &at("new.ONNX"));
    std::fs::write(at("probe"), "").unwrap();
    assert_eq!(problem(&files).is_empty(), !at("PROBE").exists());
}

#[test]
fn only_reports_go_to_what_is_no_regular_file() {
    let folder = folder();
    let at = |name: &str| folder.path().join(name);
    let pipe = at("pipe");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let _socket = UnixListener::bind(at("socket")).unwrap();
    symlink(&pipe, at("to_pipe")).unwrap();
    let written = |name: &str| problem(&Files::default().writes("it", &at(name)));
    let reported = |name: &str| problem(&Files::default().reports("it", &at(name)));
    for (name, text) in [("pipe", "a pipe"), ("to_pipe", "a pipe"), ("socket", "a socket"), ("inner", "a folder")] {
        assert!(written(name).contains(text), "{name}: {}", written(name));
    }
    assert!(problem(&Files::default().writes("it", Path::new("/dev/null"))).contains("a device"));
    assert_eq!([reported("pipe"), reported("to_pipe"), reported("b"), reported("new")], [const { String::new() }; 4]);
    assert!(reported("inner").contains("a folder") && reported("socket").contains("a socket"));
    assert!(reported("absent/new").contains("its folder does not exist"));
    assert!(written("new/").contains("it is a folder"));
    assert!(written("loop").is_empty() && written("absent/new").contains("its folder does not exist"));
    assert!(problem(&Files::default().writes("it", Path::new("-"))).contains("only reports"));
    let twice = Files::default().reports("the report", Path::new("-")).reports("the plan", Path::new("-"));
    assert!(problem(&twice).contains("it is the report"));
}

#[test]
fn the_folder_of_a_state_holds_nothing_else() {
    let folder = folder();
    let at = |name: &str| folder.path().join(name);
    let with = |name: &str, other: &str| {
        problem(&Files::default().reports("the report", &at(other)).keeps("the state", &at(name)))
    };
    assert!(with("inner", "inner/run.toml").contains("it is the report"));
    assert!(with("inner", "door/plan.toml").contains("it is the report"));
    assert!(with("new", "new").contains("it is the report") && with("a", "b").contains("a file, expected a folder"));
    let layers = format!("door/{}/0000.layer", "0f".repeat(16));
    assert!(problem(&Files::default().keeps("the state", &at("inner")).writes("it", &at(&layers))).contains("folder"));
    std::fs::create_dir(at(&layers).parent().unwrap()).unwrap();
    assert!(problem(&Files::default().keeps("the state", &at("inner")).writes("it", &at(&layers))).contains("layers"));
    for (state, other) in [("inner", "inner/other"), ("new/deep", "b"), ("inner", "new"), ("inner/s", "inner/run.toml")]
    {
        assert_eq!(with(state, other), "", "{state} {other}");
    }
}
