//! Makes files of objects, and fetches what will be read.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use futures_util::future::try_join_all;
use futures_util::stream::{StreamExt, iter};

use super::held::{keep, wait};
use super::object::{BLOCK_BYTES, MOST_BLOCKS, Object, known};
use crate::address::{invalid, is_address};

/// Stretches that are on their way at once.
const STRETCHES: u64 = 4;
/// Objects whose beginnings are on their way at once.
const OBJECTS: usize = 16;

/// Writes the object at `address`, of at most `most` bytes, to a new file at `to`.
///
/// # Errors
/// It is not there, cannot be reached, is larger, was changed on the way, or the file cannot be written.
pub fn fetch(address: &Path, to: &Path, most: u64) -> io::Result<()> {
    let _kept = keep();
    let object = Object::open(address)?;
    if object.length() > most {
        return Err(invalid(format!("it has {} bytes, at most {most} are fetched", object.length())));
    }
    let mut file = File::create_new(to).map_err(|error| unwritable(to, &error))?;
    let stretch = BLOCK_BYTES * MOST_BLOCKS;
    let mut at = 0;
    let mut block = vec![0; BLOCK_BYTES as usize];
    while at < object.length() {
        // All of it is, where the server gives no stretches.
        if !object.lacks(at) {
            let read = object.read(at, 1, &mut block)?;
            file.write_all(&block[..read]).map_err(|error| unwritable(to, &error))?;
            at += read as u64;
            continue;
        }
        let starts = (0..STRETCHES).map(|number| at + number * stretch).take_while(|start| *start < object.length());
        let ranges = starts.map(|start| object.bytes(start..object.length().min(start + stretch)));
        let parts = wait(try_join_all(ranges))??;
        for bytes in parts {
            file.write_all(&bytes).map_err(|error| unwritable(to, &error))?;
            at += bytes.len() as u64;
        }
    }
    Ok(())
}

fn unwritable(to: &Path, error: &io::Error) -> io::Error {
    let folder = to.parent().unwrap_or(to).display();
    io::Error::new(error.kind(), format!("it cannot be kept in the temporary folder `{folder}` (TMPDIR): {error}"))
}

/// Fetches the beginnings of objects that will be opened, many at once. What cannot be fetched is told when it is opened;
/// files of this machine are left alone.
pub fn foresee(paths: &[PathBuf]) {
    let addresses: Vec<&PathBuf> = paths.iter().filter(|path| is_address(path) && known(path).is_none()).collect();
    if addresses.is_empty() {
        return;
    }
    let _kept = keep();
    let open = |path: &PathBuf| {
        let path = path.clone();
        async move { Object::opened(&path).await.map(drop) }
    };
    let all = iter(addresses.into_iter().map(open)).buffer_unordered(OBJECTS).collect::<Vec<_>>();
    let _ = wait(all);
}
