//! Words and flags of the command line.

use std::num::NonZero;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use onnxquant::calib::{ChannelOrder, DataOptions, ImageLayout, ImageOptions};
use onnxquant::quant::{Alphabet, Granularity, Method, RangeMethod, Saturation, ScaleRule, Symmetry};
use onnxquant::{
    ActivationBits, Activations, Budget, Config, Cpu, DEFAULT_OPSET_MAX, DataConfig, Error, Format, MethodChoice,
    OrtVersion, PlanFile, Target, Verify,
};

const EXAMPLES: &str = "\
Examples:
  onnxquant model.onnx small.onnx --calib samples/
  onnxquant model.onnx small.onnx --calib samples/ --scheme w4 --granularity block:32
  onnxquant model.onnx small.onnx --calib samples/ --average-bits 3.5 --save-plan plan.toml
  onnxquant model.onnx fast.onnx --calib samples/ --scheme auto
  onnxquant model.onnx small.onnx --calib photos/ --image-preset imagenet
  onnxquant model.onnx small.onnx --method msq --weights-only
  onnxquant inspect model.onnx
  onnxquant compare model.onnx small.onnx --data samples/

Exit codes: 0 done, 1 an accuracy that was asked for was missed, 2 bad input or usage, 3 a defect of this program.";

/// Makes ONNX models smaller and faster before they are served.
#[derive(Debug, Parser)]
#[command(name = "onnxquant", version, about, after_help = EXAMPLES)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Option<Command>,

    #[command(flatten)]
    pub(crate) quantize: QuantizeArgs,

    /// Worker threads; by default one for each core. The result does not depend on it.
    #[arg(long, global = true, value_name = "N")]
    pub(crate) threads: Option<NonZero<usize>>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Lists every candidate layer: operator, shape, parameters, what would be done or why not.
    Inspect(InspectArgs),
    /// Compares the outputs of two models on data.
    Compare(CompareArgs),
    /// Prints a completion script for a shell.
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
}

#[derive(Debug, Args)]
pub(crate) struct QuantizeArgs {
    /// The float model; it is never changed.
    #[arg(value_name = "IN", required = true)]
    pub(crate) input: Option<PathBuf>,

    /// Where the quantized model appears, whole or not at all.
    #[arg(value_name = "OUT", required = true)]
    pub(crate) output: Option<PathBuf>,

    /// Calibration samples: a folder or a file of .npz, .npy, ONNX test data sets or pictures.
    #[arg(long, value_name = "PATH", required_unless_present = "weights_only")]
    pub(crate) calib: Option<PathBuf>,

    /// Quantize without calibration data (plain rounding).
    #[arg(long, conflicts_with = "calib")]
    pub(crate) weights_only: bool,

    #[command(flatten)]
    pub(crate) data: DataArgs,

    #[command(flatten)]
    pub(crate) settings: SettingsArgs,

    /// Choose bits layer by layer, out of 2, 3, 4 and 8: at most so many a weight on the average, for example 3.5. A
    /// weight that several layers read counts once.
    #[arg(long, value_name = "BITS", conflicts_with_all = ["bits", "plan", "target_size"])]
    average_bits: Option<f64>,

    /// The same for a file of at most so many megabytes (of 1,000,000 bytes).
    #[arg(long, value_name = "MB", conflicts_with_all = ["bits", "plan"])]
    target_size: Option<f64>,

    /// Write the bits of every layer into a file, for --plan; `-` is the standard output.
    #[arg(long, value_name = "FILE")]
    pub(crate) save_plan: Option<PathBuf>,

    /// Keep solved layers in this folder: a run that was killed goes on there when it is started again.
    #[arg(long, value_name = "DIR")]
    pub(crate) state: Option<PathBuf>,

    /// Keep statistics of activations in this file; they are used again while model and samples are the same.
    #[arg(long, value_name = "FILE")]
    pub(crate) calibration_cache: Option<PathBuf>,

    /// Write the full report as JSON; `-` is the standard output, and the summary then goes to the standard error.
    #[arg(long, value_name = "FILE")]
    pub(crate) report: Option<PathBuf>,

    /// Print nothing but errors.
    #[arg(long, short)]
    pub(crate) quiet: bool,
}

#[derive(Debug, Args)]
pub(crate) struct InspectArgs {
    /// The model.
    pub(crate) model: PathBuf,

    /// Print JSON instead of a table.
    #[arg(long)]
    pub(crate) json: bool,

    /// Print what each pass before quantization changes instead of the layers.
    #[arg(long)]
    pub(crate) passes: bool,

