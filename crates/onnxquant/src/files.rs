//! Which files a run reads and which it writes, and whether it may.
//!
//! # Problem
//!
//! A result that gets its name by a rename replaces whatever had that name: an input, another result, a device. Paths
//! that differ may lead to one file: through links, as hard links, through `.` and `..`, or in another case where the
//! file system does not tell cases apart.
//!
//! # Method
//!
//! Every path of a run is listed in [`Files`] with what is done to it, and all are compared before the first is touched.
//! Two paths are one file if they lead to the same number on the same device. Of files that are still to be made the
//! deepest folder that exists is compared, and the names below it; where these differ in case only, the folder is asked
//! whether it tells them apart.
//!
//! # Guarantee
//!
//! No file that is written is one that is read or another that is written. Files that appear whole or not at all are
//! regular ones; reports may go to pipes, terminals and the standard output as well.

mod place;

use std::collections::BTreeSet;
use std::fs::{FileType, Metadata};
use std::path::{Path, PathBuf};

use onnxquant_calib::sample_files;
use onnxquant_ir::{PendingFile, external_files_of, external_path, sweep};
use onnxquant_storage::is_address;

use crate::config::{Config, DataConfig};
use crate::error::Error;
use crate::solve::state::{PLAN_NAME, RUN_NAME};
use place::Place;
pub(crate) use place::folder_of;

/// Digits in the name of a folder of solved layers.
const LAYERS_NAME_DIGITS: usize = 32;

/// The files of a run.
#[derive(Clone, Debug, Default)]
pub struct Files {
    entries: Vec<Entry>,
}

/// A file, and what is done to it.
#[derive(Clone, Debug)]
struct Entry {
    path: PathBuf,
    access: Access,
    /// What to say of something that would be written there as well.
    taken: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Access {
    Read,
    /// Appears whole or not at all: a regular file.
    Write,
    /// The same, perhaps.
    MayWrite,
    /// Text that may also go to pipes, terminals and the standard output.
    Report,
    /// A folder in which files are kept, made where it does not exist.
    Keep,
    /// A file in such a folder.
    Kept,
}

impl Files {
    /// What [`quantize`](crate::quantize) reads and writes with these arguments.
    pub fn of_run(input: &Path, output: &Path, data: Option<&DataConfig>, config: &Config) -> Self {
        Self::default()
            .reads("the input model", input)
            .writes("the output model", output)
            .entry(&external_path(output), Access::MayWrite, "it is the file for the weights of the output model")
            .reads_and_keeps(input, data, config)
    }

    /// The same where a folder is made, into which the model goes.
    pub(crate) fn of_folder(input: &Path, output: &Path, data: Option<&DataConfig>, config: &Config) -> Self {
        let files = Self::default().reads("the input model", input);
        let files = files.entry(output, Access::Keep, "it is the folder of the output");
        files.reads_and_keeps(input, data, config)
    }

    /// What stands beside the models.
    fn reads_and_keeps(self, input: &Path, data: Option<&DataConfig>, config: &Config) -> Self {
        let mut files = self;
        // A model that cannot be read is not written either.
        for path in external_files_of(input).unwrap_or_default() {
            files = files.entry(&path, Access::Read, "the input model keeps its weights there");
        }
        if let Some(data) = data {
            for path in sample_files(&data.path).unwrap_or_default() {
                files = files.reads("a calibration sample", &path);
            }
            if let Some(processor) = data.options.processor(&data.path) {
                files = files.reads("the configuration of a processor", &processor);
            }
            if let Some(tokenizer) = data.options.tokenizer() {
                files = files.reads("the tokenizer", &tokenizer);
            }
            files = data.cache.iter().fold(files, |files, path| files.writes("the calibration cache", path));
        }
        files = config.plan.iter().fold(files, |files, plan| files.reads("the plan of bits", plan.path()));
        let state = config.state.iter().filter_map(|state| state.folder());
        state.fold(files, |files, folder| files.keeps("the state", folder))
    }

