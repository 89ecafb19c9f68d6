use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use onnxquant_calib::{
    CalibSet, DataOptions, InputSpec, Original, compare, engine, graph_outputs, inline_functions, open_session,
};
use onnxquant_ir::onnx::ModelProto;

use super::*;

/// What rounding in 32 bits may change.
const LEAST_SQNR_DB: f64 = 100.0;

/// Passes that change at least one of the graphs. The others have to leave all of them as they are.
const CHANGING: [&str; 4] = ["inline_layers", "lift_constants", "write_plain_forms", "fold_batchnorm"];

fn traps() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/traps");
    let entries = std::fs::read_dir(folder).expect("the folder can be read");
    let paths = entries.map(|entry| entry.expect("the folder can be read").path());
    let mut models: Vec<PathBuf> = paths.filter(|path| path.extension().is_some_and(|kind| kind == "onnx")).collect();
    models.sort();
    models
}

/// In which output `after` differs from `before` on the sample of a trap; nothing where the engine cannot run `before`.
fn difference(trap: &Path, before: &ModelProto, after: &ModelProto) -> Option<String> {
    let (before, after) = (inline_functions(before).ok()?, inline_functions(after).ok()?);
    let inputs = InputSpec::from_graph(before.graph.as_ref()?, before.ir_version()).ok()?;
    let data = CalibSet::open(&trap.with_extension("npz"), &inputs, &DataOptions::default()).ok()?;
    let outputs = graph_outputs(&before);
    let float = Original::new(open_session(engine(), &before, &outputs, &data).ok()?);
    let found =
        open_session(engine(), &after, &outputs, &data).and_then(|after| compare(&float, &after, &data, &[0], &|_| ()));
    let found = match found {
        Ok(found) => found,
        Err(error) => return Some(error.to_string()),
    };
    let sqnr_db = |output: &onnxquant_calib::OutputComparison| Some(output.found.measured()?.sqnr_db());
    let differs = found.iter().find(|output| sqnr_db(output).is_some_and(|db| db < LEAST_SQNR_DB))?;
    Some(format!("`{}` has {:?} dB", differs.name, sqnr_db(differs)))
}

#[test]
fn each_pass_alone_keeps_every_trap_valid_and_its_function() {
    let (mut faults, mut changing, mut read_traps) = (Vec::new(), BTreeSet::new(), 0);
    for trap in traps() {
        let Ok(model) = read(&trap) else { continue };
        read_traps += 1;
        for pass in &PASSES {
            let mut changed = model.clone();
            let name = format!("{}, {}", trap.display(), pass.name);
            match pass.apply(&mut changed) {
                Err(error) => faults.push(format!("{name}: {error}")),
                Ok(trace) if trace.changed == 0 => {}
                Ok(_) => {
                    changing.insert(pass.name);
                    let found = difference(&trap, &model.to_proto(), &changed.to_proto());
                    faults.extend(found.map(|what| format!("{name}: {what}")));
                }
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    assert!(read_traps > 150, "{read_traps} traps can be read");
    assert_eq!(changing, BTreeSet::from(CHANGING));
}

#[test]
fn the_report_counts_what_the_passes_changed() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/traps/norm_after_conv_bias.onnx");
    let mut model = read(&path).unwrap();
    let traces = trace_passes(&mut model.clone()).unwrap();
    let folded = traces.iter().find(|trace| trace.name == "fold_batchnorm").unwrap();
    assert_eq!((folded.changed, folded.nodes_before - folded.nodes_after), (1, 1));
    assert_eq!(prepare(&mut model).unwrap().batchnorms_folded, 1);
}
