//! Reads a configuration file. Its keys are the options of the command, by the same names.

use std::any::TypeId;
use std::fs::File;
use std::io::Read;
use std::ops::Range;
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow, bail};
use clap::{Arg, ArgAction, Command, ValueHint};
use onnxquant::storage::is_address;
use onnxquant::{LayerRule, LayerRuleError};
use toml::Spanned;
use toml::de::{DeString, DeTable, DeValue};

/// Longer files are no configuration.
const MOST_BYTES: u64 = 1 << 20;
/// Options that say what to do with the configuration, or whether anything is done at all, and those that only this program
/// gives itself.
const NO_KEYS: [&str; 8] =
    ["config", "preset", "print-config", "config-schema", "dry-run", "try-engines", "help", "version"];
/// The key of the file or the preset that is read before.
pub(super) const EXTENDS: &str = "extends";

/// A file or a preset.
pub(super) struct Source {
    /// As messages call it.
    pub(super) name: String,
    /// To which its paths are relative.
    pub(super) folder: PathBuf,
    pub(super) text: String,
}

/// An option that a file gives.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    /// The option by the name of its field.
    pub(super) id: String,
    /// What is typed on a command line for it; nothing for a switch that is off.
    pub(super) words: Vec<String>,
    /// Where it stands.
    pub(super) place: String,
}

/// What a file says.
#[derive(Debug, Default)]
pub(super) struct Said {
    pub(super) extends: Option<String>,
    pub(super) entries: Vec<Entry>,
}

/// The options that are keys of a file.
pub(super) fn keys(command: &Command) -> impl Iterator<Item = (&str, &Arg)> {
    let named = command.get_arguments().filter_map(|arg| Some((arg.get_long()?, arg)));
    named.filter(|(name, _)| !NO_KEYS.contains(name))
}

/// Whether an option is a switch.
pub(super) fn is_switch(arg: &Arg) -> bool {
    matches!(arg.get_action(), ArgAction::SetTrue)
}

/// Whether an option may be repeated.
pub(super) fn is_list(arg: &Arg) -> bool {
    matches!(arg.get_action(), ArgAction::Append)
}

/// Whether the values of an option are rules for layers, tables in a file.
pub(super) fn takes_rules(arg: &Arg) -> bool {
    arg.get_value_parser().type_id() == TypeId::of::<LayerRule>()
}

/// Whether this value of an option is a path that depends on the folder where it is read: words are none, and neither is
/// the name of a program that is looked up.
pub(super) fn is_relative_path(arg: &Arg, value: &str) -> bool {
    let is_path = match arg.get_value_hint() {
        ValueHint::AnyPath => !["-", "off"].contains(&value),
        ValueHint::ExecutablePath => value.contains(std::path::is_separator),
        _ => false,
    };
    is_path && Path::new(value).is_relative() && !is_address(Path::new(value))
}

impl Source {
    pub(super) fn read(path: &Path) -> anyhow::Result<Self> {
        let name = format!("`{}`", path.display());
        let text = text_of(path).with_context(|| format!("cannot read the configuration {name}"))?;
        let folder = path.parent().map_or_else(PathBuf::new, Path::to_owned);
        Ok(Self { name, folder, text })
    }

    /// What it says, with the words of a command line.
    pub(super) fn said(&self, command: &Command) -> anyhow::Result<Said> {
        let table = DeTable::parse(&self.text).map_err(|error| {
            let place = error.span().map_or_else(|| self.name.clone(), |span| self.place(&span));
            anyhow!("{place}: this is no TOML: {}", error.message())
        })?;
        let mut said = Said::default();
        // In the order of the file, so that the first mistake is the one that is told.
        let mut rows: Vec<_> = table.get_ref().iter().collect();
        rows.sort_by_key(|(key, _)| key.span().start);
        for (key, value) in rows {
            self.add(command, key, value, &mut said)?;
        }
        Ok(said)
    }

    fn add(
        &self,
        command: &Command,
        key: &Spanned<DeString<'_>>,
        value: &Spanned<DeValue<'_>>,
        said: &mut Said,
    ) -> anyhow::Result<()> {
        let (given, place) = (key.get_ref().as_ref(), self.place(&key.span()));
        if given == EXTENDS {
            let text = value.get_ref().as_str();
            said.extends = Some(text.with_context(|| wrong_type(&place, given, "a name or a file", value))?.to_owned());
            return Ok(());
        }
        let name = given.replace('_', "-");
        let Some((_, arg)) = keys(command).find(|(known, _)| *known == name) else {
            bail!("{place}: no setting is called `{given}`{}", nearest(&name, keys(command).map(|(known, _)| known)));
        };
        let id = arg.get_id().to_string();
        if said.entries.iter().any(|entry| entry.id == id) {
            bail!("{place}: `{name}` is given twice, with `-` and with `_`");
        }
        let words = self.words(&name, arg, value, &place)?;
        said.entries.push(Entry { id, words, place });
        Ok(())
    }

