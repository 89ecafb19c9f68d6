//! Which arguments may be addresses (`s3://bucket/model.onnx`), and which are paths of this machine.

use std::any::TypeId;
use std::path::{Path, PathBuf};

use clap::{ArgMatches, Command};
use onnxquant::Error;
use onnxquant::storage::{is_address, without_secrets};

/// Those whose files are read or written wherever they lie, by the names of their fields.
const ANYWHERE: [&str; 14] = [
    "input",
    "output",
    "calib",
    "model",
    "first",
    "second",
    "other",
    "path",
    "report",
    "save_plan",
    "state",
    "html",
    "tokenizer",
    "preprocessor",
];

/// Refuses addresses where files of this machine are needed.
///
/// # Errors
/// The first such argument.
pub(crate) fn check_places(command: &Command, matches: &ArgMatches) -> Result<(), Error> {
    let paths = command.get_arguments().filter(|arg| arg.get_value_parser().type_id() == TypeId::of::<PathBuf>());
    for arg in paths.filter(|arg| !ANYWHERE.contains(&arg.get_id().as_str())) {
        let values = matches.try_get_raw(arg.get_id().as_str()).ok().flatten().into_iter().flatten();
        if let Some(value) = values.map(Path::new).find(|value| is_address(value)) {
            let (arg, value) = (arg.to_string(), without_secrets(&value.to_string_lossy()));
            return Err(Error::Usage(format!("{arg} takes a path of this machine, and `{value}` is an address")));
        }
    }
    match matches.subcommand().and_then(|(name, inner)| Some((command.find_subcommand(name)?, inner))) {
        Some((command, inner)) => check_places(command, inner),
        None => Ok(()),
    }
}
