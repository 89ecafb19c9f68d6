//! Words and flags of the command line.

mod addresses;
mod data;
mod effects;
mod help;
mod metric;
pub(crate) mod presets;
mod settings;
mod shares;
mod words;

use std::num::NonZero;
use std::path::PathBuf;

use clap::builder::PossibleValuesParser;
use clap::{Args, Parser, Subcommand, ValueHint};
use onnxquant::{Budget, Config, Cpu, Error, Shard, store_at};

pub(crate) use addresses::check_places;
pub(crate) use effects::{check, has_no_effect};
pub(crate) use help::command;

use data::DataArgs;
pub(crate) use metric::MetricArgs;
use settings::SettingsArgs;
pub(crate) use shares::{Calibrate, CalibrateCommand, Elsewhere, FinishArgs, ShardArgs, SolveArgs, calibrate};
use words::VerifyName;
pub(crate) use words::{EngineName, LogName, Tried};

/// Lets a process of its own run the float model in engines.
pub(crate) const TRY: &str = "--try-engines";

/// Options that print and quantize nothing.
pub(crate) const PRINTS: [&str; 2] = ["print_config", "config_schema"];

/// Options about the process, in which other programs decide for themselves.
pub(crate) const OF_PROCESS: [&str; 1] = ["max_memory"];

/// Makes ONNX models smaller and faster before they are served.
#[derive(Debug, Parser)]
#[command(name = "onnxquant", version, about)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Option<Command>,

    #[command(flatten)]
    pub(crate) quantize: QuantizeArgs,

    #[command(flatten)]
    pub(crate) machine: MachineArgs,
}

/// What a process may take of the machine.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct MachineArgs {
    /// Worker threads; by default one for each core. The result does not depend on it.
    #[arg(long, global = true, value_name = "N")]
    pub(crate) threads: Option<NonZero<usize>>,

    /// End with an error rather than allocate more than this: 4GB or 512MiB, for example. Files that are mapped are not
    /// counted, and neither is what ONNX Runtime allocates.
    #[arg(long, global = true, value_name = "BYTES", value_parser = words::parse_bytes)]
    pub(crate) max_memory: Option<usize>,
}

/// How a run tells how far it is.
#[derive(Debug, Args)]
pub(crate) struct TellingArgs {
    /// Print how far the run is as lines on the standard error, which are the default where that is no terminal: `plain`, or
    /// `json`, an object a line.
    #[arg(long, value_enum, value_name = "FORM")]
    pub(crate) log: Option<LogName>,

    /// Print nothing but errors.
    #[arg(long, short)]
    pub(crate) quiet: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Lists every candidate layer, and what would be done or why not.
    Inspect(InspectArgs),
    /// Compares the outputs of two models on data.
    Compare(CompareArgs),
    /// Measures how long a model takes in ONNX Runtime, with one thread and with --threads, and another one beside it.
    Bench(BenchArgs),
    /// Tells what changed from one stored report to another, or makes a page of one.
    Report(ReportArgs),
    /// Runs a share of the samples, where many processes make a model.
    ///
    /// The words are those of the main command, without OUT: onnxquant calibrate IN --calib PATH --state PLACE --shard 2/4.
    Calibrate(Calibrate),
    /// Solves a share of the layers of such a run.
    Solve(SolveArgs),
    /// Verifies and writes the model of such a run.
    Finish(FinishArgs),
    /// Prints a completion script for a shell.
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
    /// Writes the manual pages into a folder.
    #[command(hide = true)]
    Man {
        /// The folder; it must exist.
        folder: PathBuf,
    },
}

#[derive(Debug, Args)]
pub(crate) struct QuantizeArgs {
    /// The float model, or a folder with one; neither is changed.
    ///
    /// The files of a folder are copied beside the quantized model. Like samples, models may have addresses:
    /// s3://bucket/model.onnx, gs://, az://, https://.
    #[arg(value_name = "IN", required_unless_present_any = PRINTS)]
    pub(crate) input: Option<PathBuf>,

    /// Where the quantized model, or the folder, appears whole or not at all.
    ///
    /// A model also at an address.
    #[arg(value_name = "OUT", required_unless_present_any = PRINTS)]
    pub(crate) output: Option<PathBuf>,

    /// Calibration samples: a folder or a file.
    ///
    /// Of .npz, .npy, .safetensors, ONNX test data sets, pictures, sounds or archives of these, or a .txt or .jsonl file of
    /// texts.
    #[arg(long, value_name = "PATH", required_unless_present_any = ["weights_only", "print_config", "config_schema"])]
    pub(crate) calib: Option<PathBuf>,

    /// Quantize without calibration data (plain rounding).
    #[arg(long, conflicts_with = "calib")]
    pub(crate) weights_only: bool,

    #[command(flatten)]
    pub(crate) data: DataArgs,

    #[command(flatten)]
    pub(crate) settings: SettingsArgs,

