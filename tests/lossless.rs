//! Nothing that a model holds is lost by reading and writing it: the models of the ONNX backend tests.

use std::path::Path;

use onnxquant_ir::{ExternalData, Model, write_model};

use crate::support::{Failures, Run, files_in, folder, node_models, python, root};
use crate::traps::Trap;

/// Node tests and model files in the pinned `onnx` package, and what is made beside them.
const MODELS: usize = 1884 + 149 + 71;

#[test]
fn backend_test_models_are_read_verified_and_written_with_nothing_lost() {
    let (models, written) = (node_models(), folder());
    let names = files_in(&models).into_iter().filter(|name| name.ends_with(".onnx")).collect::<Vec<_>>();
    assert_eq!(names.len(), MODELS, "of `{}`", models.display());
    let mut failures = Failures::default();
    for name in &names {
        let result = rewrite(&models.join(name), &written.path().join(name));
        failures.check(result.is_ok(), || format!("{name}: {}", result.unwrap_err()));
    }
    failures.finish();
    let run = Run::of(python("compare_models.py").args([models, written.path().to_owned()])).succeeded();
    assert!(run.stdout.contains(&format!("{MODELS} models, 0 different")), "{}", run.stdout);
}

/// Reads, verifies, writes, and reads what was written, which must be the same graph.
fn rewrite(from: &Path, to: &Path) -> Result<(), String> {
    let read = |path: &Path| Model::read(path).map_err(|error| chain(&error));
    let model = read(from)?;
    write_model(&model, to, ExternalData::Auto).map_err(|error| chain(&error))?;
    // Bytes, not messages: a NaN is not equal to itself.
    let encoded = |model: &Model| onnxquant_proto::encode_model(&model.to_proto()).map_err(|error| chain(&error));
    match encoded(&read(to)?)? == encoded(&model)? {
        true => Ok(()),
        false => Err("another message after writing".to_owned()),
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    let source = error.source().map(|source| format!(": {}", chain(source)));
    error.to_string() + &source.unwrap_or_default()
}

#[test]
fn traps_that_are_legal_are_written_with_nothing_lost() {
    let traps = root().join("fixtures/traps");
    let (legal, written) = (folder(), folder());
    let mut failures = Failures::default();
    let is_external = |trap: &Trap| trap.file.starts_with("external_data");
    // External data get another file's name: the tests in `external` compare what those models compute.
    for trap in crate::traps::index().iter().filter(|trap| trap.state != "invalid" && !is_external(trap)) {
        let result = rewrite(&traps.join(&trap.file), &written.path().join(&trap.file));
        failures.check(result.is_ok(), || format!("{}: {}", trap.file, result.unwrap_err()));
        std::fs::copy(traps.join(&trap.file), legal.path().join(&trap.file)).expect("a trap can be copied");
    }
    failures.finish();
    Run::of(python("compare_models.py").args([legal.path(), written.path()])).succeeded();
}
