//! What went wrong with a request, in words of our own: those of servers may repeat what was signed.

use std::error::Error as _;
use std::io;

use object_store::Error;

use crate::address::{Address, Scheme};

/// The words for a request about an address that failed.
pub(super) fn failure(error: &Error, address: &Address) -> io::Error {
    let said = said(error);
    let has = |part: &str| said.contains(part);
    let bucket = match address.scheme {
        Scheme::Az => "container",
        _ => "bucket",
    };
    let (kind, words) = match error {
        _ if has("NoSuchBucket") || has("ContainerNotFound") || has("bucket does not exist") => {
            (io::ErrorKind::NotFound, format!("there is no {bucket} `{}`", address.host))
        }
        Error::NotFound { .. } => (io::ErrorKind::NotFound, "nothing is at this address".to_owned()),
        Error::Precondition { .. } => {
            (io::ErrorKind::InvalidData, "the object was changed while it was read".to_owned())
        }
        Error::PermissionDenied { .. } | Error::Unauthenticated { .. } => denied(address),
        _ if has(" 403 ") || has(" 401 ") => denied(address),
        _ if has("Bare redirect") || has("redirect without LOCATION") => {
            (io::ErrorKind::Other, format!("the {bucket} is in another region: set AWS_REGION"))
        }
        _ if has("redirect") => {
            (io::ErrorKind::Other, "the server leads on to an address that is not followed".to_owned())
        }
        Error::InvalidPath { .. } => (io::ErrorKind::InvalidInput, "no object can have this name".to_owned()),
        Error::NotSupported { .. } | Error::NotImplemented { .. } => {
            (io::ErrorKind::Unsupported, "the server does not support this request".to_owned())
        }
        _ if has("169.254.") || has("metadata.google.internal") || has("credential") => {
            (io::ErrorKind::PermissionDenied, format!("there are no credentials: {}", remedy(address)))
        }
        // Before what is said of connections, for it may be one that ended too early.
        _ if has("body error") || has("error decoding") || has("end of file") || has("before message") => {
            (io::ErrorKind::UnexpectedEof, "the server sent less than it promised".to_owned())
        }
        _ if has("error sending request") || has("onnect") || has("dns") || has("timed out") => {
            (io::ErrorKind::NotConnected, "the server cannot be reached".to_owned())
        }
        _ => (io::ErrorKind::Other, status(&said)),
    };
    io::Error::new(kind, words)
}

fn denied(address: &Address) -> (io::ErrorKind, String) {
    (io::ErrorKind::PermissionDenied, format!("the server denies access: {}", remedy(address)))
}

/// Where credentials come from.
fn remedy(address: &Address) -> &'static str {
    match address.scheme {
        Scheme::S3 => {
            "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_SKIP_SIGNATURE=true where everybody may read"
        }
        Scheme::Gs => "set GOOGLE_APPLICATION_CREDENTIALS, or GOOGLE_SKIP_SIGNATURE=true where everybody may read",
        Scheme::Az => "set AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY, or what else grants access",
        Scheme::Https | Scheme::Http => "the address may lack what grants access, or that has expired",
    }
}

/// All that is said, for looking at alone.
fn said(error: &Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        text += " ";
        text += &inner.to_string();
        source = inner.source();
    }
    text
}

/// The status of the server's answer, where there was one.
fn status(said: &str) -> String {
    let number = said.split_once("status code: ").and_then(|(_, rest)| rest.get(..3)?.parse::<u16>().ok());
    number.map_or("the request failed".to_owned(), |number| format!("the server answers with status {number}"))
}
