//! `cargo xtask bench costs`: measures how long operators take in ONNX Runtime on this processor, for the choice of what runs
//! on codes.

use anyhow::{Context, ensure};
use onnxquant_passes::cpu::Cpu;

use crate::process;
use crate::python::Python;

/// Prints a table.
const SCRIPT: &str = "tests/python/costs.py";
/// Where tables lie.
const TABLES: &str = "crates/passes/src/integer/costs";

/// Writes the table of the class of this processor. The machine should have nothing else to do.
pub(super) fn run() -> anyhow::Result<()> {
    let class = Cpu::native();
    ensure!(
        matches!(class, Cpu::Vnni | Cpu::Avx2),
        "there is no table for processors of class {class}: run this on x86-64 with VNNI, or with AVX2 and without AVX-512"
    );
    let python = Python::set_up()?;
    let script = process::root().join(SCRIPT);
    eprintln!("measuring operators on this processor, of class {class}, for about two minutes");
    let output = python.command().arg(script).stderr(std::process::Stdio::inherit()).output();
    let output = output.context("cannot start Python")?;
    ensure!(output.status.success(), "`{SCRIPT}` failed with {}", output.status);
    let table = process::root().join(TABLES).join(format!("{class}.toml"));
    std::fs::write(&table, output.stdout).with_context(|| format!("cannot write `{}`", table.display()))?;
    println!("{} is written: run the tests and `cargo xtask regress`", table.display());
    Ok(())
}
