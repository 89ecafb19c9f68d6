//! What the user asks for.

mod choices;
mod data;
mod layer_rule;
mod metric;
mod selection;
mod shard;
mod target;

use std::sync::Arc;

use onnxquant_calib::OrtEngine;
use onnxquant_passes::cpu::Cpu;
use onnxquant_passes::fake_quantize::QUANTIZE_16_OPSET;
use onnxquant_passes::ort_version::OrtVersion;
use onnxquant_passes::raise_opset::LOWEST_TARGET;
use onnxquant_quant::{
    ActivationGrid, Alphabet, Granularity, Grid, Method, QuantError, QuantSpec, RangeMethod, ScaleRule, SolverOptions,
    Symmetry,
};
use schemars::JsonSchema;
use serde::Serialize;

use crate::error::Error;
use crate::plan_file::PlanFile;
use crate::store::Store;

pub use choices::{ActivationBits, Activations, Budget, EngineChoice, Format, KvCache, MethodChoice};
pub use data::DataConfig;
pub use layer_rule::{LayerRule, LayerRuleError};
pub(crate) use layer_rule::{NamedLayer, OwnCodes, Ruled};
pub use metric::{Measuring, Metric};
pub(crate) use selection::Selection;
pub use shard::{Duty, Shard};
pub use target::Target;

/// Highest opset that is written unless the settings allow more: INT2 needs it.
pub const DEFAULT_OPSET_MAX: i64 = 25;

/// What integer layers must leave of the outputs under [`Activations::Auto`], unless the settings say more, in dB.
pub const AUTO_SQNR_DB: f64 = 20.0;

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
fn is_false(value: &bool) -> bool {
    !value
}

