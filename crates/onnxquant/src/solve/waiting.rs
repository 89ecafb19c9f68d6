//! Waits for what other processes do.

use crate::config::{Config, Duty};
use crate::error::Error;

/// Waits for something as whoever finishes does: nothing where it was in vain, for it does what is missing.
pub(super) fn finish_with<T>(config: &Config, look: impl Fn() -> Result<Option<T>, Error>) -> Result<Option<T>, Error> {
    match &config.shard {
        Some(shard) if shard.wait().is_some() => match shard.wait_for(look, String::new) {
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
            shard.wait_for(look, || "the first process that solves has not chosen the bits".to_owned()).map(Some)
        }
        _ => look(),
    }
}
