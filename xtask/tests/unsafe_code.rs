//! Where unsafe code is, and why. Everywhere else the compiler refuses it: `unsafe_code = "deny"` holds in all crates.

mod shared;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use shared::rust_files;

/// The files that may have it, each with its reason.
const FILES: [(&str, &str); 6] = [
    ("crates/calib/src/engine/ort/ffi.rs", "ONNX Runtime is a C library, loaded while the program runs"),
    ("crates/cli/src/guard/last_words.rs", "a process without memory, or in a signal handler, can do little but write"),
    ("crates/cli/src/guard/memory.rs", "an allocator that counts, around the system's"),
    ("crates/cli/src/guard/signals.rs", "a handler of SIGBUS, for a mapped file that is cut short"),
    ("crates/proto/src/map_file.rs", "a file that is mapped into memory may be changed by others"),
    ("crates/python/src/lib.rs", "pyo3's macros write the functions that Python calls"),
];

/// How a file says that it has unsafe code.
const ALLOWED: [&str; 2] = ["allow(unsafe_code", "expect(unsafe_code"];

#[test]
fn unsafe_code_is_where_it_has_a_reason() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask lies in the repository");
    let name = |path: &Path| path.strip_prefix(root).expect("it lies in the repository").display().to_string();
    let has_it = |path: &PathBuf| {
        let text = std::fs::read_to_string(path).expect("the file can be read");
        ALLOWED.iter().any(|words| text.contains(words))
    };
    let this = Path::new(file!()).file_name();
    let files = ["crates", "xtask"].iter().flat_map(|folder| rust_files(&root.join(folder)));
    let mut found: Vec<String> =
        files.filter(|path| path.file_name() != this && has_it(path)).map(|path| name(&path)).collect();
    found.sort();
    let listed: BTreeMap<&str, &str> = FILES.into();
    assert_eq!(found, listed.keys().copied().collect::<Vec<_>>());
}

#[test]
fn all_crates_take_the_lints_of_the_workspace() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask lies in the repository");
    let read = |path: &Path| std::fs::read_to_string(path).expect("the file can be read");
    assert!(read(&root.join("Cargo.toml")).contains("unsafe_code = \"deny\""));
    let crates = std::fs::read_dir(root.join("crates")).expect("the folder can be read");
    let folders = crates.map(|entry| entry.expect("the folder can be read").path()).chain([root.join("xtask")]);
    for folder in folders {
        let manifest = read(&folder.join("Cargo.toml"));
        assert!(manifest.contains("[lints]\nworkspace = true"), "{}", folder.display());
    }
}
