//! Waits for what other processes do.

use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::config::{Config, Duty, Shard};
use crate::error::Error;

/// Between two looks at what others have done: at first, and at most.
const FIRST_PAUSE: Duration = Duration::from_millis(5);
const LONGEST_PAUSE: Duration = Duration::from_millis(250);

/// Looks until something is there, as long as the process may wait.
pub(super) fn wait<T>(
    shard: &Shard,
    look: impl Fn() -> Result<Option<T>, Error>,
    waiting: impl Fn() -> String,
) -> Result<T, Error> {
    let (start, mut pause) = (Instant::now(), FIRST_PAUSE);
    loop {
        if let Some(found) = look()? {
            return Ok(found);
        }
        let left = shard.wait().map(|wait| wait.saturating_sub(start.elapsed())).filter(|left| !left.is_zero());
        let Some(left) = left else { return Err(Error::Waiting(waiting())) };
        sleep(pause.min(left));
        pause = (pause * 3 / 2).min(LONGEST_PAUSE);
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
