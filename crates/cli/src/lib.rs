//! The command `onnxquant`, for its own program and for others that it is part of.
//!
//! [`run`] does what the arguments of the command say and hands over what came of it; [`command`] prints that as the
//! program does. A program of its own also [guards](guard) its process.

mod answer;
mod args;
mod bench;
mod child;
mod compare;
mod configuration;
mod dry_run;
pub mod guard;
mod host;
mod inspect;
mod left_in_float;
mod metric;
mod options;
mod progress;
mod quantize;
mod report;
mod runtime;
mod screen;
mod shares;
mod signals;
mod sink;
mod summary;
mod table;
mod trial;

use std::ffi::OsString;
use std::io::{ErrorKind, IsTerminal, stderr};
use std::panic::{AssertUnwindSafe, catch_unwind, set_hook};
use std::sync::{Mutex, MutexGuard, Once, PoisonError};

use anyhow::Context;
use onnxquant::{Duty, Phase};

pub use answer::{Answer, Failure};
pub use host::{Around, Host, Stopped};
pub use options::{CommandOption, options};
pub use screen::COLUMNS;
pub use signals::end_on_signals;
pub use summary::summary;

use crate::args::{Cli, Command};
use crate::configuration::Asked;
use crate::progress::{LogForm, Teller};
use crate::screen::output_columns;

/// The program's name in what clap says.
const NAME: &str = "onnxquant";

/// All was done.
const DONE: u8 = 0;
/// What was asked for was missed.
const MISSED: u8 = 1;
/// Bad input or usage.
const BAD_INPUT: u8 = 2;
/// A defect of this program.
const DEFECT: u8 = 3;
/// Other processes have to do something first (EX_TEMPFAIL of sysexits.h).
const WAITING: u8 = 75;

/// Stack of threads on which a run goes on, as the main thread's is.
const STACK_BYTES: usize = 8 << 20;

/// What the last panic said. The inference engine's panics are caught below and become errors, so that nothing
/// is printed where a panic happens.
static LAST_PANIC: Mutex<String> = Mutex::new(String::new());

/// Whether these arguments are those of a process that is there to crash, see `trial`.
pub fn is_trial(args: &[OsString]) -> bool {
    args.first().is_some_and(|first| first == args::TRY)
}

/// The command: runs, prints what came of it, and returns the exit code. `args` are without the program's name.
pub fn command(args: Vec<OsString>, around: &Around) -> u8 {
    let silent = Host {
        args: &args,
        around,
        progress: &|_: Phase, _: usize, _: usize| {},
        metric: None,
        store: None,
        warn: &|_: &str| {},
        columns: output_columns(),
    };
    let asked = match asked(&silent) {
        Ok(asked) => asked,
        Err(Failure::Words(error)) => return told_of_words(&error),
        Err(failure) => return told(&failure, &Teller::silent()),
    };
    let teller = teller(&asked.cli);
    let host = Host {
        progress: &|phase: Phase, done: usize, total: usize| teller.progress(phase, done, total),
        warn: &|warning: &str| teller.warn(warning),
        ..silent
    };
    let answered = run_asked(&asked, &host);
    teller.ends();
    let printed = answered.and_then(|answer| Ok(print(&asked.cli, &answer, &teller)?));
    printed.unwrap_or_else(|failure| told(&failure, &teller))
}

/// Who is told how far it is: a bar on a terminal; elsewhere lines, of runs that quantize.
fn teller(cli: &Cli) -> Teller {
    let args = &cli.quantize;
    let form = match (args.telling.log, &cli.command) {
        (Some(name), _) => Some(name.into()),
        (None, None) if !stderr().is_terminal() => Some(LogForm::Plain),
        (None, _) => None,
    };
    match form {
        _ if args.telling.quiet || args.tried.is_some() => Teller::silent(),
        Some(form) => Teller::lines(form),
        None => Teller::screen(),
    }
}

/// Prints what clap has to say: what is wrong with the words, or what was asked for; the exit code.
fn told_of_words(error: &clap::Error) -> u8 {
    let code = u8::try_from(error.exit_code()).unwrap_or(BAD_INPUT);
    match error.print() {
        Err(problem) if code == DONE && problem.kind() != ErrorKind::BrokenPipe => BAD_INPUT,
        _ => code,
    }
}

/// Says what went wrong; the exit code.
fn told(failure: &Failure, teller: &Teller) -> u8 {
    teller.fail(&failure.message());
    match failure {
        Failure::Defect(_) => DEFECT,
        Failure::Waiting(_) => WAITING,
        _ => BAD_INPUT,
    }
}

/// Does what the host's arguments say. Nothing is printed.
///
/// # Errors
/// What went wrong.
pub fn run(host: &Host<'_>) -> Result<Answer, Failure> {
    run_asked(&asked(host)?, host)
}

