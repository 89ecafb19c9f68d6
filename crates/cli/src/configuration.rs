//! What a run is asked for: options of the command line, then those of `--config`, then those of a preset, then defaults.
//!
//! A file is turned into the words of a command line, and these are read with the ones that were typed. So every option is
//! a key, its values are checked in one place, and a file cannot say what the command line cannot.

mod file;
mod print;

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::{anyhow, bail};
use clap::error::{ContextKind, ContextValue};
use clap::parser::ValueSource;
use clap::{ArgMatches, Command, FromArgMatches};
use onnxquant_temporary::TempFile;

use crate::answer::Failure;
use crate::args::{self, CalibrateCommand, Cli, presets};
use file::{Entry, Source, keys, nearest};

/// Files that extend one another.
const MOST_FILES: usize = 8;

/// Options that say nothing of the result, and may differ from process to process.
const OF_ONE_PROCESS: [&str; 7] = ["state", "report", "save_plan", "threads", "max_memory", "quiet", "log"];

/// What was asked for.
pub(crate) struct Asked {
    pub(crate) cli: Cli,
    /// The words of the main command that ask for the same, where those of another one were typed.
    pub(crate) words: Option<Vec<OsString>>,
    /// A file that the words name, as long as it is needed.
    pub(crate) held: Option<TempFile>,
    /// The options that the user gave, on the command line or in a file; what a preset says is not among them.
    given: BTreeSet<String>,
    matches: ArgMatches,
}

/// What one file says, and whether it is the user's.
struct Level {
    entries: Vec<Entry>,
    is_preset: bool,
}

/// Reads the command line, and the files that it names. The first word is the
/// program's name.
pub(crate) fn read(words: impl Iterator<Item = OsString>) -> Result<Asked, Failure> {
    read_as(words.collect(), args::command, Cli::from_arg_matches)
}

/// The same of the words of `calibrate`, which are those of the main command and some more.
pub(crate) fn read_calibrate(words: Vec<OsString>) -> Result<Asked, Failure> {
    read_as(words, args::calibrate, |matches| CalibrateCommand::from_arg_matches(matches).map(Cli::from))
}

fn read_as(
    typed_words: Vec<OsString>,
    line: fn() -> Command,
    cli: fn(&ArgMatches) -> Result<Cli, clap::Error>,
) -> Result<Asked, Failure> {
    let mut command = args::command();
    command.build();
    // What is wrong on the command line is told below, once the files are read with it.
    let typed = line().ignore_errors(true).try_get_matches_from(&typed_words)?;
    let given = given(&command, &typed);
    let levels = levels(&command, &typed)?;
    let kept = kept(&command, &levels, &given);
    let of_files = kept.iter().flat_map(|entry| entry.words.iter().map(OsString::from));
    let words = typed_words.first().cloned().into_iter().chain(of_files);
    let words: Vec<OsString> = words.chain(typed_words.into_iter().skip(1)).collect();
    let matches = line().try_get_matches_from(words);
    let matches = matches.map_err(|error| told(&command, error, &kept))?;
    args::check_places(&command, &matches)?;
    let cli = cli(&matches)?;
    let own = levels.iter().filter(|level| !level.is_preset).flat_map(|level| &level.entries);
    let own = own.filter(|entry| !entry.words.is_empty()).map(|entry| entry.id.clone());
    Ok(Asked { cli, words: None, held: None, given: given.into_iter().chain(own).collect(), matches })
}

impl Asked {
    /// Whether the user gave this option, by the name of its field.
    pub(crate) fn is_given(&self, id: &str) -> bool {
        self.given.contains(id)
    }

    /// The whole configuration as a file.
    pub(crate) fn text(&self) -> String {
        print::effective(&args::command(), &self.matches, &self.cli.quantize, &[])
    }

    /// The same without what is about one process, for others that do a share of the run.
    pub(crate) fn shared_text(&self) -> String {
        print::effective(&args::command(), &self.matches, &self.cli.quantize, &OF_ONE_PROCESS)
    }
}

