//! Waits for what other processes do.

use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::config::{Config, Duty, Shard};
use crate::error::Error;

/// Between two looks at what others have done: at least, at most, and as a part of the time that was waited.
const LEAST_PAUSE: Duration = Duration::from_millis(2);
const LONGEST_PAUSE: Duration = Duration::from_millis(250);
const PART: u32 = 16;

/// Looks until something is there, as long as the process may wait.
pub(super) fn wait<T>(
    shard: &Shard,
    look: impl Fn() -> Result<Option<T>, Error>,
    waiting: impl Fn() -> String,
) -> Result<T, Error> {
    let start = Instant::now();
    loop {
        if let Some(found) = look()? {
            return Ok(found);
        }
        let waited = start.elapsed();
        let left = shard.wait().map(|wait| wait.saturating_sub(waited)).filter(|left| !left.is_zero());
        let Some(left) = left else { return Err(Error::Waiting(waiting())) };
        sleep((waited / PART).clamp(LEAST_PAUSE, LONGEST_PAUSE).min(left));
    }
}

/// The same for whoever finishes: nothing where it was in vain, for it does what is missing.
pub(super) fn finish_with<T>(config: &Config, look: impl Fn() -> Result<Option<T>, Error>) -> Result<Option<T>, Error> {
    match &config.shard {
        Some(shard) if shard.wait().is_some() => match wait(shard, look, String::new) {
            Ok(found) => Ok(Some(found)),
            Err(Error::Waiting(_)) => Ok(None),
            Err(error) => Err(error),
        },
        _ => look(),
    }
}

/// Whether this process chooses bits that others wait for.
pub(crate) fn chooses(config: &Config) -> bool {
    config
        .shard
        .as_ref()
        .is_none_or(|shard| shard.duty() == Duty::Finish || (shard.duty() == Duty::Solve && shard.is_first()))
}

/// Waits for bits that another process chooses.
pub(crate) fn chosen<T>(config: &Config, look: impl Fn() -> Result<Option<T>, Error>) -> Result<Option<T>, Error> {
    match &config.shard {
        Some(shard) => {
            wait(shard, look, || "the first process that solves has not chosen the bits".to_owned()).map(Some)
        }
        _ => look(),
    }
}
