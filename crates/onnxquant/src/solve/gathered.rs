//! The moments of a stage that parts of the samples have left in the folder of the run.

use std::ops::Range;

use onnxquant_calib::{CalibError, MomentSums, StatRequest, count_parts};

use crate::error::Error;
use crate::observe::calibration::{Calibration, StageStats};
use crate::plan::layers::PlannedLayer;
use crate::solve::job::Job;
use crate::solve::parts::KeptParts;
use crate::solve::source::Source;

/// The moments of all parts of a stage.
pub(super) struct Gathered {
    /// By set: where they are, and how many.
    pub(super) sets: Vec<(KeptParts, usize)>,
    judged: bool,
    requests: Vec<StatRequest>,
    /// The request of each layer.
    pub(super) of_layer: Vec<Option<usize>>,
}

impl Gathered {
    /// In the folder `kept` of a stage with these layers.
    pub(super) fn of(source: &Source<'_>, job: Job<'_>, layers: &[PlannedLayer], kept: KeptParts) -> Self {
        match source {
            Source::Nowhere => {
                Self { sets: Vec::new(), judged: false, requests: Vec::new(), of_layer: vec![None; layers.len()] }
            }
            Source::Float { calibration, judged } => {
                let (requests, of_layer) = calibration.requests(job.model, layers);
                let place = |(set, samples): (usize, &[usize])| (kept.of_set(set), count_parts(samples.len()));
                let sets = sets(calibration, *judged).map(place).collect();
                Self { sets, judged: *judged, requests, of_layer }
            }
            Source::Streams(streams) => {
                let (requests, of_layer) = streams.requests(layers);
                let requests = requests.into_iter().map(|request| request.seen).collect();
                let judged = streams.is_judged();
                Self { sets: vec![(kept, streams.parts().0)], judged, requests, of_layer }
            }
        }
    }

    /// Something, where all parts are there.
    pub(super) fn are_there(&self) -> Result<Option<()>, Error> {
        for (kept, parts) in &self.sets {
            if !all_done(kept, 0..*parts)? {
                return Ok(None);
            }
        }
        Ok(Some(()))
    }

    /// The statistics that one request asks for.
    pub(super) fn stats(&self, request: usize) -> Result<Option<StageStats>, Error> {
        let mut sums: Vec<MomentSums> = Vec::new();
        for (kept, parts) in &self.sets {
            let Some(found) = kept.moments(*parts, request)? else { return Ok(None) };
            sums.extend(found);
        }
        let wanted = std::slice::from_ref(&self.requests[request]);
        let finish = |sums: MomentSums| sums.finish(wanted);
        let mut found = sums.into_iter().map(finish).collect::<Result<Vec<_>, CalibError>>()?.into_iter();
        let calibration = found.next().unwrap_or_default();
        let validation = self.judged.then(|| found.next().unwrap_or_else(|| vec![Vec::new()]));
        Ok(Some(StageStats { of_layer: vec![Some(0)], calibration, validation }))
    }

    /// The statistics of all layers; nothing where a part is missing.
    pub(super) fn all_stats(&self) -> Result<Option<StageStats>, Error> {
        if self.sets.is_empty() || self.are_there()?.is_none() {
            return Ok(None);
        }
        let (mut calibration, mut validation) = (Vec::new(), self.judged.then(Vec::new));
        for request in 0..self.requests.len() {
            let Some(found) = self.stats(request)? else { return Ok(None) };
            calibration.extend(found.calibration);
            if let (Some(all), Some(more)) = (&mut validation, found.validation) {
                all.extend(more);
            }
        }
        Ok(Some(StageStats { of_layer: self.of_layer.clone(), calibration, validation }))
    }
}

/// The samples that are gathered apart; none of a set without samples.
pub(super) fn sets(calibration: &Calibration, judged: bool) -> impl Iterator<Item = (usize, &[usize])> {
    let split = &calibration.samples.split;
    let validation = if judged { &split.validation[..] } else { &[] };
    [&split.calibration[..], validation].into_iter().enumerate().filter(|(_, samples)| !samples.is_empty())
}

/// Whether these parts are there.
pub(super) fn all_done(kept: &KeptParts, mut parts: Range<usize>) -> Result<bool, Error> {
    parts.try_fold(true, |all, part| Ok(all && kept.done(part)?.is_some()))
}
