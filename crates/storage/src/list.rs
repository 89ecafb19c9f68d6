//! What lies in a folder, or under an address that is one.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::address::is_address;
use crate::remote;

/// Deeper folders are not searched: a link to a parent folder would not end otherwise.
pub const MAX_DEPTH: usize = 16;

/// A folder that cannot be read.
#[derive(Debug)]
pub struct Unlisted {
    /// The folder, or one in it.
    pub path: PathBuf,
    /// Why not.
    pub source: io::Error,
}

/// Whether it is a folder; an address is where objects lie under it.
///
/// # Errors
/// Nothing is there, or it cannot be reached.
pub fn is_folder(path: &Path) -> io::Result<bool> {
    if is_address(path) { remote::is_folder(path) } else { Ok(fs::metadata(path)?.is_dir()) }
}

/// Whether a file or an object is there.
pub fn is_file(path: &Path) -> bool {
    if is_address(path) { remote::Reading::open(path).is_ok() } else { path.is_file() }
}

/// The files below a folder, in no order, without hidden ones; folders at most `depth` deep in it are searched.
///
/// # Errors
/// A folder cannot be read.
pub fn list(folder: &Path, depth: usize) -> Result<Vec<PathBuf>, Unlisted> {
    let mut files = Vec::new();
    if is_address(folder) {
        let found = remote::list(folder).map_err(|source| Unlisted { path: folder.to_owned(), source })?;
        let is_shown = |name: &String| {
            let parts = || name.split('/');
            parts().all(|part| !part.is_empty() && !part.starts_with('.')) && parts().count() <= depth + 1
        };
        files.extend(found.into_iter().filter(is_shown).map(|name| folder.join(name)));
    } else {
        local(folder, depth, &mut files)?;
    }
    Ok(files)
}

fn local(folder: &Path, depth: usize, files: &mut Vec<PathBuf>) -> Result<(), Unlisted> {
    let failed = |source| Unlisted { path: folder.to_owned(), source };
    for entry in fs::read_dir(folder).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        if entry.file_name().to_string_lossy().starts_with('.') {
            continue;
        }
        let path = entry.path();
        // Follows links; a dangling one is neither folder nor file.
        if path.is_dir() {
            if depth > 0 {
                local(&path, depth - 1, files)?;
            }
        } else if path.is_file() {
            files.push(path);
        }
    }
    Ok(())
}
