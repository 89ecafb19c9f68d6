//! Models behind addresses: what is mapped must be a file, so they are fetched before anything else is done with them.
//!
//! Of a model its file comes, then the files in which it says that weights lie, and what readers of samples look for
//! beside a model. All of them lie under the model's own address: a model cannot name another one. Of a folder all files
//! come, but hidden ones.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use onnxquant_calib::{BESIDE_MODELS, GRAPHS};
use onnxquant_ir::external_locations;
use onnxquant_storage::{MAX_DEPTH, Unlisted, entered, fetch, foresee, is_address, is_folder, list, note_copy};
use onnxquant_temporary::TempFolder;

use crate::error::Error;
use crate::load::check_is_there;

/// Larger messages are no protobuf.
const MOST_MODEL_BYTES: u64 = 2 << 30;
/// Folders of more files are refused.
const MOST_FILES: usize = 10_000;
/// The folder of a model whose address names none.
const FOLDER: &str = "model";

/// A model, or a folder with one, on this machine.
#[derive(Debug)]
pub struct GivenModel {
    path: PathBuf,
    /// Where it lies until this value is dropped, if it was fetched.
    fetched: Option<TempFolder>,
}

impl GivenModel {
    /// The file or folder `given` itself; where that is an address, it is fetched.
    ///
    /// # Errors
    /// It cannot be fetched.
    pub fn open(given: &Path) -> Result<Self, Error> {
        let address = entered(given);
        if !is_address(&address) {
            check_is_there(given)?;
            return Ok(Self { path: given.to_owned(), fetched: None });
        }
        let failed = |source: std::io::Error| Error::Fetch { path: address.clone(), problem: source.to_string() };
        let folder = TempFolder::new("onnxquant-").map_err(failed)?;
        let path = match is_folder(&address).map_err(failed)? {
            true => fetched_folder(&address, folder.path())?,
            false => fetched_model(&address, folder.path(), address == given)?,
        };
        Ok(Self { path, fetched: Some(folder) })
    }

    /// Where it lies on this machine.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether it was fetched.
    pub fn is_fetched(&self) -> bool {
        self.fetched.is_some()
    }
}

/// Fetches a model and what belongs to it; where the address `is_open` rather than for one object alone, also what lies
/// beside it.
fn fetched_model(address: &Path, into: &Path, is_open: bool) -> Result<PathBuf, Error> {
    let beside = address.parent().unwrap_or(address);
    let folder = into.join(beside.file_name().unwrap_or(FOLDER.as_ref()));
    note_copy(&folder, beside);
    let model = folder.join(address.file_name().unwrap_or(FOLDER.as_ref()));
    fetch_to(address, &model, MOST_MODEL_BYTES)?;
    // What is no model, or names other places, is told when it is read.
    for location in external_locations(&model).unwrap_or_default() {
        fetch_to(&beside.join(&location), &folder.join(&location), u64::MAX)?;
    }
    if !is_open {
        return Ok(model);
    }
    let is_of_graphs = folder.file_name().is_some_and(|name| name == GRAPHS);
    let above = beside.parent().filter(|_| is_of_graphs).map(|above| (above, into));
    for (from, to) in [Some((beside, folder.as_path())), above].into_iter().flatten() {
        for name in BESIDE_MODELS {
            match fetch(&from.join(name), &to.join(name), MOST_MODEL_BYTES) {
                // Stores that tell nobody what is there deny what is not.
                Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::PermissionDenied) => {}
                found => found.map_err(|error| unfetched(&from.join(name), &error))?,
            }
        }
    }
    Ok(model)
}

/// Fetches all files of a folder.
fn fetched_folder(address: &Path, into: &Path) -> Result<PathBuf, Error> {
    let found = list(address, MAX_DEPTH).map_err(|Unlisted { path, source }| unfetched(&path, &source))?;
    if found.len() > MOST_FILES {
        let problem = format!("it has {} files, at most {MOST_FILES} are fetched", found.len());
        return Err(Error::Fetch { path: address.to_owned(), problem });
    }
    let folder = into.join(address.file_name().unwrap_or(FOLDER.as_ref()));
    note_copy(&folder, address);
    foresee(&found);
    for path in found {
        let name = path.strip_prefix(address).unwrap_or(&path);
        fetch_to(&path, &folder.join(name), u64::MAX)?;
    }
    Ok(folder)
}

fn fetch_to(address: &Path, to: &Path, most: u64) -> Result<(), Error> {
    let made = to.parent().map_or(Ok(()), fs::create_dir_all);
    made.and_then(|()| fetch(address, to, most)).map_err(|error| unfetched(address, &error))
}

fn unfetched(address: &Path, error: &std::io::Error) -> Error {
    Error::Fetch { path: address.to_owned(), problem: error.to_string() }
}
