//! Keeps what parts of the samples gave, for whoever adds it up.
//!
//! Names of a stage begin alike:
//!
//! | name | what |
//! |---|---|
//! | `03-00.moments` | part 3, request 0: sums of moments by set of samples |
//! | `03-00.late` | the same of samples that had waited |
//! | `03.done` | part 3 is there as a whole, and what others have to know of it |
//!
//! What is damaged counts as absent: it is removed, with the word that its part is there.

use std::sync::Arc;

use onnxquant_calib::{ComparisonSums, CutShapes, MomentSums, PartComparison, PartMoments, RequestPart};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::solve::kept::{has, read_value, remove, write_value};
use crate::store::Store;

/// What others have to know of a part.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Done {
    /// By stream, at the cut.
    pub(crate) cuts: Vec<CutShapes>,
    /// Whether it gave something: its samples that advance at once, and those that had waited.
    pub(crate) turns: [bool; 2],
}

/// What parts of the samples gave for one stage.
#[derive(Debug)]
pub(crate) struct KeptParts {
    store: Arc<dyn Store>,
    /// How names begin.
    stage: String,
}

impl KeptParts {
    /// Under names that begin with that of the stage.
    pub(crate) fn new(store: &Arc<dyn Store>, stage: String) -> Self {
        Self { store: Arc::clone(store), stage }
    }

    /// Of one set of samples alone.
    pub(crate) fn of_set(&self, set: usize) -> Self {
        Self::new(&self.store, format!("{}/set-{set}", self.stage))
    }

    /// Keeps the moments of a part.
    pub(crate) fn keep(&self, part: PartMoments) -> Result<(), Error> {
        let PartMoments { part, waited, sums } = part;
        let sets: Vec<Vec<RequestPart>> = sums.into_iter().map(MomentSums::into_requests).collect();
        let mut sets: Vec<_> = sets.into_iter().map(Vec::into_iter).collect();
        for request in 0.. {
            let of_sets: Vec<RequestPart> = sets.iter_mut().filter_map(Iterator::next).collect();
            if of_sets.is_empty() {
                break;
            }
            self.put(&moments_name(part, waited, request), &of_sets)?;
        }
        Ok(())
    }

    /// Notes that all of a part is there.
    pub(crate) fn keep_done(&self, part: usize, done: &Done) -> Result<(), Error> {
        self.put(&done_name(part), done)
    }

    /// Whether all of a part is there, and what is to be known of it.
    pub(crate) fn done(&self, part: usize) -> Result<Option<Done>, Error> {
        self.get(&done_name(part))
    }

    /// The moments of one request, by set of samples: those of all parts, added in their order. Nothing where one is missing.
    pub(crate) fn moments(&self, parts: usize, request: usize) -> Result<Option<Vec<MomentSums>>, Error> {
        let Some(turns) = self.turns(parts)? else { return Ok(None) };
        // Where the layers were there, a part has gone by without gathering.
        if let Some(part) = (0..parts).find(|&part| !turns.contains(&(part, false))) {
            return self.forget(part);
        }
        let mut total = None;
        for (part, waited) in turns {
            let Some(found) = self.get(&moments_name(part, waited, request))? else { return self.forget(part) };
            add(&mut total, found)?;
        }
        Ok(total)
    }

    /// What parts gave, in the order in which it is added: the part, and whether its samples had waited.
    fn turns(&self, parts: usize) -> Result<Option<Vec<(usize, bool)>>, Error> {
        let mut turns = [Vec::new(), Vec::new()];
        for part in 0..parts {
            let Some(done) = self.done(part)? else { return Ok(None) };
            for (waited, _) in done.turns.iter().enumerate().filter(|(_, gave)| **gave) {
                turns[waited].push((part, waited == 1));
            }
        }
        Ok(Some(turns.concat()))
    }

    /// Keeps what comparing gathered of a part.
    pub(crate) fn keep_comparison(&self, part: &PartComparison) -> Result<(), Error> {
        self.put(&comparison_name(part.part, part.waited), &part.sums)
    }

    /// What comparing gathered of all parts, by set, added in their order; nothing where a part is missing.
    pub(crate) fn comparison(&self, parts: usize) -> Result<Option<Vec<ComparisonSums>>, Error> {
        let Some(turns) = self.turns(parts)? else { return Ok(None) };
        let mut total = Vec::new();
        for (part, waited) in turns {
            let Some(found) = self.get(&comparison_name(part, waited))? else { return self.forget(part) };
            add_comparison(&mut total, found);
        }
        Ok(Some(total))
    }

    /// Removes the moments of some parts, which nobody needs once the layers are solved.
    pub(crate) fn drop_moments(&self, parts: impl IntoIterator<Item = usize>) {
        for part in parts {
            for waited in [false, true] {
                let names = (0..).map(|request| self.name(&moments_name(part, waited, request)));
                let there = names.take_while(|name| has(self.store.as_ref(), name));
                // What cannot be removed is only in the way.
                there.map_while(|name| self.store.remove(&name).ok()).for_each(drop);
            }
        }
    }

    /// Takes back that a part is there, of which something is not.
    fn forget<T>(&self, part: usize) -> Result<Option<T>, Error> {
        remove(self.store.as_ref(), &self.name(&done_name(part)))?;
        Ok(None)
    }

    fn put<T: Serialize>(&self, name: &str, value: &T) -> Result<(), Error> {
        write_value(self.store.as_ref(), &self.name(name), value)
    }

    /// What is kept under a name; nothing where it is not there or damaged.
    fn get<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>, Error> {
        read_value(self.store.as_ref(), &self.name(name))
    }

    fn name(&self, name: &str) -> String {
        format!("{}/{name}", self.stage)
    }
}

/// Adds what comparing gathered of the part that follows.
pub(crate) fn add_comparison(total: &mut Vec<ComparisonSums>, part: Vec<ComparisonSums>) {
    if total.is_empty() {
        *total = part;
    } else {
        total.iter_mut().zip(part).for_each(|(all, one)| all.add(one));
    }
}

fn add(total: &mut Option<Vec<MomentSums>>, sets: Vec<RequestPart>) -> Result<(), Error> {
    let sums: Vec<MomentSums> =
        sets.into_iter().map(|part| MomentSums::of_requests(vec![part])).collect::<Result<_, _>>()?;
    match total {
        None => *total = Some(sums),
        Some(total) => total.iter_mut().zip(sums).try_for_each(|(all, one)| all.add(one))?,
    }
    Ok(())
}

fn moments_name(part: usize, waited: bool, request: usize) -> String {
    format!("{part:02}-{request:02}.{}", if waited { "late" } else { "moments" })
}

fn comparison_name(part: usize, waited: bool) -> String {
    format!("{part:02}.{}", if waited { "late" } else { "outputs" })
}

fn done_name(part: usize) -> String {
    format!("{part:02}.done")
}
