//! Words of the commands by which several processes make one model.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Command, CommandFactory, Parser};
use onnxquant::{Duty, Error, Shard};

use super::help::grouped;
use super::{Cli, MachineArgs, QuantizeArgs, RuntimeArgs, TellingArgs};
use crate::screen::COLUMNS;

/// Which share a process does.
#[derive(Clone, Debug, Args)]
pub(crate) struct ShardArgs {
    /// The share of this process: 2/4 is the second of four.
    ///
    /// By default that of the task in a job array of Slurm (SLURM_ARRAY_TASK_ID, SLURM_ARRAY_TASK_COUNT) or in an Indexed
    /// Job of Kubernetes (JOB_COMPLETION_INDEX, JOB_COMPLETIONS), else all.
    #[arg(long, value_name = "I/N", value_parser = parse_shard)]
    shard: Option<(usize, usize)>,

    #[command(flatten)]
    waiting: WaitingArgs,
}

/// Whether a process waits for others.
#[derive(Clone, Copy, Debug, Args)]
struct WaitingArgs {
    /// Wait for what other processes have to do first, at most so many seconds where a number is given. Without it `finish`
    /// does that itself, and the others end with exit code 75.
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, require_equals = true)]
    wait: Option<Option<u64>>,
}

/// The words of `calibrate`, as the help of the main command knows them.
#[derive(Debug, Args)]
pub(crate) struct Calibrate {
    #[command(flatten)]
    pub(crate) shard: ShardArgs,
}

/// The words of `calibrate`: those of the main command, and which share.
#[derive(Debug, Parser)]
#[command(
    name = "onnxquant calibrate",
    about = "Runs a share of the calibration samples of a run that several processes do"
)]
pub(crate) struct CalibrateCommand {
    #[command(flatten)]
    pub(crate) quantize: QuantizeArgs,

    #[command(flatten)]
    pub(crate) shard: ShardArgs,

    #[command(flatten)]
    pub(crate) machine: MachineArgs,
}

#[derive(Debug, Args)]
pub(crate) struct SolveArgs {
    /// Where the run keeps what is done: a folder that all processes see, or an address of an object store.
    #[arg(long, value_name = "PLACE")]
    pub(crate) state: PathBuf,

    #[command(flatten)]
    pub(crate) shard: ShardArgs,

    #[command(flatten)]
    pub(crate) elsewhere: Elsewhere,
}

#[derive(Debug, Args)]
pub(crate) struct FinishArgs {
    /// Where the run keeps what is done: a folder that all processes see, or an address of an object store.
    #[arg(long, value_name = "PLACE")]
    pub(crate) state: PathBuf,

    /// Where the quantized model, or the folder with it, appears, whole or not at all.
    #[arg(value_name = "OUT")]
    pub(crate) output: PathBuf,

    #[command(flatten)]
    waiting: WaitingArgs,

    #[command(flatten)]
    pub(crate) elsewhere: Elsewhere,

    /// Write the full report: as a page where the name ends in .html, else as JSON; may be given twice.
    #[arg(long, value_name = "FILE")]
    pub(crate) report: Vec<PathBuf>,
}

/// What is elsewhere on this machine than where `calibrate` found it, and how a process tells how far it is.
#[derive(Debug, Args)]
pub(crate) struct Elsewhere {
    /// The float model, where it has another path here.
    #[arg(long, value_name = "PATH")]
    pub(crate) model: Option<PathBuf>,

    /// The calibration samples, where they have another path here.
    #[arg(long, value_name = "PATH")]
    pub(crate) calib: Option<PathBuf>,

    #[command(flatten)]
    pub(crate) telling: TellingArgs,

    #[command(flatten)]
    pub(crate) runtime: RuntimeArgs,
}

/// The command line of `calibrate`.
pub(crate) fn calibrate() -> Command {
    let command = CalibrateCommand::command().max_term_width(COLUMNS);
    command.mut_args(grouped).mut_args(|arg| match arg.get_id().as_str() {
        "output" => arg.hide(true).required_unless_present("input"),
        "state" => arg.required(true),
        _ => arg,
    })
}

impl From<CalibrateCommand> for Cli {
    fn from(typed: CalibrateCommand) -> Self {
        let CalibrateCommand { quantize, shard, machine } = typed;
        Self { command: Some(super::Command::Calibrate(Calibrate { shard })), quantize, machine }
    }
}

impl WaitingArgs {
    /// At most how long.
    fn longest(self) -> Option<Duration> {
        self.wait.map(|seconds| seconds.map_or(Duration::MAX, Duration::from_secs))
    }
}

impl FinishArgs {
    /// Its share: what is missing.
    pub(crate) fn shard(&self) -> Result<Shard, Error> {
        Shard::new(Duty::Finish, 1, 1, self.waiting.longest())
    }
}

