//! What a run did, layer by layer.

use onnxquant_calib::OutputComparison;
use onnxquant_ir::{Graph, NodeId};
use onnxquant_passes::cpu::Cpu;
use onnxquant_passes::embeddings::CodedTable;
use onnxquant_passes::runs_as::{RunsAs, runs_as};
use onnxquant_quant::{ActivationParams, Alphabet, Certificate, Granularity, Method, RangeMethod, Verdict};
use serde::Serialize;

use crate::allot::Solution;
use crate::config::{Budget, Config};
use crate::embeddings::TableReport;
use crate::integer::{Accuracy, Origin};
use crate::load::Prepared;
use crate::plan::SkippedLayer;
use crate::reach::NotRun;
use crate::verify_ort::VerifiedOrt;

/// The whole report, as written by `--report`.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Version of this program.
    pub version: &'static str,
    /// The settings.
    pub settings: Config,
    /// What was done before quantization.
    pub prepared: Prepared,
    /// Quantized layers, in topological order.
    pub layers: Vec<LayerReport>,
    /// Layers left in float.
    pub skipped: Vec<SkippedLayer>,
    /// Quantized tables of embeddings.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub embeddings: Vec<TableReport>,
    /// What runs on integers, where that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub integers: Option<IntegerReport>,
    /// Processors on which no integer layer saturates.
    pub exact_on: Vec<Cpu>,
    /// Opset of the written model.
    pub opset: i64,
    /// Operators rewritten to reach that opset.
    pub opset_changes: Vec<String>,
    /// Calibration samples and how the result does on those held out; absent without calibration.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub held_out: Option<HeldOut>,
    /// What the calibration engine could not run, where there was something.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_run: Option<NotRun>,
    /// What ONNX Runtime made of the written file, where that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub verified: Option<VerifiedOrt>,
    /// Bytes of the input model, external data included.
    pub bytes_before: u64,
    /// Bytes of the written model, external data included.
    pub bytes_after: u64,
}

/// One quantized layer.
#[derive(Clone, Debug, Serialize)]
pub struct LayerReport {
    /// What people call it; no other layer is called so.
    pub label: String,
    /// Gemm, MatMul or Conv.
    pub op_type: String,
    /// Shape of the weight as the operator has it.
    pub weight_shape: Vec<usize>,
    /// Number of weights.
    pub parameters: usize,
    /// Rows of calibration data that the layer saw (in each group).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub calibration_rows: Option<usize>,
    /// Bits a weight.
    pub bits: u32,
    /// What the codes stand for, where that is not themselves.
    #[serde(skip_serializing_if = "Alphabet::is_integers")]
    pub alphabet: Alphabet,
    /// Which weights share a scale.
    pub granularity: Granularity,
    /// Bytes of codes, scales and zero points; those that several layers read count for the first.
    pub bytes: usize,
    /// What becomes of its input: `float`, `static` or `dynamic`.
    pub activations: &'static str,
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
    /// The same on held-out samples.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub held_out_error: Option<f64>,
    /// What a reader should know.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// What was promised and achieved, recomputed independently.
    pub certificate: Certificate,
    /// How `auto` chose.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub verdict: Option<Verdict>,
}

/// What runs on integers.
#[derive(Clone, Debug, Default, Serialize)]
pub struct IntegerReport {
    /// Layers in regions that store activations as codes on fixed scales.
    pub static_layers: usize,
    /// Layers whose input is quantized at run time.
    pub dynamic_layers: usize,
    /// Other operators that run on codes.
    pub other_operators: usize,
    /// Tensors with a scale of their own.
    pub scales: usize,
    /// Estimated time of the regions' graph over that in float; 1 where no region pays.
    pub relative_time: f64,
    /// Inputs of layers on scales made at run time whose channels were rescaled.
    pub rescaled: usize,
    /// Tensors on fixed scales whose channels were evened out.
    pub equalized: usize,
    /// The tensors with a scale of their own.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tensors: Vec<TensorReport>,
    /// The file of statistics, where one was named.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cache: Option<CacheReport>,
    /// The SQNR at which integer layers were left, in dB: asked for, or that of `auto`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wanted_sqnr_db: Option<f64>,
    /// The loss that integer layers could make, where one was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_loss: Option<f64>,
    /// What single layers do to the outputs; measured only where some had to stay in float.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub sensitivity: Vec<Sensitivity>,
    /// How accuracy was bought: what went back to float, round by round; the first round has all on integers.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub trade: Vec<Trade>,
}