/// Settings of a run. They are written into the model's metadata, so nothing here depends on the machine.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Config {
    /// How layers are quantized.
    #[schemars(with = "String")]
    pub method: MethodChoice,
    /// A layer for which plain rounding is no worse than the fixed method, on validation samples, is rounded.
    pub fallback: bool,
    /// Layers are fitted to what they see in the float network, not to what they see behind quantized layers.
    pub one_pass: bool,
    /// Partial solutions followed side by side by the solver.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub beam: Option<usize>,
    /// Weight of the range of a neuron's weights against its error, by which they are shrunk before they are rounded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shrink: Option<f64>,
    /// What is added to the diagonal of the Gram matrix, as a fraction of its mean; by default validation samples choose.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub damping: Option<f64>,
    /// Bits a weight, 1 to 8.
    pub bits: u32,
    /// What codes of weights stand for: integers, or floats of 8 bits.
    #[serde(skip_serializing_if = "Alphabet::is_integers")]
    pub alphabet: Alphabet,
    /// Every layer gets bits of its own, so that the outputs are as exact as this allows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub budget: Option<Budget>,
    /// Bits of every layer by name; `granularity` and `symmetry` should be those of the plan.
    #[serde(skip)]
    pub plan: Option<PlanFile>,
    /// Where solved layers are kept, so that a run that was killed can go on.
    #[serde(skip)]
    pub state: Option<Arc<dyn Store>>,
    /// What of the run this process does, where several do it together.
    #[serde(skip)]
    pub shard: Option<Shard>,
    /// What becomes of activations.
    pub activations: Activations,
    /// What the written model is for.
    pub target: Target,
    /// Where integer products must be exact.
    pub cpu: Cpu,
    /// How the range of an activation is found; by default tensor by tensor, by the error on validation samples.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub range: Option<RangeMethod>,
    /// Codes of activations have a sign.
    pub signed_activations: bool,
    /// Bits of an activation on a fixed scale.
    pub activation_bits: ActivationBits,
    /// Fixed scales of activations are powers of two.
    pub power_of_two: bool,
    /// Layers keep float activations, the most sensitive first, until held-out outputs reach this SQNR in dB.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_sqnr_db: Option<f64>,
    /// The same until one minus the mean cosine of every held-out output is at most this.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_loss: Option<f64>,
    /// The same until the perplexity of held-out text is at most this many times that of the float model.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_perplexity_ratio: Option<f64>,
    /// Which weights share a scale.
    pub granularity: Granularity,
    /// Whether zero points are used.
    pub symmetry: Symmetry,
    /// How scales are chosen; by default as suits the method.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scale_rule: Option<ScaleRule>,
    /// Only layers whose name matches one of these globs (all where empty).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub include: Vec<String>,
    /// No layers whose name matches one of these globs.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub exclude: Vec<String>,
    /// What single layers get instead; of several rules that match a layer the last one holds.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "Vec<String>")]
    pub layer_rules: Vec<LayerRule>,
    /// The opset is never raised above this.
    pub opset_max: i64,
    /// The oldest version of ONNX Runtime in which the file has to load, be computed right and be fast.
    pub ort_min: OrtVersion,
    /// In which form weights of MatMul and Gemm are written.
    pub format: Format,
    /// Bits of tables that Gather reads, 8 or 4; they stay floats where this is absent.
    ///
    /// By default 8, whatever weights have: on a sentence encoder (MiniLM) that takes half of the file away, 0.2 dB of 28.4
    /// and no speed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub embeddings: Option<u32>,
    /// What the caches of a decoder hold.
    #[serde(skip_serializing_if = "KvCache::is_float")]
    pub kv_cache: KvCache,
    /// What runs the float model on samples.
    #[serde(skip_serializing_if = "EngineChoice::is_auto")]
    pub engine: EngineChoice,
    /// The runtime that judges what is written; without one that is simulated.
    #[serde(skip)]
    pub runtime: Option<OrtEngine>,
    /// A figure of the user's own that decisions hold to in place of the SQNR of `auto`.
    #[serde(skip)]
    pub metric: Option<Metric>,
    /// The written file is loaded there at every optimization level, and its layers are looked at, before it gets its name.
    #[serde(skip)]
    pub verify: bool,
    /// Whoever runs it knows that little is quantized: see [`Report::doubts`](crate::Report::doubts).
    #[serde(skip)]
    pub allow_float: bool,
    /// What is quantized in the model becomes floats first, and is quantized anew.
    #[serde(skip_serializing_if = "is_false")]
    pub requantize: bool,
    /// What is f16 or bf16 in the model is computed in that type still.
    #[serde(skip_serializing_if = "is_false")]
    pub keep_type: bool,
    /// Weights go into a file beside the model.
    #[serde(skip)]
    pub external_data: bool,
    /// Bytes that the statistics of the layers solved together may take.
    #[serde(skip)]
    pub memory_limit_bytes: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            method: MethodChoice::Auto,
            fallback: true,
            one_pass: false,
            beam: None,
            shrink: None,
            damping: None,
            bits: 8,
            alphabet: Alphabet::Integers,
            budget: None,
            plan: None,
            state: None,
            shard: None,
            activations: Activations::Float,
            target: Target::OrtCpu,
            cpu: Cpu::Portable,
            range: None,
            signed_activations: false,
            activation_bits: ActivationBits::Eight,
            power_of_two: false,
            min_sqnr_db: None,
            max_loss: None,
            max_perplexity_ratio: None,
            granularity: Granularity::Channel,
            symmetry: Symmetry::Symmetric,
            scale_rule: None,
            include: Vec::new(),
            exclude: Vec::new(),
            layer_rules: Vec::new(),
            opset_max: DEFAULT_OPSET_MAX,
            ort_min: OrtVersion::default(),
            format: Format::Auto,
            embeddings: Some(8),
            kv_cache: KvCache::Float,
            engine: EngineChoice::Auto,
            runtime: None,
            metric: None,
            verify: false,
            allow_float: false,
            requantize: false,
            keep_type: false,
            external_data: false,
            memory_limit_bytes: 1 << 30,
        }
    }
}

/// With more bits one more level is not felt.
const MOST_MIRRORED_BITS: u32 = 4;

impl Config {
    /// Checks what the types leave open.
    pub fn check(&self) -> Result<(), Error> {
        self.spec(self.granularity, self.bits, false)?;
        self.check_floats()?;
        self.check_budget()?;
        self.check_layer_rules()?;
        self.solver_options()?;
        let blocks = matches!(self.granularity, Granularity::Block(size) if size < 2);
        if blocks {
            return Err(Error::Usage("a block must hold at least 2 weights".to_owned()));
        }
        if let Some(bits) = self.embeddings.filter(|bits| ![4, 8].contains(bits)) {
            return Err(Error::Usage(format!("embeddings can have 8 or 4 bits, not {bits}")));
        }
        self.check_target()?;
        self.check_caches()?;
        self.metric.as_ref().map_or(Ok(()), Metric::check)?;
        if self.activations != Activations::Float {
            self.check_integers()?;
        }
        if self.max_loss.is_some_and(|most| most.is_nan() || most < 0.0) {
            return Err(Error::Usage("a loss is a number of at least 0".to_owned()));
        }
        if self.max_perplexity_ratio.is_some_and(|most| most.is_nan() || most <= 1.0) {
            return Err(Error::Usage("a ratio of perplexities is a number above 1".to_owned()));
        }
        Selection::new(&self.include, &self.exclude).map(drop)
    }

