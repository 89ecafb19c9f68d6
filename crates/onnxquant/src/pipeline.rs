//! The main job, from a float model and samples to a quantized model and a report.

use std::path::Path;

use onnxquant_passes::embeddings::CodedTable;
use onnxquant_passes::runs_as::runs_as;
use onnxquant_quant::Method;

use crate::calibration::Calibration;
use crate::config::{Activations, Budget, Config, DataConfig, MethodChoice};
use crate::embeddings::{TableReport, quantize_tables};
use crate::error::Error;
use crate::fit::{Fitted, Fitting};
use crate::integer::{IntegerPlan, plan_integers};
use crate::load::{prepare, raise_for_integers, read};
use crate::mixed::Sweep;
use crate::observe::Observer;
use crate::paths::{check_paths, model_bytes};
use crate::plan::Plan;
use crate::progress::Progress;
use crate::report::{HeldOut, LayerReport, Report};
use crate::solve::{Job, SolvedLayer, solve_layers};
use crate::state::State;
use crate::verify_ort::{VerifiedOrt, verify_ort};
use crate::write::{Codes, write};

/// Quantizes `input` into `output`.
///
/// Without `data` only plain rounding (`msq`) is possible. The output appears whole or not at all.
pub fn quantize(
    input: &Path,
    output: &Path,
    data: Option<&DataConfig>,
    config: &Config,
    progress: Progress<'_>,
) -> Result<Report, Error> {
    config.check()?;
    if data.is_none() && matches!(config.budget, Some(Budget::MinSqnrDb(_))) {
        return Err(Error::Usage("an SQNR is measured on calibration data: give --calib".into()));
    }
    if data.is_none() && matches!(config.method, MethodChoice::Fixed(method) if method != Method::Msq) {
        return Err(Error::Usage(
            "this method needs calibration data; without it use `--method msq --weights-only`".into(),
        ));
    }
    if data.is_none() && matches!(config.activations, Activations::Static | Activations::Auto) {
        return Err(Error::Usage("scales of activations need calibration data; without it use --weights-only".into()));
    }
    check_paths(input, output)?;
    let mut model = read(input)?;
    let calibration = data.map(|data| Calibration::open(&model, data)).transpose()?;
    let state = config.state.as_ref().map(|folder| State::open(folder, &model, config, calibration.as_ref()));
    let state = state.transpose()?;
    let prepared = prepare(&mut model)?;
    let mut opset_changes = raise_for_integers(&mut model, config)?;
    let mut plan = Plan::new(&model, config)?;
    let (mut integers, mut cache) = (IntegerPlan::default(), None);
    if let Some(calibration) = &calibration {
        let file = data.and_then(|data| data.cache.as_deref());
        let observer = Observer::open(calibration, &model, file, progress)?;
        integers = plan_integers(&mut model, &mut plan, config, &observer)?;
        cache = observer.close()?;
    }
    let mut tables = quantize_tables(&model, &plan.tables)?;
    let before = integers.clone();
    let (calibration, state) = (calibration.as_ref(), state.as_ref());
    let job = Job { model: &model, config, integers: &before, calibration, state, progress };
    let Solution { mut layers, mut fitted } = match config.budget {
        Some(budget) if !plan.layers.is_empty() => allot(job, &mut plan, &tables, budget, &mut integers)?,
        _ => solve(job, &plan, &tables, &mut integers)?,
    };
    for (layer, &(node, bytes)) in layers.iter_mut().zip(&fitted.layers) {
        layer.bytes = bytes;
        layer.runs_as = runs_as(fitted.written.graph(), node, config.ort_min);
    }
    opset_changes.append(&mut fitted.opset_changes);
    tables.iter_mut().zip(&fitted.table_bytes).for_each(|((_, table), &bytes)| table.bytes = bytes);
    let found = (std::mem::take(&mut fitted.retreat), cache);
    let integers = integers.report(model.graph(), config, &plan, &mut layers, found);
    let mut report = Report {
        version: env!("CARGO_PKG_VERSION"),
        settings: config.clone(),
        prepared,
        layers,
        skipped: plan.skipped,
        embeddings: tables.into_iter().map(|(_, table)| table).collect(),
        integers,
        opset: fitted.written.opset("").unwrap_or(0),
        opset_changes,
        held_out: fitted.held_out.take(),
        verified: None,
        bytes_before: model_bytes(input, fitted.written.external_files()),
        bytes_after: 0,
    };
    report.verified = verify(&mut fitted, config, output, &report)?;
    report.bytes_after = write(&mut fitted.written, output, &report)?;
    Ok(report)
}

/// A quantized model.
struct Solution {
    layers: Vec<LayerReport>,
    fitted: Fitted,
}

/// Solves all layers with the bits of the plan and measures the model.
fn solve(
    job: Job<'_>,
    plan: &Plan,
    tables: &[(CodedTable, TableReport)],
    integers: &mut IntegerPlan,
) -> Result<Solution, Error> {
    let Job { model, config, calibration, progress, .. } = job;
    let solved = solve_layers(job, plan)?;
    let (layers, codes): (Vec<_>, Vec<_>) = solved.into_iter().map(SolvedLayer::into_parts).unzip();
    let codes = Codes { layers: &codes, tables, planned_tables: &plan.tables };
    let fitted = Fitting { model, plan, codes, config, calibration, progress }.fit(integers)?;
    Ok(Solution { layers, fitted })
}

/// Chooses the bits of every layer, puts them into the plan and solves it.
fn allot(
    job: Job<'_>,
    plan: &mut Plan,
    tables: &[(CodedTable, TableReport)],
    budget: Budget,
    integers: &mut IntegerPlan,
) -> Result<Solution, Error> {
    let Job { model, config, .. } = job;
    if let Budget::MinSqnrDb(wanted) = budget {
        let start = plan.clone();
        let solved = Sweep::new(job, &start, tables)?.reach(wanted, |bits| {
            let (mut plan, mut integers) = (start.clone(), job.integers.clone());
            plan.set_bits(model, config, bits)?;
            let solution = solve(job, &plan, tables, &mut integers)?;
            let reached = solution.fitted.held_out.as_ref().and_then(HeldOut::judged_sqnr_db).unwrap_or(f64::INFINITY);
            Ok(((solution, plan, integers), reached))
        })?;
        (*plan, *integers) = (solved.1, solved.2);
        return Ok(solved.0);
    }
    let kept = job.state.map(|state| state.bits(plan)).transpose()?.flatten();
    let bits = match kept {
        Some(bits) => bits,
        None => Sweep::new(job, plan, tables)?.within(budget)?,
    };
    plan.set_bits(model, config, &bits)?;
    if let Some(state) = job.state {
        state.keep_bits(plan, config)?;
    }
    solve(job, plan, tables, integers)
}

/// Writes the model where nobody sees it and loads it in ONNX Runtime, where that was asked for.
fn verify(fitted: &mut Fitted, config: &Config, output: &Path, report: &Report) -> Result<Option<VerifiedOrt>, Error> {
    let Some(verify) = &config.verify else { return Ok(None) };
    let failed = |error: std::io::Error| Error::Verify(error.to_string());
    let near = output.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let folder = tempfile::Builder::new().prefix(".onnxquant-").tempdir_in(near).map_err(failed)?;
    let path = folder.path().join("model.onnx");
    write(&mut fitted.written, &path, report)?;
    let graph = fitted.written.graph();
    let layers = report.layers.iter().zip(&fitted.layers).map(|(layer, &(node, _))| (layer.label.clone(), node));
    verify_ort(&path, verify.python.as_deref(), graph, &layers.collect::<Vec<_>>()).map(Some)
}
