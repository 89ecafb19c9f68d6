//! `onnxquant._native`: the command inside Python.
//!
//! A run goes on in threads of its own without Python's lock. The thread that called waits, and hands everything that is
//! told on the way to Python: so callables of the user are called where the user called, and Ctrl-C is seen at once.

// The macros of pyo3 write unsafe code; none is written by hand.
#![allow(unsafe_code)]

mod job;

use std::ffi::OsString;
use std::path::PathBuf;

use onnxquant_cli::{Around, command, end_on_signals, options};
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;

use crate::job::{Has, Job, Told};

/// Native parts of the package `onnxquant`.
#[pymodule]
mod _native {
    #[pymodule_export]
    use super::{inputs, main, option_table, run};

    /// Version of the package.
    #[pymodule_export]
    #[allow(non_upper_case_globals, reason = "Python calls it so")]
    const __version__: &str = env!("CARGO_PKG_VERSION");
}

/// The command: prints what the program `onnxquant` prints, and returns its exit code. Signals end it as they end that.
#[pyfunction]
fn main(py: Python<'_>, args: Vec<OsString>, program: Vec<OsString>, packages: Vec<PathBuf>) -> u8 {
    end_on_signals();
    py.detach(|| command(args, &Around { program, packages }))
}

/// Does what the arguments of the command say, and returns a tuple: JSON; what was asked for and missed, or `None`; what
/// the command prints of it.
///
/// `listener` has the methods `progress(phase, done, total)` and `warn(text)`, and `metric(path)` where `has_metric`. Where
/// `has_store` its `store` keeps values in place of the folder of `--state`, by the methods `read(name)`, which returns
/// bytes or `None`, `has(name)`, `write(name, value)` and `remove(name)`. What goes wrong is raised as what its method
/// `error(kind, message)` returns; what these methods raise, and KeyboardInterrupt, end the run.
#[pyfunction]
fn run(
    py: Python<'_>,
    args: Vec<OsString>,
    program: Vec<OsString>,
    packages: Vec<PathBuf>,
    listener: &Bound<'_, PyAny>,
    has_metric: bool,
    has_store: bool,
) -> PyResult<Told> {
    let has = Has { metric: has_metric, store: has_store };
    Job::start(args, Around { program, packages }, has)?.wait(py, listener)
}

/// The options of a subcommand, or of the main command, as JSON.
#[pyfunction]
#[pyo3(signature = (subcommand=None))]
fn option_table(subcommand: Option<&str>) -> PyResult<String> {
    serde_json::to_string(&options(subcommand)).map_err(|error| PyRuntimeError::new_err(error.to_string()))
}

/// Name, type, lengths of the axes (`None` where a sample says) and whether it may be left out, of every input of a model.
///
/// What goes wrong is raised as in `run`.
#[pyfunction]
#[allow(clippy::type_complexity)]
fn inputs(
    py: Python<'_>,
    path: PathBuf,
    listener: &Bound<'_, PyAny>,
) -> PyResult<Vec<(String, String, Option<Vec<Option<usize>>>, bool)>> {
    let found = py.detach(|| {
        let given = onnxquant::GivenModel::open(&path)?;
        onnxquant::inputs(&onnxquant::model_file(given.path())?)
    });
    let inputs = found.map_err(|error| job::raised(&error.into(), listener))?;
    let length = |dim: &onnxquant::calib::Dim| match dim {
        onnxquant::calib::Dim::Fixed(n) => Some(*n),
        _ => None,
    };
    let axes = |dims: Vec<onnxquant::calib::Dim>| dims.iter().map(length).collect();
    Ok(inputs
        .into_iter()
        .map(|input| (input.name, input.element.to_string(), input.dims.map(axes), input.optional))
        .collect())
}
