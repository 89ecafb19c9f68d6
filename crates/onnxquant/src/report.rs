//! What a run did, layer by layer.

use onnxquant_calib::{Measurement, NotMeasured, OutputComparison, OutputError, SliceError};
use onnxquant_ir::onnx::tensor_proto::DataType;
use onnxquant_ir::onnx::type_proto::Value;
use onnxquant_ir::{Graph, NodeId, Port};
use onnxquant_passes::cpu::Cpu;
use onnxquant_passes::embeddings::CodedTable;
use onnxquant_passes::runs_as::{RunsAs, runs_as};
use onnxquant_quant::{ActivationParams, Alphabet, Certificate, Granularity, Method, RangeMethod, Verdict};
use serde::Serialize;

use crate::accuracy::Accuracy;
use crate::allot::Solution;
use crate::config::{Budget, Config};
use crate::embeddings::TableReport;
use crate::integer::Origin;
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
    /// Its operator.
    pub op_type: String,
    /// Shape of the weight as the operator has it.
    pub weight_shape: Vec<usize>,
    /// Number of weights.
    pub parameters: usize,
    /// Of layers that read one weight this is the first, for which the weight counts.
    #[serde(skip)]
    pub(crate) is_first_reader: bool,
    /// Rows of calibration data that the layer saw (in each group); absent where there are none.
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
    /// How exact the outputs of held-out samples are.
    #[serde(flatten)]
    pub accuracy: Measurement<Accuracy>,
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
    /// How exact the outputs of held-out samples are then.
    #[serde(flatten)]
    pub accuracy: Measurement<Accuracy>,
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
    /// How exact the outputs are, or the values that are compared instead of those that the engine cannot compute.
    #[serde(flatten)]
    pub accuracy: Measurement<Accuracy>,
    /// By output, and by value that is compared instead.
    pub outputs: Vec<OutputReport>,
}

/// One output of the two models.
#[derive(Clone, Debug, Serialize)]
pub struct OutputReport {
    /// The output's name.
    pub name: String,
    /// How it differs.
    #[serde(flatten)]
    pub found: Measurement<OutputFigures>,
    /// Samples that were left out because shapes or types differ between the models.
    pub incomparable: usize,
    /// Whether goals are about it: not where it holds no floats and others do.
    #[serde(skip)]
    pub(crate) is_judged: bool,
}

/// How an output differs.
#[derive(Clone, Debug, Serialize)]
pub struct OutputFigures {
    /// Signal-to-quantization-noise ratio in dB, over all of it; `null` in JSON where nothing differs.
    pub sqnr_db: f64,
    /// Mean cosine over the samples.
    pub mean_cosine: f64,
    /// Largest absolute difference.
    pub max_abs_error: f64,
    /// Parts that are judged apart, because they differ in scale or were put together.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub parts: Vec<PartReport>,
}

/// A part of an output.
#[derive(Clone, Debug, Serialize)]
pub struct PartReport {
    /// Which indices, as NumPy has it.
    pub part: String,
    /// Signal-to-quantization-noise ratio in dB; `null` in JSON where nothing differs.
    pub sqnr_db: f64,
    /// Cosine over all samples together.
    pub cosine: f64,
}

impl OutputReport {
    /// Of an output that was compared.
    pub(crate) fn new(found: &OutputComparison, is_judged: bool) -> Self {
        let OutputComparison { name, incomparable, found, .. } = found;
        Self {
            name: name.clone(),
            found: found.clone().map(OutputFigures::from),
            incomparable: *incomparable,
            is_judged,
        }
    }

    /// Of an output that could not be compared.
    pub(crate) fn not_compared(port: &Port, why: &NotMeasured) -> Self {
        let found = Measurement::NotMeasured(why.clone());
        Self { name: port.info.name().to_owned(), found, incomparable: 0, is_judged: may_be_float(port) }
    }
}

impl From<&OutputComparison> for OutputReport {
    fn from(found: &OutputComparison) -> Self {
        Self::new(found, true)
    }
}

