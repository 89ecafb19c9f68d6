//! Which share of a run a process does, where several do it together.

use std::num::NonZero;
use std::ops::Range;
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::error::Error;

/// Between two looks at what others have done: at least, at most, and as a part of the time that was waited.
const LEAST_PAUSE: Duration = Duration::from_millis(2);
const LONGEST_PAUSE: Duration = Duration::from_millis(250);
const PART: u32 = 16;

/// What a process does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Duty {
    /// It runs samples.
    Calibrate,
    /// It finds codes of layers.
    Solve,
    /// It writes the model, once the others are done or it has waited long enough; what is missing it does.
    Finish,
}

/// The share of a process in a run that several do together, over one folder of state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shard {
    duty: Duty,
    index: usize,
    count: NonZero<usize>,
    wait: Option<Duration>,
}

impl Shard {
    /// The `number`th of `count` processes with this duty, counted from 1. It waits for others at most so long, without end
    /// where that is [`Duration::MAX`]; where nothing is said it ends instead of waiting.
    ///
    /// # Errors
    /// There is no such process.
    pub fn new(duty: Duty, number: usize, count: usize, wait: Option<Duration>) -> Result<Self, Error> {
        let (Some(count), true) = (NonZero::new(count), (1..=count).contains(&number)) else {
            return Err(Error::Usage(format!("there is no shard {number} of {count}: they are counted from 1")));
        };
        Ok(Self { duty, index: number - 1, count, wait })
    }

    /// What it does.
    pub fn duty(&self) -> Duty {
        self.duty
    }

    /// How long it waits for others.
    pub(crate) fn wait(&self) -> Option<Duration> {
        self.wait
    }

    /// Looks until something is there, as long as the process may wait.
    ///
    /// # Errors
    /// [`Error::Waiting`] with the words of `waiting` where it may not; or what looking fails with.
    pub fn wait_for<T>(
        &self,
        look: impl Fn() -> Result<Option<T>, Error>,
        waiting: impl Fn() -> String,
    ) -> Result<T, Error> {
        let start = Instant::now();
        loop {
            if let Some(found) = look()? {
                return Ok(found);
            }
            let waited = start.elapsed();
            let left = self.wait.map(|wait| wait.saturating_sub(waited)).filter(|left| !left.is_zero());
            let Some(left) = left else { return Err(Error::Waiting(waiting())) };
            sleep((waited / PART).clamp(LEAST_PAUSE, LONGEST_PAUSE).min(left));
        }
    }

    /// Whether it is the first.
    pub(crate) fn is_first(&self) -> bool {
        self.index == 0
    }

    /// Which of so many parts of the samples it runs.
    pub(crate) fn parts(&self, parts: usize) -> Range<usize> {
        let start = |index: usize| index * parts / self.count;
        start(self.index)..start(self.index + 1)
    }

    /// Which of the layers with these costs it solves, the dearest first: each goes to the process with the least to do.
    pub(crate) fn layers(&self, costs: &[f64]) -> Vec<usize> {
        let mut order: Vec<usize> = (0..costs.len()).collect();
        order.sort_by(|&a, &b| costs[b].total_cmp(&costs[a]));
        let mut loads = vec![0.0; self.count.get()];
        let mut own = Vec::new();
        for layer in order {
            let least = (0..loads.len()).min_by(|&a, &b| f64::total_cmp(&loads[a], &loads[b])).unwrap_or(0);
            loads[least] += costs[layer];
            if least == self.index {
                own.push(layer);
            }
        }
        own
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shards(count: usize) -> Vec<Shard> {
        (1..=count).map(|number| Shard::new(Duty::Solve, number, count, None).unwrap()).collect()
    }

    #[test]
    fn parts_and_layers_are_those_of_one_process_each() {
        for count in [1, 2, 3, 5, 20] {
            let parts: Vec<usize> = shards(count).iter().flat_map(|shard| shard.parts(16)).collect();
            assert_eq!(parts, (0..16).collect::<Vec<_>>());
            let mut layers: Vec<usize> =
                shards(count).iter().flat_map(|shard| shard.layers(&[1.0, 9.0, 3.0, 3.0])).collect();
            layers.sort_unstable();
            assert_eq!(layers, [0, 1, 2, 3]);
        }
        let [first, second] = &shards(2)[..] else { unreachable!() };
        assert_eq!(
            (first.layers(&[1.0, 9.0, 3.0, 3.0]), second.layers(&[1.0, 9.0, 3.0, 3.0])),
            (vec![1], vec![2, 3, 0])
        );
        assert_eq!((first.parts(1), second.parts(1)), (0..0, 0..1));
    }

    #[test]
    fn there_is_no_shard_beyond_the_last() {
        for (number, count) in [(0, 2), (3, 2), (1, 0)] {
            assert!(Shard::new(Duty::Calibrate, number, count, None).is_err(), "{number} of {count}");
        }
    }
}