    /// What is typed for a key and its value.
    fn words(&self, name: &str, arg: &Arg, value: &Spanned<DeValue<'_>>, place: &str) -> anyhow::Result<Vec<String>> {
        let found = value.get_ref();
        if is_switch(arg) {
            let on = found.as_bool().with_context(|| wrong_type(place, name, "true or false", value))?;
            return Ok(if on { vec![format!("--{name}")] } else { Vec::new() });
        }
        let parts = match found.as_array() {
            Some(array) => array.iter().collect(),
            None => vec![value],
        };
        if takes_rules(arg) {
            let rules = parts.into_iter().map(|part| self.rule(name, part));
            return rules.map(|rule| Ok(format!("--{name}={}", rule?))).collect();
        }
        let texts: Option<Vec<String>> = parts.into_iter().map(|part| text(part.get_ref())).collect();
        let wanted = if is_list(arg) { "a text or a list of texts" } else { "a text or a number" };
        let texts = texts.with_context(|| wrong_type(place, name, wanted, value))?;
        // Elsewhere a list is one value, as in `--mean 0.5,0.4,0.3`.
        let texts = if is_list(arg) { texts } else { vec![texts.join(",")] };
        Ok(texts.iter().map(|text| format!("--{name}={}", self.resolved(arg, text))).collect())
    }

    /// A rule for layers: a table, or its text.
    fn rule(&self, name: &str, value: &Spanned<DeValue<'_>>) -> anyhow::Result<LayerRule> {
        let place = self.place(&value.span());
        let table = value.get_ref().as_table();
        let text = match table {
            Some(table) => self.inline(table),
            None => value.get_ref().as_str().with_context(|| wrong_type(&place, name, "a table", value))?.to_owned(),
        };
        text.parse().map_err(|error: LayerRuleError| {
            let is_named = |key: &&Spanned<DeString<'_>>| Some(key.get_ref().as_ref()) == error.key();
            let key = table.and_then(|table| table.keys().find(is_named));
            anyhow!("{}: {error}", key.map_or(place, |key| self.place(&key.span())))
        })
    }

    /// A table of the file on one line.
    fn inline(&self, table: &DeTable<'_>) -> String {
        let source = |span: Range<usize>| self.text.get(span).unwrap_or_default();
        let pair = |(key, value): (&Spanned<DeString<'_>>, &Spanned<DeValue<'_>>)| {
            format!("{} = {}", source(key.span()), source(value.span()))
        };
        format!("{{ {} }}", table.iter().map(pair).collect::<Vec<_>>().join(", "))
    }

    /// A path of the file as the process sees it.
    fn resolved(&self, arg: &Arg, text: &str) -> String {
        match is_relative_path(arg, text) {
            true => self.folder.join(text).to_string_lossy().into_owned(),
            false => text.to_owned(),
        }
    }

    /// A place in the file, as messages have it.
    pub(super) fn place(&self, span: &Range<usize>) -> String {
        let before = self.text.get(..span.start).unwrap_or(&self.text);
        format!("{}, line {}", self.name, before.matches('\n').count() + 1)
    }
}

/// What stands in a file that is not too long; it may be a pipe.
fn text_of(path: &Path) -> anyhow::Result<String> {
    let mut text = String::new();
    let read = File::open(path)?.take(MOST_BYTES + 1).read_to_string(&mut text)?;
    if read as u64 > MOST_BYTES {
        bail!("it has more than {MOST_BYTES} bytes");
    }
    Ok(text)
}

/// A text or a number as it stands in the file.
fn text(value: &DeValue<'_>) -> Option<String> {
    match value {
        DeValue::String(text) => Some(text.to_string()),
        DeValue::Integer(number) if number.radix() == 10 => Some(number.as_str().to_owned()),
        DeValue::Float(number) => Some(number.as_str().to_owned()),
        _ => None,
    }
}

fn wrong_type(place: &str, name: &str, wanted: &str, value: &Spanned<DeValue<'_>>) -> String {
    format!("{place}: `{name}` is {wanted}, and this is of type {}", value.get_ref().type_str())
}

/// The name that is most like `name`, as an end of a message.
pub(super) fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> String {
    let known = known.map(|known| (strsim::jaro_winkler(name, known), known));
    let best = known.max_by(|(a, _), (b, _)| a.total_cmp(b));
    best.map_or(String::new(), |(_, known)| format!("; the nearest one is `{known}`"))
}
