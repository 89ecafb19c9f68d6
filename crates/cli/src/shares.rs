//! Several processes make one model: what each of them does.
//!
//! `calibrate` notes in the folder of the run what it was asked for; `solve` and `finish` find it there.

use std::ffi::OsString;
use std::fs;
use std::io::Write;
use std::path::Path;

use anyhow::{Context, bail};
use onnxquant::storage::is_address;
use onnxquant::{Config, DataConfig, Duty, Error, GivenModel, PendingFile, Shard, model_file};

use crate::NAME;
use crate::answer::Failure;
use crate::args::{Command, Elsewhere, FinishArgs, QuantizeArgs, RuntimeArgs, ShardArgs, SolveArgs};
use crate::configuration::{self, Asked};
use crate::host::Host;
use crate::quantize::engines;
use crate::trial::Survivors;

/// In the folder of a run: its settings, as --config reads them, and the path of the model.
const SETTINGS: &str = "settings.toml";
const INPUT: &str = "input.txt";
/// Stands where the main command has OUT.
const NO_OUTPUT: &str = "nothing-is-written";

/// What the words of `calibrate` ask for; the first of them is `calibrate`.
pub(crate) fn calibrate(args: &[OsString]) -> Result<Asked, Failure> {
    let program = OsString::from(format!("{NAME} calibrate"));
    let mut asked = configuration::read_calibrate(std::iter::once(program).chain(args[1..].iter().cloned()).collect())?;
    if asked.cli.quantize.output.is_some() {
        return Err(anyhow::anyhow!("`calibrate` writes no model: leave out OUT, and give it to `finish`").into());
    }
    if let (Some(input), Some(state)) = (&asked.cli.quantize.input, &asked.cli.quantize.state) {
        asked.words = Some(main_words(input.as_os_str(), NO_OUTPUT.as_ref(), state));
    }
    Ok(asked)
}

/// What `solve` asks for, with what `calibrate` was asked for.
pub(crate) fn solve(args: SolveArgs) -> Result<Asked, Failure> {
    let input = noted_input(&args.state, &args.shard.shard(Duty::Solve)?)?;
    let input = args.elsewhere.model.clone().map_or(input, OsString::from);
    let words = main_words(&input, NO_OUTPUT.as_ref(), &args.state);
    let program = OsString::from(format!("{NAME} calibrate"));
    let typed = [program, input].into_iter().chain(words[2..].iter().cloned()).chain(args.elsewhere.words());
    let mut asked = configuration::read_calibrate(typed.collect())?;
    asked.words = Some(words);
    asked.cli.command = Some(Command::Solve(args));
    Ok(asked)
}

/// What `finish` asks for: the run that `calibrate` began, as the main command does it.
pub(crate) fn finish(args: &FinishArgs) -> Result<Asked, Failure> {
    let share = args.shard()?;
    let input = noted_input(&args.state, &share)?;
    let input = args.elsewhere.model.clone().map_or(input, OsString::from);
    let mut words = main_words(&input, args.output.as_os_str(), &args.state);
    words.extend(args.elsewhere.words());
    for path in &args.report {
        words.extend(["--report".into(), path.into()]);
    }
    let mut asked = configuration::read(std::iter::once(OsString::from(NAME)).chain(words.iter().cloned()))?;
    asked.words = Some(words);
    asked.cli.quantize.finish = Some(share);
    Ok(asked)
}

impl Elsewhere {
    /// As words of the main command.
    fn words(&self) -> Vec<OsString> {
        let mut words = Vec::new();
        let RuntimeArgs { ort_lib, python } = &self.runtime;
        let paths = [("--calib", &self.calib), ("--ort-lib", ort_lib), ("--python", python)];
        for (name, path) in paths.into_iter().filter_map(|(name, path)| Some((name, path.as_ref()?))) {
            words.extend([name.into(), path.into()]);
        }
        if let Some(log) = self.telling.log {
            words.extend(["--log".into(), log.word().into()]);
        }
        if self.telling.quiet {
            words.push("--quiet".into());
        }
        words
    }
}

fn main_words(input: &std::ffi::OsStr, output: &std::ffi::OsStr, state: &Path) -> Vec<OsString> {
    let settings = state.join(SETTINGS);
    [input, output, "--config".as_ref(), settings.as_os_str(), "--state".as_ref(), state.as_os_str()]
        .map(OsString::from)
        .into()
}

/// The path of the model that a run was begun with; it is waited for.
fn noted_input(state: &Path, share: &Shard) -> Result<OsString, Failure> {
    let path = state.join(INPUT);
    let look = || Ok((path.exists() && state.join(SETTINGS).exists()).then_some(()));
    let problem = || format!("no process has begun to calibrate in `{}`", state.display());
    share.wait_for(look, problem)?;
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read `{}`", path.display()))?;
    Ok(OsString::from(text.trim_end_matches('\n')))
}

/// Does the share of this process.
pub(crate) fn run(asked: &Asked, duty: Duty, shard: &ShardArgs, host: &Host<'_>) -> anyhow::Result<String> {
    let args = &asked.cli.quantize;
    let (Some(input), Some(state)) = (&args.input, &args.state) else { bail!("IN and --state are needed") };
    let share = shard.shard(duty)?;
    let begun = match duty {
        Duty::Calibrate => begin(asked, input, state)?,
        Duty::Solve | Duty::Finish => false,
    };
    let done = work(args, Config { shard: Some(share), ..args.config()? }, host);
    if begun && matches!(done.as_ref().map_err(anyhow::Error::downcast_ref), Err(Some(Error::State { .. }))) {
        // It is of another run, which was not begun in this way.
        [SETTINGS, INPUT].iter().try_for_each(|name| fs::remove_file(state.join(name)))?;
    }
    done?;
    Ok(String::new())
}

fn work(args: &QuantizeArgs, config: Config, host: &Host<'_>) -> anyhow::Result<()> {
    let Some(input) = &args.input else { bail!("IN is needed") };
    let given = GivenModel::open(input)?;
    let model = model_file(given.path())?;
    let cache = args.calibration_cache.clone();
    let data = args.calib.clone().map(|path| DataConfig { cache, ..args.data.config(path, &model) });
    let Survivors { engine, runtime } = engines(args, &given, host)?;
    let config = Config { engine, runtime, ..config };
    Ok(onnxquant::share(&model, data.as_ref(), &config, host.progress)?)
}

/// Notes in the folder what the run was begun with; whether nothing was noted before.
fn begin(asked: &Asked, input: &Path, state: &Path) -> anyhow::Result<bool> {
    let settings = state.join(SETTINGS);
    if settings.exists() {
        return Ok(false);
    }
    fs::create_dir_all(state).with_context(|| format!("cannot make the folder `{}`", state.display()))?;
    let input = if is_address(input) { input.to_owned() } else { std::path::absolute(input)? };
    let Some(input) = input.to_str() else { bail!("the path of the model is no text in UTF-8: `{}`", input.display()) };
    // The settings come last: where they are, all is.
    for (path, text) in [(state.join(INPUT), format!("{input}\n")), (settings, asked.shared_text())] {
        let write = || {
            let mut file = PendingFile::create(&path)?;
            file.file().write_all(text.as_bytes())?;
            file.commit()
        };
        write().with_context(|| format!("cannot write `{}`", path.display()))?;
    }
    Ok(true)
}
