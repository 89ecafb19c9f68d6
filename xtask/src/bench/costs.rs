//! `cargo xtask bench costs`: measures how long operators take in ONNX Runtime on this processor, for the choice of what runs
//! on codes.

use anyhow::{Context, ensure};
use onnxquant_passes::cpu::Cpu;

use super::without_avx512;
use crate::process;
use crate::python::Python;

/// Prints a table.
const SCRIPT: &str = "tests/python/costs.py";
/// Where tables lie.
const TABLES: &str = "crates/passes/src/integer/costs";

/// Writes the table of the class of this processor, or that of AVX2 on one that has more. The machine should have nothing else
/// to do.
pub(super) fn run(without_avx512: bool) -> anyhow::Result<()> {
    let class = if without_avx512 { Cpu::Avx2 } else { Cpu::native() };
    ensure!(
        matches!(class, Cpu::Vnni | Cpu::Avx2),
        "there is no table for processors of class {class}: run this on x86-64 with VNNI, or with AVX2 and without AVX-512"
    );
    let python = Python::set_up()?;
    let mut command = python.command();
    command.arg(process::root().join(SCRIPT)).stderr(std::process::Stdio::inherit());
    if without_avx512 {
        command.arg("--without-avx512").env("PYTHONPATH", without_avx512::make(&python)?);
    }
    eprintln!("measuring operators on this processor, as class {class}, for about two minutes");
    let output = command.output().context("cannot start Python")?;
    ensure!(output.status.success(), "`{SCRIPT}` failed with {}", output.status);
    let table = process::root().join(TABLES).join(format!("{class}.toml"));
    std::fs::write(&table, output.stdout).with_context(|| format!("cannot write `{}`", table.display()))?;
    println!("{} is written: run the tests and `cargo xtask regress`", table.display());
    Ok(())
}
