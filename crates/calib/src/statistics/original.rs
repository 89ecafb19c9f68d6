//! A model with which others are compared, and what it gives.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::slices::Slicing;
use crate::data::{CalibSet, Sample};
use crate::engine::Session;
use crate::error::CalibError;
use crate::run::{Progress, bytes_of, describe_failure, in_batches, run_order};
use crate::stream::{Keep, Slot, Store};
use crate::tensor::Tensor;

/// Samples and what a model gives for them are kept up to this.
const KEPT_BYTES: usize = 64 << 20;

/// A model with which others are compared. What it gives for a sample is kept, and the sample itself, as far as
/// 64 MiB reach; it is the same again and again.
pub struct Original<S> {
    outputs: Outputs<S>,
    slicings: Vec<Slicing>,
    kept: Mutex<Kept>,
}

/// Where the values of a sample come from.
enum Outputs<S> {
    Session(S),
    /// The model has been run, and is gone.
    Recorded(Recorded),
}

/// What a model gave.
struct Recorded {
    values: Vec<String>,
    /// Where a sample stands in the store.
    places: HashMap<usize, usize>,
    store: Store,
}

#[derive(Default)]
struct Kept {
    by_sample: HashMap<usize, Arc<Known>>,
    bytes: usize,
}

/// A sample, and the values observed.
pub(super) struct Known {
    pub(super) sample: Sample,
    pub(super) values: Vec<Tensor>,
}

impl<S: Session> Original<S> {
    /// The session should observe the graph's outputs, parts of which are told apart by their magnitudes.
    pub fn new(session: S) -> Self {
        let slicings = vec![Slicing::default(); session.values().len()];
        Self::with_slicings(session, slicings)
    }

    /// The same with the parts, by output, that are judged apart.
    pub fn with_slicings(session: S, slicings: Vec<Slicing>) -> Self {
        Self { outputs: Outputs::Session(session), slicings, kept: Mutex::default() }
    }

    /// Runs the model on `samples`, keeps what it gives, in memory up to 64 MiB and in a temporary file beyond, and drops
    /// the session: the next model then has the memory for itself. Other samples cannot be compared after that.
    ///
    /// # Errors
    /// A sample cannot be read or run, or the file not be written.
    pub fn recorded(
        self,
        data: &CalibSet,
        samples: &[usize],
        progress: &dyn Fn(Progress),
    ) -> Result<Original<S>, CalibError> {
        let Self { outputs, slicings, kept } = self;
        let session = match outputs {
            Outputs::Session(session) => session,
            recorded @ Outputs::Recorded(_) => return Ok(Self { outputs: recorded, slicings, kept }),
        };
        let order = run_order(&[&session], data, samples);
        let places: HashMap<usize, usize> = order.iter().enumerate().map(|(place, sample)| (*sample, place)).collect();
        let mut store = Store::new(order.len(), KEPT_BYTES);
        let run = |sample: usize| {
            let values = session.run(&data.load(sample)?).map_err(|error| describe_failure(error, data, sample))?;
            Ok((sample, values))
        };
        let bytes = |(_, values): &(usize, Vec<Tensor>)| bytes_of(values);
        in_batches(order, &run, &bytes, progress, &mut |batch| {
            batch.into_iter().try_for_each(|(sample, values)| {
                store.put(places[&sample], values.into_iter().map(|value| Slot::new(value, Keep::Elements)).collect())
            })
        })?;
        let recorded = Recorded { values: session.values().to_vec(), places, store };
        Ok(Self { outputs: Outputs::Recorded(recorded), slicings, kept })
    }

    /// The names of what it gives.
    pub(super) fn values(&self) -> &[String] {
        match &self.outputs {
            Outputs::Session(session) => session.values(),
            Outputs::Recorded(recorded) => &recorded.values,
        }
    }

    pub(super) fn slicings(&self) -> &[Slicing] {
        &self.slicings
    }

    /// The model itself, unless it has been run.
    pub(super) fn session(&self) -> Option<&S> {
        match &self.outputs {
            Outputs::Session(session) => Some(session),
            Outputs::Recorded(_) => None,
        }
    }

    pub(super) fn known(&self, data: &CalibSet, sample: usize) -> Result<Arc<Known>, CalibError> {
        let kept = || self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = kept().by_sample.get(&sample) {
            return Ok(known.clone());
        }
        let loaded = data.load(sample)?;
        let values = match &self.outputs {
            Outputs::Session(session) => session.run(&loaded).map_err(|error| describe_failure(error, data, sample))?,
            Outputs::Recorded(recorded) => return Ok(Arc::new(Known { values: recorded.of(sample)?, sample: loaded })),
        };
        let known = Arc::new(Known { sample: loaded, values });
        let mut kept = kept();
        if kept.bytes + known.bytes() <= KEPT_BYTES && !kept.by_sample.contains_key(&sample) {
            kept.bytes += known.bytes();
            kept.by_sample.insert(sample, known.clone());
        }
        Ok(known)
    }
}

impl Recorded {
    /// What the model gave for a sample.
    fn of(&self, sample: usize) -> Result<Vec<Tensor>, CalibError> {
        let unknown = || CalibError::BadModel("outputs of a sample were not recorded".into());
        let slots = &self.store.slots[*self.places.get(&sample).ok_or_else(unknown)?];
        slots.iter().map(|slot| self.store.spill.copy(slot)).collect()
    }
}

impl Known {
    pub(super) fn bytes(&self) -> usize {
        bytes_of(self.sample.iter().map(|(_, tensor)| tensor).chain(&self.values))
    }
}
