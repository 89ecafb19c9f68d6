//! The options of the command as a table, for programs that offer them under other forms.

use clap::builder::ArgAction;
use clap::{Arg, Command};
use serde::Serialize;

use crate::args::{self, OF_PROCESS, PRINTS};

/// An option of the command, such as `--min-sqnr`.
#[derive(Clone, Debug, Serialize)]
pub struct CommandOption {
    /// Its name, without the dashes before it.
    pub name: String,
    /// What it is about.
    pub help: String,
    /// Whether a value follows it.
    pub takes_value: bool,
    /// Whether it may be given more than once.
    pub repeats: bool,
    /// What the value is called in the help.
    pub value_name: String,
    /// All values that it takes, where these are words.
    pub values: Vec<String>,
}

/// The options of a subcommand, or of the main command where none is named, in the order of its help. None of a
/// subcommand that there is not.
pub fn options(subcommand: Option<&str>) -> Vec<CommandOption> {
    let mut command = args::command();
    command.build();
    let found = match subcommand {
        None => Some(&command),
        Some(name) => command.find_subcommand(name),
    };
    found.map(of_command).unwrap_or_default()
}

fn of_command(command: &Command) -> Vec<CommandOption> {
    let asks_about_itself = |arg: &Arg| {
        matches!(arg.get_action(), ArgAction::Help | ArgAction::HelpShort | ArgAction::HelpLong | ArgAction::Version)
    };
    // Some print, and nothing is quantized; others are the process's own.
    let is_apart = |arg: &Arg| PRINTS.iter().chain(&OF_PROCESS).any(|id| arg.get_id() == *id);
    let is_offered =
        |arg: &&Arg| !arg.is_positional() && !arg.is_hide_set() && !asks_about_itself(arg) && !is_apart(arg);
    command.get_arguments().filter(is_offered).filter_map(of_arg).collect()
}

fn of_arg(arg: &Arg) -> Option<CommandOption> {
    let takes_value = arg.get_action().takes_values();
    let names = arg.get_value_names().filter(|_| takes_value);
    let values = if takes_value { arg.get_possible_values() } else { Vec::new() };
    Some(CommandOption {
        name: arg.get_long()?.to_owned(),
        help: arg.get_help().map(ToString::to_string).unwrap_or_default(),
        takes_value,
        repeats: matches!(arg.get_action(), ArgAction::Append),
        value_name: names.and_then(|names| names.first()).map(ToString::to_string).unwrap_or_default(),
        values: values.iter().map(|value| value.get_name().to_owned()).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_told_with_their_values() {
        let all = options(None);
        let of = |name: &str| all.iter().find(|option| option.name == name).cloned();
        let scheme = of("scheme").unwrap();
        assert!(scheme.takes_value && !scheme.repeats && scheme.values.contains(&"w8a8".to_owned()), "{scheme:?}");
        assert!(of("include").unwrap().repeats);
        assert!(!of("allow-float").unwrap().takes_value);
        assert!(of("threads").is_some() && of("calib").is_some());
        assert!(of("config").is_some() && of("preset").is_some());
        for hidden in ["help", "version", "try-engines", "print-config", "config-schema", "max-memory"] {
            assert!(of(hidden).is_none(), "{hidden}");
        }
    }

    #[test]
    fn every_subcommand_has_options_of_its_own() {
        let has = |command: &str, name: &str| options(Some(command)).iter().any(|option| option.name == name);
        assert!(has("compare", "data") && has("bench", "dim") && has("inspect", "passes"));
        assert!(has("compare", "threads") && !has("compare", "scheme"));
        assert!(options(Some("none")).is_empty());
    }
}
