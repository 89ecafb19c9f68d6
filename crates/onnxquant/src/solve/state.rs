//! Keeps solved layers in a [`Store`], so that a run that was killed can go on.
//!
//! | name | what |
//! |---|---|
//! | `run.toml` | what codes depend on: formats, algorithms, engine, model, samples, settings; another run is refused |
//! | `plan.toml` | the bits of every layer, once they are chosen |
//! | `FINGERPRINT.table` | the codes of a table of embeddings |
//! | `FINGERPRINT/0007.layer` | layer 7 in a run with these bits: codes, scales, zero points, correction, report |
//!
//! A layer is the text `onnxquant layer`, a header in TOML, little-endian numbers and a fingerprint of all that;
//! it appears whole or not at all. Numbers are read back as they were written, bit by bit, so that a run that went on
//! writes the same bytes as one that was not interrupted. The memory limit and the number of threads change no code and
//! are no part of the key; where it is kept, what is verified and how weights are stored neither.

use std::path::Path;
use std::sync::Arc;

use ndarray::Array3;
use onnxquant_ir::Model;
use onnxquant_quant::{Alphabet, LayerSolution};
use serde::{Deserialize, Serialize};

use crate::config::Config;
use crate::error::Error;
use crate::fingerprint::{of_bytes, of_model, of_numbers, of_samples};
use crate::observe::samples::Samples;
use crate::plan::layers::{Plan, PlannedLayer};
use crate::plan::tables::PlannedTable;
use crate::plan_file::PlanFile;
use crate::solve::kept::{checked, failed, has, read, read_value, with_check, write_value};
use crate::solve::parts::KeptParts;
use crate::solve::solved::{Findings, Solved};
use crate::store::Store;
use crate::write::codes::QuantizedTable;

/// Names of what is kept.
pub(crate) const RUN_NAME: &str = "run.toml";
pub(crate) const PLAN_NAME: &str = "plan.toml";
/// First bytes of a layer.
const MAGIC: &[u8] = b"onnxquant layer\n";
/// Of the files, and of what a report takes from them. Raised when these change.
const FORMAT: u32 = 2;
/// Raised when this program makes other codes of the same model, samples and settings: golden files change then.
const ALGORITHMS: u32 = 4;

/// What a run keeps.
#[derive(Debug)]
pub(crate) struct State {
    store: Arc<dyn Store>,
}

/// What a run depends on.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
struct Key {
    format: u32,
    version: String,
    algorithms: u32,
    engine: String,
    model: String,
    samples: String,
    settings: String,
}

impl State {
    /// Opens what was kept; that of another run is an error.
    pub(crate) fn open(
        store: &Arc<dyn Store>,
        model: &Model,
        config: &Config,
        samples: Option<&Samples>,
    ) -> Result<Self, Error> {
        let all = |samples: &Samples| (0..samples.data.len()).collect::<Vec<_>>();
        let engine = samples.map(|samples| samples.engine.name().to_owned()).unwrap_or_default();
        let samples = samples.map(|samples| of_samples(&samples.data, &all(samples))).transpose()?;
        let key = Key {
            format: FORMAT,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            algorithms: ALGORITHMS,
            engine,
            model: of_model(model)?,
            samples: samples.unwrap_or_default(),
            settings: serde_json::to_string(config).map_err(|error| Error::Internal(error.to_string()))?,
        };
        store.open().map_err(|error| Error::State { path: store.place(), problem: error.to_string() })?;
        let state = Self { store: Arc::clone(store) };
        match read(store.as_ref(), RUN_NAME)? {
            Some(found) => key.check(&store.place(), &found)?,
            None => {
                let text = toml::to_string(&key).map_err(|error| Error::Internal(error.to_string()))?;
                state.keep(RUN_NAME, text.into_bytes())?;
            }
        }
        Ok(state)
    }

    /// The bits of every layer, where they were chosen.
    pub(crate) fn bits(&self, plan: &Plan) -> Result<Option<Vec<u32>>, Error> {
        let Some(text) = read(self.store.as_ref(), PLAN_NAME)? else { return Ok(None) };
        let path = self.store.place().join(PLAN_NAME);
        let kept = PlanFile::of_text(&String::from_utf8_lossy(&text), &path)?;
        plan.layers.iter().map(|layer| kept.bits_of(&layer.label)).collect::<Result<_, _>>().map(Some)
    }

