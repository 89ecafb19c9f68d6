//! Lets operations on files fail on purpose, so that tests see what becomes of it.
//!
//! Everything in this project that gives a file or a folder its name asks here before each step. Nothing fails unless a test
//! said so, for the paths below one folder.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// A step on the way to a file or folder that appears whole or not at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// It is made, without its name.
    Create,
    /// Its content is flushed to the disk.
    Sync,
    /// It is given its name, or the one under which it waits to replace another file.
    Name,
    /// It replaces what has its name.
    Rename,
}

impl Step {
    /// All, in their order.
    pub const ALL: [Self; 4] = [Self::Create, Self::Sync, Self::Name, Self::Rename];
}

/// What shall fail.
#[derive(Debug)]
struct Planned {
    folder: PathBuf,
    step: Step,
    /// Steps of this kind that go well before.
    before: usize,
}

/// Whether anything shall fail.
static IS_PLANNED: AtomicBool = AtomicBool::new(false);
static PLANNED: Mutex<Vec<Planned>> = Mutex::new(Vec::new());

/// Ends what [`fail`] began when it is dropped.
#[derive(Debug)]
pub struct Fault {
    folder: PathBuf,
}

/// From now on, `step` fails for paths below `folder` after `before` times that it goes well: as a file server does that is
/// gone, for good.
pub fn fail(folder: &Path, step: Step, before: usize) -> Fault {
    planned().push(Planned { folder: folder.to_owned(), step, before });
    IS_PLANNED.store(true, Ordering::SeqCst);
    Fault { folder: folder.to_owned() }
}

impl Drop for Fault {
    fn drop(&mut self) {
        planned().retain(|planned| planned.folder != self.folder);
    }
}

/// Fails where a test wants this step to.
pub(super) fn pass(step: Step, path: &Path) -> io::Result<()> {
    if !IS_PLANNED.load(Ordering::Relaxed) {
        return Ok(());
    }
    let mut planned = planned();
    let Some(found) = planned.iter_mut().find(|planned| planned.step == step && path.starts_with(&planned.folder))
    else {
        return Ok(());
    };
    match found.before.checked_sub(1) {
        Some(left) => {
            found.before = left;
            Ok(())
        }
        None => Err(io::Error::other(format!("a test lets the step {step:?} fail"))),
    }
}

fn planned() -> MutexGuard<'static, Vec<Planned>> {
    PLANNED.lock().unwrap_or_else(PoisonError::into_inner)
}
