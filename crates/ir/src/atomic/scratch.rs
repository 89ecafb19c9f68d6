//! Files and folders under names that are not meant to stay, and the removal of those that a kill left behind.
//!
//! Each has a name that begins with [`PREFIX`], and is locked by the process that made it. A lock ends with its
//! process: what is not locked is of nobody, and [`sweep`] removes it.

use std::fs::File;
use std::io;
use std::path::Path;

use onnxquant_temporary::{TempFile, TempFolder};

use super::faults::{Step, pass};

/// How such names begin.
const PREFIX: &str = ".onnxquant-";
/// How often something is made anew that another process swept away before it was locked.
const MOST_TRIES: usize = 8;

/// A folder for what is unfinished; it goes when this value is dropped, and after a kill with the next [`sweep`].
#[derive(Debug)]
pub struct ScratchFolder {
    // Unlocked behind the folder's removal.
    folder: TempFolder,
    _lock: Option<File>,
}

impl ScratchFolder {
    /// Makes one inside `parent`.
    pub fn inside(parent: &Path) -> io::Result<Self> {
        pass(Step::Create, parent)?;
        for _ in 0..MOST_TRIES {
            let folder = TempFolder::new_in(parent, PREFIX)?;
            // Not every system opens folders: there they are not swept away either.
            let lock = File::open(folder.path()).ok();
            lock.iter().for_each(own);
            if folder.path().exists() {
                return Ok(Self { folder, _lock: lock });
            }
        }
        Err(swept_away())
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Gives a folder inside it the name `target`, which nothing has.
    pub fn name(&self, made: &Path, target: &Path) -> io::Result<()> {
        pass(Step::Name, target)?;
        onnxquant_temporary::whole(|| std::fs::rename(made, target))
    }
}

/// A file with such a name; it goes when the value is dropped.
pub fn scratch_file(folder: &Path) -> io::Result<TempFile> {
    for _ in 0..MOST_TRIES {
        let mut file = TempFile::new_in(folder, PREFIX)?;
        own(file.as_file_mut());
        if file.path().exists() {
            return Ok(file);
        }
    }
    Err(swept_away())
}

/// Gives the open and locked `file` such a name by `link`, and then the one that another file has by a rename.
#[cfg(target_os = "linux")]
pub(super) fn replace(link: impl Fn(&Path) -> io::Result<()>, target: &Path) -> io::Result<()> {
    onnxquant_temporary::whole(|| {
        let waiting = tempfile::Builder::new().prefix(PREFIX).make_in(super::folder_of(target), link)?;
        pass(Step::Rename, target)?;
        waiting.into_temp_path().persist(target).map_err(|error| error.error)
    })
}

/// Locks what this process made; not every file system can, and then nothing is swept away there.
pub(super) fn own(file: &File) {
    let _ = file.try_lock();
}

/// Removes what processes that are no more left in `folder`. What cannot be removed stays.
pub fn sweep(folder: &Path) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        let is_scratch = entry.file_name().to_string_lossy().starts_with(PREFIX);
        let is_of_nobody = || File::open(&path).is_ok_and(|file| file.try_lock().is_ok());
        match entry.file_type() {
            Ok(kind) if is_scratch && kind.is_file() && is_of_nobody() => drop(std::fs::remove_file(&path)),
            Ok(kind) if is_scratch && kind.is_dir() && is_of_nobody() => drop(std::fs::remove_dir_all(&path)),
            _ => {}
        }
    }
}

fn swept_away() -> io::Error {
    io::Error::other("temporary files are removed by somebody else as soon as they are made")
}