    /// Keeps the bits of every layer.
    pub(crate) fn keep_bits(&self, plan: &Plan, config: &Config) -> Result<(), Error> {
        let layers = plan.layers.iter().map(|layer| (layer.label.clone(), layer.bits));
        let text = PlanFile::new(config.granularity, config.symmetry, layers).text()?;
        self.keep(PLAN_NAME, text.into_bytes())
    }

    fn keep(&self, name: &str, value: Vec<u8>) -> Result<(), Error> {
        keep(self.store.as_ref(), name, value)
    }

    /// The codes of a table with these numbers: those that were kept, else those that `make` gives, which are kept.
    pub(crate) fn table(
        &self,
        table: &PlannedTable,
        numbers: &[f32],
        make: impl FnOnce() -> Result<QuantizedTable, Error>,
    ) -> Result<QuantizedTable, Error> {
        let PlannedTable { name, bits, block, .. } = table;
        let key = format!("{bits} {block:?} {} {name}", of_numbers(numbers));
        let name = format!("{}.table", of_bytes(key.as_bytes()));
        if let Some(kept) = read_value(self.store.as_ref(), &name)? {
            return Ok(kept);
        }
        let made = make()?;
        write_value(self.store.as_ref(), &name, &made)?;
        Ok(made)
    }

    /// The layers of a run with the bits of `plan`.
    pub(crate) fn layers(&self, plan: &Plan) -> KeptLayers {
        let bits = plan.layers.iter().flat_map(|layer| layer.bits.to_le_bytes()).collect::<Vec<u8>>();
        KeptLayers { store: Arc::clone(&self.store), bits: of_bytes(&bits) }
    }
}

impl Key {
    fn check(&self, place: &Path, found: &[u8]) -> Result<(), Error> {
        let failed = |path: &Path, problem: String| Error::State { path: path.to_owned(), problem };
        let text = String::from_utf8_lossy(found);
        let found = toml::from_str(&text).map_err(|error| failed(&place.join(RUN_NAME), error.to_string()));
        let found: Self = found?;
        let parts = [
            ("version of this program", (&self.version, self.format) == (&found.version, found.format)),
            ("version of the algorithms", self.algorithms == found.algorithms),
            ("engine", self.engine == found.engine),
            ("model", self.model == found.model),
            ("samples", self.samples == found.samples),
            ("settings", self.settings == found.settings),
        ];
        let other: Vec<&str> = parts.iter().filter(|(_, same)| !same).map(|(part, _)| *part).collect();
        match other.is_empty() {
            true => Ok(()),
            false => {
                let problem = format!("it was made with another {}", other.join(", another "));
                Err(failed(place, format!("{problem}; remove it, or name another folder")))
            }
        }
    }
}

/// The solved layers of a run.
#[derive(Debug)]
pub(crate) struct KeptLayers {
    store: Arc<dyn Store>,
    /// The fingerprint of their bits.
    bits: String,
}

/// What comes before the numbers in a layer.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    label: String,
    /// Of the codes, `[groups, K, M]`.
    dims: [usize; 3],
    /// Of the scales and zero points, `[groups, blocks, M]`.
    scale_dims: [usize; 3],
    block_size: usize,
    #[serde(default)]
    alphabet: Alphabet,
    corrections: usize,
    findings: Findings,
}

impl KeptLayers {
    fn name(&self, index: usize) -> String {
        format!("{}/{index:04}.layer", self.bits)
    }

    /// What parts of the samples gave for the stage whose first layer is `start`.
    pub(crate) fn parts(&self, start: usize) -> KeptParts {
        KeptParts::new(&self.store, format!("{}/stage-{start:04}", self.bits))
    }

    /// What parts of the samples gave when outputs were compared in the end.
    pub(crate) fn compared_parts(&self, seen: &[usize]) -> KeptParts {
        // Where a runtime judges, samples that were used before are left to it.
        KeptParts::new(&self.store, format!("{}/compared-{}", self.bits, seen.len()))
    }

    /// Whether a layer is there.
    pub(crate) fn has(&self, index: usize) -> bool {
        has(self.store.as_ref(), &self.name(index))
    }

    /// Whether so many layers from `start` on are there.
    pub(crate) fn has_all(&self, start: usize, layers: usize) -> bool {
        (start..start + layers).all(|index| self.has(index))
    }

    /// All layers of a stage, the first of which is layer `start`, or nothing where one is missing.
    pub(crate) fn stage(&self, start: usize, layers: &[PlannedLayer]) -> Result<Option<Vec<Solved>>, Error> {
        if !self.has_all(start, layers.len()) {
            return Ok(None);
        }
        layers.iter().enumerate().map(|(index, layer)| self.layer(start + index, layer)).collect()
    }