    /// Choose bits layer by layer, out of 2, 3, 4 and 8: at most so many a weight on the average, for example 3.5. A
    /// weight that several layers read counts once.
    #[arg(long, value_name = "BITS", conflicts_with_all = ["bits", "plan", "target_size"])]
    average_bits: Option<f64>,

    /// The same for a file of at most so many megabytes (of 1,000,000 bytes).
    #[arg(long, value_name = "MB", conflicts_with_all = ["bits", "plan"])]
    target_size: Option<f64>,

    #[command(flatten)]
    pub(crate) metric: MetricArgs,

    /// Write the bits of every layer into a file, for --plan; `-` is the standard output.
    #[arg(long, value_name = "FILE")]
    pub(crate) save_plan: Option<PathBuf>,

    /// Keep solved layers in this folder, or under this address of an object store: a run that was killed goes on there when
    /// it is started again.
    #[arg(long, value_name = "PLACE")]
    pub(crate) state: Option<PathBuf>,

    /// What is left of a run of which others have done shares.
    #[arg(skip)]
    pub(crate) finish: Option<Shard>,

    /// Keep statistics of activations in this file; they are used again while model and samples are the same.
    #[arg(long, value_name = "FILE")]
    pub(crate) calibration_cache: Option<PathBuf>,

    /// Write the full report: as a page where the name ends in .html, else as JSON; may be given twice.
    ///
    /// `-` is the standard output, and the summary then goes to the standard error.
    #[arg(long, value_name = "FILE")]
    pub(crate) report: Vec<PathBuf>,

    /// Exit with code 0 although nothing was quantized, --include, --exclude or --layer match no layer, no layer runs on the
    /// codes that were asked for, or most weights were rounded without data.
    #[arg(long)]
    pub(crate) allow_float: bool,

    /// Say what would be done, and write nothing.
    ///
    /// Layer by layer, with the size of the file, time and memory as they are estimated.
    #[arg(long)]
    pub(crate) dry_run: bool,

    #[command(flatten)]
    pub(crate) telling: TellingArgs,

    #[command(flatten)]
    pub(crate) runtime: RuntimeArgs,

    /// Quantize nothing: run the float model in engines, which may crash. Only this program calls itself so.
    #[arg(long = "try-engines", value_enum, hide = true)]
    pub(crate) tried: Option<Tried>,

    /// What runs the float model on samples: `tract`, which is part of this program; `ort`, ONNX Runtime; or `auto`: tract,
    /// unless it cannot run the model or, on one sample, gives something else than ONNX Runtime.
    #[arg(long, value_enum, default_value_t = EngineName::Auto)]
    pub(crate) engine: EngineName,

    /// Load the written file in ONNX Runtime at every optimization level, and check there what layers run as. Nothing is
    /// written where it does not load; a layer that does not run as predicted is an error.
    #[arg(long, value_enum, value_name = "RUNTIME")]
    pub(crate) verify: Option<VerifyName>,

    /// Read options from this file, whose keys are their names; those of the command line come first.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,

    /// Options that go together; a file and the command line come first.
    #[arg(long, value_name = "NAME", value_parser = PossibleValuesParser::new(presets::names()))]
    preset: Option<String>,

    /// Print all options as a file for --config, and do nothing else.
    #[arg(long)]
    pub(crate) print_config: bool,

    /// Print the JSON Schema of such files.
    #[arg(long)]
    pub(crate) config_schema: bool,
}

#[derive(Debug, Args)]
pub(crate) struct InspectArgs {
    /// The model.
    pub(crate) model: PathBuf,

    /// Print JSON instead of a table.
    #[arg(long)]
    pub(crate) json: bool,

    /// Print what each pass before quantization changes instead of the layers.
    #[arg(long)]
    pub(crate) passes: bool,

    /// Write the model without its weights and names into this file instead: for reports of defects.
    #[arg(long, value_name = "OUT", conflicts_with_all = ["json", "passes"])]
    pub(crate) anonymize: Option<PathBuf>,

    #[command(flatten)]
    pub(crate) settings: SettingsArgs,
}

#[derive(Debug, Args)]
pub(crate) struct CompareArgs {
    /// The reference.
    pub(crate) first: PathBuf,

    /// The model to compare with it.
    pub(crate) second: PathBuf,

    /// Samples: whatever --calib takes.
    #[arg(long = "data", value_name = "PATH")]
    pub(crate) path: PathBuf,

    #[command(flatten)]
    pub(crate) data: DataArgs,

    /// Compute the second model as processors of this class do: on `portable`, `avx2` and `avx512` sums of products on
    /// codes saturate, on `vnni` and `arm64` they are exact, as without this option; `native` is the class of this one.
    #[arg(long, value_name = "CLASS")]
    pub(crate) cpu: Option<Cpu>,

    /// Compare every tensor that both models make under one name, too, in the order in which the first makes them: where
    /// does an error enter?
    #[arg(long)]
    pub(crate) layers: bool,

