//! What was done with every layer.

use onnxquant_ir::{Graph, Model};
use onnxquant_passes::ort_version::OrtVersion;
use onnxquant_passes::runs_as::{RunsAs, runs_as};
use onnxquant_passes::sites::LayerId;
use onnxquant_quant::{Alphabet, Certificate, Granularity, Method, Verdict};
use schemars::JsonSchema;
use serde::Serialize;

use crate::attempt::Solved;
use crate::config::{Activations, Config};
use crate::decide::budget::Solution;
use crate::error::Error;
use crate::observe::reach::Reach;
use crate::plan::assignment::Form;
use crate::plan::layers::{Plan, PlannedBody, PlannedLayer};
use crate::plan::why_float::WhyFloat;
use crate::report::weights::WeightReport;
use crate::solve::solved::{AboutLayer, Findings};
use crate::write::written::Written;

/// Why activations inside bodies stay floats.
const INSIDE: &str = "inside bodies weights alone become codes";

/// One quantized layer.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct LayerReport {
    /// What people call it; no other layer is called so.
    pub label: String,
    /// Its operator.
    pub op_type: String,
    /// Shape of the weight as the operator has it.
    pub weight_shape: Vec<usize>,
    /// Number of weights.
    pub parameters: usize,
    /// Of layers that read one weight this is the first, for which the weight counts.
    #[serde(skip)]
    pub(super) is_first_reader: bool,
    /// Rows of calibration data that the layer saw (in each group); absent where there are none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub calibration_rows: Option<usize>,
    /// Bits a weight.
    pub bits: u32,
    /// Bits that a code takes in the file: more than `bits` where fewer would save nothing, or no operator takes them.
    pub stored_bits: u32,
    /// What the codes stand for, where that is not themselves.
    #[serde(skip_serializing_if = "Alphabet::is_integers")]
    pub alphabet: Alphabet,
    /// Which weights share a scale.
    pub granularity: Granularity,
    /// Bytes of codes, scales and zero points; those that several layers read count for the first.
    pub bytes: usize,
    /// What becomes of its input: `float`, `static` or `dynamic`.
    pub activations: &'static str,
    /// Why that is `float` although the settings ask for integers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub float_because: Option<String>,
    /// Pairs of codes that saturate side by side on x86 without VNNI; absent where no kernel does that.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub saturating_pairs: Option<usize>,
    /// What ONNX Runtime makes of the layer, from the version of the settings on.
    #[serde(flatten)]
    pub runs_as: RunsAs,
    /// The method that made the codes.
    pub method: Method,
    /// Relative error of the layer's output on the calibration samples, bias correction included.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<f64>,
    /// The same on validation samples, on which the method was chosen.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub validation_error: Option<f64>,
    /// What a reader should know.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// What was promised and achieved, recomputed independently.
    pub certificate: Certificate,
    /// How `auto` chose.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub verdict: Option<Verdict>,
    /// How its weights and codes are spread.
    pub weights: WeightReport,
}

impl LayerReport {
    /// Of every layer of the main graph, then of those in `bodies`, in their orders; `reach` is what the engine can compute.
    pub(crate) fn all(
        solved: &Solved,
        bodies: &[Written],
        config: &Config,
        reach: Option<&Reach>,
    ) -> Result<Vec<Self>, Error> {
        let mut all = Self::of_main(&solved.solution, config, &solved.model, reach)?;
        all.extend(Self::all_inner(&solved.solution.plan, &solved.bodies.about, bodies, config)?);
        Ok(all)
    }