impl ShardArgs {
    /// The share of a process with this duty.
    pub(crate) fn shard(&self, duty: Duty) -> Result<Shard, Error> {
        let (number, count) = match self.shard {
            Some(given) => given,
            None => of_scheduler(&|name| std::env::var(name).ok())?.unwrap_or((1, 1)),
        };
        Shard::new(duty, number, count, self.waiting.longest())
    }
}

/// The share that a scheduler gives, where there is one; `variable` knows the environment.
fn of_scheduler(variable: &dyn Fn(&str) -> Option<String>) -> Result<Option<(usize, usize)>, Error> {
    let number = |name: &str| {
        let parse = |text: String| {
            let wrong = |_| Error::Usage(format!("{name} is `{text}`, expected a number: give --shard"));
            text.trim().parse::<usize>().map_err(wrong)
        };
        variable(name).map(parse).transpose()
    };
    if let (Some(id), Some(count)) = (number("SLURM_ARRAY_TASK_ID")?, number("SLURM_ARRAY_TASK_COUNT")?) {
        let least = number("SLURM_ARRAY_TASK_MIN")?.unwrap_or(0);
        let step = number("SLURM_ARRAY_TASK_STEP")?.unwrap_or(1).max(1);
        return Ok(Some((id.saturating_sub(least) / step + 1, count)));
    }
    Ok(match (number("JOB_COMPLETION_INDEX")?, number("JOB_COMPLETIONS")?) {
        (Some(index), Some(count)) => Some((index + 1, count)),
        (Some(_), None) => {
            let problem = "JOB_COMPLETION_INDEX says which share this is, and JOB_COMPLETIONS is missing, of how many: \
                           set it to the `completions` of the job, or give --shard";
            return Err(Error::Usage(problem.to_owned()));
        }
        (None, _) => None,
    })
}

fn parse_shard(text: &str) -> Result<(usize, usize), String> {
    let numbers = text.split_once('/').and_then(|(number, count)| Some((number.parse().ok()?, count.parse().ok()?)));
    let expected = "expected a number and how many there are, for example 2/4";
    numbers.filter(|(number, count)| (1..=*count).contains(number)).ok_or_else(|| expected.to_owned())
}

#[cfg(test)]
mod tests {
    use clap::FromArgMatches;

    use super::*;

    fn given(variables: &[(&str, &str)]) -> Result<Option<(usize, usize)>, Error> {
        let find =
            |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
        of_scheduler(&find)
    }

    #[test]
    fn schedulers_say_which_share_it_is() {
        let slurm = |id, min, step| {
            let all =
                [("SLURM_ARRAY_TASK_ID", id), ("SLURM_ARRAY_TASK_COUNT", "4"), ("SLURM_ARRAY_TASK_MIN", min), step];
            given(&all).unwrap().unwrap()
        };
        let none = ("", "");
        assert_eq!((slurm("0", "0", none), slurm("3", "0", none)), ((1, 4), (4, 4)));
        assert_eq!((slurm("1", "1", none), slurm("4", "1", none)), ((1, 4), (4, 4)));
        assert_eq!(slurm("16", "10", ("SLURM_ARRAY_TASK_STEP", "2")), (4, 4));
        assert_eq!(given(&[("JOB_COMPLETION_INDEX", "2"), ("JOB_COMPLETIONS", "3")]).unwrap(), Some((3, 3)));
        assert_eq!(given(&[]).unwrap(), None);
        assert!(given(&[("JOB_COMPLETION_INDEX", "2")]).is_err());
        assert!(given(&[("SLURM_ARRAY_TASK_ID", "x"), ("SLURM_ARRAY_TASK_COUNT", "4")]).is_err());
    }

    #[test]
    fn a_share_is_one_of_those_that_there_are() {
        assert_eq!(parse_shard("2/4"), Ok((2, 4)));
        for text in ["0/4", "5/4", "2", "a/b", "1/0"] {
            assert!(parse_shard(text).is_err(), "{text}");
        }
    }

    #[test]
    fn calibrate_takes_the_words_of_the_main_command_but_no_output() {
        let parse = |words: &str| {
            let words = std::iter::once("onnxquant calibrate").chain(words.split_whitespace());
            CalibrateCommand::from_arg_matches(&calibrate().try_get_matches_from(words)?)
        };
        let found = parse("m.onnx --calib c --state s --shard 2/4 --scheme w4 --wait").unwrap();
        assert_eq!(found.shard.waiting.longest(), Some(Duration::MAX));
        assert_eq!(found.quantize.output, None);
        assert_eq!(
            parse("m.onnx --calib c --state s --wait=7").unwrap().shard.waiting.longest(),
            Some(Duration::from_secs(7))
        );
        assert!(parse("m.onnx --calib c").is_err(), "there is no folder");
        assert!(parse("--calib c --state s").is_err(), "there is no model");
    }
}