    /// A file that is read; `what` it is, for messages: `the plan`.
    pub fn reads(self, what: &str, path: &Path) -> Self {
        self.entry(path, Access::Read, &format!("it is {what}, which is never overwritten"))
    }

    /// A regular file that is written.
    pub fn writes(self, what: &str, path: &Path) -> Self {
        self.entry(path, Access::Write, &format!("it is {what}"))
    }

    /// A text that is written to a file, to a pipe, or for `-` to the standard output.
    pub fn reports(self, what: &str, path: &Path) -> Self {
        self.entry(path, Access::Report, &format!("it is {what}"))
    }

    /// A folder in which a [state](Config::state) is kept.
    fn keeps(self, what: &str, folder: &Path) -> Self {
        let files = self.entry(folder, Access::Keep, &format!("it is the folder of {what}"));
        let taken = format!("{what} keeps a file there");
        [RUN_NAME, PLAN_NAME]
            .into_iter()
            .fold(files, |files, name| files.entry(&folder.join(name), Access::Kept, &taken))
    }

    /// What has an address is no file of this machine.
    fn entry(mut self, path: &Path, access: Access, taken: &str) -> Self {
        if is_address(path) {
            return self;
        }
        self.entries.push(Entry { path: path.to_owned(), access, taken: taken.to_owned() });
        self
    }

    /// Checks that nothing is overwritten that should not be, and that everything can be written where it shall be.
    ///
    /// # Errors
    /// The first path that cannot be used, and why.
    pub fn check(&self) -> Result<(), Error> {
        let places: Vec<Place> = self.entries.iter().map(Entry::place).collect();
        for (at, entry) in self.entries.iter().enumerate().filter(|(_, entry)| entry.access != Access::Read) {
            if let Some(problem) = entry.problem(&places[at]).or_else(|| self.taken(at, &places)) {
                return Err(Error::Output { path: entry.path.clone(), problem });
            }
        }
        Ok(())
    }

    /// Removes what runs that were killed left beside the files that are written.
    pub fn sweep(&self) {
        let written = self.entries.iter().filter(|entry| entry.access != Access::Read);
        written.map(|entry| folder_of(&entry.path)).collect::<BTreeSet<_>>().into_iter().for_each(sweep);
    }

    /// What else is at the place of an entry that is written; among such entries the earlier one is named.
    fn taken(&self, at: usize, places: &[Place]) -> Option<String> {
        let is_taken = |(other, (known, place)): &(usize, (&Entry, &Place))| {
            (*other < at || known.access == Access::Read) && places[at].is(place)
        };
        if let Some((_, (known, _))) = self.entries.iter().zip(places).enumerate().find(is_taken) {
            return Some(known.taken.clone());
        }
        let mut folders = self.entries.iter().filter(|entry| entry.access == Access::Keep);
        folders
            .any(|folder| is_kept_layer(&self.entries[at].path, &folder.path))
            .then(|| "the state keeps its layers there".to_owned())
    }
}

/// Whether no file can have that name: `..`, or `small/`.
fn names_folder(path: &Path) -> bool {
    path.file_name().is_none() || path.to_string_lossy().ends_with(std::path::is_separator)
}

impl Entry {
    fn place(&self) -> Place {
        match self.is_standard_output() {
            true => Place::StandardOutput,
            false => Place::of(&self.path),
        }
    }

    fn is_standard_output(&self) -> bool {
        self.access == Access::Report && is_standard_output(&self.path)
    }