    #[command(flatten)]
    pub(crate) settings: SettingsArgs,
}

#[derive(Debug, Args)]
pub(crate) struct CompareArgs {
    /// The reference.
    pub(crate) first: PathBuf,

    /// The model to compare with it.
    pub(crate) second: PathBuf,

    /// Samples: whatever --calib takes.
    #[arg(long = "data", value_name = "PATH")]
    pub(crate) path: PathBuf,

    #[command(flatten)]
    pub(crate) data: DataArgs,

    /// Compute the second model as processors of this class do: on `portable`, `avx2` and `avx512` sums of products on
    /// codes saturate, on `vnni` and `arm64` they are exact, as without this option; `native` is the class of this one.
    #[arg(long, value_name = "CLASS")]
    pub(crate) cpu: Option<Cpu>,

    /// Print JSON instead of a table.
    #[arg(long)]
    pub(crate) json: bool,
}

/// How layers are quantized.
#[derive(Debug, Args)]
#[command(next_help_heading = "Quantization")]
pub(crate) struct SettingsArgs {
    /// How weights become codes; `auto` lets held-out samples choose, layer by layer.
    #[arg(long, value_enum, default_value_t = MethodName::Auto)]
    method: MethodName,

    /// Quantize every layer by the named method, even where rounding is better on held-out samples.
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

    /// Added to the diagonal of Gram matrices, as a fraction of its mean; by default held-out samples choose.
    #[arg(long, value_name = "X")]
    damping: Option<f64>,

    /// Where the walk of `maly-saab` saturates: at the largest weight, or at the smallest value possible.
    #[arg(long, value_enum, default_value_t = SaturationName::Max)]
    saturation: SaturationName,

    /// What becomes of weights and activations; by default `w8`.
    #[arg(long, value_enum)]
    scheme: Option<Scheme>,

    /// What integer activations are for: ONNX Runtime on a CPU, where they must pay, or compilers for accelerators,
    /// which want every operator on codes that can be.
    #[arg(long, value_enum, default_value_t = TargetName::OrtCpu)]
    target: TargetName,

    /// How ranges of activations are found: `min-max`, `min-max:F` (F times as wide), `moving-average`, `percentile:P`,
    /// `mse`, `entropy`; by default held-out samples choose.
    #[arg(long, value_name = "METHOD")]
    range: Option<RangeMethod>,

    /// The held-out outputs must have this SQNR. With integer activations the most sensitive layers keep float ones;
    /// with weights alone (w8) bits are chosen layer by layer, as few as possible.
    #[arg(long, value_name = "DB", allow_negative_numbers = true)]
    min_sqnr: Option<f64>,

    /// The same until one minus the mean cosine of every held-out output is at most this, for example 0.001.
    #[arg(long, value_name = "X")]
    max_loss: Option<f64>,

    /// Codes of activations on fixed scales: with a sign or without one.
    ///
    /// `s8` has the zero point 0 with `--target qdq-strict`, as compilers for accelerators want it.
    #[arg(long, value_enum, value_name = "TYPE", default_value_t = ActivationType::U8)]
    activation_type: ActivationType,

    /// Bits of activations on fixed scales: `8`, `16`, or `mixed`: 16 only where --min-sqnr or --max-loss needs them.
    ///
    /// 16 bits need `--target qdq-strict` and opset 21: ONNX Runtime has no such kernels for a CPU.
    #[arg(long, value_enum, value_name = "BITS", default_value_t = BitsName::Eight)]
    activation_bits: BitsName,

    /// Fixed scales of activations are powers of two, for accelerators that shift; with `--target qdq-strict`.
    #[arg(long)]
    power_of_two_scales: bool,

    /// Processors on which integer layers must be exact: `portable` (all of the others, the default), `avx2`, `avx512`,
    /// `vnni`, `arm64`, or `native`, this one.
    ///
    /// Sums of 8-bit products saturate on x86 without VNNI unless codes side by side keep a rule, which costs some
    /// tenths of a dB; `vnni` and `arm64` do without it, `avx2` and `avx512` are the same as `portable`.
    #[arg(long, value_name = "CPU")]
    cpu: Option<Cpu>,

    /// Weights of 7 bits with integer activations, for other runtimes whose 8-bit products saturate; in ONNX Runtime
    /// --cpu loses less.
    #[arg(long)]
    reduce_range: bool,

    /// Bits a weight, 1 to 8, instead of those of --scheme.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=8))]
    bits: Option<u32>,

