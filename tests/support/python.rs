//! Python with ONNX Runtime, as `cargo xtask test` sets it up.

use std::borrow::BorrowMut;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde::{Deserialize, Serialize};

/// What is wanted of a model; see `tests/python/measure.py`.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Job {
    pub model: PathBuf,
    pub check: bool,
    pub load: bool,
    pub nodes: bool,
    /// Whether sums of products must not saturate, whatever the processor.
    pub exact_products: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reference: Option<PathBuf>,
    pub samples: Vec<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub labels: Option<PathBuf>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub captures: Vec<(PathBuf, PathBuf)>,
}

/// What was found.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Measured {
    pub problems: Vec<String>,
    pub nodes: BTreeMap<String, u64>,
    /// Absent where nothing differs.
    pub sqnr_db: Option<f64>,
    pub default_sqnr_db: Option<f64>,
    /// Of every output that differs.
    pub default_by_output_db: BTreeMap<String, f64>,
    /// Of the model as users run it against itself without optimizations.
    pub agreement_db: Option<f64>,
    pub differences: Vec<String>,
    pub accuracy: Option<f64>,
    pub capture_error: Option<f64>,
    pub captured_values: usize,
}

impl Job {
    /// Checks the file and loads it at every level.
    pub fn load(model: &Path) -> Self {
        Self { model: model.to_owned(), check: true, load: true, ..Self::default() }
    }

    /// The same, and compares outputs with those of `reference`.
    pub fn compare(model: &Path, reference: &Path, samples: &[PathBuf]) -> Self {
        Self { reference: Some(reference.to_owned()), samples: samples.to_vec(), ..Self::load(model) }
    }
}

impl Measured {
    /// Everything that is wrong whatever the figures.
    pub fn faults(&self) -> String {
        self.problems.iter().chain(&self.differences).cloned().collect::<Vec<_>>().join("; ")
    }

    /// How often ONNX Runtime's optimized graph holds an operator, whatever its domain.
    pub fn count(&self, op_type: &str) -> u64 {
        let is_it = |name: &str| name.rsplit('.').next() == Some(op_type);
        self.nodes.iter().filter(|(name, _)| is_it(name)).map(|(_, count)| count).sum()
    }
}

/// Runs `tests/python/measure.py`; one result a job, in order.
pub fn measure(jobs: &[Job]) -> Vec<Measured> {
    measured_by(python("measure.py"), jobs)
}

/// The same as a processor with AVX2, but without AVX-512 and VNNI, computes it; `None` where there is no way to find out.
///
/// It is emulated, and slow: some tens of rows are enough.
pub fn measure_without_vnni(jobs: &[Job]) -> Option<Vec<Measured>> {
    if !cfg!(all(target_os = "linux", target_arch = "x86_64")) {
        return None;
    }
    let script = python("measure.py");
    let mut emulated = Command::new(variable("ONNXQUANT_QEMU"));
    emulated.args(["-cpu", "Haswell"]).arg(script.get_program()).args(script.get_args());
    // It warns of what Haswell has and it does not emulate, none of which computes.
    Some(measured_by(emulated.stderr(Stdio::null()), jobs))
}

fn measured_by(mut command: impl BorrowMut<Command>, jobs: &[Job]) -> Vec<Measured> {
    let command = command.borrow_mut();
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("Python can be started");
    serde_json::to_writer(child.stdin.take().expect("it was piped"), jobs).expect("measure.py reads its input");
    let output = child.wait_with_output().expect("measure.py ends");
    assert!(output.status.success(), "measure.py failed");
    let found: Vec<Measured> = serde_json::from_slice(&output.stdout).expect("measure.py prints results");
    assert_eq!(found.len(), jobs.len());
    found
}

/// A script of `tests/python/` in the Python that has ONNX Runtime.
pub fn python(script: &str) -> Command {
    let mut command = Command::new(variable("ONNXQUANT_PYTHON"));
    command.arg(super::root().join("tests/python").join(script));
    command
}

/// A few lines of Python.
pub fn python_code(code: &str) -> Command {
    let mut command = Command::new(variable("ONNXQUANT_PYTHON"));
    command.arg("-c").arg(code);
    command
}

/// The folder with the models of the ONNX backend tests.
pub fn node_models() -> PathBuf {
    variable("ONNXQUANT_NODE_MODELS").into()
}

fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set: run `cargo xtask test`, which sets it up"))
}