    /// Why nothing can be written there.
    fn problem(&self, place: &Place) -> Option<String> {
        if *place == Place::StandardOutput {
            return None;
        }
        if self.access == Access::Write && self.path == Path::new("-") {
            return Some("only reports can go to the standard output; expected a file name".to_owned());
        }
        if let Ok(found) = std::fs::metadata(&self.path)
            && let Some(problem) = self.unsuitable(&found)
        {
            return Some(problem);
        }
        match self.access {
            Access::Read | Access::Keep | Access::Kept | Access::MayWrite => None,
            Access::Write | Access::Report if names_folder(&self.path) => {
                Some("it is a folder, expected a file name".to_owned())
            }
            Access::Write | Access::Report if !folder_of(&self.path).is_dir() => {
                Some("its folder does not exist".to_owned())
            }
            Access::Report if is_open_elsewhere(&self.path) => None,
            // Tried: what a folder says about itself is not all that may forbid it.
            Access::Write | Access::Report => PendingFile::create(&self.path).err().map(|error| error.to_string()),
        }
    }

    /// Why what is there cannot be written.
    fn unsuitable(&self, found: &Metadata) -> Option<String> {
        let kind = found.file_type();
        let is_fit = match self.access {
            Access::Read => true,
            Access::Write | Access::MayWrite | Access::Kept => kind.is_file(),
            Access::Report => kind.is_file() || is_stream(kind),
            Access::Keep => kind.is_dir(),
        };
        let wanted = match self.access {
            Access::Keep => "a folder",
            Access::Report => "a file name, a pipe or `-`",
            Access::Read | Access::Write | Access::MayWrite | Access::Kept => "a file name",
        };
        if self.access == Access::Write && kind.is_file() && place::standard_output().is_some_and(|out| out.is(found)) {
            return Some("it is the standard output".to_owned());
        }
        (!is_fit).then(|| format!("it is {}, expected {wanted}", name_of(kind)))
    }
}

/// Whether a report to `path` goes to the standard output: `-`, or a path that leads to what is open there.
pub fn is_standard_output(path: &Path) -> bool {
    path == Path::new("-")
        || std::fs::metadata(path).is_ok_and(|found| place::standard_output().is_some_and(|out| out.is(&found)))
}

/// Whether others have what a report goes to open and would not see a new file of its name: a pipe or a terminal, or what
/// the shell opened.
pub fn is_open_elsewhere(path: &Path) -> bool {
    let is_special = std::fs::metadata(path).is_ok_and(|found| !found.is_file());
    is_special || ["/dev/fd", "/dev/stderr", "/proc"].iter().any(|open| path.starts_with(open))
}

/// Whether `path` lies in one of the folders of solved layers of the state in `folder`.
fn is_kept_layer(path: &Path, folder: &Path) -> bool {
    let is_name = |name: &std::ffi::OsStr| {
        let name = name.to_string_lossy();
        name.len() == LAYERS_NAME_DIGITS && name.bytes().all(|byte| byte.is_ascii_hexdigit())
    };
    let of_layers = path.parent().filter(|layers| layers.file_name().is_some_and(is_name));
    of_layers.is_some_and(|layers| Place::of(folder_of(layers)).is(&Place::of(folder)))
}

/// What can only be written through.
fn is_stream(kind: FileType) -> bool {
    #[cfg(unix)]
    {
        use std::os::unix::fs::FileTypeExt;
        kind.is_fifo() || kind.is_char_device()
    }
    #[cfg(not(unix))]
    {
        let _ = kind;
        false
    }
}

fn name_of(kind: FileType) -> &'static str {
    match kind {
        _ if kind.is_dir() => "a folder",
        _ if kind.is_file() => "a file",
        _ if is_stream(kind) => "a pipe or a device",
        _ => "a device or a socket",
    }
}

/// Bytes of a model and of the files beside it.
pub(crate) fn model_bytes(model: &Path, external: &[PathBuf]) -> u64 {
    let size = |path: &Path| std::fs::metadata(path).map_or(0, |found| found.len());
    size(model) + external.iter().map(|path| size(path)).sum::<u64>()
}

#[cfg(all(test, unix))]
#[path = "files_tests.rs"]
mod tests;
