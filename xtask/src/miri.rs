//! `cargo xtask miri`: runs the tests of code that handles memory itself in an interpreter that finds undefined behaviour.
//!
//! It needs a nightly compiler with the component `miri`, and builds in a folder of its own, without tract. What calls into
//! the system (files mapped into memory, libraries that are loaded) it cannot run.

use crate::process;

/// The tests, as `cargo test` takes them. Random edits of graphs would take an hour.
const RUNS: [&[&str]; 2] = [
    &["--package", "onnxquant-proto", "--package", "onnxquant-ir", "--lib", "--", "--skip", "random_tests"],
    &["--package", "onnxquant-calib", "--no-default-features", "--features", "ort", "--lib", "--", "ffi"],
];

pub fn run() -> anyhow::Result<()> {
    let folder = process::target_folder()?.join("miri");
    for tests in RUNS {
        let mut cargo = process::nightly();
        cargo.args(["miri", "test", "--locked"]).args(tests);
        // Tests read the time and make files.
        cargo.env("CARGO_TARGET_DIR", &folder).env("MIRIFLAGS", "-Zmiri-disable-isolation");
        process::run(&mut cargo)?;
    }
    Ok(())
}
