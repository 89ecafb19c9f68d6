//! Flags that say how layers are quantized.

use std::path::PathBuf;

use clap::builder::ArgPredicate;
use clap::{Args, ValueEnum};
use onnxquant::quant::{Alphabet, Granularity, RangeMethod, ScaleRule, Symmetry};
use onnxquant::{
    AUTO_SQNR_DB, Activations, Budget, Config, Cpu, DEFAULT_OPSET_MAX, EngineChoice, Error, LayerRule, OrtVersion,
    PlanFile,
};

use super::words::{
    ActivationType, BitsName, EmbeddingBits, FormatName, KvCacheName, MethodName, SaturationName, ScaleName, Scheme,
    TargetName,
};

/// Weights that share a scale where few bits are asked for by a scheme and nothing else is said.
const BLOCK: usize = 32;
/// The first opset whose `DequantizeLinear` has blocks.
const BLOCKS_OPSET: i64 = 21;

/// With these no scheme is meant but weights of 8 bits, or of as many as they say. Flags and words have a value at any rate.
fn without_scheme() -> Vec<(&'static str, ArgPredicate, Option<&'static str>)> {
    let flags = ["weights_only", "asymmetric"].map(|flag| (flag, "true".into(), None));
    let formats = ["dq", "matmulnbits"].map(|format| ("format", format.into(), None));
    let numbers = ["bits", "granularity", "plan", "average_bits", "target_size"];
    let numbers = numbers.map(|number| (number, ArgPredicate::IsPresent, None));
    flags.into_iter().chain(formats).chain(numbers).collect()
}

/// How layers are quantized.
#[derive(Debug, Args)]
pub(crate) struct SettingsArgs {
    /// What becomes of weights and activations; by default `auto`.
    ///
    /// It is weights alone of 8 bits where another option is about these: --weights-only, --bits, --granularity, --asymmetric,
    /// --format, --plan, --average-bits and --target-size. With every --target but `ort-cpu` activations have integers on
    /// fixed scales beside weights of any width.
    #[arg(long, value_enum, default_value = "auto", default_value_ifs = without_scheme(), hide_default_value = true)]
    scheme: Option<Scheme>,

    /// How weights become codes; `auto` lets validation samples choose, layer by layer.
    #[arg(long, value_enum, default_value_t = MethodName::Auto)]
    pub(super) method: MethodName,

    /// Quantize every layer by the named method, even where rounding is better on validation samples.
    ///
    /// Also lifts the limit on how long the walk of a layer may take.
    #[arg(long)]
    no_fallback: bool,

    /// Fit every layer to what it sees in the float network, not to what it sees behind the layers quantized before it:
    /// faster, less exact.
    #[arg(long)]
    one_pass: bool,

    /// Follow this many partial solutions side by side: 4 to 8 gain a few percent at as many times the cost.
    #[arg(long, value_name = "N")]
    beam: Option<usize>,

    /// Shrink the range of weights before rounding (MagR): 0.001 for example, at 2 or 3 bits.
    #[arg(long, value_name = "X")]
    shrink: Option<f64>,

    /// Added to the diagonal of Gram matrices, as a fraction of its mean; by default validation samples choose.
    #[arg(long, value_name = "X")]
    damping: Option<f64>,

    /// Where the walk of `maly-saab` saturates: at the largest weight, or at the smallest value possible.
    #[arg(long, value_enum, default_value_t = SaturationName::Max)]
    saturation: SaturationName,

    /// What the file is for: ONNX Runtime on a CPU, or a compiler.
    ///
    /// On a CPU codes must pay. Compilers want every operator on codes that can be, operators of ONNX's own domain alone, and
    /// the types of codes that they know.
    #[arg(long, value_enum, default_value_t = TargetName::OrtCpu)]
    pub(super) target: TargetName,

    /// How ranges of activations are found: `min-max`, `min-max:F` (F times as wide), `moving-average`, `percentile:P`,
    /// `mse`, `entropy`; by default validation samples choose.
    #[arg(long, value_name = "METHOD")]
    range: Option<RangeMethod>,

    /// The held-out outputs must have this SQNR.
    ///
    /// With integer activations the most sensitive layers keep float ones;
    /// with weights alone (`--scheme w8`) bits are chosen layer by layer, as few as possible.
    #[arg(long, value_name = "DB", allow_negative_numbers = true)]
    min_sqnr: Option<f64>,

