//! Statistics of activations over the calibration samples, from a run or from the file of an earlier one.
//!
//! The file (`--calibration-cache`) is JSON: a version of its format, the engine, fingerprints of the prepared model and of
//! the samples' values, and statistics by state of the model (its channels may be rescaled in between), kind and value.
//! Numbers are read back as they were written, bit by bit, so that a run with the file writes the same bytes as one
//! without. What was made by another engine, of another model, of other samples or by another format is not used and said so; a file that
//! is no such JSON is an error.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashSet};
use std::io::Write;
use std::path::{Path, PathBuf};

use onnxquant_calib::{Session, Tensor, collect_channels, collect_histograms};
use onnxquant_ir::{Model, PendingFile};
use onnxquant_quant::{ChannelAxis, ChannelRanges, Histogram};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::fingerprint::{of_model, of_samples};
use crate::observe::calibration::Calibration;
use crate::observe::samples::Samples;
use crate::progress::{Phase, Progress};

/// Of the file, and of what the numbers in it mean.
const FORMAT: u32 = 2;

/// What is known of one state of the model.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Section {
    /// By value and number of samples.
    histograms: BTreeMap<String, Histogram>,
    channels: BTreeMap<String, ChannelRanges>,
    /// Elements in the first sample; none for values that are not 32-bit floats.
    sizes: BTreeMap<String, Option<usize>>,
}

/// The file.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Cache {
    format: u32,
    engine: String,
    model: String,
    samples: String,
    /// By fingerprint of the model as it was then.
    sections: BTreeMap<String, Section>,
}

/// Only this of a file of another format is looked at.
#[derive(Deserialize)]
struct Head {
    format: u32,
}

/// What was used of a file of statistics.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct CacheReport {
    /// Statistics that were read from the file.
    pub reused: usize,
    /// Statistics that were gathered anew, and written into it.
    pub gathered: usize,
    /// Why nothing of an earlier file could be used.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rebuilt: Option<String>,
}

/// Looks at activations.
pub(crate) struct Observer<'a> {
    calibration: &'a Calibration,
    progress: Progress<'a>,
    store: Option<RefCell<Store>>,
}

struct Store {
    path: PathBuf,
    cache: Cache,
    /// What this run has added.
    gathered: HashSet<String>,
    report: CacheReport,
}

/// Gathers the statistics of values by running samples.
type Gather<'a, S> = dyn Fn(&[String]) -> Result<Vec<S>, Error> + 'a;

impl<'a> Observer<'a> {
    /// With the statistics of `file`, where one is given; `model` is the prepared one.
    pub(crate) fn open(
        calibration: &'a Calibration,
        model: &Model,
        file: Option<&Path>,
        progress: Progress<'a>,
    ) -> Result<Self, Error> {
        let store = file.map(|path| Store::open(path, model, &calibration.samples)).transpose()?;
        Ok(Self { calibration, progress, store: store.map(RefCell::new) })
    }

