//! How the outputs of held-out samples differ.

use onnxquant_calib::{Measurement, NotMeasured, OutputComparison, OutputError, SliceError};
use onnxquant_ir::Port;
use onnxquant_ir::onnx::tensor_proto::DataType;
use onnxquant_ir::onnx::type_proto::Value;
use schemars::JsonSchema;
use serde::Serialize;

use crate::accuracy::{Accuracy, TokenFigures};
use crate::judge::held_out::OnHeldOut;

/// Float against quantized model on held-out samples, as the target computes it: ONNX Runtime on a CPU also rounds the
/// inputs of MatMul and Gemm layers whose weights alone are codes, in blocks, to 8 bits.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct HeldOut {
    /// Samples used for calibration.
    pub calibration_samples: usize,
    /// Samples on which methods, ranges and bits were chosen.
    pub validation_samples: usize,
    /// Samples compared, on which nothing was chosen.
    pub held_out_samples: usize,
    /// There were so few samples that some were used for both.
    pub shared: bool,
    /// How exact the outputs are, or the values that are compared instead of those that the engine cannot compute.
    #[serde(flatten)]
    pub accuracy: Measurement<Accuracy>,
    /// The SQNR in dB that can be expected on new data: with the error raised by its standard error over the samples.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expected_db: Option<f64>,
    /// By output, and by value that is compared instead.
    pub outputs: Vec<OutputReport>,
}

/// One output of the two models.
#[derive(Clone, Debug, Serialize, JsonSchema)]
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
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct OutputFigures {
    /// Signal-to-quantization-noise ratio in dB, over all of it; `null` in JSON where nothing differs.
    pub sqnr_db: f64,
    /// The same of the sample where it is least.
    pub worst_sample_db: f64,
    /// Mean cosine over the samples.
    pub mean_cosine: f64,
    /// Largest absolute difference.
    pub max_abs_error: f64,
    /// What a language model says of the tokens that follow, where this holds their scores.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokens: Option<TokenFigures>,
    /// Parts that are judged apart, because they differ in scale or were put together.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub parts: Vec<PartReport>,
}

/// A part of an output.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct PartReport {
    /// Which indices, as NumPy has it.
    pub part: String,
    /// Signal-to-quantization-noise ratio in dB; `null` in JSON where nothing differs.
    pub sqnr_db: f64,
    /// Cosine over all samples together.
    pub cosine: f64,
}

impl From<OnHeldOut> for HeldOut {
    fn from(found: OnHeldOut) -> Self {
        let compared = outputs_of(&found.outputs);
        let others = found.not_compared.iter().map(|(port, why)| OutputReport::not_compared(port, why));
        Self {
            calibration_samples: found.calibration_samples,
            validation_samples: found.validation_samples,
            held_out_samples: found.held_out_samples,
            shared: found.shared,
            outputs: compared.into_iter().chain(others).collect(),
            accuracy: found.accuracy,
            expected_db: found.expected_db,
        }
    }
}

/// What was compared.
pub(super) fn outputs_of(outputs: &[OutputComparison]) -> Vec<OutputReport> {
    let any_float = outputs.iter().any(|output| output.is_float);
    outputs.iter().map(|output| OutputReport::new(output, output.is_float || !any_float)).collect()
}

/// Outputs of which nothing is known, and why.
pub(super) fn not_measured(outputs: &[OutputReport]) -> impl Iterator<Item = (&str, &NotMeasured)> {
    let judged = outputs.iter().filter(|output| output.is_judged);
    judged.filter_map(|output| Some((output.name.as_str(), output.found.why_not()?)))
}

impl HeldOut {
    /// Outputs of which nothing is known, and why.
    pub fn not_measured(&self) -> impl Iterator<Item = (&str, &NotMeasured)> {
        not_measured(&self.outputs)
    }
}

impl OutputReport {
    /// Of an output that was compared.
    fn new(found: &OutputComparison, is_judged: bool) -> Self {
        let OutputComparison { name, incomparable, found, tokens, .. } = found;
        let tokens = tokens.map(TokenFigures::from);
        Self {
            name: name.clone(),
            found: found.clone().map(|found| OutputFigures { tokens, ..found.into() }),
            incomparable: *incomparable,
            is_judged,
        }
    }

    /// Of an output that could not be compared.
    fn not_compared(port: &Port, why: &NotMeasured) -> Self {
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
            worst_sample_db: found.worst_sample_db,
            mean_cosine: found.mean_cosine,
            max_abs_error: found.max_abs_error,
            tokens: None,
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
