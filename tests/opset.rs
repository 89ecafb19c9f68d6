//! A raised opset changes no output: the operator tests of the `onnx` package before and after, in ONNX Runtime.

use std::path::Path;

use onnxquant_ir::{ExternalData, Model, write_model};
use onnxquant_passes::raise_opset::raise_opset;

use crate::support::{Failures, Run, files_in, folder, python};

/// The highest opset that is written.
const TARGET: i64 = 25;
/// Models that run before and after; the others use operators that ONNX Runtime does not have.
const LEAST_EQUAL: usize = 1390;
/// What has no counterpart at a higher opset.
const REFUSED: [&str; 1] = [
    "test_scan_sum: cannot raise the opset from 8 to 25: node `y` (Scan): Scan over a batch has no counterpart from opset 9 on",
];
/// What `check_opset.py` says of models that are no fault of ours.
const FINE: [&str; 3] = ["neither loads", "before does not load", "before does not run"];
/// ONNX Runtime has no kernel for Swish and expands it at the opset that brought it only, which is 24.
const NOT_EXPANDED: &str = "does not load: test_swish/";

#[test]
fn operator_tests_give_the_same_outputs_at_the_highest_opset() {
    let (before, after) = (folder(), folder());
    Run::of(python("onnx_node_tests.py").arg(before.path()).args(["--newest", &TARGET.to_string()])).succeeded();
    let (mut failures, mut refused) = (Failures::default(), Vec::new());
    for name in files_in(before.path()) {
        let raised = raise(&before.path().join(&name), &after.path().join(&name));
        failures.check(raised.is_ok(), || format!("{name}: {}", raised.as_ref().unwrap_err()));
        refused.extend(raised.ok().flatten().map(|reason| format!("{name}: {reason}")));
    }
    failures.finish();
    assert_eq!(refused, REFUSED);
    let run = Run::of(python("check_opset.py").args([before.path(), after.path()]));
    let mut lines = run.stdout.lines().collect::<Vec<_>>();
    let counts = lines.pop().unwrap_or_default();
    lines.retain(|line| !FINE.iter().any(|kind| line.starts_with(kind)) && !line.starts_with(NOT_EXPANDED));
    assert!(lines.is_empty(), "{}\n{}", lines.join("\n"), run.stderr);
    let equal = counts.split(", ").find_map(|part| part.strip_suffix(" equal")?.parse::<usize>().ok());
    assert!(equal.is_some_and(|equal| equal >= LEAST_EQUAL), "{counts}\n{}", run.stderr);
}

/// Writes the model of one folder into another at the highest opset, or says why it is refused.
fn raise(from: &Path, to: &Path) -> Result<Option<String>, String> {
    let model = Model::read(&from.join("model.onnx")).map_err(|error| error.to_string())?;
    let model = match raise_opset(model, TARGET) {
        Ok((model, _)) => model,
        Err(refusal) => return Ok(Some(refusal.to_string())),
    };
    std::fs::create_dir(to).map_err(|error| error.to_string())?;
    write_model(&model, &to.join("model.onnx"), ExternalData::Auto).map_err(|error| error.to_string())?;
    Ok(None)
}
