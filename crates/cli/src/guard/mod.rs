//! What ends the process with words where the system, or an allocation, would end it without.
//!
//! - [`Memory`] counts what is allocated, holds it to [`limit`], and ends the process where there is none left.
//! - [`install`] catches the signals of a file that is cut short while it is mapped, and of code that crashes.
//!
//! Both belong to a program of its own: a library must not end the process that it is part of.

#[cfg(unix)]
mod last_words;
mod memory;
#[cfg(unix)]
mod signals;

pub use memory::{Memory, limit};
#[cfg(unix)]
pub use signals::install;

/// Elsewhere such signals are not told apart.
#[cfg(not(unix))]
pub fn install() {}
