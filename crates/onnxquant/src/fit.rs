//! Measures the model on held-out samples, takes layers back to float activations where that is needed, and writes it.

use onnxquant_calib::{OutputComparison, total_sqnr_db};
use onnxquant_ir::{Model, NodeId};
use onnxquant_passes::fake_quantize::FAKE_QUANTIZE_OPSET;

use crate::calibration::Calibration;
use crate::config::{Activations, Config, Target};
use crate::error::Error;
use crate::integer::{Accuracy, Form, Goal, IntegerPlan, retreat};
use crate::judge::{Judge, accuracy};
use crate::plan::{Plan, PlannedLayer};
use crate::progress::Progress;
use crate::report::{HeldOut, OutputReport, Weights, unless_equal};
use crate::write::{Arithmetic, Codes, Written, block_inside, written};

/// A model that was written in memory and measured.
pub(crate) struct Fitted {
    pub(crate) written: Model,
    pub(crate) opset_changes: Vec<String>,
    /// Every layer in `written`, with the bytes of its codes, scales and zero points in the file.
    pub(crate) layers: Vec<(NodeId, usize)>,
    /// The same bytes of every table.
    pub(crate) table_bytes: Vec<usize>,
    pub(crate) held_out: Option<HeldOut>,
}

/// Everything that is needed to write and measure the model.
pub(crate) struct Fitting<'a> {
    pub(crate) model: &'a Model,
    pub(crate) plan: &'a Plan,
    pub(crate) codes: Codes<'a>,
    /// The outputs of held-out samples by the arithmetic of the file, where they are known.
    pub(crate) of_streams: Option<Vec<OutputComparison>>,
    pub(crate) config: &'a Config,
    pub(crate) calibration: Option<&'a Calibration>,
    pub(crate) progress: Progress<'a>,
}

impl Fitting<'_> {
    /// Writes the model with as many integer layers as the accuracy that is asked for allows.
    pub(crate) fn fit(&self, integers: &mut IntegerPlan) -> Result<Fitted, Error> {
        let mut held_out = None;
        if let Some(calibration) =
            self.calibration.filter(|_| !self.codes.layers.is_empty() || !self.codes.tables.is_empty())
        {
            let judge = match (&self.of_streams, Goal::of(self.config)) {
                // Whole networks take memory and time to prepare.
                (Some(of_streams), None) if !self.rounds_inside(integers) => {
                    held_out = Some(Self::held_out(calibration, of_streams, None));
                    None
                }
                _ => Some(Judge::new(self.model, calibration, self.arithmetic())?),
            };
            if let Some(judge) = judge {
                let measure = |plan: &IntegerPlan| judge.accuracy(self.codes, plan, self.progress);
                retreat(integers, &judge, self.config, Weights::Codes, &measure)?;
                held_out = Some(self.judged(&judge, integers)?);
            }
        }
        let Written { model: written, opset_changes, layers, table_bytes } =
            written(self.model, self.plan, self.codes, integers)?;
        Ok(Fitted { written, opset_changes, layers, table_bytes, held_out })
    }

    /// What accuracy is judged by.
    fn arithmetic(&self) -> Arithmetic {
        let possible = self.config.target == Target::OrtCpu
            && self.model.opset("").is_some_and(|opset| opset >= FAKE_QUANTIZE_OPSET);
        let asked = Goal::of(self.config).is_some() || self.config.activations != Activations::Float;
        if possible && asked { Arithmetic::Runtime } else { Arithmetic::File }
    }

    /// Whether the runtime rounds inputs of layers whose weights alone are codes, and that counts.
    fn rounds_inside(&self, integers: &IntegerPlan) -> bool {
        let rounds =
            |layer: &PlannedLayer| block_inside(layer).is_some() && integers.form(layer.site.node) == Form::WeightOnly;
        self.arithmetic() == Arithmetic::Runtime && self.codes.layers.iter().any(|(layer, _)| rounds(layer))
    }

    /// The model by the arithmetic of the file and, where that differs, by that of the runtime.
    fn judged(&self, judge: &Judge<'_>, integers: &IntegerPlan) -> Result<HeldOut, Error> {
        let samples = &judge.calibration.split.held_out;
        let outputs = |arithmetic| judge.outputs(self.codes, integers, arithmetic, samples, self.progress);
        let of_file = outputs(Arithmetic::File)?;
        let of_runtime = match self.rounds_inside(integers) {
            true => Some(accuracy(&outputs(Arithmetic::Runtime)?)),
            false => None,
        };
        Ok(Self::held_out(judge.calibration, &of_file, of_runtime))
    }

    fn held_out(calibration: &Calibration, of_file: &[OutputComparison], of_runtime: Option<Accuracy>) -> HeldOut {
        let split = &calibration.split;
        HeldOut {
            calibration_samples: split.calibration.len(),
            held_out_samples: split.held_out.len(),
            shared: split.shared,
            sqnr_db: unless_equal(total_sqnr_db(of_file)),
            runtime_sqnr_db: of_runtime.and_then(|found| unless_equal(found.sqnr_db)),
            loss: of_runtime.unwrap_or_else(|| accuracy(of_file)).loss,
            outputs: of_file.iter().map(OutputReport::from).collect(),
        }
    }
}