impl From<OutputError> for OutputFigures {
    fn from(found: OutputError) -> Self {
        Self {
            sqnr_db: found.sqnr_db(),
            mean_cosine: found.mean_cosine,
            max_abs_error: found.max_abs_error,
            parts: found.slices.iter().map(PartReport::from).collect(),
        }
    }
}

impl From<&SliceError> for PartReport {
    fn from(found: &SliceError) -> Self {
        Self { part: found.slice.to_string(), sqnr_db: found.sqnr_db(), cosine: found.cosine }
    }
}

/// Whether an output holds floats, or does not say.
fn may_be_float(port: &Port) -> bool {
    let Some(Value::TensorType(tensor)) = port.info.r#type.as_ref().and_then(|kind| kind.value.as_ref()) else {
        return true;
    };
    let floats = [DataType::Undefined, DataType::Float, DataType::Double, DataType::Float16, DataType::Bfloat16];
    floats.iter().any(|float| *float as i32 == tensor.elem_type())
}

impl HeldOut {
    /// Outputs of which nothing is known, and why.
    pub fn not_measured(&self) -> impl Iterator<Item = (&str, &NotMeasured)> {
        let judged = self.outputs.iter().filter(|output| output.is_judged);
        judged.filter_map(|output| Some((output.name.as_str(), output.found.why_not()?)))
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

    /// Weights of the quantized layers; those that several layers read count once.
    pub fn weights(&self) -> usize {
        self.first_readers().map(|layer| layer.parameters).sum()
    }

    /// Bits a weight, on the average over [these](Report::weights).
    pub fn average_bits(&self) -> f64 {
        let bits = self.first_readers().map(|layer| layer.parameters as f64 * f64::from(layer.bits));
        bits.sum::<f64>() / (self.weights() as f64).max(1.0)
    }

    fn first_readers(&self) -> impl Iterator<Item = &LayerReport> {
        self.layers.iter().filter(|layer| layer.is_first_reader)
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
        let (wanted, most) = (self.settings.min_sqnr_db, self.settings.max_loss);
        let is_quantized = !self.layers.is_empty() || !self.embeddings.is_empty();
        if !is_quantized || (wanted.is_none() && most.is_none()) {
            return None;
        }
        let mut parts = Vec::new();
        // What is not a number reaches nothing.
        if let Some(Accuracy { sqnr_db, loss, .. }) = self.held_out.as_ref().and_then(|found| found.accuracy.measured())
        {
            let sqnr = wanted.filter(|wanted| sqnr_db.is_nan() || sqnr_db < wanted);
            parts.extend(sqnr.map(|wanted| format!("SQNR {sqnr_db:.2} dB, {wanted:.2} dB wanted")));
            let loss = most.filter(|most| loss.is_nan() || loss > most).map(|most| (loss, most));
            parts.extend(loss.map(|(loss, most)| format!("loss {loss:.2e}, at most {most:.2e} wanted")));
        }
        let missed = (!parts.is_empty()).then(|| format!("held-out {}", parts.join("; ")));
        let parts: Vec<String> = missed.into_iter().chain(self.not_measured()).collect();
        (!parts.is_empty()).then(|| parts.join("; "))
    }

    /// That the accuracy of outputs was not measured: of which, and why. A goal that was not measured is missed.
    fn not_measured(&self) -> Option<String> {
        let Some(held_out) = &self.held_out else {
            return Some(format!("the accuracy that is wanted was not measured: {}", NotMeasured::NoSamples));
        };
        let of_outputs: Vec<String> =
            held_out.not_measured().map(|(name, why)| format!("`{name}` was not measured: {why}")).collect();
        match (of_outputs.is_empty(), held_out.accuracy.why_not()) {
            (false, _) => Some(of_outputs.join("; ")),
            (true, Some(why)) => Some(format!("the accuracy that is wanted was not measured: {why}")),
            (true, None) => None,
        }
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
