//! Calibration data: a folder (or file) of samples, read one at a time.
//!
//! | files | one sample is |
//! |---|---|
//! | `.npz` | a file; its arrays are named as the graph's inputs |
//! | `.safetensors` | the same |
//! | `.npy` (models with one input) | a file, or a row of it: an array with several rows on a batch axis is split; one without the batch axis gets it |
//! | `test_data_set_*/input_*.pb` | a folder; tensors are matched by name, else by number |
//! | `.png`, `.jpg`, `.webp`, `.bmp`, `.tiff`, `.gif` (models with one input) | a picture, see [`ImageOptions`] |
//! | `.tar` | members with one stem, see `shards` |
//! | `.wav` (models with one input) | a sound, see `sound` |
//! | a `.txt` or `.jsonl` file that is named itself (models of texts) | a window of tokens, see [`TextOptions`]; other inputs are made |
//!
//! Beside a picture or a sound, a model may take the mask of it (`masks`).
//!
//! Types and shapes of all selected samples are compared with the graph when the set is
//! opened; values are read, converted and searched for NaN when a sample is loaded.

mod captures;
mod check;
mod continued;
mod discover;
mod genai_config;
mod input_spec;
mod json;
mod kind;
mod masks;
mod named;
mod npy;
mod npz;
mod part;
mod picture;
mod reader;
mod safetensors;
mod shards;
mod sound;
mod source;
mod survey;
mod tensor_proto;
mod text;
mod text_inputs;

use std::collections::HashMap;
use std::path::{Path, PathBuf};

pub use captures::write_captures;
pub use discover::sample_files;
pub use genai_config::GenaiDecoder;
pub use input_spec::{Dim, InputSpec};
pub use npy::read_npy;
pub use npz::{NamedTensors, read_npz};
pub use picture::{ChannelOrder, IMAGE_PRESETS, ImageBase, ImageLayout, ImageOptions, ImagePreset};
pub use survey::{DataReport, ValueRange};
#[cfg(all(test, feature = "tract"))]
pub(crate) use tensor_proto::to_tensor;
pub use text::TextOptions;

use onnxquant_storage::{Kept, foresee, is_file, is_folder, keep};
use onnxquant_temporary::TempFolder;

use crate::error::CalibError;
use crate::tensor::Tensor;
use discover::{Found, discover};
use reader::SourceReader;
use source::Source;

/// The values of one sample, in the order of the graph's inputs.
pub type Sample = Vec<(String, Tensor)>;

/// How data is read.
#[derive(Debug, Clone)]
pub struct DataOptions {
    /// Use this many samples, evenly spaced over the sorted files (files are often sorted by
    /// class, so that the first ones would not represent the rest). `None`: all, or 128 of texts.
    pub samples: Option<usize>,
    /// Names of arrays in files, each with that of the input it feeds; with an empty one, where it feeds none.
    pub names: Vec<(String, String)>,
    /// How pictures become tensors; `None`: as [`ImageOptions::default`] says. Refused where samples are no pictures.
    pub image: Option<ImageOptions>,
    /// How texts become tensors; `None`: as [`TextOptions::default`] says. Refused where samples are no texts.
    pub text: Option<TextOptions>,
    /// The folder of the model, where a tokenizer, a `preprocessor_config.json` and a `genai_config.json` are looked for.
    pub model_folder: Option<PathBuf>,
    /// Samples with more bytes of data are refused.
    pub max_sample_bytes: u64,
}

impl Default for DataOptions {
    /// All samples, as their files say, at most 1 GiB a sample.
    fn default() -> Self {
        Self {
            samples: None,
            names: Vec::new(),
            image: None,
            text: None,
            model_folder: None,
            max_sample_bytes: 1 << 30,
        }
    }
}

/// Files beside a model that are read for its samples.
pub const BESIDE_MODELS: [&str; 3] = [PROCESSOR, text::TOKENIZER, genai_config::FILE];
/// The file in which Hugging Face's transformers keeps what is done to pictures and sounds.
const PROCESSOR: &str = "preprocessor_config.json";
/// A folder of this name holds the graphs of the folder around it.
pub const GRAPHS: &str = "onnx";