    /// The same until one minus the mean cosine of every held-out output is at most this, for example 0.001.
    #[arg(long, value_name = "X")]
    max_loss: Option<f64>,

    /// The same until the perplexity of held-out text is at most this many times that of the float model, for example 1.05.
    #[arg(long, value_name = "X")]
    max_perplexity_ratio: Option<f64>,

    /// Codes of activations on fixed scales: with a sign or without one.
    ///
    /// `s8` has the zero point 0 with `--target qdq-strict`, as compilers for accelerators want it.
    #[arg(long, value_enum, value_name = "TYPE", default_value_t = ActivationType::U8)]
    pub(super) activation_type: ActivationType,

    /// Bits of activations on fixed scales: `8`, `16`, or `mixed`: 16 only where --min-sqnr or --max-loss needs them.
    ///
    /// 16 bits need `--target qdq-strict` and opset 21: ONNX Runtime has no such kernels for a CPU.
    #[arg(long, value_enum, value_name = "BITS", default_value_t = BitsName::Eight)]
    activation_bits: BitsName,

    /// Fixed scales of activations are powers of two, for accelerators that shift; with `--target qdq-strict`.
    #[arg(long)]
    power_of_two_scales: bool,

    /// Processors on which integer layers must be exact and nothing may be slower than floats: `portable` (all of the
    /// others, the default), `avx2`, `avx512`, `vnni`, `arm64`, or `native`, this one.
    ///
    /// Sums of 8-bit products saturate on x86 without VNNI unless codes side by side keep a rule, which costs some
    /// tenths of a dB; `vnni` and `arm64` do without it, `avx2` and `avx512` are the same as `portable`. Weights of 8 bits
    /// alone are fast with `vnni` (MatMulNBits); on AVX2 that is slower than floats for more than a few rows, so that they
    /// become floats when the model loads, unless `vnni` or `arm64` is given.
    #[arg(long, value_name = "CPU")]
    cpu: Option<Cpu>,

    /// Decode what is quantized in the model already, weights and activations, and quantize it anew. By default it stays as it is.
    #[arg(long)]
    requantize: bool,

    /// Compute in f16 or bf16 what the model computes in them. By default that is f32, which processors without such arithmetic
    /// do faster, between inputs and outputs of the model's types; what is left of its weights is stored in them.
    #[arg(long)]
    keep_type: bool,

    /// Weights of 7 bits with integer activations, for other runtimes whose 8-bit products saturate; in ONNX Runtime
    /// --cpu loses less.
    #[arg(long)]
    reduce_range: bool,

    /// Bits a weight, 1 to 8, instead of those of --scheme.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=8))]
    pub(super) bits: Option<u32>,

    /// Bits of every layer, and what stands with them, from a file that --save-plan wrote.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["bits", "granularity", "symmetric", "asymmetric"])]
    pub(super) plan: Option<PathBuf>,

    /// Which weights share a scale: `tensor`, `channel` or `block:N`, which is about MatMul and Gemm; by default `block:32`
    /// with `--scheme w4`, `w3` and `w2`, else `channel`.
    #[arg(long)]
    granularity: Option<Granularity>,

    /// Zero points are 0 (default).
    #[arg(long, overrides_with = "asymmetric")]
    symmetric: bool,

    /// Zero points are chosen for each scale.
    #[arg(long, overrides_with = "symmetric")]
    asymmetric: bool,

    /// How scales are chosen; by default as suits the method.
    #[arg(long, value_enum, value_name = "RULE")]
    scale: Option<ScaleName>,

    /// Quantize only layers whose name matches; may be repeated.
    #[arg(long, value_name = "GLOB")]
    include: Vec<String>,

    /// Leave layers whose name matches in float; may be repeated.
    #[arg(long, value_name = "GLOB")]
    exclude: Vec<String>,

    /// What single layers get: those that `name = "LAYER"`, `match = "GLOB"`, `op-type = "Conv"` and `position = "first"`
    /// (`"last"`, or a number) pick, one of them or several, get `bits = 4`, or stay floats: `float = true`. May be repeated; the last rule for a
    /// layer holds. In a file it is a table, `[[layer]]`.
    #[arg(long = "layer", value_name = "RULE")]
    layer_rules: Vec<LayerRule>,