fn asked(host: &Host<'_>) -> Result<Asked, Failure> {
    let args = host.args;
    if args.first().is_some_and(|first| first == "calibrate") {
        return shares::calibrate(args);
    }
    let mut asked = configuration::read(std::iter::once(OsString::from(NAME)).chain(args.iter().cloned()))?;
    let mut shared = match asked.cli.command.take() {
        Some(Command::Solve(args)) => shares::solve(args, host)?,
        Some(Command::Finish(args)) => shares::finish(&args, host)?,
        other => {
            asked.cli.command = other;
            return Ok(asked);
        }
    };
    shared.cli.machine = asked.cli.machine;
    Ok(shared)
}

fn run_asked(asked: &Asked, host: &Host<'_>) -> Result<Answer, Failure> {
    if let Some(bytes) = asked.cli.machine.max_memory
        && !guard::limit(bytes)
    {
        let problem = "--max-memory is about the process of the command: this one is another program's";
        return Err(onnxquant::Error::Usage(problem.to_owned()).into());
    }
    static HOOK: Once = Once::new();
    HOOK.call_once(|| set_hook(Box::new(|info| *last_panic() = info.to_string())));
    let _kept = onnxquant::storage::keep();
    let work = || catch_unwind(AssertUnwindSafe(|| answer(asked, host)));
    let answered = match asked.cli.machine.threads {
        None => work(),
        Some(threads) => {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads.into()).stack_size(STACK_BYTES).build();
            pool.map_err(anyhow::Error::from)?.install(work)
        }
    };
    match answered {
        Ok(answered) => answered,
        Err(payload) if payload.is::<Stopped>() => Err(Failure::Stopped),
        Err(_) => Err(Failure::Defect(format!("internal error: {}", last_panic()))),
    }
}

fn last_panic() -> MutexGuard<'static, String> {
    LAST_PANIC.lock().unwrap_or_else(PoisonError::into_inner)
}

fn answer(asked: &Asked, host: &Host<'_>) -> Result<Answer, Failure> {
    let cli = &asked.cli;
    let host = &Host { args: asked.words.as_deref().unwrap_or(host.args), ..*host };
    let text = match &cli.command {
        Some(Command::Inspect(args)) => inspect::run(args, host)?,
        Some(Command::Compare(args)) => return Ok(compare::run(args, host)?),
        Some(Command::Report(args)) => report::run(args, host)?,
        Some(Command::Bench(args)) => bench::run(args, cli.machine.threads, host)?,
        Some(Command::Calibrate(args)) => {
            args::check(|id| asked.is_given(id), &cli.quantize)?;
            shares::run(asked, Duty::Calibrate, &args.shard, host)?
        }
        Some(Command::Solve(args)) => shares::run(asked, Duty::Solve, &args.shard, host)?,
        // It became the main command.
        Some(Command::Finish(_)) => String::new(),
        Some(Command::Completions { shell }) => {
            let mut script = Vec::new();
            clap_complete::generate(*shell, &mut args::command(), NAME, &mut script);
            String::from_utf8_lossy(&script).into_owned()
        }
        Some(Command::Man { folder }) => {
            let written = clap_mangen::generate_to(args::command(), folder);
            written.with_context(|| format!("cannot write manual pages into `{}`", folder.display()))?;
            String::new()
        }
        None if cli.quantize.config_schema => configuration::schema()?,
        None if cli.quantize.print_config => asked.text(),
        // What cannot be read is told by the process that asked.
        None if cli.quantize.tried.is_some() => {
            drop(trial::run(&cli.quantize, host));
            String::new()
        }
        None if cli.quantize.dry_run => {
            args::check(|id| asked.is_given(id), &cli.quantize)?;
            dry_run::run(&cli.quantize, host)?
        }
        None => {
            args::check(|id| asked.is_given(id), &cli.quantize)?;
            return Ok(Answer::Quantized(Box::new(quantize::run(&cli.quantize, host)?)));
        }
    };
    Ok(Answer::Text(text))
}

/// Prints an answer, and tells the exit code.
fn print(cli: &Cli, answer: &Answer, teller: &Teller) -> anyhow::Result<u8> {
    let missed = match answer {
        Answer::Quantized(report) => {
            quantize::print(&cli.quantize, report, teller)?;
            report.missed().map(|missed| missed + "; the model was written")
        }
        Answer::Compared { text, missed } => {
            sink::print(text)?;
            missed.clone()
        }
        Answer::Text(text) => {
            sink::print(text)?;
            None
        }
    };
    Ok(missed.map_or(DONE, |missed| {
        teller.fail(&missed);
        MISSED
    }))
}