/// What was used of a file of statistics.
#[derive(Clone, Debug, Serialize)]
pub struct CacheReport {
    /// Statistics that were read from the file.
    pub reused: usize,
    /// Statistics that were gathered anew, and written into it.
    pub gathered: usize,
    /// Why nothing of an earlier file could be used.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rebuilt: Option<String>,
}

/// A tensor that is stored as codes on a fixed scale.
#[derive(Clone, Debug, Serialize)]
pub struct TensorReport {
    /// Its name in the float model.
    pub name: String,
    /// How its range was found.
    pub range: RangeMethod,
    /// Why so.
    pub why: Origin,
    /// What the codes mean.
    #[serde(flatten)]
    pub params: ActivationParams,
    /// The expected squared error of the codes over the mean square of the values, on the calibration samples.
    pub relative_error: f64,
}

/// A round of the search for layers that must stay in float.
#[derive(Clone, Debug, Serialize)]
pub struct Trade {
    /// Layers that went back to float activations, with what follows them on codes; empty in the first round. Rounds after
    /// one that was more than enough try fewer of its layers.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub to_float: Vec<String>,
    /// Layers whose activations got 16 bits, likewise.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub to_16_bits: Vec<String>,
    /// Layers left on integers.
    pub integer_layers: usize,
    /// SQNR of the outputs on held-out samples, in dB; absent where nothing differs.
    pub sqnr_db: Option<f64>,
    /// One minus the mean cosine of the output where it is largest.
    pub loss: f64,
    /// Estimated time of the regions' graph over that in float.
    pub relative_time: f64,
    /// What the weights were then.
    pub weights: Weights,
}

/// What weights are when activations are judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Weights {
    /// Floats still: layers are fitted only to activations that are exact enough.
    Float,
    /// The codes that are written.
    Codes,
}

/// The outputs when one layer alone reads integers.
#[derive(Clone, Debug, Serialize)]
pub struct Sensitivity {
    /// The layer's node.
    #[serde(skip)]
    pub(crate) node: NodeId,
    /// Its name, or its first output's.
    pub label: String,
    /// SQNR of the outputs on held-out samples, in dB; `null` in JSON where they are the same.
    pub sqnr_db: f64,
    /// Time that integers save there, estimated, in nanoseconds a sample.
    pub saved_ns: f64,
}

/// Float against quantized model on held-out samples, as the target computes it: ONNX Runtime on a CPU also rounds the
/// inputs of MatMul and Gemm layers whose weights alone are codes, in blocks, to 8 bits.
#[derive(Clone, Debug, Serialize)]
pub struct HeldOut {
    /// Samples used for calibration.
    pub calibration_samples: usize,
    /// Samples compared.
    pub held_out_samples: usize,
    /// There was only one sample, used for both.
    pub shared: bool,
    /// Signal-to-quantization-noise ratio over all float outputs, in dB; absent where nothing differs.
    pub sqnr_db: Option<f64>,
    /// One minus the mean cosine over the samples, of the output where it is largest.
    pub loss: f64,
    /// By output.
    pub outputs: Vec<OutputReport>,
}

/// One output of the two models.
#[derive(Clone, Debug, Serialize)]
pub struct OutputReport {
    /// The output's name.
    pub name: String,
    /// Signal-to-quantization-noise ratio in dB; absent where nothing differs.
    pub sqnr_db: Option<f64>,
    /// Mean cosine over the samples.
    pub mean_cosine: f64,
    /// Largest absolute difference.
    pub max_abs_error: f64,
    /// Samples whose shapes or types differ between the models.
    pub incomparable: usize,
}

impl From<&OutputComparison> for OutputReport {
    fn from(found: &OutputComparison) -> Self {
        Self {
            name: found.name.clone(),
            sqnr_db: unless_equal(found.sqnr_db()),
            mean_cosine: found.mean_cosine,
            max_abs_error: found.max_abs_error,
            incomparable: found.incomparable,
        }
    }
}

/// An SQNR, absent where nothing differs: JSON has no infinity. What is not a number is `null` there.
pub(crate) fn unless_equal(sqnr_db: f64) -> Option<f64> {
    (sqnr_db != f64::INFINITY).then_some(sqnr_db)
}

