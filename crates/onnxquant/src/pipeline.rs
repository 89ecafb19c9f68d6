//! The main job, from a float model and samples to a quantized model and a report.

use std::path::Path;

use onnxquant_passes::runs_as::runs_as;
use onnxquant_quant::Method;

use crate::calibration::Calibration;
use crate::config::{Activations, Config, DataConfig, MethodChoice};
use crate::embeddings::quantize_tables;
use crate::error::Error;
use crate::fit::{Fitted, Fitting};
use crate::integer::{IntegerPlan, plan_integers};
use crate::load::{prepare, raise_for_integers, read};
use crate::observe::Observer;
use crate::paths::{check_paths, model_bytes};
use crate::plan::Plan;
use crate::progress::Progress;
use crate::report::Report;
use crate::solve::{SolvedLayer, solve_layers};
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
    let solved = solve_layers(&model, &plan, config, &integers, calibration.as_ref(), progress)?;
    let (mut layers, codes): (Vec<_>, Vec<_>) = solved.into_iter().map(SolvedLayer::into_parts).unzip();
    let mut tables = quantize_tables(&model, &plan.tables)?;
    let fitting = Fitting {
        model: &model,
        plan: &plan,
        codes: Codes { layers: &codes, tables: &tables, planned_tables: &plan.tables },
        config,
        calibration: calibration.as_ref(),
        progress,
    };
    let mut fitted = fitting.fit(&mut integers)?;
    drop(codes);
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
