//! Where what a run has done is kept, by name: in a folder, behind an address, or in what a program has.
//!
//! A name has `/` between its parts: `run.toml`, `FINGERPRINT/0007.layer`. A value appears whole or not at all, and once it
//! is there all who share the store find it, soon or at once. Nobody writes two values under one name that mean different things.

use std::fmt::Debug;
use std::fs;
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use onnxquant_ir::{PendingFile, sweep};
use onnxquant_storage::{Kept, is_address, keep, whole};

/// Keeps values by name.
pub trait Store: Debug + Send + Sync {
    /// Makes it ready; what runs that were killed left half done goes.
    ///
    /// # Errors
    /// It cannot be used.
    fn open(&self) -> io::Result<()> {
        Ok(())
    }

    /// The folder of this machine that it is, where it is one.
    fn folder(&self) -> Option<&Path> {
        None
    }

    /// How messages call it.
    fn place(&self) -> PathBuf;

    /// The value with this name; nothing where there is none.
    ///
    /// # Errors
    /// It cannot be read.
    fn read(&self, name: &str) -> io::Result<Option<Vec<u8>>>;

    /// Whether there is a value with this name.
    ///
    /// # Errors
    /// Nobody can tell.
    fn has(&self, name: &str) -> io::Result<bool>;

    /// Keeps a value, in place of what had its name. One that can be `made_again` may be damaged by a crash of the machine.
    ///
    /// # Errors
    /// It cannot be kept.
    fn write(&self, name: &str, value: Vec<u8>, made_again: bool) -> io::Result<()>;

    /// Removes a value, unless it is gone.
    ///
    /// # Errors
    /// It cannot be removed.
    fn remove(&self, name: &str) -> io::Result<()>;
}

/// What a path names: a folder, or a place in an object store (`s3://`, `gs://`, `az://`).
pub fn store_at(path: &Path) -> Arc<dyn Store> {
    match is_address(path) {
        true => Arc::new(Objects { address: path.to_owned(), _kept: keep() }),
        false => Arc::new(Folder(path.to_owned())),
    }
}

/// Files of a folder.
#[derive(Debug)]
struct Folder(PathBuf);

impl Store for Folder {
    fn open(&self) -> io::Result<()> {
        fs::create_dir_all(&self.0)?;
        sweep(&self.0);
        let inner = fs::read_dir(&self.0)?.flatten().map(|entry| entry.path()).filter(|path| path.is_dir());
        inner.for_each(|folder| sweep(&folder));
        Ok(())
    }

    fn folder(&self) -> Option<&Path> {
        Some(&self.0)
    }

    fn place(&self) -> PathBuf {
        self.0.clone()
    }

    fn read(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        there(fs::read(self.0.join(name)))
    }

    fn has(&self, name: &str) -> io::Result<bool> {
        Ok(there(fs::metadata(self.0.join(name)))?.is_some())
    }

    fn write(&self, name: &str, value: Vec<u8>, made_again: bool) -> io::Result<()> {
        let mut path = self.0.clone();
        let (folders, file) = name.rsplit_once('/').map_or((None, name), |(folders, file)| (Some(folders), file));
        for folder in folders.into_iter().flat_map(|folders| folders.split('/')) {
            path.push(folder);
            match fs::create_dir(&path) {
                Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(error),
                _ => {}
            }
        }
        let mut pending = PendingFile::create(&path.join(file))?;
        pending.file().write_all(&value)?;
        if made_again { pending.commit_unsynced() } else { pending.commit() }
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        there(fs::remove_file(self.0.join(name))).map(drop)
    }
}

fn there<T>(found: io::Result<T>) -> io::Result<Option<T>> {
    match found {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        found => found.map(Some),
    }
}

/// Objects behind an address.
#[derive(Debug)]
struct Objects {
    address: PathBuf,
    /// Clients.
    _kept: Kept,
}

impl Store for Objects {
    fn place(&self) -> PathBuf {
        self.address.clone()
    }

    fn read(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        whole::get(&self.address.join(name))
    }

    fn has(&self, name: &str) -> io::Result<bool> {
        whole::has(&self.address.join(name))
    }

    fn write(&self, name: &str, value: Vec<u8>, _made_again: bool) -> io::Result<()> {
        whole::put(&self.address.join(name), value)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        whole::remove(&self.address.join(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_keeps_values_by_name() {
        let place = tempfile::tempdir().unwrap();
        let store = store_at(&place.path().join("state"));
        assert!(store.write("a", Vec::new(), true).is_err(), "it was not opened");
        store.open().unwrap();
        assert_eq!((store.read("x/y/a").unwrap(), store.has("x/y/a").unwrap()), (None, false));
        for made_again in [true, false] {
            store.write("x/y/a", vec![u8::from(made_again)], made_again).unwrap();
            assert_eq!(store.read("x/y/a").unwrap(), Some(vec![u8::from(made_again)]));
        }
        assert!(store.has("x/y/a").unwrap());
        store.remove("x/y/a").unwrap();
        store.remove("x/y/a").unwrap();
        assert_eq!(store.read("x/y/a").unwrap(), None);
        // A folder that vanished does not come again.
        fs::remove_dir_all(place.path().join("state")).unwrap();
        assert!(store.write("x/a", Vec::new(), true).is_err());
        assert!(!place.path().join("state").exists());
    }
}
