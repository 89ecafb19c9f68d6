//! What can go wrong between a folder of data and layer statistics.

use std::path::PathBuf;

use crate::tensor::ElementType;

/// An error of this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CalibError {
    /// A file or folder cannot be read.
    #[error("cannot read `{}`", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// A folder holds nothing usable.
    #[error("no calibration samples in `{}`: {found}; expected .npz, .npy, .safetensors or .tar files, pictures (png, jpg, webp, bmp, tiff, gif), wav files, test_data_set_*/input_*.pb, or a .txt or .jsonl file that is named itself", path.display())]
    NoSamples {
        /// The folder.
        path: PathBuf,
        /// What is there instead.
        found: String,
    },
    /// A folder holds samples of several kinds.
    #[error("`{}` mixes calibration files of several kinds ({kinds}): keep one kind", path.display())]
    MixedKinds {
        /// The folder.
        path: PathBuf,
        /// The kinds.
        kinds: String,
    },
    /// A file of a kind that holds one array, for a model with several inputs.
    #[error("`{}` holds one array, but the model has {} inputs ({}): use .npz files with arrays of these names", path.display(), inputs.len(), quoted(inputs))]
    OneArrayManyInputs {
        /// The file.
        path: PathBuf,
        /// Names of the graph's inputs.
        inputs: Vec<String>,
    },
    /// A file is damaged or of another format.
    #[error("cannot read `{}` as calibration data", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Why.
        source: FormatError,
    },
    /// An array that belongs to no input.
    #[error("no graph input named `{name}` in `{}` (inputs: {})", path.display(), quoted(inputs))]
    UnknownArray {
        /// The file.
        path: PathBuf,
        /// The array's name.
        name: String,
        /// Names of the graph's inputs.
        inputs: Vec<String>,
    },
    /// An array that was named is not there.
    #[error("--calib-map names array `{array}`, which is not in `{}` (arrays: {})", path.display(), quoted(arrays))]
    NoSuchArray {
        /// The file.
        path: PathBuf,
        /// The array's name.
        array: String,
        /// What the file has.
        arrays: Vec<String>,
    },
    /// An input that was named for an array is not there.
    #[error("--calib-map gives array `{array}` of `{}` to `{name}`, which is no input (inputs: {})", path.display(), quoted(inputs))]
    NoSuchInput {
        /// The samples.
        path: PathBuf,
        /// The array's name.
        array: String,
        /// What it was to feed.
        name: String,
        /// Names of the graph's inputs.
        inputs: Vec<String>,
    },
    /// Names for samples that have none.
    #[error("`{}` holds no arrays with names, so that --calib-map has no effect: leave it out", path.display())]
    NoNames {
        /// The folder or file.
        path: PathBuf,
    },
    /// An input that is not given.
    #[error("graph input `{name}` is missing from `{}` (arrays: {})", path.display(), quoted(arrays))]
    MissingArray {
        /// The file.
        path: PathBuf,
        /// The input.
        name: String,
        /// What the file has.
        arrays: Vec<String>,
    },
    /// An input with a default that only some files give.
    #[error("graph input `{name}` has a default value and is given in some files but not in `{}`: give it in all files or in none", path.display())]
    SometimesGiven {
        /// The file.
        path: PathBuf,
        /// The input.
        name: String,
    },
    /// An array of the wrong element type.
    #[error("array `{array}` in `{}` is {found}, expected {expected}{hint}", path.display())]
    WrongType {
        /// The file.
        path: PathBuf,
        /// The array.
        array: String,
        /// Its element type.
        found: ElementType,
        /// The input's element type.
        expected: ElementType,
        /// What to do, or empty.
        hint: &'static str,
    },
    /// An array of the wrong shape.
    #[error("array `{array}` in `{}` has shape {found:?}, expected {expected}{hint}", path.display())]
    WrongShape {
        /// The file.
        path: PathBuf,
        /// The array.
        array: String,
        /// Its shape.
        found: Vec<usize>,
        /// The input's shape in words.
        expected: String,
        /// What to do, or empty.
        hint: String,
    },
    /// An array without elements.
    #[error("array `{array}` in `{}` has shape {shape:?}: it has no elements", path.display())]
    EmptyArray {
        /// The file.
        path: PathBuf,
        /// The array.
        array: String,
        /// Its shape.
        shape: Vec<usize>,
    },
    /// A NaN in the data.
    #[error("array `{array}` in `{}` holds NaN at index {index:?}", path.display())]
    NotANumber {
        /// The file.
        path: PathBuf,
        /// The array.
        array: String,
        /// The first such index.
        index: Vec<usize>,
    },
    /// An integer that does not fit the input's type.
    #[error("array `{array}` in `{}` is {found} and holds {value} at index {index:?}, which does not fit the input's type {expected}", path.display())]
    OutOfRange {
        /// The file.
        path: PathBuf,
        /// The array.
        array: String,
        /// Its element type.
        found: ElementType,
        /// The input's element type.
        expected: ElementType,
        /// The value.
        value: String,
        /// Its index.
        index: Vec<usize>,
    },
    /// A graph input that no array can be fed to.
    #[error("cannot feed graph input `{name}`: {reason}")]
    UnsupportedInput {
        /// The input.
        name: String,
        /// Why.
        reason: String,
    },
    /// Options for pictures that do not go together with the input.
    #[error("cannot feed pictures to graph input `{name}` (shape {shape}): {reason}")]
    ImageOptions {
        /// The input.
        name: String,
        /// Its shape in words.
        shape: String,
        /// Why.
        reason: String,
    },
    /// The configuration of a processor asks for something that is not done.
    #[error("cannot prepare samples as `{}` says: {problem}; name an --image-preset, and what differs from it", path.display())]
    Processor {
        /// The configuration.
        path: PathBuf,
        /// What it asks for.
        problem: String,
    },
    /// An input that takes no sounds.
    #[error("cannot feed sounds to graph input `{name}` (shape {shape}): {reason}")]
    SoundInput {
        /// The input.
        name: String,
        /// Its shape in words.
        shape: String,
        /// Why.
        reason: String,
    },
    /// The configuration of a feature extractor asks for something that is not done.
    #[error("cannot prepare sounds as `{}` says: {problem}", path.display())]
    Extractor {
        /// The configuration.
        path: PathBuf,
        /// What it asks for.
        problem: String,
    },
    /// Options for pictures beside samples of another kind.
    #[error("`{}` holds no pictures, so that size, layout, channel order, mean and deviation have no effect: leave them out, or store pictures", path.display())]
    NoPictures {
        /// The folder or file.
        path: PathBuf,
    },
    /// Options for texts beside samples of another kind.
    #[error("`{}` holds no texts, so that --tokenizer, --sequence-length and --text-key have no effect: leave them out, or name a .txt or .jsonl file", path.display())]
    NoTexts {
        /// The folder or file.
        path: PathBuf,
    },
    /// A graph that reads no tokens.
    #[error("cannot make samples of the texts in `{}`: none of the inputs ({}) is `input_ids`, nor what genai_config.json beside the model calls so", path.display(), quoted(inputs))]
    NoTokens {
        /// The texts.
        path: PathBuf,
        /// Names of the graph's inputs.
        inputs: Vec<String>,
    },
    /// An input that does not follow from a text.
    #[error("cannot make graph input `{name}` (shape {shape}) from the texts in `{}`: {reason}; use .npz files that hold it", path.display())]
    TextInput {
        /// The texts.
        path: PathBuf,
        /// The input.
        name: String,
        /// Its shape in words.
        shape: String,
        /// Why.
        reason: String,
    },
    /// There is nothing that turns texts into numbers.
    #[error("texts need a tokenizer: name it with --tokenizer{}", expected.as_ref().map_or(String::new(), |path| format!("; there is no `{}`", path.display())))]
    NoTokenizer {
        /// Where one was looked for.
        expected: Option<PathBuf>,
    },
    /// A tokenizer cannot be read, or not be used for a text.
    #[error("cannot tokenize with `{}`: {problem}", path.display())]
    Tokenizer {
        /// The tokenizer's file.
        path: PathBuf,
        /// Why.
        problem: String,
    },
    /// The graph takes another number of tokens than was asked for.
    #[error("cannot make samples of {asked} tokens of `{}`: the graph takes {fixed}", path.display())]
    TextLength {
        /// The texts.
        path: PathBuf,
        /// Asked for.
        asked: usize,
        /// Declared.
        fixed: usize,
    },
    /// A key for texts that have none.
    #[error("`{}` is no .jsonl file, so that --text-key has no effect: leave it out", path.display())]
    NoKeys {
        /// The texts.
        path: PathBuf,
    },
    /// A dimension that the graph names alike in several places has two lengths in one sample.
    #[error("dimension `{symbol}` is {} in `{}` and {} in `{}` of {sample}: the graph says that they are one", lengths[0].1, lengths[0].0, lengths[1].1, lengths[1].0)]
    TwoLengths {
        /// Which sample.
        sample: String,
        /// The dimension's name in the graph.
        symbol: String,
        /// Inputs and the lengths there.
        lengths: [(String, usize); 2],
    },
    /// The model has no graph or an unusable one.
    #[error("cannot run the model: {0}")]
    BadModel(String),
    /// A value that was asked for and cannot be observed.
    #[error("cannot observe value `{name}`: {reason}")]
    NoSuchValue {
        /// The value's ONNX name.
        name: String,
        /// Why.
        reason: String,
    },
    /// The engine does not take the model.
    #[error(
        "the calibration engine cannot load the model: {place}: {detail}; `--method msq --weights-only` works without calibration data"
    )]
    Load {
        /// Node and operator, where known.
        place: String,
        /// The engine's message.
        detail: String,
    },
    /// The engine failed on a sample.
    #[error(
        "the calibration engine failed on {sample}: {detail}; `--method msq --weights-only` works without calibration data"
    )]
    Run {
        /// Which sample, with its shapes.
        sample: String,
        /// The engine's message.
        detail: String,
    },
    /// Values that do not fit into memory cannot be kept in a temporary file.
    #[error("cannot use a temporary file for activations; a larger `--memory-limit` needs less of it")]
    Spill(#[source] std::io::Error),
    /// A captured activation cannot be used.
    #[error("cannot use activation `{value}` of {sample}: {detail}")]
    Activation {
        /// The value's ONNX name.
        value: String,
        /// Which sample.
        sample: String,
        /// What is wrong.
        detail: String,
    },
}