    fn layer(&self, index: usize, layer: &PlannedLayer) -> Result<Option<Solved>, Error> {
        let name = self.name(index);
        let Some(bytes) = read(self.store.as_ref(), &name)? else { return Ok(None) };
        let failed = |problem: String| Error::State { path: self.store.place().join(&name), problem };
        let damaged = || failed("the file is damaged; remove it, and its layer will be solved again".to_owned());
        let (header, solved) = decode(&bytes).ok_or_else(damaged)?;
        match header == layer.label {
            true => Ok(Some(solved)),
            false => Err(failed(format!("it is of layer `{header}`, expected `{}`", layer.label))),
        }
    }

    /// Keeps a layer.
    pub(crate) fn keep(&self, index: usize, layer: &PlannedLayer, solved: &Solved) -> Result<(), Error> {
        let bytes = encode(&layer.label, solved).map_err(|error| Error::Internal(error.to_string()))?;
        keep(self.store.as_ref(), &self.name(index), with_check(bytes))
    }
}

/// Keeps what took time to make.
fn keep(store: &dyn Store, name: &str, value: Vec<u8>) -> Result<(), Error> {
    store.write(name, value, false).map_err(|error| failed(store, name, &error))
}

fn encode(label: &str, solved: &Solved) -> Result<Vec<u8>, toml::ser::Error> {
    let Solved { solution, correction, findings } = solved;
    let dims = |(groups, rows, columns): (usize, usize, usize)| [groups, rows, columns];
    let header = toml::to_string(&Header {
        label: label.to_owned(),
        dims: dims(solution.codes.dim()),
        scale_dims: dims(solution.scales.dim()),
        block_size: solution.block_size,
        alphabet: solution.alphabet,
        corrections: correction.len(),
        findings: findings.clone(),
    })?;
    let mut bytes = [MAGIC, &(header.len() as u64).to_le_bytes(), header.as_bytes()].concat();
    bytes.extend(solution.codes.iter().flat_map(|code| code.to_le_bytes()));
    bytes.extend(solution.scales.iter().flat_map(|scale| scale.to_le_bytes()));
    bytes.extend(solution.zero_points.iter().flat_map(|code| code.to_le_bytes()));
    bytes.extend(correction.iter().flat_map(|number| number.to_le_bytes()));
    Ok(bytes)
}

/// The layer's label and what was found; `None` where the bytes are damaged.
fn decode(bytes: &[u8]) -> Option<(String, Solved)> {
    let (length, rest) = checked(bytes)?.strip_prefix(MAGIC)?.split_first_chunk()?;
    let (header, mut rest) = rest.split_at_checked(usize::try_from(u64::from_le_bytes(*length)).ok()?)?;
    let header: Header = toml::from_str(std::str::from_utf8(header).ok()?).ok()?;
    let (codes, scales) = (count(header.dims)?, count(header.scale_dims)?);
    let codes = take(&mut rest, codes, i16::from_le_bytes)?;
    let numbers = take(&mut rest, scales, f32::from_le_bytes)?;
    let zero_points = take(&mut rest, scales, i16::from_le_bytes)?;
    let correction = take(&mut rest, header.corrections, f32::from_le_bytes)?;
    let solution = LayerSolution {
        codes: Array3::from_shape_vec(header.dims, codes).ok()?,
        scales: Array3::from_shape_vec(header.scale_dims, numbers).ok()?,
        zero_points: Array3::from_shape_vec(header.scale_dims, zero_points).ok()?,
        block_size: header.block_size,
        alphabet: header.alphabet,
        preprocessed: None,
        promise: None,
        notes: Vec::new(),
    };
    rest.is_empty().then_some((header.label, Solved { solution, correction, findings: header.findings }))
}

fn count(dims: [usize; 3]) -> Option<usize> {
    dims.into_iter().try_fold(1usize, usize::checked_mul)
}

fn take<T, const N: usize>(rest: &mut &[u8], count: usize, number: impl Fn([u8; N]) -> T) -> Option<Vec<T>> {
    let (taken, left) = rest.split_at_checked(count.checked_mul(N)?)?;
    *rest = left;
    Some(taken.as_chunks::<N>().0.iter().map(|bytes| number(*bytes)).collect())
}

#[cfg(test)]
#[path = "state_tests.rs"]
mod tests;