    /// Bits of every layer, and what stands with them, from a file that --save-plan wrote.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["bits", "granularity", "symmetric", "asymmetric"])]
    plan: Option<PathBuf>,

    /// Which weights share a scale: `tensor`, `channel` or `block:N`.
    #[arg(long, default_value = "channel")]
    granularity: Granularity,

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

    /// Never raise the model's opset above this.
    #[arg(long, value_name = "N", default_value_t = DEFAULT_OPSET_MAX)]
    opset_max: i64,

    /// The oldest version of ONNX Runtime in which the file has to load, be right and be fast; 1.19 and on.
    #[arg(long, value_name = "VERSION", default_value_t = OrtVersion::default())]
    ort_min: OrtVersion,

    /// How weights of MatMul and Gemm are written: `auto`, as is fast from --ort-min on; `dq`, standard ONNX;
    /// `matmulnbits`, ONNX Runtime's own operator.
    #[arg(long, value_enum, default_value_t = FormatName::Auto)]
    format: FormatName,

    /// Bits of tables that Gather reads, one scale a row; `off` leaves them in float.
    #[arg(long, value_enum, value_name = "BITS", default_value_t = EmbeddingBits::Eight)]
    embeddings: EmbeddingBits,

    /// Load the written file in ONNX Runtime at every optimization level, and check there what layers run as. Nothing is
    /// written where that fails.
    #[arg(long, value_enum, value_name = "RUNTIME")]
    verify: Option<VerifyName>,

    /// The Python that has ONNX Runtime, for --verify; else that of ONNXQUANT_PYTHON, else python3.
    #[arg(long, value_name = "PATH", requires = "verify")]
    python: Option<PathBuf>,

    /// Keep weights in a file beside the model (OUT.data); automatic above 2 GB.
    #[arg(long)]
    external_data: bool,

    /// Memory for the statistics of the layers that are solved together, in MiB.
    #[arg(long, value_name = "MIB", default_value_t = 1024)]
    memory_limit: u64,
}

/// How samples are read.
#[derive(Debug, Args)]
#[command(next_help_heading = "Samples")]
pub(crate) struct DataArgs {
    /// Use this many samples, evenly spaced over the sorted files.
    #[arg(long, value_name = "N")]
    samples: Option<NonZero<usize>>,

    /// Preprocessing of pictures as a whole; the other options change parts of it.
    #[arg(long, value_enum)]
    image_preset: Option<ImagePreset>,

    /// Height and width of pictures, for example 224 or 480x640; by default the input's.
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    image_size: Option<(u32, u32)>,

    /// Subtracted from pixel values of 0..1, by channel.
    #[arg(long, value_name = "A,B,C", value_parser = parse_triple)]
    mean: Option<[f32; 3]>,

    /// Divides pixel values after --mean, by channel.
    #[arg(long, value_name = "A,B,C", value_parser = parse_triple)]
    std: Option<[f32; 3]>,

    /// Axis order of pictures; by default found from the input's shape.
    #[arg(long, value_enum)]
    layout: Option<LayoutName>,

