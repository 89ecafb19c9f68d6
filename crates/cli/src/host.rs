//! Who runs the command: a terminal, or a program that it is part of.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use onnxquant::{Config, Measuring, Progress, Store, store_at};

/// Where the command runs.
#[derive(Clone, Debug, Default)]
pub struct Around {
    /// What starts it in a process of its own, before its arguments; empty where nothing does.
    pub program: Vec<OsString>,
    /// Folders with packages of the Python that it runs in, where it does and ONNX Runtime is one of them.
    pub packages: Vec<PathBuf>,
}

/// Whoever asked for a run.
#[derive(Clone, Copy)]
pub struct Host<'a> {
    /// The arguments, without the program's name.
    pub args: &'a [OsString],
    /// Where the command runs.
    pub around: &'a Around,
    /// Is told how far it is. It may unwind with [`Stopped`], which ends the run.
    pub progress: Progress<'a>,
    /// Says how good a model is, where the command names no other way.
    pub metric: Option<&'a Arc<Measuring>>,
    /// Where runs keep what they have done, in place of what `--state` names.
    pub store: Option<&'a Arc<dyn Store>>,
    /// Is told what may cost accuracy or is not as usual.
    pub warn: &'a (dyn Fn(&str) + Sync),
    /// Columns that tables may have; any number where nothing is said.
    pub columns: Option<usize>,
}

impl Host<'_> {
    /// Where a run keeps what it has done that names this place.
    pub(crate) fn store_at(&self, place: &Path) -> Arc<dyn Store> {
        self.store.map_or_else(|| store_at(place), Arc::clone)
    }

    /// The settings of a run that keeps what it has done where the host says.
    pub(crate) fn keeping(&self, config: Config) -> Config {
        Config { state: self.store.cloned().or(config.state), ..config }
    }
}

/// What a [`Host`] unwinds with to end a run; temporary files go, and nothing is written.
#[derive(Clone, Copy, Debug)]
pub struct Stopped;
