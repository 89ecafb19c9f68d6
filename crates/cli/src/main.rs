//! The command `onnxquant`.

#![forbid(unsafe_code)]

mod args;
mod bars;
mod bench;
mod compare;
mod configuration;
mod inspect;
mod left_in_float;
mod quantize;
mod report;
mod runtime;
mod sink;
mod summary;
mod table;

use std::panic::AssertUnwindSafe;
use std::process::ExitCode;
use std::sync::{Mutex, MutexGuard, PoisonError};

use clap::CommandFactory;

use crate::args::{Cli, Command};
use crate::configuration::Asked;

/// What was asked for was missed.
const MISSED: u8 = 1;
/// Bad input or usage.
const BAD_INPUT: u8 = 2;
/// A defect of this program.
const DEFECT: u8 = 3;

/// What the last panic said. The inference engine's panics are caught below and become errors, so that nothing
/// is printed where a panic happens.
static LAST_PANIC: Mutex<String> = Mutex::new(String::new());

fn main() -> ExitCode {
    std::panic::set_hook(Box::new(|info| *last_panic() = info.to_string()));
    match std::panic::catch_unwind(AssertUnwindSafe(|| run(&configuration::read(std::env::args_os())?))) {
        Ok(Ok(code)) => code,
        Ok(Err(error)) => {
            eprintln!("error: {error:#}");
            let defect = error.downcast_ref::<onnxquant::Error>().is_some_and(onnxquant::Error::is_internal);
            ExitCode::from(if defect { DEFECT } else { BAD_INPUT })
        }
        Err(_) => {
            eprintln!("error: internal error: {}", last_panic());
            ExitCode::from(DEFECT)
        }
    }
}

fn last_panic() -> MutexGuard<'static, String> {
    LAST_PANIC.lock().unwrap_or_else(PoisonError::into_inner)
}

fn run(asked: &Asked) -> anyhow::Result<ExitCode> {
    let cli = &asked.cli;
    if let Some(threads) = cli.threads {
        rayon::ThreadPoolBuilder::new().num_threads(threads.into()).build_global()?;
    }
    match &cli.command {
        Some(Command::Inspect(args)) => inspect::run(args)?,
        Some(Command::Compare(args)) => {
            if let Some(missed) = compare::run(args)? {
                eprintln!("error: {missed}");
                return Ok(ExitCode::from(MISSED));
            }
        }
        Some(Command::Bench(args)) => bench::run(args, cli.threads)?,
        Some(Command::Report(args)) => report::run(args)?,
        Some(Command::Completions { shell }) => {
            let mut script = Vec::new();
            clap_complete::generate(*shell, &mut Cli::command(), "onnxquant", &mut script);
            sink::print(&String::from_utf8_lossy(&script))?;
        }
        None if cli.quantize.config_schema => sink::print(&configuration::schema()?)?,
        None if cli.quantize.print_config => sink::print(&asked.text())?,
        // What cannot be read is told by the process that asked.
        None if cli.quantize.tries_runtime => drop(quantize::try_runtime(&cli.quantize)),
        None => {
            args::check(|id| asked.is_given(id), &cli.quantize)?;
            let report = quantize::run(&cli.quantize)?;
            if let Some(missed) = report.missed() {
                eprintln!("error: {missed}; the model was written");
                return Ok(ExitCode::from(MISSED));
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}