    /// Checks that nothing is asked for that only calibration data can give.
    pub(crate) fn check_without_data(&self) -> Result<(), Error> {
        let refused = |problem: &str| Err(Error::Usage(problem.to_owned()));
        if matches!(self.budget, Some(Budget::MinSqnrDb(_))) {
            return refused("an SQNR is measured on calibration data: give --calib");
        }
        if self.layer_rules.iter().any(LayerRule::is_fitted)
            || matches!(self.method, MethodChoice::Fixed(method) if method != Method::Msq)
        {
            return refused("this method needs calibration data; without it use `--method msq --weights-only`");
        }
        if matches!(self.activations, Activations::Static | Activations::Auto) {
            return refused("scales of activations need calibration data; without it use --weights-only");
        }
        if self.kv_cache != KvCache::Float {
            return refused("scales of caches need calibration data: give --calib, or leave out --kv-cache");
        }
        Ok(())
    }

    /// What keeps caches from being codes.
    fn check_caches(&self) -> Result<(), Error> {
        let (present, needed) = (self.ort_min, OrtVersion::CACHES_AS_CODES);
        match self.kv_cache {
            KvCache::Float => Ok(()),
            KvCache::Int8 if self.target != Target::OrtCpu => {
                let problem = "caches are codes in an operator of ONNX Runtime: leave out --target, or --kv-cache";
                Err(Error::Usage(problem.to_owned()))
            }
            KvCache::Int8 if present < needed => Err(Error::Usage(format!(
                "ONNX Runtime has caches of int8 from {needed} on, and the file is to run in {present} and on: add \
                 `--ort-min {needed}`, or leave out --kv-cache"
            ))),
            KvCache::Int8 => Ok(()),
        }
    }

    /// What means nothing where weights are floats of 8 bits.
    fn check_floats(&self) -> Result<(), Error> {
        let problems = [
            (self.bits != 8, "have 8 bits: leave out --bits"),
            (self.symmetry == Symmetry::Asymmetric, "have no zero points: leave out --asymmetric"),
            (self.budget.is_some(), "have 8 bits in every layer: leave out --average-bits and --target-size"),
            (self.plan.is_some(), "have 8 bits in every layer: leave out --plan"),
            (self.format != Format::Auto, "are written in one form, which the runtime folds: leave out --format"),
            (
                self.activations != Activations::Float,
                "stand beside float activations, and this --target wants integers: choose another scheme or target",
            ),
            (matches!(self.granularity, Granularity::Block(_)), "have a scale a tensor or a channel, not one a block"),
        ];
        match problems.iter().find(|(is_one, _)| *is_one && !self.alphabet.is_integers()) {
            Some((_, problem)) => Err(Error::Usage(format!("FP8 weights {problem}"))),
            None => Ok(()),
        }
    }

    fn check_budget(&self) -> Result<(), Error> {
        match self.budget {
            Some(Budget::AverageBits(bits)) if !(2.0..=8.0).contains(&bits) => {
                Err(Error::Usage(format!("layers can have 2 to 8 bits on the average, not {bits}")))
            }
            Some(Budget::MinSqnrDb(sqnr_db)) if !sqnr_db.is_finite() => {
                Err(Error::Usage("the SQNR to be reached is a number of dB".to_owned()))
            }
            Some(_) if self.plan.is_some() => {
                Err(Error::Usage("a plan fixes the bits of every layer: nothing is left to be chosen".to_owned()))
            }
            _ => Ok(()),
        }
    }

    /// For a model that stands beside the one that the settings are about, and has no samples: weights of 8 bits.
    pub(crate) fn for_other_model(&self) -> Self {
        Self {
            method: MethodChoice::Fixed(Method::Msq),
            bits: 8,
            alphabet: Alphabet::Integers,
            granularity: Granularity::Channel,
            symmetry: Symmetry::Symmetric,
            activations: Activations::Float,
            beam: None,
            shrink: None,
            damping: None,
            min_sqnr_db: None,
            max_loss: None,
            ..self.for_own_samples()
        }
    }

