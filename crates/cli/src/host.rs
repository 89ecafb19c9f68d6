//! Who runs the command: a terminal, or a program that it is part of.

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;

use onnxquant::{Measuring, Progress};

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
    /// Is told what may cost accuracy or is not as usual.
    pub warn: &'a (dyn Fn(&str) + Sync),
    /// Columns that tables may have; any number where nothing is said.
    pub columns: Option<usize>,
}

/// What a [`Host`] unwinds with to end a run; temporary files go, and nothing is written.
#[derive(Clone, Copy, Debug)]
pub struct Stopped;