    /// Exit with code 1 where the SQNR of the outputs is less, in dB.
    #[arg(long, value_name = "DB")]
    pub(crate) min_sqnr: Option<f64>,

    /// Exit with code 1 where one minus the mean cosine of an output is more.
    #[arg(long, value_name = "X")]
    pub(crate) max_loss: Option<f64>,

    /// Print JSON instead of a table.
    #[arg(long)]
    pub(crate) json: bool,

    /// Write the same to a file: as a page to look at where its name ends in .html, else as JSON; may be given twice.
    #[arg(long, value_name = "FILE")]
    pub(crate) report: Vec<PathBuf>,

    /// What runs both models: `tract`, which is part of this program; `ort`, ONNX Runtime; or `auto`: tract, unless it
    /// cannot run one of them or, on one sample, gives something else than ONNX Runtime.
    #[arg(long, value_enum, default_value_t = EngineName::Auto)]
    pub(crate) engine: EngineName,

    #[command(flatten)]
    pub(crate) runtime: RuntimeArgs,
}

#[derive(Debug, Args)]
pub(crate) struct ReportArgs {
    /// A report that --report wrote as JSON.
    #[arg(value_name = "OLD", required_unless_present = "schema")]
    pub(crate) old: Option<PathBuf>,

    /// A later one, to be compared with it.
    #[arg(value_name = "NEW", required_unless_present_any = ["html", "schema"], conflicts_with = "html")]
    pub(crate) new: Option<PathBuf>,

    /// Write the report as a page.
    #[arg(long, value_name = "FILE")]
    pub(crate) html: Option<PathBuf>,

    /// Print the JSON Schema of reports.
    #[arg(long, conflicts_with_all = ["old", "new", "html"])]
    pub(crate) schema: bool,
}

#[derive(Debug, Args)]
pub(crate) struct BenchArgs {
    /// The model.
    pub(crate) model: PathBuf,

    /// Another one, which is run in turns with it.
    pub(crate) other: Option<PathBuf>,

    /// Samples: whatever --calib takes when models are quantized; else one is made from the shapes of the inputs.
    #[arg(long = "calib", value_name = "PATH")]
    pub(crate) path: Option<PathBuf>,

    /// Print JSON instead of a table.
    #[arg(long)]
    pub(crate) json: bool,

    #[command(flatten)]
    pub(crate) data: DataArgs,

    /// Length of a symbolic dimension of the inputs, where no samples are given; may be repeated. Others are 1.
    #[arg(long = "dim", value_name = "NAME=N", value_parser = parse_length, conflicts_with = "path")]
    pub(crate) lengths: Vec<(String, usize)>,

    #[command(flatten)]
    pub(crate) runtime: RuntimeArgs,
}

/// Which ONNX Runtime.
#[derive(Debug, Args)]
pub(crate) struct RuntimeArgs {
    /// The library of ONNX Runtime, or the folder that holds it; else that of ORT_DYLIB_PATH, of the package
    /// `onnxruntime` of Python, or of the system. With `off` none is used, and accuracy is simulated.
    #[arg(long, value_name = "PATH")]
    pub(crate) ort_lib: Option<PathBuf>,

    /// The Python whose package is meant; else that of ONNXQUANT_PYTHON or VIRTUAL_ENV, else python3.
    #[arg(long, value_name = "PATH", value_hint = ValueHint::ExecutablePath, conflicts_with = "ort_lib")]
    pub(crate) python: Option<PathBuf>,
}

impl QuantizeArgs {
    pub(crate) fn config(&self) -> Result<Config, Error> {
        let config = self.settings.config()?;
        let of_budget = [("--average-bits", self.average_bits), ("--target-size", self.target_size)];
        for (option, _) in of_budget.into_iter().filter(|(_, given)| given.is_some()) {
            self.settings.check_open(option)?;
        }
        if self.settings.is_fp8() && self.save_plan.is_some() {
            let problem = "a plan holds bits, and FP8 weights have 8 in every layer: leave out --save-plan";
            return Err(Error::Usage(problem.to_owned()));
        }
        let budget = match (self.average_bits, self.target_size) {
            (Some(bits), _) => Some(Budget::AverageBits(bits)),
            (None, Some(megabytes)) => Some(Budget::TargetBytes((megabytes * 1e6).max(0.0) as u64)),
            (None, None) => self.settings.budget(),
        };
        let (engine, verify) = (self.engine.into(), self.verify.is_some());
        let allow_float = self.allow_float;
        let shard = self.finish.clone();
        let state = self.state.as_deref().map(store_at);
        Ok(Config { budget, state, shard, engine, verify, allow_float, ..config })
    }
}

fn parse_length(text: &str) -> Result<(String, usize), String> {
    let parts = text.split_once('=').and_then(|(name, n)| Some((name.to_owned(), n.parse().ok()?)));
    parts.filter(|(_, n)| *n > 0).ok_or_else(|| "expected a name and a length, for example batch=8".to_owned())
}
