//! Which files may be written.

use std::path::{Path, PathBuf};

use onnxquant_ir::external_path;

use crate::error::Error;

/// Refuses outputs that would overwrite the input, and folders that do not exist.
pub(crate) fn check_paths(input: &Path, output: &Path) -> Result<(), Error> {
    let refuse = |problem: &str| Err(Error::Output { path: output.to_owned(), problem: problem.to_owned() });
    if output.file_name().is_none() || output.is_dir() {
        return refuse("it is a folder, expected a file name");
    }
    let folder = output.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if !folder.is_dir() {
        return refuse("its folder does not exist");
    }
    if same_file(input, output) || same_file(input, &external_path(output)) {
        return refuse("it is the input model, which is never overwritten");
    }
    Ok(())
}

/// Refuses an output whose weights would go into a file that the input maps.
pub(crate) fn check_external(output: &Path, mapped: &[PathBuf]) -> Result<(), Error> {
    let targets = [output.to_owned(), external_path(output)];
    match targets.into_iter().find(|target| mapped.iter().any(|file| same_file(file, target))) {
        Some(path) => Err(Error::Output { path, problem: "the input model keeps its weights there".to_owned() }),
        None => Ok(()),
    }
}

fn same_file(a: &Path, b: &Path) -> bool {
    matches!((a.canonicalize(), b.canonicalize()), (Ok(a), Ok(b)) if a == b)
}

/// Bytes of a model and of the files beside it.
pub(crate) fn model_bytes(model: &Path, external: &[PathBuf]) -> u64 {
    let size = |path: &Path| std::fs::metadata(path).map_or(0, |found| found.len());
    size(model) + external.iter().map(|path| size(path)).sum::<u64>()
}