impl DataOptions {
    /// Where a file lies that belongs to the model: beside it, or one folder up where that of the model is `onnx`.
    pub(crate) fn beside_model(&self, name: &str) -> Option<PathBuf> {
        let folder = self.model_folder.as_deref()?;
        let above = folder.parent().filter(|_| folder.file_name().is_some_and(|own| own == GRAPHS));
        let found =
            [Some(folder), above].into_iter().flatten().map(|folder| folder.join(name)).find(|path| is_file(path));
        Some(found.unwrap_or_else(|| folder.join(name)))
    }

    /// The configuration of a processor that is read for the samples in `data`, if any is.
    pub fn processor(&self, data: &Path) -> Option<PathBuf> {
        match self.image.as_ref().map(|image| &image.base) {
            Some(ImageBase::Processor(path)) => Some(path.clone()),
            Some(ImageBase::Preset(_)) => None,
            Some(ImageBase::Found) | None => self.found_processor(data),
        }
    }

    /// That which lies beside the model, or else in the folder of the samples.
    pub(crate) fn found_processor(&self, data: &Path) -> Option<PathBuf> {
        let folder = if is_folder(data).unwrap_or(false) { Some(data) } else { data.parent() };
        let places = [self.beside_model(PROCESSOR), folder.map(|folder| folder.join(PROCESSOR))];
        places.into_iter().flatten().find(|path| is_file(path))
    }
}

/// Sample numbers by what they are for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Split {
    /// Samples to calibrate with.
    pub calibration: Vec<usize>,
    /// Samples on which methods, ranges and bits are chosen: a tenth, at least one, evenly spaced.
    pub validation: Vec<usize>,
    /// Samples on which the result is measured and nothing was chosen: a fifth, at least eight but no more than a third,
    /// evenly spaced.
    pub held_out: Vec<usize>,
    /// There are so few samples that one stands in several lists, and the measured error is not one on unseen data.
    pub shared: bool,
}

/// A set of samples whose files have been found and whose types and shapes have been checked.
#[derive(Debug)]
pub struct CalibSet {
    /// The inputs the samples give, in graph order.
    inputs: Vec<InputSpec>,
    sources: Vec<Source>,
    /// By sample, by input.
    shapes: Vec<Vec<Vec<usize>>>,
    reader: SourceReader,
    /// The decoder that reads them, where they are texts.
    decoder: GenaiDecoder,
    /// Files of the folder that are no samples.
    skipped: Vec<PathBuf>,
    /// Caches of samples that continue a text.
    spool: Option<TempFolder>,
    /// What was fetched of objects.
    _kept: Kept,
}

impl CalibSet {
    /// Finds the samples in `path` for a graph with these inputs.
    pub fn open(path: &Path, inputs: &[InputSpec], options: &DataOptions) -> Result<Self, CalibError> {
        let kept = keep();
        let found = discover(path)?;
        let reader = SourceReader::new(&found, path, inputs, options)?;
        let Found { kind, places, skipped } = found;
        let mut sources = reader.sources(kind, places, options)?;
        if let Some(wanted) = options.samples {
            sources = evenly_spaced(sources, wanted);
        }
        foresee(&sources.iter().flat_map(Source::files).collect::<Vec<_>>());
        let mut given: Option<Vec<usize>> = None;
        let mut shapes = Vec::with_capacity(sources.len());
        for source in &sources {
            let found = reader.scan(source)?;
            let names: Vec<usize> = found.iter().map(|(input, _)| *input).collect();
            check_same_inputs(source, inputs, given.get_or_insert_with(|| names.clone()), &names)?;
            check_symbols(source, inputs, &found)?;
            shapes.push(found.into_iter().map(|(_, shape)| shape).collect());
        }
        let given =
            given.ok_or_else(|| CalibError::NoSamples { path: path.into(), found: "no sample was selected".into() })?;
        let inputs = given.into_iter().map(|i| inputs[i].clone()).collect();
        let decoder = if reader.text().is_some() { options.decoder()? } else { GenaiDecoder::default() };
        Ok(Self { inputs, sources, shapes, reader, decoder, skipped, spool: None, _kept: kept })
    }

    /// Number of samples.
    pub fn len(&self) -> usize {
        self.sources.len()
    }

    /// Whether there are no samples; an opened set has at least one.
    pub fn is_empty(&self) -> bool {
        self.sources.is_empty()
    }

