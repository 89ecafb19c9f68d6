//! Temporary files that go when the process is ended, by a signal too.
//!
//! A value that is dropped removes its file; a process that a signal ends drops nothing. What has a name on the disk is
//! therefore noted here while it is there, and whoever ends the process calls [`remove_all`] first. Library users who do
//! not call it get what `tempfile` gives.

#![forbid(unsafe_code)]

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::sleep;
use std::time::Duration;

/// What is there now. Names are given and taken under this lock, so that no end comes in between.
static NOTED: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

/// How often a folder into which other threads still write is removed again.
const TRIES: usize = 50;

/// Between two of these.
const PAUSE: Duration = Duration::from_millis(2);

/// A note of something that is to go; dropping it takes the note away, not the thing.
#[derive(Debug)]
pub struct Note(PathBuf);

impl Drop for Note {
    fn drop(&mut self) {
        let mut noted = noted();
        if let Some(at) = noted.iter().position(|path| *path == self.0) {
            noted.swap_remove(at);
        }
    }
}

/// A folder that goes with everything in it when this value is dropped, or by [`remove_all`].
#[derive(Debug)]
pub struct TempFolder {
    // Dropped in this order: what is gone needs no note.
    folder: tempfile::TempDir,
    _note: Note,
}

impl TempFolder {
    /// Makes one in the system's folder for such things, with a name that begins with `prefix`.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn new(prefix: &str) -> io::Result<Self> {
        Self::new_in(&std::env::temp_dir(), prefix)
    }

    /// Makes one in `parent`.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn new_in(parent: &Path, prefix: &str) -> io::Result<Self> {
        let mut noted = noted();
        let folder = tempfile::Builder::new().prefix(prefix).tempdir_in(parent)?;
        let note = note(&mut noted, folder.path());
        Ok(Self { folder, _note: note })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }
}

/// A named file that goes when this value is dropped, or by [`remove_all`].
#[derive(Debug)]
pub struct TempFile {
    file: tempfile::NamedTempFile,
    note: Note,
}

impl TempFile {
    /// Makes one in `parent`, with a name that begins with `prefix`.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn new_in(parent: &Path, prefix: &str) -> io::Result<Self> {
        let mut noted = noted();
        let file = tempfile::Builder::new().prefix(prefix).tempfile_in(parent)?;
        let note = note(&mut noted, file.path());
        Ok(Self { file, note })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.file.path()
    }

    /// The open file.
    pub fn as_file_mut(&mut self) -> &mut fs::File {
        self.file.as_file_mut()
    }

    /// Gives it its name for good, in place of what had it.
    ///
    /// # Errors
    /// It cannot be renamed; then it is removed.
    pub fn persist(self, target: &Path) -> io::Result<()> {
        let Self { file, note } = self;
        let done = whole(|| file.persist(target).map(drop).map_err(|failed| failed.error));
        drop(note);
        done
    }
}

/// Does `work`, which no [`remove_all`] interrupts: for several steps that make sense together only. It must be short, and
/// make and drop nothing of this crate.
pub fn whole<T>(work: impl FnOnce() -> T) -> T {
    let _held = noted();
    work()
}

/// Removes everything that is there. From then on nothing new can be made, and no `whole` work begins: threads that want
/// to wait for ever, so the process must end.
pub fn remove_all() {
    let noted = noted();
    noted.iter().for_each(|path| remove(path));
    std::mem::forget(noted);
}

/// Removes a file, or a folder into which other threads may still write.
fn remove(path: &Path) {
    for _ in 0..TRIES {
        let removed = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
        match removed {
            Ok(()) => return,
            Err(error) if error.kind() == io::ErrorKind::NotFound && !path.exists() => return,
            Err(_) => sleep(PAUSE),
        }
    }
}

fn note(noted: &mut Vec<PathBuf>, path: &Path) -> Note {
    noted.push(path.to_owned());
    Note(path.to_owned())
}

fn noted() -> MutexGuard<'static, Vec<PathBuf>> {
    NOTED.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_dropped_or_kept_is_noted_no_longer() {
        let folder = TempFolder::new("onnxquant-test-").unwrap();
        let path = folder.path().to_owned();
        let file = TempFile::new_in(&path, ".onnxquant-").unwrap();
        let named = file.path().to_owned();
        assert!(noted().contains(&path) && noted().contains(&named));
        file.persist(&path.join("kept")).unwrap();
        assert!(!noted().contains(&named) && path.join("kept").exists() && !named.exists());
        drop(folder);
        assert!(!noted().contains(&path) && !path.exists());
    }

    #[test]
    fn a_folder_into_which_others_write_is_removed() {
        let folder = tempfile::tempdir().unwrap().keep();
        let inner = folder.clone();
        let writer = std::thread::spawn(move || {
            (0..10_000).take_while(|n| fs::write(inner.join(n.to_string()), "x").is_ok()).count()
        });
        remove(&folder);
        assert!(!folder.exists(), "{:?} files were written", writer.join());
    }
}
