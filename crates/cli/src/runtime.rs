//! Where ONNX Runtime is on this machine: what the environment and Python say.

use std::env::var_os;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, bail};
use onnxquant::calib::{OrtEngine, OrtError, OrtPlaces};

use crate::args::RuntimeArgs;
use crate::host::{Around, Host};

/// Prints where Python looks for packages.
const PACKAGES: &str = "import sys; print(*sys.path, sep='\\n')";

/// The variable that names a Python.
const PYTHON: &str = "ONNXQUANT_PYTHON";

/// What stands for a library where none is wanted.
const OFF: &str = "off";

/// Loads it, where it is there; a library that is named must be, and any that is `needed` for an option.
pub(crate) fn find(args: &RuntimeArgs, needed: Option<&str>, host: &Host<'_>) -> anyhow::Result<Option<OrtEngine>> {
    let is_off = args.ort_lib.as_deref() == Some(Path::new(OFF));
    match needed {
        Some(option) if is_off => bail!("{option} needs ONNX Runtime: leave out `--ort-lib {OFF}`"),
        Some(option) => load(args, host.around).map(Some).with_context(|| format!("{option} needs ONNX Runtime")),
        None if is_off => Ok(None),
        None => match load(args, host.around) {
            Ok(found) => Ok(Some(found)),
            Err(error) if is_named(args) => Err(error.into()),
            Err(OrtError::NotFound { .. } | OrtError::Static) => Ok(None),
            Err(error) => {
                (host.warn)(&format!("{error}; accuracy is simulated"));
                Ok(None)
            }
        },
    }
}

fn is_named(args: &RuntimeArgs) -> bool {
    args.ort_lib.is_some() || args.python.is_some() || variable().is_some()
}

fn variable() -> Option<PathBuf> {
    var_os("ORT_DYLIB_PATH").filter(|path| !path.is_empty()).map(PathBuf::from)
}

/// Loads it.
pub(crate) fn load(args: &RuntimeArgs, around: &Around) -> Result<OrtEngine, OrtError> {
    let system = args.python.is_none();
    let variable = variable().filter(|_| system);
    let is_open = args.python.is_none() && var_os(PYTHON).is_none();
    let packages = match () {
        () if args.ort_lib.is_some() || variable.is_some() => Vec::new(),
        () if is_open && !around.packages.is_empty() => around.packages.clone(),
        // Python is started only where it matters.
        () => packages(&python(args)),
    };
    OrtEngine::find(&OrtPlaces { named: args.ort_lib.clone(), variable, packages, system })
}

/// The Python that is named, or active.
fn python(args: &RuntimeArgs) -> PathBuf {
    let named = args.python.clone().or_else(|| var_os(PYTHON).map(PathBuf::from));
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