/// Why bytes are not a readable array.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FormatError {
    /// Reading or decompressing failed.
    #[error("cannot read the bytes")]
    Read(#[from] std::io::Error),
    /// The archive's directory is damaged.
    #[error("not a readable zip archive: {0}")]
    Zip(String),
    /// The header of a `.safetensors` file claims what is not there.
    #[error("not a readable .safetensors file: {0}")]
    Safetensors(String),
    /// An archive's headers are damaged.
    #[error("not a readable .tar archive")]
    Tar(#[source] std::io::Error),
    /// A member of an archive claims more than there is.
    #[error("member `{name}` claims {bytes} bytes, and {left} follow: was the archive copied whole?")]
    Member {
        /// The member.
        name: String,
        /// What it claims.
        bytes: u64,
        /// What follows.
        left: u64,
    },
    /// The bytes do not begin like an array.
    #[error("the bytes do not begin with numpy's magic string")]
    Magic,
    /// The format version is not known.
    #[error("npy format version {0}.{1} is not known (known: 1.0, 2.0, 3.0)")]
    Version(u8, u8),
    /// The header cannot be parsed.
    #[error("the npy header is malformed: {0}")]
    Header(&'static str),
    /// The element type has no counterpart among graph inputs.
    #[error("element type `{0}` cannot be fed to a model")]
    ElementType(String),
    /// The header promises another amount of data than there is.
    #[error("the header declares shape {shape:?} of {element} ({declared}), the file holds {present} bytes of data")]
    Size {
        /// Declared shape.
        shape: Vec<usize>,
        /// Declared element type.
        element: ElementType,
        /// Declared size in words.
        declared: String,
        /// Bytes present.
        present: u64,
    },
    /// The data is larger than the limit.
    #[error("the array needs {needed} bytes, the limit is {limit}")]
    TooLarge {
        /// Bytes needed.
        needed: u64,
        /// Bytes allowed.
        limit: u64,
    },
    /// The protobuf tensor cannot be used.
    #[error("not a usable TensorProto: {0}")]
    TensorProto(String),
    /// A file of JSON cannot be used.
    #[error("it is not the JSON that is expected: {0}")]
    Json(serde_json::Error),
    /// A line of a file of texts cannot be used.
    #[error("line {line}: {problem}")]
    Line {
        /// Its number, from 1.
        line: usize,
        /// Why.
        problem: String,
    },
    /// The file was cut off.
    #[error("it ends before what it holds does: was it copied whole?")]
    EndsEarly,
    /// The sound cannot be read.
    #[error("not a readable .wav file (integers of 8 to 32 bits, or floats of 32)")]
    Wav(#[source] hound::Error),
    /// The sound is of a kind that is not read.
    #[error(
        "the sound has {rate} samples a second in {channels} channels, {frames} in each; expected 1000 to 768000 a second, 1 to 64 channels and at least one sample"
    )]
    Sound {
        /// Samples a second.
        rate: u32,
        /// Channels.
        channels: u16,
        /// Samples of a channel.
        frames: u32,
    },
    /// The picture is larger than any that is read.
    #[error("the picture has {width} x {height} pixels, the limit is {limit}")]
    ManyPixels {
        /// Columns.
        width: u32,
        /// Rows.
        height: u32,
        /// The most pixels.
        limit: u64,
    },
    /// The picture cannot be decoded.
    #[error("cannot decode the picture")]
    Image(#[from] image::ImageError),
}

/// Names in backticks, at most a dozen.
pub(crate) fn quoted(names: &[String]) -> String {
    let mut words: Vec<String> = names.iter().take(12).map(|n| format!("`{n}`")).collect();
    if names.len() > 12 {
        words.push(format!("and {} more", names.len() - 12));
    }
    if words.is_empty() { "none".into() } else { words.join(", ") }
}