    pub(crate) fn calibration(&self) -> &'a Calibration {
        self.calibration
    }

    pub(crate) fn progress(&self) -> Progress<'a> {
        self.progress
    }

    /// Writes the file, if there is one and it has something new; says what was used of it.
    pub(crate) fn close(self) -> Result<Option<CacheReport>, Error> {
        self.store.map(|store| store.into_inner().save()).transpose()
    }

    /// The distributions of `values` over at most `most` calibration samples.
    pub(crate) fn histograms(&self, model: &Model, values: &[String], most: usize) -> Result<Vec<Histogram>, Error> {
        let samples = self.samples(most);
        self.cached(model, values, &|name| format!("{name} over {}", samples.len()), |s| &mut s.histograms, &|names| {
            let session = self.session(model, names, &samples)?;
            Ok(collect_histograms(&session, &self.calibration.samples.data, &samples, &|state| self.report(state))?)
        })
    }

    /// The channels of values over at most `most` calibration samples.
    pub(crate) fn channels(
        &self,
        model: &Model,
        values: &[(String, ChannelAxis)],
        most: usize,
    ) -> Result<Vec<ChannelRanges>, Error> {
        let samples = self.samples(most);
        let axis =
            |name: &str| values.iter().find(|(known, _)| known == name).map_or(ChannelAxis::Last, |(_, axis)| *axis);
        let names: Vec<String> = values.iter().map(|(name, _)| name.clone()).collect();
        let key = |name: &str| format!("{name} along {:?} over {}", axis(name), samples.len());
        self.cached(model, &names, &key, |s| &mut s.channels, &|names| {
            let session = self.session(model, names, &samples)?;
            let axes: Vec<ChannelAxis> = names.iter().map(|name| axis(name)).collect();
            Ok(collect_channels(&session, &self.calibration.samples.data, &samples, &axes, &|state| {
                self.report(state)
            })?)
        })
    }

    /// Elements of `values` in the first calibration sample; `None` for values that are not 32-bit floats.
    pub(crate) fn sizes(&self, model: &Model, values: &[String]) -> Result<Vec<Option<usize>>, Error> {
        let Some(&sample) = self.calibration.samples.split.calibration.first() else {
            return Ok(vec![None; values.len()]);
        };
        self.cached(model, values, &str::to_owned, |section| &mut section.sizes, &|names| {
            let mut sizes = vec![None; names.len()];
            self.calibration.samples.run_one(model, names, sample, &mut |position, tensor| {
                sizes[position] = matches!(tensor, Tensor::F32(_)).then(|| tensor.len());
            })?;
            Ok(sizes)
        })
    }

    fn report(&self, state: onnxquant_calib::Progress) {
        (self.progress)(Phase::Calibrate, state.done, state.total);
    }

    fn session(&self, model: &Model, values: &[String], samples: &[usize]) -> Result<Box<dyn Session>, Error> {
        self.calibration.samples.session(model, values, samples)
    }

    /// At most so many calibration samples, evenly spaced.
    fn samples(&self, most: usize) -> Vec<usize> {
        let all = &self.calibration.samples.split.calibration;
        let count = all.len().min(most);
        (0..count).map(|i| all[i * all.len() / count]).collect()
    }

    /// Statistics of `values` from the file where it has all of them, else from `run`.
    fn cached<S: Clone>(
        &self,
        model: &Model,
        values: &[String],
        key: &dyn Fn(&str) -> String,
        of: fn(&mut Section) -> &mut BTreeMap<String, S>,
        run: &Gather<'_, S>,
    ) -> Result<Vec<S>, Error> {
        if values.is_empty() {
            return Ok(Vec::new());
        }
        let Some(store) = &self.store else { return run(values) };
        let state = of_model(model)?;
        let mut store = store.borrow_mut();
        let section = of(store.cache.sections.entry(state.clone()).or_default());
        let known: Option<Vec<S>> = values.iter().map(|name| section.get(&key(name)).cloned()).collect();
        if let Some(known) = known {
            let of_file = values.iter().filter(|name| !store.gathered.contains(&key(name))).count();
            store.report.reused += of_file;
            return Ok(known);
        }
        let found = run(values)?;
        of(store.cache.sections.entry(state).or_default())
            .extend(values.iter().map(|name| key(name)).zip(found.iter().cloned()));
        store.gathered.extend(values.iter().map(|name| key(name)));
        store.report.gathered += found.len();
        Ok(found)
    }
}

impl Store {
    fn open(path: &Path, model: &Model, samples: &Samples) -> Result<Self, Error> {
        let fresh = Cache {
            format: FORMAT,
            engine: samples.engine.name().to_owned(),
            model: of_model(model)?,
            samples: of_samples(&samples.data, &samples.split.calibration)?,
            sections: BTreeMap::new(),
        };
        let (cache, rebuilt) = match read(path)? {
            None => (fresh, None),
            Some(Found::OtherFormat(format)) => {
                (fresh, Some(format!("the file has format {format}, this program writes {FORMAT}")))
            }
            Some(Found::Cache(old)) if old.engine != fresh.engine => {
                (fresh, Some(format!("it was made with {}, this is {}", old.engine, samples.engine.name())))
            }
            Some(Found::Cache(old)) if old.model != fresh.model => (fresh, Some("the model is another one".to_owned())),
            Some(Found::Cache(old)) if old.samples != fresh.samples => {
                (fresh, Some("the calibration samples are others".to_owned()))
            }
            Some(Found::Cache(old)) => (old, None),
        };
        let report = CacheReport { reused: 0, gathered: 0, rebuilt };
        Ok(Self { path: path.to_owned(), cache, gathered: HashSet::new(), report })
    }

    fn save(self) -> Result<CacheReport, Error> {
        if self.report.gathered > 0 {
            let failed = |problem: String| Error::Output { path: self.path.clone(), problem };
            let mut file = PendingFile::create(&self.path).map_err(|error| failed(error.to_string()))?;
            let json = serde_json::to_vec(&self.cache).map_err(|error| Error::Internal(error.to_string()))?;
            file.file().write_all(&json).map_err(|error| failed(error.to_string()))?;
            file.commit().map_err(|error| failed(error.to_string()))?;
        }
        Ok(self.report)
    }
}

enum Found {
    Cache(Cache),
    OtherFormat(u32),
}

/// What stands in the file; `None` where there is none.
fn read(path: &Path) -> Result<Option<Found>, Error> {
    let unusable = |problem: String| {
        let path = path.display();
        Error::Usage(format!("cannot use the calibration cache `{path}`: {problem}; delete it, and it is made anew"))
    };
    let text = match std::fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(unusable(error.to_string())),
    };
    let head: Head = serde_json::from_slice(&text).map_err(|error| unusable(error.to_string()))?;
    if head.format != FORMAT {
        return Ok(Some(Found::OtherFormat(head.format)));
    }
    let cache = serde_json::from_slice(&text).map_err(|error| unusable(error.to_string()))?;
    Ok(Some(Found::Cache(cache)))
}
