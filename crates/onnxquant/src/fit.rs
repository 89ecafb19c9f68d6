//! Writes the model, measures it on held-out samples, and takes layers back to float activations where that is needed.
//!
//! Errors of layers add up in power, nearly: what each does alone tells how many of the worst must go. The prediction
//! is scaled to what was measured and tried again, so that a few runs suffice.

use onnxquant_calib::total_sqnr_db;
use onnxquant_ir::{Model, NodeId};
use onnxquant_passes::embeddings::CodedTable;
use onnxquant_passes::write_codes::PackedWeight;
use rayon::prelude::*;

use crate::calibration::Calibration;
use crate::compare::Reference;
use crate::config::Config;
use crate::embeddings::TableReport;
use crate::error::Error;
use crate::integer::IntegerPlan;
use crate::plan::{Plan, PlannedLayer};
use crate::progress::{Progress, silent};
use crate::report::{HeldOut, OutputReport, Sensitivity, finite};
use crate::write::{Rewritten, rewrite};

/// A model that was written in memory and measured.
pub(crate) struct Fitted {
    pub(crate) written: Model,
    pub(crate) opset_changes: Vec<String>,
    /// Every layer in `written`, with the bytes of its codes, scales and zero points in the file.
    pub(crate) layers: Vec<(NodeId, usize)>,
    /// The same bytes of every table.
    pub(crate) table_bytes: Vec<usize>,
    pub(crate) held_out: Option<HeldOut>,
    /// What single layers do, where that was asked.
    pub(crate) sensitivity: Vec<Sensitivity>,
}

/// Everything that is needed to write and measure the model.
pub(crate) struct Fitting<'a> {
    pub(crate) model: &'a Model,
    pub(crate) plan: &'a Plan,
    pub(crate) codes: &'a [(PlannedLayer, PackedWeight)],
    pub(crate) tables: &'a [(CodedTable, TableReport)],
    pub(crate) config: &'a Config,
    pub(crate) calibration: Option<&'a Calibration>,
    pub(crate) progress: Progress<'a>,
}

impl Fitting<'_> {
    /// Writes the model with as many integer layers as the SQNR that is asked for allows.
    pub(crate) fn fit(&self, integers: &mut IntegerPlan) -> Result<Fitted, Error> {
        let reference =
            self.calibration.filter(|_| !self.codes.is_empty() || !self.tables.is_empty()).map(|calibration| {
                let float = Reference::new(self.model.clone(), calibration, &calibration.split.held_out)?;
                Ok::<_, Error>((float, calibration))
            });
        let Some((float, calibration)) = reference.transpose()? else { return self.written(integers) };
        let mut fitted = self.measured(integers, &float, calibration)?;
        let Some(target) = self.config.wanted_sqnr_db() else { return Ok(fitted) };
        let mut ranked: Option<Vec<Sensitivity>> = None;
        loop {
            let reached = fitted.held_out.as_ref().and_then(|held_out| held_out.sqnr_db).unwrap_or(f64::INFINITY);
            if reached >= target || integers.is_empty() {
                fitted.sensitivity = ranked.unwrap_or_default();
                return Ok(fitted);
            }
            let ranked = match &mut ranked {
                Some(ranked) => ranked,
                None => ranked.insert(self.sensitivity(integers, &float, calibration)?),
            };
            let worst = worst(ranked, &integers.leaders(), reached, target);
            integers.retreat(self.model.graph(), &worst)?;
            fitted = self.measured(integers, &float, calibration)?;
        }
    }

    /// Without samples nothing can be measured.
    fn written(&self, integers: &IntegerPlan) -> Result<Fitted, Error> {
        let Rewritten { written, opset_changes, layers, table_bytes, .. } =
            rewrite(self.model, self.plan, self.codes, self.tables, integers)?;
        Ok(Fitted { written, opset_changes, layers, table_bytes, held_out: None, sensitivity: Vec::new() })
    }

    fn measured(&self, integers: &IntegerPlan, float: &Reference, calibration: &Calibration) -> Result<Fitted, Error> {
        let Rewritten { evaluated, written, opset_changes, layers, table_bytes } =
            rewrite(self.model, self.plan, self.codes, self.tables, integers)?;
        let split = &calibration.split;
        let outputs = float.compare(evaluated, calibration, &split.held_out, self.progress)?;
        let held_out = HeldOut {
            calibration_samples: split.calibration.len(),
            held_out_samples: split.held_out.len(),
            shared: split.shared,
            sqnr_db: finite(total_sqnr_db(&outputs)),
            outputs: outputs.iter().map(OutputReport::from).collect(),
        };
        Ok(Fitted { written, opset_changes, layers, table_bytes, held_out: Some(held_out), sensitivity: Vec::new() })
    }

    /// The SQNR of the outputs when the input of one layer alone is on integers, the most sensitive layer first.
    ///
    /// Measured on one held-out sample: every layer needs an engine of its own, which takes longer than the run.
    fn sensitivity(
        &self,
        integers: &IntegerPlan,
        float: &Reference,
        calibration: &Calibration,
    ) -> Result<Vec<Sensitivity>, Error> {
        let graph = self.model.graph();
        let samples = &calibration.split.held_out[..1];
        let measured = |node: NodeId| {
            let only = integers.only(graph, node)?;
            let evaluated = rewrite(self.model, self.plan, &[], &[], &only)?.evaluated;
            let outputs = float.compare(evaluated, calibration, samples, &silent)?;
            Ok(Sensitivity { node, label: graph.label(node).to_owned(), sqnr_db: total_sqnr_db(&outputs) })
        };
        let mut found =
            integers.leaders().into_par_iter().map(measured).collect::<Result<Vec<Sensitivity>, Error>>()?;
        found.sort_by(|a, b| a.sqnr_db.total_cmp(&b.sqnr_db));
        Ok(found)
    }
}

/// The layers to take back so that the error falls from `reached` to `target` dB; at least one.
fn worst(ranked: &[Sensitivity], left: &[NodeId], reached: f64, target: f64) -> Vec<NodeId> {
    let ranked: Vec<&Sensitivity> = ranked.iter().filter(|layer| left.contains(&layer.node)).collect();
    let power = |db: f64| 10f64.powf(-db / 10.0);
    let total: f64 = ranked.iter().map(|layer| power(layer.sqnr_db)).sum();
    let (mut removed, mut chosen) = (0.0, Vec::new());
    // The share of the measured error that has to go.
    let share = 1.0 - power(target) / power(reached);
    for layer in ranked {
        if !chosen.is_empty() && removed >= share * total {
            break;
        }
        removed += power(layer.sqnr_db);
        chosen.push(layer.node);
    }
    // Where no layer is left to blame, all go.
    if chosen.is_empty() { left.to_vec() } else { chosen }
}
