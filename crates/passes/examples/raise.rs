//! Raises the opset of a model, or of every model below a folder.
//!
//! ```text
//! cargo run --release -p onnxquant-passes --example raise -- IN OUT TARGET
//! ```
//!
//! IN and OUT are both files or both folders. Prints a line a model; exits with 1 when any could not be raised.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use onnxquant_ir::{ExternalData, Model, write_model};
use onnxquant_passes::raise_opset::raise_opset;

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let arguments = std::env::args().skip(1).collect::<Vec<_>>();
    let [source, result, target] = arguments.as_slice() else {
        return Err("usage: raise IN OUT TARGET".into());
    };
    let (source, result, target) = (Path::new(source), Path::new(result), target.parse::<i64>()?);
    let mut failed = false;
    for model in models(source)? {
        let below = model.strip_prefix(source)?;
        let to = if below.as_os_str().is_empty() { result.to_owned() } else { result.join(below) };
        match raise(&model, &to, target) {
            Ok(changes) => println!("raised {}: {changes} changes", model.display()),
            Err(error) => {
                failed = true;
                println!("failed {}: {error}", model.display());
            }
        }
    }
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn raise(from: &Path, to: &Path, target: i64) -> Result<usize, Box<dyn Error>> {
    let (model, changes) = raise_opset(Model::read(from)?, target)?;
    if let Some(folder) = to.parent() {
        std::fs::create_dir_all(folder)?;
    }
    write_model(&model, to, ExternalData::Auto)?;
    Ok(changes.len())
}

/// The file itself, or all `.onnx` files below a folder, sorted.
fn models(path: &Path) -> Result<Vec<PathBuf>, std::io::Error> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut found = Vec::new();
    for entry in std::fs::read_dir(path)? {
        let entry = entry?.path();
        if entry.is_dir() {
            found.extend(models(&entry)?);
        } else if entry.extension().is_some_and(|extension| extension == "onnx") {
            found.push(entry);
        }
    }
    found.sort();
    Ok(found)
}