    /// The inputs that the samples give, in graph order: all but those left at their default.
    pub fn inputs(&self) -> &[InputSpec] {
        &self.inputs
    }

    /// The shapes of a sample's arrays, in the order of [`CalibSet::inputs`].
    pub fn shapes(&self, sample: usize) -> &[Vec<usize>] {
        &self.shapes[sample]
    }

    /// Where a sample comes from, for messages: `` `data/0003.npz` ``.
    pub fn describe(&self, sample: usize) -> String {
        self.sources[sample].describe()
    }

    /// Reads a sample.
    ///
    /// # Panics
    /// If `sample` is not below [`CalibSet::len`].
    pub fn load(&self, sample: usize) -> Result<Sample, CalibError> {
        let tensors = self.reader.load(&self.sources[sample], &self.inputs)?;
        Ok(self.inputs.iter().map(|i| i.name.clone()).zip(tensors).collect())
    }

    /// Divides the samples by what they are for.
    pub fn split(&self) -> Split {
        Split::of(self.len())
    }
}

/// Samples whose results are too few to tell from, and are more where there are so many.
const LEAST_HELD_OUT: usize = 8;

impl Split {
    /// That of `n` samples.
    pub fn of(n: usize) -> Self {
        let (held_out, others) = take_evenly((0..n).collect(), (n / 5).max(LEAST_HELD_OUT).min(n / 3).max(1));
        let (validation, calibration) = take_evenly(others.clone(), (n / 10).max(1).min(others.len() / 2));
        let shared = calibration.is_empty() || validation.is_empty();
        let instead = |found: Vec<usize>, other: &[usize]| if found.is_empty() { other.to_vec() } else { found };
        let validation = instead(validation, &held_out);
        Self { calibration: instead(calibration, &validation), validation, held_out, shared }
    }

    /// At most so many of the samples that are not held out, evenly spaced.
    pub fn seen(&self, most: usize) -> Vec<usize> {
        let seen = self.calibration.iter().chain(&self.validation).filter(|sample| !self.held_out.contains(sample));
        let mut seen: Vec<usize> = seen.copied().collect();
        seen.sort_unstable();
        seen.dedup();
        evenly_spaced(seen, most)
    }
}

/// The middle of each of `count` equal stretches, and what is left.
fn take_evenly(all: Vec<usize>, count: usize) -> (Vec<usize>, Vec<usize>) {
    let taken: Vec<usize> =
        (0..count).filter_map(|i| all.get((2 * i + 1) * all.len() / (2 * count)).copied()).collect();
    let left = all.into_iter().filter(|sample| !taken.contains(sample)).collect();
    (taken, left)
}

fn evenly_spaced<T>(items: Vec<T>, wanted: usize) -> Vec<T> {
    let n = items.len();
    let wanted = wanted.min(n);
    let mut next = (0..wanted).map(|i| i * n / wanted).peekable();
    let chosen = items.into_iter().enumerate().filter(|(i, _)| next.next_if_eq(i).is_some());
    chosen.map(|(_, item)| item).collect()
}

fn check_same_inputs(
    source: &Source,
    inputs: &[InputSpec],
    first: &[usize],
    these: &[usize],
) -> Result<(), CalibError> {
    let differing = first.iter().find(|i| !these.contains(i)).or_else(|| these.iter().find(|i| !first.contains(i)));
    match differing {
        None => Ok(()),
        Some(&i) => Err(CalibError::SometimesGiven { path: source.path().into(), name: inputs[i].name.clone() }),
    }
}

/// Refuses a sample in whose arrays a named dimension has two lengths.
fn check_symbols(source: &Source, inputs: &[InputSpec], found: &[(usize, Vec<usize>)]) -> Result<(), CalibError> {
    let mut known: HashMap<&str, (&str, usize)> = HashMap::new();
    for (input, shape) in found {
        let spec = &inputs[*input];
        for (dim, &length) in spec.dims.iter().flatten().zip(shape) {
            let Dim::Symbolic(symbol) = dim else { continue };
            let (first, before) = *known.entry(symbol).or_insert((&spec.name, length));
            if before != length {
                return Err(CalibError::TwoLengths {
                    sample: source.describe(),
                    symbol: symbol.clone(),
                    lengths: [(first.to_owned(), before), (spec.name.clone(), length)],
                });
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
