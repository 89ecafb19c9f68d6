//! Several processes make one model: what each of them does.
//!
//! `calibrate` notes beside what the run keeps what it was asked for; `solve` and `finish` find it there.

use std::ffi::{OsStr, OsString};
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use onnxquant::storage::is_address;
use onnxquant::{Config, DataConfig, Duty, Error, GivenModel, Shard, Store, model_file};
use onnxquant_temporary::TempFile;

use crate::NAME;
use crate::answer::Failure;
use crate::args::{Command, Elsewhere, FinishArgs, QuantizeArgs, RuntimeArgs, ShardArgs, SolveArgs};
use crate::configuration::{self, Asked};
use crate::host::Host;
use crate::quantize::engines;
use crate::trial::Survivors;

/// What is noted of a run: its settings, as --config reads them, and the path of the model.
const SETTINGS: &str = "settings.toml";
const INPUT: &str = "input.txt";
/// How the file begins that they are copied to where they are in no folder.
const COPY: &str = "onnxquant-settings-";
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
        let words = [input.as_os_str(), NO_OUTPUT.as_ref()];
        asked.words = Some(main_words(words, &state.join(SETTINGS), state));
    }
    Ok(asked)
}

/// What `solve` asks for, with what `calibrate` was asked for.
pub(crate) fn solve(args: SolveArgs, host: &Host<'_>) -> Result<Asked, Failure> {
    let Noted { input, settings, held } = Noted::read(&args.state, &args.shard.shard(Duty::Solve)?, host)?;
    let input = args.elsewhere.model.clone().map_or(input, OsString::from);
    let words = main_words([&input, NO_OUTPUT.as_ref()], &settings, &args.state);
    let program = OsString::from(format!("{NAME} calibrate"));
    let typed = [program, input].into_iter().chain(words[2..].iter().cloned()).chain(args.elsewhere.words());
    let mut asked = configuration::read_calibrate(typed.collect())?;
    (asked.words, asked.held) = (Some(words), held);
    asked.cli.command = Some(Command::Solve(args));
    Ok(asked)
}

/// What `finish` asks for: the run that `calibrate` began, as the main command does it.
pub(crate) fn finish(args: &FinishArgs, host: &Host<'_>) -> Result<Asked, Failure> {
    let share = args.shard()?;
    let Noted { input, settings, held } = Noted::read(&args.state, &share, host)?;
    let input = args.elsewhere.model.clone().map_or(input, OsString::from);
    let mut words = main_words([&input, args.output.as_os_str()], &settings, &args.state);
    words.extend(args.elsewhere.words());
    for path in &args.report {
        words.extend(["--report".into(), path.into()]);
    }
    let mut asked = configuration::read(std::iter::once(OsString::from(NAME)).chain(words.iter().cloned()))?;
    (asked.words, asked.held) = (Some(words), held);
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

fn main_words([input, output]: [&OsStr; 2], settings: &Path, state: &Path) -> Vec<OsString> {
    [input, output, "--config".as_ref(), settings.as_os_str(), "--state".as_ref(), state.as_os_str()]
        .map(OsString::from)
        .into()
}

/// What a run was begun with.
struct Noted {
    /// The path of the model.
    input: OsString,
    /// A file with the settings.
    settings: PathBuf,
    /// The same, where it goes with this value.
    held: Option<TempFile>,
}

impl Noted {
    /// Reads it; it is waited for.
    fn read(state: &Path, share: &Shard, host: &Host<'_>) -> Result<Self, Failure> {
        let store = host.store_at(state);
        let note = |name: &str| {
            let failed = |error: std::io::Error| Error::State { path: state.join(name), problem: error.to_string() };
            store.read(name).map_err(failed)
        };
        let look = || Ok(note(INPUT)?.zip(note(SETTINGS)?));
        let problem = || format!("no process has begun to calibrate in `{}`", state.display());
        let (input, settings) = share.wait_for(look, problem)?;
        let input = OsString::from(String::from_utf8_lossy(&input).trim_end_matches('\n'));
        if let Some(folder) = store.folder() {
            return Ok(Self { input, settings: folder.join(SETTINGS), held: None });
        }
        let held = copy(&settings).context("cannot write a temporary file (TMPDIR)")?;
        Ok(Self { input, settings: held.path().to_owned(), held: Some(held) })
    }
}

fn copy(settings: &[u8]) -> std::io::Result<TempFile> {
    let mut file = TempFile::new_in(&std::env::temp_dir(), COPY)?;
    file.as_file_mut().write_all(settings)?;
    Ok(file)
}

/// Does the share of this process.
pub(crate) fn run(asked: &Asked, duty: Duty, shard: &ShardArgs, host: &Host<'_>) -> anyhow::Result<String> {
    let args = &asked.cli.quantize;
    let (Some(input), Some(state)) = (&args.input, &args.state) else { bail!("IN and --state are needed") };
    let (share, store) = (shard.shard(duty)?, host.store_at(state));
    let begun = match duty {
        Duty::Calibrate => begin(asked, input, store.as_ref())?,
        Duty::Solve | Duty::Finish => false,
    };
    let done = work(args, Config { shard: Some(share), ..host.keeping(args.config()?) }, host);
    if begun && matches!(done.as_ref().map_err(anyhow::Error::downcast_ref), Err(Some(Error::State { .. }))) {
        // It is of another run, which was not begun in this way.
        [SETTINGS, INPUT].iter().try_for_each(|name| store.remove(name))?;
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

/// Notes what the run was begun with; whether nothing was noted before.
fn begin(asked: &Asked, input: &Path, store: &dyn Store) -> anyhow::Result<bool> {
    let place = store.place();
    let failed = |problem: std::io::Error| Error::State { path: place.clone(), problem: problem.to_string() };
    if store.has(SETTINGS).map_err(failed)? {
        return Ok(false);
    }
    store.open().map_err(failed)?;
    let input = if is_address(input) { input.to_owned() } else { std::path::absolute(input)? };
    let Some(input) = input.to_str() else { bail!("the path of the model is no text in UTF-8: `{}`", input.display()) };
    // The settings come last: where they are, all is.
    for (name, text) in [(INPUT, format!("{input}\n")), (SETTINGS, asked.shared_text())] {
        let written = store.write(name, text.into_bytes(), false);
        written.with_context(|| format!("cannot write `{}`", place.join(name).display()))?;
    }
    Ok(true)
}