    /// Never raise the model's opset above this.
    #[arg(long, value_name = "N", default_value_t = DEFAULT_OPSET_MAX)]
    opset_max: i64,

    /// The oldest version of ONNX Runtime in which the file has to load, be right and be fast; 1.19 and on.
    #[arg(long, value_name = "VERSION", default_value_t = OrtVersion::default())]
    ort_min: OrtVersion,

    /// How weights of MatMul and Gemm are written: `auto`, as is fast from --ort-min on; `dq`, standard ONNX;
    /// `matmulnbits`, ONNX Runtime's own operator.
    #[arg(long, value_enum, default_value_t = FormatName::Auto)]
    pub(super) format: FormatName,

    /// Bits of tables that Gather reads, one scale a row; `off` leaves them in float.
    #[arg(long, value_enum, value_name = "BITS", default_value_t = EmbeddingBits::Eight)]
    embeddings: EmbeddingBits,

    /// What a decoder keeps of the tokens behind it: `int8`, codes on a scale for each head and channel, in an operator of ONNX
    /// Runtime from 1.27 on (--ort-min 1.27).
    #[arg(long, value_enum, value_name = "TYPE", default_value_t = KvCacheName::Float)]
    kv_cache: KvCacheName,

    /// Keep weights in a file beside the model (OUT.data); automatic above 2 GB.
    #[arg(long)]
    external_data: bool,

    /// Memory for the statistics of the layers that are solved together, in MiB.
    #[arg(long, value_name = "MIB", default_value_t = 1024)]
    memory_limit: u64,
}

impl SettingsArgs {
    /// Accuracy is bought with bits where activations stay floats and nothing says how many bits there are.
    pub(super) fn budget(&self) -> Option<Budget> {
        let is_open = matches!(self.scheme(), Scheme::W8)
            && self.activations() == Activations::Float
            && self.bits.is_none()
            && self.plan.is_none();
        self.min_sqnr.filter(|_| is_open).map(Budget::MinSqnrDb)
    }

    pub(super) fn scheme(&self) -> Scheme {
        self.scheme.unwrap_or(Scheme::W8)
    }

    /// What becomes of activations: accelerators are served by integers.
    pub(super) fn activations(&self) -> Activations {
        match (self.target, self.scheme().activations()) {
            (TargetName::OrtCpu, activations) => activations,
            (_, Activations::Float | Activations::Auto) => Activations::Static,
            (_, activations) => activations,
        }
    }

    /// What `auto` asks of the outputs where a target takes its choice away.
    fn floor(&self) -> Option<f64> {
        let is_auto = matches!(self.scheme(), Scheme::Auto);
        (is_auto && self.target != TargetName::OrtCpu).then_some(AUTO_SQNR_DB)
    }

    /// Refuses a scheme whose bits `option` would set aside.
    pub(super) fn check_open(&self, option: &str) -> Result<(), Error> {
        let fixes = |scheme: &Scheme| !matches!(scheme, Scheme::W8a8 | Scheme::W8a8Dynamic | Scheme::Auto);
        let Some(name) = self.scheme.filter(fixes).and_then(|scheme| scheme.to_possible_value()) else { return Ok(()) };
        let name = name.get_name();
        let problem =
            format!("{option} gives every layer bits of its own, but `--scheme {name}` fixes them: leave one out");
        Err(Error::Usage(problem))
    }

    pub(crate) fn config(&self) -> Result<Config, Error> {
        self.check_words()?;
        if self.plan.is_some() {
            self.check_open("--plan")?;
        }
        let plan = self.plan.as_deref().map(PlanFile::read).transpose()?;
        let config = self.config_without_plan();
        Ok(match plan {
            Some(plan) => {
                Config { granularity: plan.granularity(), symmetry: plan.symmetry(), plan: Some(plan), ..config }
            }
            None => config,
        })
    }

    pub(super) fn is_fp8(&self) -> bool {
        matches!(self.scheme(), Scheme::Fp8)
    }

    /// Words that contradict each other.
    fn check_words(&self) -> Result<(), Error> {
        match self.bits {
            Some(_) if self.is_fp8() => {
                Err(Error::Usage("FP8 weights have 8 bits: leave out --bits, or choose another --scheme".to_owned()))
            }
            _ => Ok(()),
        }
    }