    /// Channel order of pictures.
    #[arg(long, value_enum)]
    channel_order: Option<OrderName>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum MethodName {
    Auto,
    Msq,
    MalySaab,
    CellWalk,
    Gpfq,
    Optq,
    Feedback,
    Saturate,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum SaturationName {
    Max,
    Min,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Scheme {
    /// Weights of 8 bits.
    W8,
    /// Weights of 4 bits.
    W4,
    /// Weights of 3 bits.
    W3,
    /// Weights of 2 bits.
    W2,
    /// Weights of 1 bit.
    W1,
    /// Weights of 8-bit floats (FP8 E4M3), which ONNX Runtime makes floats again when it loads the model.
    Fp8,
    /// Weights and activations of 8 bits, on fixed scales.
    W8a8,
    /// Weights of 4 bits and activations of 8, on fixed scales.
    W4a8,
    /// Weights and activations of 8 bits; the scales of activations are made at run time.
    W8a8Dynamic,
    /// Weights of 8 bits; activations of 8 bits on fixed scales behind convolutions, made at run time elsewhere.
    Auto,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum FormatName {
    Auto,
    Dq,
    Matmulnbits,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum VerifyName {
    Ort,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum EmbeddingBits {
    #[value(name = "8")]
    Eight,
    #[value(name = "4")]
    Four,
    Off,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum TargetName {
    OrtCpu,
    QdqStrict,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum ActivationType {
    U8,
    S8,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum BitsName {
    #[value(name = "8")]
    Eight,
    #[value(name = "16")]
    Sixteen,
    Mixed,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum ScaleName {
    Max,
    LeastSquares,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum ImagePreset {
    Imagenet,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum LayoutName {
    Nchw,
    Nhwc,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum OrderName {
    Rgb,
    Bgr,
}

impl QuantizeArgs {
    pub(crate) fn config(&self) -> Result<Config, Error> {
        let config = self.settings.config()?;
        let of_budget = [("--average-bits", self.average_bits), ("--target-size", self.target_size)];
        for (option, _) in of_budget.into_iter().filter(|(_, given)| given.is_some()) {
            self.settings.check_open(option)?;
        }
        if self.settings.is_fp8() && self.save_plan.is_some() {
            let problem = "a plan holds bits, and FP8 weights have 8 in every layer: leave out --save-plan";
            return Err(Error::Usage(problem.to_owned()));
        }
        let budget = match (self.average_bits, self.target_size) {
            (Some(bits), _) => Some(Budget::AverageBits(bits)),
            (None, Some(megabytes)) => Some(Budget::TargetBytes((megabytes * 1e6).max(0.0) as u64)),
            (None, None) => self.settings.budget(),
        };
        Ok(Config { budget, state: self.state.clone(), ..config })
    }
}

impl SettingsArgs {
    /// Accuracy is bought with bits where activations stay floats and nothing says how many bits there are.
    fn budget(&self) -> Option<Budget> {
        let is_open = matches!(self.scheme(), Scheme::W8) && self.bits.is_none() && self.plan.is_none();
        self.min_sqnr.filter(|_| is_open).map(Budget::MinSqnrDb)
    }

    fn scheme(&self) -> Scheme {
        self.scheme.unwrap_or(Scheme::W8)
    }

    /// Refuses a scheme whose bits `option` would set aside.
    fn check_open(&self, option: &str) -> Result<(), Error> {
        let fixes = |scheme: &Scheme| !matches!(scheme, Scheme::W8a8 | Scheme::W8a8Dynamic | Scheme::Auto);
        let Some(name) = self.scheme.filter(fixes).and_then(|scheme| scheme.to_possible_value()) else { return Ok(()) };
        let name = name.get_name();
        let problem =
            format!("{option} gives every layer bits of its own, but `--scheme {name}` fixes them: leave one out");
        Err(Error::Usage(problem))
    }

    /// The Python that has ONNX Runtime, where one is named.
    fn python(&self) -> Option<PathBuf> {
        self.python.clone().or_else(|| std::env::var_os("ONNXQUANT_PYTHON").map(PathBuf::from))
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

    fn is_fp8(&self) -> bool {
        matches!(self.scheme(), Scheme::Fp8)
    }

    /// Words that would have no effect beside the others.
    fn check_words(&self) -> Result<(), Error> {
        use Scheme::{Fp8, W1, W2, W3, W4, W8};
        let floats = matches!(self.scheme(), W8 | W4 | W3 | W2 | W1 | Fp8);
        if self.cpu.is_some() && floats {
            let problem = "--cpu is about integer activations, and this scheme has none: use `--scheme auto`, `w8a8`, \
                           `w4a8` or `w8a8-dynamic`";
            return Err(Error::Usage(problem.to_owned()));
        }
        if self.is_fp8() && self.bits.is_some() {
            return Err(Error::Usage(
                "FP8 weights have 8 bits: leave out --bits, or choose another --scheme".to_owned(),
            ));
        }
        Ok(())
    }

    fn config_without_plan(&self) -> Config {
        let saturation = match self.saturation {
            SaturationName::Max => Saturation::Max,
            SaturationName::Min => Saturation::Min,
        };
        Config {
            method: match self.method {
                MethodName::Auto => MethodChoice::Auto,
                MethodName::Msq => MethodChoice::Fixed(Method::Msq),
                MethodName::MalySaab => MethodChoice::Fixed(Method::MalySaab { saturation }),
                MethodName::CellWalk => MethodChoice::Fixed(Method::CellWalk),
                MethodName::Gpfq => MethodChoice::Fixed(Method::Gpfq),
                MethodName::Optq => MethodChoice::Fixed(Method::Optq),
                MethodName::Feedback => MethodChoice::Fixed(Method::Feedback),
                MethodName::Saturate => MethodChoice::Fixed(Method::Saturate),
            },
            fallback: !self.no_fallback,
            one_pass: self.one_pass,
            beam: self.beam,
            shrink: self.shrink,
            damping: self.damping,
            bits: self.bits.unwrap_or(match self.scheme() {
                Scheme::W8a8 | Scheme::W8a8Dynamic | Scheme::Auto if self.reduce_range => 7,
                Scheme::W8 | Scheme::Fp8 | Scheme::W8a8 | Scheme::W8a8Dynamic | Scheme::Auto => 8,
                Scheme::W4 | Scheme::W4a8 => 4,
                Scheme::W3 => 3,
                Scheme::W2 => 2,
                Scheme::W1 => 1,
            }),
            alphabet: if self.is_fp8() { Alphabet::E4m3 } else { Alphabet::Integers },
            budget: None,
            plan: None,
            state: None,
            activations: match self.scheme() {
                Scheme::W8a8 | Scheme::W4a8 => Activations::Static,
                Scheme::W8a8Dynamic => Activations::Dynamic,
                Scheme::Auto => Activations::Auto,
                _ => Activations::Float,
            },
            target: match self.target {
                TargetName::OrtCpu => Target::OrtCpu,
                TargetName::QdqStrict => Target::QdqStrict,
            },
            cpu: self.cpu.unwrap_or_default(),
            range: self.range,
            signed_activations: matches!(self.activation_type, ActivationType::S8),
            activation_bits: match self.activation_bits {
                BitsName::Eight => ActivationBits::Eight,
                BitsName::Sixteen => ActivationBits::Sixteen,
                BitsName::Mixed => ActivationBits::Mixed,
            },
            power_of_two: self.power_of_two_scales,
            min_sqnr_db: self.min_sqnr,
            max_loss: self.max_loss,
            granularity: self.granularity,
            symmetry: if self.asymmetric { Symmetry::Asymmetric } else { Symmetry::Symmetric },
            scale_rule: self.scale.map(|rule| match rule {
                ScaleName::Max => ScaleRule::Max,
                ScaleName::LeastSquares => ScaleRule::LeastSquares,
            }),
            include: self.include.clone(),
            exclude: self.exclude.clone(),
            opset_max: self.opset_max,
            ort_min: self.ort_min,
            format: match self.format {
                FormatName::Auto => Format::Auto,
                FormatName::Dq => Format::Dq,
                FormatName::Matmulnbits => Format::MatMulNBits,
            },
            embeddings: match self.embeddings {
                EmbeddingBits::Eight => Some(8),
                EmbeddingBits::Four => Some(4),
                EmbeddingBits::Off => None,
            },
            verify: self.verify.map(|VerifyName::Ort| Verify { python: self.python() }),
            external_data: self.external_data,
            memory_limit_bytes: self.memory_limit.saturating_mul(1 << 20),
        }
    }
}

impl DataArgs {
    pub(crate) fn config(&self, path: PathBuf) -> DataConfig {
        let preset = match self.image_preset {
            Some(ImagePreset::Imagenet) => ImageOptions::imagenet(),
            None => ImageOptions::default(),
        };
        let image = ImageOptions {
            size: self.image_size.or(preset.size),
            mean: self.mean.unwrap_or(preset.mean),
            std: self.std.unwrap_or(preset.std),
            layout: self.layout.map(|layout| match layout {
                LayoutName::Nchw => ImageLayout::Nchw,
                LayoutName::Nhwc => ImageLayout::Nhwc,
            }),
            channel_order: match self.channel_order {
                Some(OrderName::Bgr) => ChannelOrder::Bgr,
                Some(OrderName::Rgb) => ChannelOrder::Rgb,
                None => preset.channel_order,
            },
            ..preset
        };
        let options = DataOptions { samples: self.samples.map(NonZero::get), image, ..DataOptions::default() };
        DataConfig { path, options, cache: None }
    }
}

fn parse_size(text: &str) -> Result<(u32, u32), String> {
    let number = |text: &str| text.parse::<u32>().ok().filter(|&n| n > 0);
    let size = match text.split_once('x') {
        Some((height, width)) => number(height).zip(number(width)),
        None => number(text).map(|side| (side, side)),
    };
    size.ok_or_else(|| "expected a number of pixels, or height x width, for example 480x640".to_owned())
}

fn parse_triple(text: &str) -> Result<[f32; 3], String> {
    let numbers = text.split(',').map(|part| part.trim().parse::<f32>().ok()).collect::<Option<Vec<_>>>();
    match numbers.as_deref() {
        Some([one]) => Ok([*one; 3]),
        Some([a, b, c]) => Ok([*a, *b, *c]),
        _ => Err("expected one number or three separated by commas".to_owned()),
    }
}