    /// Of every layer of the main graph; `model` is what was solved.
    fn of_main(solution: &Solution, config: &Config, model: &Model, reach: Option<&Reach>) -> Result<Vec<Self>, Error> {
        let float = model.graph();
        let behind = reach.map(|reach| reach.behind(float)).unwrap_or_default();
        let Solution { plan, assignment, layers, fitted, .. } = solution;
        let written = fitted.written.graph();
        let parts = plan.layers.iter().zip(layers).zip(&fitted.layers);
        parts
            .map(|((planned, about), &stored)| {
                let form = assignment.form(planned.site.id());
                let is_seen = !behind.contains_key(&planned.site.input);
                let why = WhyFloat::of(float, planned, assignment, config.activations, is_seen);
                let float_because = why.map(|why| why.to_string());
                let found = Self::new((model, planned), about.clone(), form, (written, stored), config.ort_min)?;
                Ok(Self { float_because, ..found })
            })
            .collect()
    }

    /// Of every layer inside a body, in the order of bodies. `bodies` are written, and `about` is what is known of their
    /// layers.
    fn all_inner(
        plan: &Plan,
        about: &[Vec<AboutLayer>],
        bodies: &[Written],
        config: &Config,
    ) -> Result<Vec<Self>, Error> {
        let of_body = |((planned, about), written): ((&PlannedBody, &Vec<AboutLayer>), &Written)| {
            let (body, parts) = (&planned.model, planned.plan.layers.iter().zip(about.clone()).zip(&written.layers));
            let report = |((planned, about), &(id, bytes)): ((&PlannedLayer, AboutLayer), &(LayerId, usize))| {
                let bytes = if about.is_first_reader { bytes } else { 0 };
                let stored = (written.model.graph(), (id, bytes));
                let float_because = match config.activations {
                    Activations::Static | Activations::Dynamic => Some(INSIDE.to_owned()),
                    Activations::Float | Activations::Auto => None,
                };
                let found = Self::new((&*body, planned), about, Form::WeightOnly, stored, config.ort_min)?;
                Ok(Self { float_because, ..found })
            };
            parts.map(report).collect::<Vec<Result<Self, Error>>>()
        };
        plan.all_bodies().into_iter().zip(about).zip(bodies).flat_map(of_body).collect()
    }

    /// Of one layer: as planned in the float model, solved, and stored in the written graph.
    fn new(
        (model, planned): (&Model, &PlannedLayer),
        about: AboutLayer,
        form: Form,
        (written, (id, bytes)): (&Graph, (LayerId, usize)),
        oldest: OrtVersion,
    ) -> Result<Self, Error> {
        let AboutLayer { is_first_reader, alphabet, codes, findings } = about;
        let Findings { saturating_pairs, calibration_rows, method, error, validation_error, .. } = findings;
        Ok(Self {
            label: planned.label.clone(),
            op_type: planned.op_type.clone(),
            weight_shape: planned.site.view.weight_shape(),
            parameters: planned.site.parameters(),
            is_first_reader,
            calibration_rows,
            bits: planned.bits,
            stored_bits: match form {
                Form::WeightOnly => planned.form.stored_bits(),
                Form::Static { .. } | Form::Dynamic => planned.integer_codes.bits(),
            },
            alphabet,
            granularity: planned.granularity,
            bytes,
            activations: name_of(form),
            float_because: None,
            saturating_pairs,
            runs_as: runs_as(written, id.node(), oldest),
            method,
            error,
            validation_error,
            notes: findings.notes,
            certificate: findings.certificate,
            verdict: findings.verdict,
            weights: WeightReport::new(model, planned, &codes)?,
        })
    }
}

/// What becomes of the input of a layer of this form.
fn name_of(form: Form) -> &'static str {
    match form {
        Form::WeightOnly => "float",
        Form::Static { .. } => "static",
        Form::Dynamic => "dynamic",
    }
}

/// The short form that goes into the model's metadata: method, bits, error and bound of every layer.
pub(super) fn certificates_summary(layers: &[LayerReport]) -> serde_json::Value {
    let layer = |layer: &LayerReport| {
        serde_json::json!({
            "layer": layer.label,
            "method": layer.method,
            "bits": layer.bits,
            "error": layer.certificate.achieved,
            "bound": layer.certificate.bound,
        })
    };
    layers.iter().map(layer).collect()
}
