//! Errors as a user sees them.

use std::error::Error;

use onnxquant_proto::{Bytes, decode_model};

/// An error and its sources on one line.
pub fn chain(error: &dyn Error) -> String {
    let sources = std::iter::successors(error.source(), |&error| error.source());
    sources.fold(error.to_string(), |text, source| format!("{text}: {source}"))
}

/// The whole error that decoding gives.
pub fn refusal(bytes: &[u8]) -> String {
    match decode_model(Bytes::copy_from_slice(bytes)) {
        Ok(_) => "accepted".into(),
        Err(error) => chain(&error),
    }
}
