//! Where a model appears: a file or, at an address, an object.
//!
//! What goes to an address is written to a temporary folder first, as it is elsewhere, and sent when nothing can fail any
//! more but the sending. Weights beside the model are finished before the model: where that is, everything is.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use onnxquant_ir::external_path;
use onnxquant_storage::{Upload, is_address};
use onnxquant_temporary::TempFolder;

use crate::error::Error;

/// The place of a model that is written.
#[derive(Debug)]
pub struct Delivery {
    /// Where it is written on this machine.
    path: PathBuf,
    /// Its address, if it has one.
    sent: Option<Sent>,
}

#[derive(Debug)]
struct Sent {
    address: PathBuf,
    _folder: TempFolder,
}

impl Delivery {
    /// To a file, or an address, to which an object is begun and given up for a trial.
    ///
    /// # Errors
    /// Nothing can be written to that address.
    pub fn to(output: &Path) -> Result<Self, Error> {
        if !is_address(output) {
            return Ok(Self { path: output.to_owned(), sent: None });
        }
        let failed = |error: io::Error| unsent(output, &error);
        Upload::begin(output).map(drop).map_err(failed)?;
        let folder = TempFolder::new("onnxquant-").map_err(failed)?;
        let path = folder.path().join(output.file_name().unwrap_or(output.as_os_str()));
        Ok(Self { path, sent: Some(Sent { address: output.to_owned(), _folder: folder }) })
    }

    /// Where the model is written on this machine.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether it goes to an address.
    pub fn is_sent(&self) -> bool {
        self.sent.is_some()
    }

    /// Sends what was written, where it has an address.
    ///
    /// # Errors
    /// It cannot be sent. Then nothing is there that was not before, but perhaps the weights of a model without it.
    pub fn finish(self) -> Result<(), Error> {
        let Some(Sent { address, .. }) = &self.sent else { return Ok(()) };
        let weights = external_path(&self.path);
        let weights = weights.exists().then(|| filled(&weights, &external_path(address))).transpose()?;
        let model = filled(&self.path, address)?;
        for (upload, address) in weights.into_iter().chain([model]) {
            upload.finish().map_err(|error| unsent(&address, &error))?;
        }
        Ok(())
    }
}

/// An object with all of a file, not finished yet, and its address.
fn filled(file: &Path, address: &Path) -> Result<(Upload, PathBuf), Error> {
    let fill = || {
        let mut upload = Upload::begin(address)?;
        upload.fill(&mut File::open(file)?)?;
        Ok(upload)
    };
    fill().map(|upload| (upload, address.to_owned())).map_err(|error| unsent(address, &error))
}

fn unsent(address: &Path, error: &io::Error) -> Error {
    Error::Output { path: address.to_owned(), problem: error.to_string() }
}

/// Checks that no address is written that is read, or written twice.
///
/// # Errors
/// The first address that is, and what else it is.
pub fn check_addresses(read: &[(&str, &Path)], written: &[(&str, &Path)]) -> Result<(), Error> {
    for (at, (_, path)) in written.iter().enumerate().filter(|(_, (_, path))| is_address(path)) {
        let is_same = |(_, other): &&(&str, &Path)| other == path;
        let taken = read.iter().find(is_same).map(|(what, _)| format!("it is {what}, which is never overwritten"));
        let taken = taken.or_else(|| written[..at].iter().find(is_same).map(|(what, _)| format!("it is {what}")));
        if let Some(problem) = taken {
            return Err(Error::Output { path: (*path).to_owned(), problem });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_address_is_written_that_is_read_or_written_twice() {
        let [a, b] = ["s3://b/a.onnx", "s3://b/b.onnx"].map(Path::new);
        let problem = |read: &[(&str, &Path)], written: &[(&str, &Path)]| {
            check_addresses(read, written).map_err(|error| error.to_string())
        };
        assert_eq!(problem(&[("the input model", a)], &[("the output model", b)]), Ok(()));
        let taken = problem(&[("the input model", a)], &[("the output model", a)]).unwrap_err();
        assert!(taken.contains("it is the input model, which is never overwritten"), "{taken}");
        let twice = problem(&[], &[("the output model", a), ("the report", a)]).unwrap_err();
        assert!(twice.contains("it is the output model"), "{twice}");
    }
}
