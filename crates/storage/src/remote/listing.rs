//! What lies under an address.

use std::io;
use std::path::Path;

use futures_util::TryStreamExt;
use object_store::ObjectStore;

use super::held::{keep, wait};
use super::object::Object;
use super::store::Place;
use crate::address::invalid;

/// Longer lists are refused.
const MOST_NAMES: usize = 1_000_000;

/// Whether objects lie under an address, rather than one at it.
pub(crate) fn is_folder(path: &Path) -> io::Result<bool> {
    let _kept = keep();
    let place = Place::of(path)?;
    if place.address.is_folder || place.address.is_url() {
        return Ok(place.address.is_folder);
    }
    match Object::open(path) {
        Ok(_) => Ok(false),
        Err(error) if error.kind() == io::ErrorKind::NotFound => match any(&place)? {
            true => Ok(true),
            false => Err(error),
        },
        Err(error) => Err(error),
    }
}

/// Whether anything lies under an address.
fn any(place: &Place) -> io::Result<bool> {
    let found = wait(async { place.store.list(Some(&place.key)).try_next().await })?;
    found.map(|found| found.is_some()).map_err(|error| place.failure(&error))
}

/// The names of objects under an address, from there on.
pub(crate) fn list(path: &Path) -> io::Result<Vec<String>> {
    let _kept = keep();
    let place = Place::of(path)?;
    if place.address.is_url() {
        return Err(invalid("a web server tells no folder's files: name a file, such as an archive".to_owned()));
    }
    let prefix = (!place.key.as_ref().is_empty()).then_some(&place.key);
    let collect = async {
        let mut names = Vec::new();
        let mut found = place.store.list(prefix);
        while let Some(meta) = found.try_next().await? {
            let parts = meta.location.prefix_match(&place.key);
            let name = parts.map(|parts| parts.map(|part| part.as_ref().to_owned()).collect::<Vec<_>>().join("/"));
            names.extend(name.filter(|name| !name.is_empty()));
            if names.len() > MOST_NAMES {
                return Ok(None);
            }
        }
        Ok(Some(names))
    };
    match wait(collect)?.map_err(|error| place.failure(&error))? {
        Some(names) => Ok(names),
        None => Err(invalid(format!("more than {MOST_NAMES} objects are there"))),
    }
}