    /// Bits of a weight: those that are given, else those of the scheme.
    pub(super) fn bits(&self) -> u32 {
        let is_reduced = self.reduce_range && self.scheme().bits() == 8 && self.activations() != Activations::Float;
        self.bits.unwrap_or(if is_reduced { 7 } else { self.scheme().bits() })
    }

    /// Which weights share a scale. At few bits one a channel costs a decoder most of what it knows; blocks are refused
    /// beside integer activations, and below opset 21 only ONNX Runtime's own operator has them.
    fn granularity(&self) -> Granularity {
        let of_few_bits = matches!(self.scheme(), Scheme::W4 | Scheme::W3 | Scheme::W2) && self.bits() <= 4;
        let has_form = self.opset_max >= BLOCKS_OPSET || !matches!(self.format, FormatName::Dq);
        let in_blocks = of_few_bits && has_form && self.activations() == Activations::Float;
        self.granularity.unwrap_or(if in_blocks { Granularity::Block(BLOCK) } else { Granularity::Channel })
    }

    fn config_without_plan(&self) -> Config {
        Config {
            method: self.method.choice(self.saturation),
            fallback: !self.no_fallback,
            one_pass: self.one_pass,
            beam: self.beam,
            shrink: self.shrink,
            damping: self.damping,
            bits: self.bits(),
            alphabet: if self.is_fp8() { Alphabet::E4m3 } else { Alphabet::Integers },
            plan: None,
            activations: self.activations(),
            target: self.target.into(),
            cpu: self.cpu.unwrap_or_default(),
            range: self.range,
            signed_activations: matches!(self.activation_type, ActivationType::S8),
            activation_bits: self.activation_bits.into(),
            power_of_two: self.power_of_two_scales,
            min_sqnr_db: self.min_sqnr.or(self.floor()),
            max_loss: self.max_loss,
            max_perplexity_ratio: self.max_perplexity_ratio,
            granularity: self.granularity(),
            symmetry: if self.asymmetric { Symmetry::Asymmetric } else { Symmetry::Symmetric },
            scale_rule: self.scale.map(ScaleRule::from),
            include: self.include.clone(),
            exclude: self.exclude.clone(),
            layer_rules: self.layer_rules.clone(),
            opset_max: self.opset_max,
            ort_min: self.ort_min,
            format: self.format.into(),
            embeddings: self.embeddings.number(),
            kv_cache: self.kv_cache.into(),
            allow_float: false,
            requantize: self.requantize,
            keep_type: self.keep_type,
            external_data: self.external_data,
            memory_limit_bytes: self.memory_limit.saturating_mul(1 << 20),
            // They are not about layers.
            budget: None,
            state: None,
            shard: None,
            engine: EngineChoice::Auto,
            runtime: None,
            metric: None,
            verify: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::FromArgMatches;

    use super::*;
    use crate::args::{Cli, command};

    /// Which weights share a scale with these options.
    fn granularity(words: &str) -> Granularity {
        let start = ["onnxquant", "in.onnx", "out.onnx", "--calib", "c"];
        let given = command().get_matches_from(start.into_iter().chain(words.split_whitespace()));
        let cli = Cli::from_arg_matches(&given).unwrap();
        let config = cli.quantize.config().unwrap();
        config.check().unwrap();
        config.granularity
    }

    #[test]
    fn schemes_of_few_bits_have_blocks_where_there_are_any() {
        for words in ["w4", "w3", "w2", "w4 --bits 3", "w4 --asymmetric", "w3 --opset-max 17", "w4 --format dq"] {
            assert_eq!(granularity(&format!("--scheme {words}")), Granularity::Block(BLOCK), "{words}");
        }
        for words in [
            "--scheme w8",
            "--scheme w1",
            "--bits 4",
            "--average-bits 4",
            "--scheme w4a8",
            "--scheme w4 --target qdq-strict",
            "--scheme w4 --bits 8",
            "--scheme w4 --granularity channel",
            "--scheme w4 --format dq --opset-max 20",
            "--scheme fp8",
        ] {
            assert_eq!(granularity(words), Granularity::Channel, "{words}");
        }
    }
}
