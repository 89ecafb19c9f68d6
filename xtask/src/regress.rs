//! `cargo xtask regress`: quantizes each fixture with each method and bit width, and compares with committed figures.
//!
//! The command runs as users run it; ONNX Runtime runs what it wrote on the labelled test samples. Compared with
//! `fixtures/golden/regress.json` are accuracy, output SQNR against the float model and the size of the file.
//! A layer whose certified error exceeds its bound is a failure in any case, and so is a file whose outputs depend on
//! which of its kernels ONNX Runtime chooses.

mod golden;
mod measure;

use anyhow::ensure;

use crate::process;
use crate::python::Python;
use golden::Golden;
use measure::{Case, Figures};

#[derive(clap::Args)]
pub struct Args {
    /// Only cases whose name contains this; names are `FIXTURE METHOD BITS`.
    filter: Option<String>,

    /// Write the figures found into the committed file. Worse ones are refused.
    #[arg(long)]
    bless: bool,

    /// Write worse figures, too; the text says why and stands beside them in the file.
    #[arg(long, value_name = "TEXT", requires = "bless", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    worse_because: Option<String>,
}

pub fn run(args: &Args) -> anyhow::Result<()> {
    process::run(process::cargo().args(["build", "--release", "--workspace", "--quiet"]))?;
    let python = Python::set_up()?;
    let filter = args.filter.as_deref().unwrap_or("");
    let found = measure::all(&python, |case| case.name().contains(filter))?;
    ensure!(!found.is_empty(), "no case is called like `{filter}`");
    let mut golden = Golden::read()?;
    if args.bless {
        golden.replace(&found, args.worse_because.as_deref())?;
        return golden.write();
    }
    report(&golden, &found, args.filter.is_none())
}

/// All cases against the committed figures, with the command that was built last.
pub fn compare_all(python: &Python) -> anyhow::Result<()> {
    let found = measure::all(python, |_| true)?;
    report(&Golden::read()?, &found, true)
}

fn report(golden: &Golden, found: &[(Case, Figures)], complete: bool) -> anyhow::Result<()> {
    println!("{:<36}{:>9}{:>9}{:>17}{:>17}{:>9}", "case", "accuracy", "float", "SQNR dB", "bytes", "worst");
    let mut failures = Vec::new();
    for (case, figures) in found {
        let before = golden.figures(case);
        let worse = before.map_or(vec!["no golden figures".to_owned()], |before| figures.worse_than(before));
        println!("{:<36}{}  {}", case.name(), figures.row(before), worse.join(", "));
        failures.extend(worse.into_iter().map(|what| format!("{}: {what}", case.name())));
    }
    let gone = golden.cases().filter(|case| complete && found.iter().all(|(known, _)| known != *case));
    failures.extend(gone.map(|case| format!("{}: in the golden file only", case.name())));
    println!("{} cases, {} failures", found.len(), failures.len());
    ensure!(
        failures.is_empty(),
        "figures are worse than the golden ones; `--bless --worse-because TEXT` accepts them:\n  {}",
        failures.join("\n  ")
    );
    Ok(())
}