    /// For a model that stands beside that one, and has samples of its own. Globs that match nothing in it are about the other.
    pub(crate) fn for_own_samples(&self) -> Self {
        Self {
            budget: None,
            plan: None,
            state: None,
            shard: None,
            max_perplexity_ratio: None,
            metric: None,
            kv_cache: KvCache::Float,
            allow_float: true,
            ..self.clone()
        }
    }

    /// Whether someone said how exact the outputs must be.
    pub(crate) fn has_goal(&self) -> bool {
        self.min_sqnr_db.is_some() || self.max_loss.is_some() || self.max_perplexity_ratio.is_some()
    }

    /// The SQNR that integer layers must leave, in dB; `auto` asks for one where nothing else does.
    pub(crate) fn wanted_sqnr_db(&self) -> Option<f64> {
        let has_own = self.activations == Activations::Auto && !self.metric.as_ref().is_some_and(Metric::is_goal);
        self.min_sqnr_db.or(has_own.then_some(AUTO_SQNR_DB))
    }

    /// The codes of activations on fixed scales; `wide` ones have 16 bits.
    pub(crate) fn activation_grid(&self, wide: bool) -> ActivationGrid {
        match (wide || self.activation_bits == ActivationBits::Sixteen, self.is_signed(), self.target) {
            (true, false, _) => ActivationGrid::Unsigned16,
            (true, true, _) => ActivationGrid::Signed16,
            (false, false, _) => ActivationGrid::Unsigned,
            // Its kernels take any zero point, and drop a Relu only where the lowest code means 0.
            (false, true, Target::OrtCpu) => ActivationGrid::Shifted,
            (false, true, _) => ActivationGrid::Signed,
        }
    }

    /// The same with codes of weights alone.
    pub(crate) fn with_float_activations(&self) -> Self {
        Self { activations: Activations::Float, ..self.clone() }
    }

    /// The opset that the codes of activations need.
    pub(crate) fn activation_opset(&self) -> i64 {
        match (self.activations, self.activation_bits) {
            (Activations::Float, _) => 0,
            (_, ActivationBits::Eight) => LOWEST_TARGET,
            (_, ActivationBits::Sixteen | ActivationBits::Mixed) => QUANTIZE_16_OPSET,
        }
    }

    /// What the runtime's integer kernels are fast and right for.
    fn check_integers(&self) -> Result<(), Error> {
        let refused = |what: &str| Err(Error::Usage(format!("integer activations need {what}")));
        match (self.granularity, self.symmetry) {
            (Granularity::Tensor | Granularity::Channel, Symmetry::Symmetric) => Ok(()),
            (_, Symmetry::Symmetric) => refused("weights per tensor or per channel, not in blocks"),
            _ => refused("symmetric weights"),
        }
    }

    /// The solver's settings for a layer with this granularity and so many bits a weight. Integer kernels and
    /// `DequantizeLinear` take `positive_scales` only.
    pub fn spec(&self, granularity: Granularity, bits: u32, positive_scales: bool) -> Result<QuantSpec, QuantError> {
        let grid = match self.symmetry {
            _ if self.alphabet == Alphabet::E4m3 => Grid::e4m3(),
            Symmetry::Symmetric if self.mirrors(bits) && !positive_scales => Grid::mirrored(bits)?,
            Symmetry::Symmetric => Grid::symmetric(bits)?,
            Symmetry::Asymmetric => Grid::asymmetric(bits)?,
        };
        let rule = self.scale_rule.unwrap_or(match self.method {
            MethodChoice::Fixed(method) if method.walks() => ScaleRule::Max,
            _ => ScaleRule::LeastSquares,
        });
        QuantSpec::new(grid, granularity, rule)
    }

    /// Whether one more level on either side pays; compilers for accelerators want positive scales, and the walks a box
    /// with its centre at 0.
    fn mirrors(&self, bits: u32) -> bool {
        let walks = matches!(self.method, MethodChoice::Fixed(method) if method.walks());
        (2..=MOST_MIRRORED_BITS).contains(&bits) && self.target == Target::OrtCpu && !walks
    }

    /// The solver's options.
    pub(crate) fn solver_options(&self) -> Result<SolverOptions, QuantError> {
        let mut options = SolverOptions::default();
        if let Some(beam) = self.beam {
            options = options.with_beam(beam)?;
        }
        if let Some(shrink) = self.shrink {
            options = options.with_shrink(shrink)?;
        }
        if let Some(damping) = self.damping {
            options = options.with_damping(damping)?;
        }
        Ok(options)
    }
}
