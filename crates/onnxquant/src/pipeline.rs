//! The main job, from a float model and samples to a quantized model and a report.

use std::path::Path;

use onnxquant_calib::total_sqnr_db;
use onnxquant_ir::Model;
use onnxquant_quant::Method;

use crate::calibration::Calibration;
use crate::compare::compare_models;
use crate::config::{Config, DataConfig, MethodChoice};
use crate::error::Error;
use crate::load::{prepare, read};
use crate::paths::{check_paths, model_bytes};
use crate::plan::Plan;
use crate::progress::Progress;
use crate::report::{HeldOut, OutputReport, Report, finite};
use crate::solve::{SolvedLayer, solve_layers};
use crate::write::{Rewritten, rewrite, write};

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
    check_paths(input, output)?;
    let mut model = read(input)?;
    let calibration = data.map(|data| Calibration::open(&model, data)).transpose()?;
    let prepared = prepare(&mut model)?;
    let plan = Plan::new(&model, config)?;
    let solved = solve_layers(&model, &plan, config, calibration.as_ref(), progress)?;
    let (layers, codes): (Vec<_>, Vec<_>) = solved.into_iter().map(SolvedLayer::into_parts).unzip();
    let Rewritten { evaluated, mut written, opset_changes } = rewrite(&model, &plan, codes)?;
    let held_out = match calibration.filter(|_| !layers.is_empty()) {
        Some(calibration) => Some(held_out(model, evaluated, &calibration, progress)?),
        None => None,
    };
    let opset = written.opset("").unwrap_or(0);
    let mut report = Report {
        version: env!("CARGO_PKG_VERSION"),
        settings: config.clone(),
        prepared,
        layers,
        skipped: plan.skipped,
        opset,
        opset_changes,
        held_out,
        bytes_before: model_bytes(input, written.external_files()),
        bytes_after: 0,
    };
    report.bytes_after = write(&mut written, output, &report)?;
    Ok(report)
}

fn held_out(
    float: Model,
    quantized: Model,
    calibration: &Calibration,
    progress: Progress<'_>,
) -> Result<HeldOut, Error> {
    let split = &calibration.split;
    let outputs = compare_models(float, quantized, calibration, &split.held_out, progress)?;
    Ok(HeldOut {
        calibration_samples: split.calibration.len(),
        held_out_samples: split.held_out.len(),
        shared: split.shared,
        sqnr_db: finite(total_sqnr_db(&outputs)),
        outputs: outputs.iter().map(OutputReport::from).collect(),
    })
}
