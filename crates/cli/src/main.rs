//! The command `onnxquant`.

#![forbid(unsafe_code)]

mod args;
mod bars;
mod compare;
mod inspect;
mod quantize;
mod table;

use std::panic::AssertUnwindSafe;
use std::process::ExitCode;

use clap::{CommandFactory, Parser};

use crate::args::{Cli, Command};

/// Bad input or usage.
const BAD_INPUT: u8 = 2;
/// A defect of this program.
const DEFECT: u8 = 3;

fn main() -> ExitCode {
    let cli = Cli::parse();
    match std::panic::catch_unwind(AssertUnwindSafe(|| run(cli))) {
        Ok(Ok(())) => ExitCode::SUCCESS,
        Ok(Err(error)) => {
            eprintln!("error: {error:#}");
            let defect = error.downcast_ref::<onnxquant::Error>().is_some_and(onnxquant::Error::is_internal);
            ExitCode::from(if defect { DEFECT } else { BAD_INPUT })
        }
        Err(_) => ExitCode::from(DEFECT),
    }
}

fn run(cli: Cli) -> anyhow::Result<()> {
    if let Some(threads) = cli.threads {
        rayon::ThreadPoolBuilder::new().num_threads(threads.into()).build_global()?;
    }
    match cli.command {
        Some(Command::Inspect(args)) => inspect::run(&args),
        Some(Command::Compare(args)) => compare::run(&args),
        Some(Command::Completions { shell }) => {
            clap_complete::generate(shell, &mut Cli::command(), "onnxquant", &mut std::io::stdout());
            Ok(())
        }
        None => quantize::run(&cli.quantize),
    }
}