impl HeldOut {
    /// By what accuracy is judged.
    pub(crate) fn judged(&self) -> Accuracy {
        Accuracy { sqnr_db: self.sqnr_db.unwrap_or(f64::INFINITY), loss: self.loss }
    }
}

impl Report {
    /// Of a run that has done nothing yet.
    pub(crate) fn new(config: &Config) -> Self {
        Self {
            version: env!("CARGO_PKG_VERSION"),
            settings: config.clone(),
            prepared: Prepared::default(),
            layers: Vec::new(),
            skipped: Vec::new(),
            embeddings: Vec::new(),
            integers: None,
            exact_on: Vec::new(),
            opset: 0,
            opset_changes: Vec::new(),
            held_out: None,
            not_run: None,
            verified: None,
            bytes_before: 0,
            bytes_after: 0,
        }
    }

    /// Takes over what was found of layers, tables and outputs; `graph` is the float one.
    pub(crate) fn describe(
        &mut self,
        solution: &mut Solution,
        graph: &Graph,
        tables: Vec<(CodedTable, TableReport)>,
        cache: Option<CacheReport>,
    ) {
        let Solution { plan, integers, layers, fitted } = solution;
        self.layers = std::mem::take(layers);
        for (layer, &(id, bytes)) in self.layers.iter_mut().zip(&fitted.layers) {
            layer.bytes = bytes;
            layer.runs_as = runs_as(fitted.written.graph(), id.node(), self.settings.ort_min);
        }
        self.integers = integers.report(graph, &self.settings, plan, &mut self.layers, cache);
        self.exact_on = Cpu::exact_on(self.layers.iter().any(|layer| layer.saturating_pairs > Some(0)));
        self.skipped = std::mem::take(&mut plan.skipped);
        let of_table = |((_, table), &bytes): ((CodedTable, TableReport), &usize)| TableReport { bytes, ..table };
        self.embeddings = tables.into_iter().zip(&fitted.table_bytes).map(of_table).collect();
        self.opset = fitted.written.opset("").unwrap_or(0);
        self.held_out = fitted.held_out.take();
    }

    /// Bits a weight, on the average over the weights of the quantized layers.
    pub fn average_bits(&self) -> f64 {
        let weights = self.layers.iter().map(|layer| layer.parameters as f64);
        let bits = self.layers.iter().map(|layer| layer.parameters as f64 * f64::from(layer.bits));
        bits.sum::<f64>() / weights.sum::<f64>().max(1.0)
    }

    /// What was asked for and was not reached, in words.
    pub fn missed(&self) -> Option<String> {
        let size = match self.settings.budget {
            Some(Budget::TargetBytes(most)) if self.bytes_after > most => {
                Some(format!("the file has {} bytes, at most {most} wanted", self.bytes_after))
            }
            _ => None,
        };
        let parts: Vec<String> = self.missed_accuracy().into_iter().chain(size).collect();
        (!parts.is_empty()).then(|| parts.join("; "))
    }

    fn missed_accuracy(&self) -> Option<String> {
        let Accuracy { sqnr_db, loss: lost } = self.held_out.as_ref()?.judged();
        // What is not a number reaches nothing.
        let sqnr = self.settings.min_sqnr_db.filter(|wanted| sqnr_db.is_nan() || sqnr_db < *wanted);
        let sqnr = sqnr.map(|wanted| format!("SQNR {sqnr_db:.2} dB, {wanted:.2} dB wanted"));
        let loss = self.settings.max_loss.filter(|most| lost.is_nan() || lost > *most);
        let loss = loss.map(|most| format!("loss {lost:.2e}, at most {most:.2e} wanted"));
        let parts: Vec<String> = sqnr.into_iter().chain(loss).collect();
        (!parts.is_empty()).then(|| format!("held-out {}", parts.join("; ")))
    }

    /// The short form that goes into the model's metadata: method, bits, error and bound of every layer.
    pub fn certificates_summary(&self) -> serde_json::Value {
        let layer = |layer: &LayerReport| {
            serde_json::json!({
                "layer": layer.label,
                "method": layer.method,
                "bits": layer.bits,
                "error": layer.certificate.achieved,
                "bound": layer.certificate.bound,
            })
        };
        self.layers.iter().map(layer).collect()
    }
}
