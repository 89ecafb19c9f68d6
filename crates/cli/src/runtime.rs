//! Where ONNX Runtime is on this machine: what the environment and Python say.

use std::env::var_os;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use onnxquant::calib::{OrtEngine, OrtError, OrtPlaces};

use crate::args::RuntimeArgs;

/// Prints where Python looks for packages.
const PACKAGES: &str = "import sys; print(*sys.path, sep='\\n')";

/// Loads it.
pub(crate) fn load(args: &RuntimeArgs) -> Result<OrtEngine, OrtError> {
    let variable = var_os("ORT_DYLIB_PATH").filter(|path| !path.is_empty()).map(PathBuf::from);
    let is_named = args.ort_lib.is_some() || variable.is_some();
    // Python is started only where it matters.
    let packages = if is_named { Vec::new() } else { packages(&python()) };
    OrtEngine::find(&OrtPlaces { named: args.ort_lib.clone(), variable, packages, system: true })
}

/// The Python that is active.
fn python() -> PathBuf {
    let named = var_os("ONNXQUANT_PYTHON").map(PathBuf::from);
    let of_environment = || {
        let program = if cfg!(windows) { "Scripts/python.exe" } else { "bin/python" };
        let path = Path::new(&var_os("VIRTUAL_ENV")?).join(program);
        path.exists().then_some(path)
    };
    named.or_else(of_environment).unwrap_or_else(|| if cfg!(windows) { "python" } else { "python3" }.into())
}

/// The folders of its packages that exist; none where there is no Python.
fn packages(python: &Path) -> Vec<PathBuf> {
    let found = Command::new(python).args(["-c", PACKAGES]).stdin(Stdio::null()).stderr(Stdio::null()).output();
    let text = found.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    text.lines().filter(|line| line.contains("-packages")).map(PathBuf::from).filter(|path| path.is_dir()).collect()
}
