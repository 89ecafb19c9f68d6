//! Files and folders that appear whole or not at all.
//!
//! All that this project writes gets its name here.

pub mod faults;
mod scratch;

use std::fs::{File, Permissions};
use std::io;
use std::path::{Path, PathBuf};

use faults::{Step, pass};
use onnxquant_temporary::TempFile;
pub use scratch::{ScratchFolder, scratch_file, sweep};

/// A file being written that has no name yet.
///
/// On Linux it is an unnamed file of the target's folder, so that even a killed process leaves nothing behind; elsewhere,
/// on file systems without unnamed files, and for the moment in which it replaces another file, a named temporary file: it
/// is removed when this value is dropped, or when a signal ends the command, and after a kill by the next [`sweep`].
#[derive(Debug)]
pub struct PendingFile {
    temporary: Temporary,
    target: PathBuf,
}

#[derive(Debug)]
enum Temporary {
    #[cfg(target_os = "linux")]
    Unnamed(File),
    Named(TempFile),
}

impl PendingFile {
    /// Starts a file that will be called `target`; its folder must exist, and `target` be no folder, device or pipe.
    pub fn create(target: &Path) -> io::Result<Self> {
        not_special(target)?;
        pass(Step::Create, target)?;
        Ok(Self { temporary: temporary_in(folder_of(target))?, target: target.to_owned() })
    }

    /// The open file, for writing and for reading back.
    pub fn file(&mut self) -> &mut File {
        match &mut self.temporary {
            #[cfg(target_os = "linux")]
            Temporary::Unnamed(file) => file,
            Temporary::Named(file) => file.as_file_mut(),
        }
    }

    /// What it will be called.
    pub fn target(&self) -> &Path {
        &self.target
    }

    /// Flushes to disk and gives the file its name, replacing what had it before.
    pub fn commit(mut self) -> io::Result<()> {
        self.open_to_others()?;
        pass(Step::Sync, &self.target)?;
        self.file().sync_all()?;
        let target = self.target.clone();
        self.name()?;
        sync_folder(&target);
        Ok(())
    }

    /// The same without waiting for the disk: after a crash of the machine the file may be damaged. For what tells by itself
    /// whether it is whole, and can be made again.
    pub fn commit_unsynced(mut self) -> io::Result<()> {
        self.open_to_others()?;
        self.name()
    }

    fn open_to_others(&mut self) -> io::Result<()> {
        let permissions = usual_permissions(&self.target);
        self.file().set_permissions(permissions)
    }

    fn name(self) -> io::Result<()> {
        pass(Step::Name, &self.target)?;
        match self.temporary {
            #[cfg(target_os = "linux")]
            Temporary::Unnamed(file) => linux::name(&file, &self.target)?,
            Temporary::Named(file) => {
                pass(Step::Rename, &self.target)?;
                file.persist(&self.target)?;
            }
        }
        Ok(())
    }
}

/// Refuses what is no regular file, in whose place a rename would put one, and names that no file can have.
fn not_special(target: &Path) -> io::Result<()> {
    match std::fs::metadata(target) {
        Ok(found) if found.is_dir() => Err(io::ErrorKind::IsADirectory.into()),
        Ok(found) if !found.is_file() => {
            Err(io::Error::new(io::ErrorKind::InvalidInput, "it is a device, a pipe or a socket, expected a file"))
        }
        Err(error) if error.kind() == io::ErrorKind::InvalidFilename => Err(error),
        _ => Ok(()),
    }
}

/// The folder of `target`; the working folder where the path names none.
pub(crate) fn folder_of(target: &Path) -> &Path {
    target.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn temporary_in(folder: &Path) -> io::Result<Temporary> {
    #[cfg(target_os = "linux")]
    if let Some(file) = linux::unnamed_in(folder) {
        scratch::own(&file);
        return Ok(Temporary::Unnamed(file));
    }
    scratch_file(folder).map(Temporary::Named)
}

/// Those of the file to be replaced; else read and write for the owner, read for all.
fn usual_permissions(target: &Path) -> Permissions {
    #[cfg(unix)]
    let fresh = std::os::unix::fs::PermissionsExt::from_mode(0o644);
    #[cfg(not(unix))]
    let fresh = File::open(".")
        .and_then(|file| file.metadata())
        .map(|meta| meta.permissions())
        .expect("the folder is readable");
    std::fs::metadata(target).map_or(fresh, |found| found.permissions())
}

/// Makes the new name durable; not every file system can.
fn sync_folder(target: &Path) {
    if let Ok(folder) = File::open(folder_of(target)) {
        let _ = folder.sync_all();
    }
}

#[cfg(target_os = "linux")]
mod linux {
    use std::fs::File;
    use std::io;
    use std::os::fd::AsRawFd;
    use std::path::Path;

    use rustix::fs::{AtFlags, CWD, Mode, OFlags, linkat, open};

    use super::scratch::replace;

    /// An unnamed file that can be given a name later, where the file system has such files.
    pub(super) fn unnamed_in(folder: &Path) -> Option<File> {
        let flags = OFlags::RDWR | OFlags::TMPFILE | OFlags::CLOEXEC;
        let file = open(folder, flags, Mode::RUSR | Mode::WUSR).ok()?;
        Path::new("/proc/self/fd").exists().then(|| File::from(file))
    }

    /// Links the unnamed file to `target`; an existing file is replaced by a rename from a fresh name.
    pub(super) fn name(file: &File, target: &Path) -> io::Result<()> {
        let source = format!("/proc/self/fd/{}", file.as_raw_fd());
        let link = |to: &Path| linkat(CWD, source.as_str(), CWD, to, AtFlags::SYMLINK_FOLLOW).map_err(io::Error::from);
        match link(target) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => replace(link, target),
            done => done,
        }
    }
}