/// The JSON Schema of configuration files.
pub(crate) fn schema() -> anyhow::Result<String> {
    Ok(serde_json::to_string_pretty(&print::schema(&args::command()))? + "\n")
}

/// The options that were typed.
fn given(command: &Command, typed: &ArgMatches) -> BTreeSet<String> {
    let ids = keys(command).map(|(_, arg)| arg.get_id().as_str());
    ids.filter(|id| typed.value_source(id) == Some(ValueSource::CommandLine)).map(str::to_owned).collect()
}

/// What the files say, the one that gives way to all others first.
fn levels(command: &Command, typed: &ArgMatches) -> anyhow::Result<Vec<Level>> {
    let preset = typed.get_one::<String>("preset").cloned();
    let (mut levels, mut next) = (Vec::new(), typed.get_one::<PathBuf>("config").cloned());
    let mut base = preset.clone();
    while let Some(path) = next.take() {
        if levels.len() == MOST_FILES {
            bail!("`{}`: more than {MOST_FILES} files extend one another", path.display());
        }
        let source = Source::read(&path)?;
        let said = source.said(command)?;
        levels.push(Level { entries: said.entries, is_preset: false });
        let is_file = |name: &String| Path::new(name).extension().is_some_and(|extension| extension == "toml");
        match said.extends.filter(|_| preset.is_none()) {
            Some(name) if is_file(&name) => next = Some(source.folder.join(name)),
            Some(name) if presets::text(&name).is_none() => {
                let like = nearest(&name, presets::names().into_iter());
                bail!(
                    "{}: `extends` is a file (*.toml) or a preset, and no preset is called `{name}`{like}",
                    source.name
                );
            }
            name => base = base.or(name),
        }
    }
    if let Some((name, text)) = base.and_then(|name| presets::text(&name).map(|text| (name, text))) {
        let (name, folder) = (format!("the preset `{name}`"), PathBuf::new());
        let said = Source { name, folder, text: text.to_owned() }.said(command)?;
        levels.push(Level { entries: said.entries, is_preset: true });
    }
    levels.reverse();
    Ok(levels)
}

/// What is left of the files: no option that stands higher up, and none that contradicts one there.
fn kept(command: &Command, levels: &[Level], given: &BTreeSet<String>) -> Vec<Entry> {
    let conflicts = conflicts(command);
    let (mut above, mut on) = (given.clone(), given.clone());
    let mut kept = Vec::new();
    for level in levels.iter().rev() {
        let is_free = |entry: &&Entry| {
            let contradicts = conflicts.get(&entry.id).is_some_and(|others| !others.is_disjoint(&on));
            !above.contains(&entry.id) && !contradicts
        };
        let left: Vec<Entry> = level.entries.iter().filter(is_free).cloned().collect();
        above.extend(left.iter().map(|entry| entry.id.clone()));
        on.extend(left.iter().filter(|entry| !entry.words.is_empty()).map(|entry| entry.id.clone()));
        kept.splice(0..0, left);
    }
    kept
}

/// Options that cannot stand beside each other.
fn conflicts(command: &Command) -> BTreeMap<String, BTreeSet<String>> {
    let mut found: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (_, arg) in keys(command) {
        for other in command.get_arg_conflicts_with(arg) {
            let pair = [arg, other].map(|arg| arg.get_id().to_string());
            found.entry(pair[0].clone()).or_default().insert(pair[1].clone());
            found.entry(pair[1].clone()).or_default().insert(pair[0].clone());
        }
    }
    found
}

/// What is wrong with a value that stands in a file, with its place; the rest is as clap says it.
fn told(command: &Command, error: clap::Error, kept: &[Entry]) -> Failure {
    let Some(ContextValue::String(named)) = error.get(ContextKind::InvalidArg) else { return error.into() };
    let arg = keys(command).find(|(_, arg)| arg.to_string() == *named);
    let entry = arg.and_then(|(_, arg)| kept.iter().find(|entry| entry.id == arg.get_id().as_str()));
    let Some(entry) = entry else { return error.into() };
    anyhow!("{}: {}", entry.place, Failure::from(error).message()).into()
}
