//! Objects that are read and written as a whole, whenever they are asked for: nothing of them is kept.

use std::io;
use std::path::Path;

use object_store::{Error, ObjectStoreExt};

use super::held::{keep, wait};
use super::store::Place;
use crate::address::invalid;

/// All bytes of the object at an address; nothing where there is none.
///
/// # Errors
/// The store cannot be reached, or denies access.
pub fn get(address: &Path) -> io::Result<Option<Vec<u8>>> {
    let _kept = keep();
    let place = Place::of(address)?;
    let found = wait(async { place.store.get(&place.key).await?.bytes().await })?;
    Ok(there(&place, found)?.map(Vec::from))
}

/// Whether an object is at an address.
///
/// # Errors
/// As [`get`].
pub fn has(address: &Path) -> io::Result<bool> {
    let _kept = keep();
    let place = Place::of(address)?;
    let found = wait(place.store.head(&place.key))?;
    Ok(there(&place, found)?.is_some())
}

/// Writes an object, in place of what had its name.
///
/// # Errors
/// It cannot be written, or is to be on a web server.
pub fn put(address: &Path, bytes: Vec<u8>) -> io::Result<()> {
    let _kept = keep();
    let place = Place::of(address)?;
    if place.address.is_url() {
        return Err(invalid("nothing is written to a web server: name a folder, or a place in s3, gs or az".into()));
    }
    wait(place.store.put(&place.key, bytes.into()))?.map(drop).map_err(|error| place.failure(&error))
}

/// Removes an object, unless it is gone.
///
/// # Errors
/// It cannot be removed.
pub fn remove(address: &Path) -> io::Result<()> {
    let _kept = keep();
    let place = Place::of(address)?;
    let removed = wait(place.store.delete(&place.key))?;
    there(&place, removed).map(drop)
}

/// What a request found; nothing where its object is not there. That a bucket is missing is an error.
fn there<T>(place: &Place, found: Result<T, Error>) -> io::Result<Option<T>> {
    match found {
        Ok(found) => Ok(Some(found)),
        Err(error @ Error::NotFound { .. }) => {
            let failure = place.failure(&error);
            if failure.to_string().contains("nothing is at") { Ok(None) } else { Err(failure) }
        }
        Err(error) => Err(place.failure(&error)),
    }
}
