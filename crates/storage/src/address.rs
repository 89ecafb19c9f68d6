//! Addresses: a scheme, a host or bucket, a key.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// What grants access, by the address without it: the whole URL as it was given.
static GRANTED: Mutex<Option<HashMap<PathBuf, String>>> = Mutex::new(None);

/// Folders to which something was fetched, each with its address: the latest ones.
static COPIES: Mutex<Vec<(PathBuf, PathBuf)>> = Mutex::new(Vec::new());

/// More are not known at a time.
const MOST_COPIES: usize = 64;

/// How objects are reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Scheme {
    S3,
    Gs,
    Az,
    Https,
    Http,
}

/// Where an object, or a folder of such, is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Address {
    pub(crate) scheme: Scheme,
    /// The bucket or container; of URLs the host.
    pub(crate) host: String,
    /// The name in it, without `/` at its ends.
    pub(crate) key: String,
    /// It ends in `/`, or names nothing in the bucket.
    pub(crate) is_folder: bool,
}

/// Whether a path is an address: it begins with a scheme and `://`.
pub fn is_address(path: &Path) -> bool {
    path.to_str().is_some_and(|text| split(text).is_some())
}

/// The path as everything else may see and print it: of a URL with a query or a user neither is left, and requests alone
/// have them.
pub fn entered(path: &Path) -> PathBuf {
    let Some(text) = path.to_str().filter(|text| is_url(text)) else { return path.to_owned() };
    let bare = PathBuf::from(without_secrets(text));
    if bare != path {
        let mut granted = GRANTED.lock().unwrap_or_else(PoisonError::into_inner);
        granted.get_or_insert_default().insert(bare.clone(), text.to_owned());
    }
    bare
}

/// A text, such as a word of a command line, with the address in it as it may be printed.
pub fn without_secrets(text: &str) -> String {
    let Some(at) = ["https://", "http://"].iter().find_map(|scheme| Some(text.find(scheme)? + scheme.len())) else {
        return text.to_owned();
    };
    let (scheme, rest) = text.split_at(at);
    let rest = rest.split(['?', '#']).next().unwrap_or_default();
    let (host, key) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let host = host.rsplit('@').next().unwrap_or_default();
    format!("{scheme}{host}{key}")
}

/// Notes that what lies in a folder of this machine was fetched from an address.
pub fn note_copy(folder: &Path, address: &Path) {
    let mut copies = COPIES.lock().unwrap_or_else(PoisonError::into_inner);
    if copies.len() == MOST_COPIES {
        copies.remove(0);
    }
    copies.push((folder.to_owned(), address.to_owned()));
}

/// A text for people, with addresses in place of the folders to which something was fetched.
pub fn as_given(text: &str) -> String {
    let copies = COPIES.lock().unwrap_or_else(PoisonError::into_inner);
    let told = |text: String, (folder, address): &(PathBuf, PathBuf)| {
        text.replace(&*folder.to_string_lossy(), &address.to_string_lossy())
    };
    copies.iter().fold(text.to_owned(), told)
}

/// The URL with which a request goes out.
#[cfg(feature = "remote")]
pub(crate) fn url(path: &Path) -> String {
    let granted = GRANTED.lock().unwrap_or_else(PoisonError::into_inner);
    let whole = granted.as_ref().and_then(|granted| granted.get(path).cloned());
    whole.unwrap_or_else(|| text(path))
}

impl Address {
    /// # Errors
    /// The scheme is not known, or no bucket or host is named.
    pub(crate) fn of(path: &Path) -> io::Result<Self> {
        let text = text(path);
        let (scheme, rest) = split(&text).ok_or_else(|| invalid("it is no address".to_owned()))?;
        let scheme = match scheme {
            "s3" => Scheme::S3,
            "gs" => Scheme::Gs,
            "az" => Scheme::Az,
            "https" => Scheme::Https,
            "http" => Scheme::Http,
            other => {
                let known = "expected s3, gs, az, https or http";
                return Err(invalid(format!("addresses of the scheme `{other}` are not supported, {known}")));
            }
        };
        let (host, key) = rest.split_once('/').unwrap_or((rest, ""));
        if host.is_empty() {
            return Err(invalid("the address names no bucket or host".to_owned()));
        }
        let key_of = key.trim_matches('/').to_owned();
        Ok(Self { scheme, host: host.to_owned(), is_folder: key_of.is_empty() || key.ends_with('/'), key: key_of })
    }

    #[cfg(feature = "remote")]
    pub(crate) fn is_url(&self) -> bool {
        matches!(self.scheme, Scheme::Https | Scheme::Http)
    }
}

/// The text of an address; where paths are put together with `\`, that is `/` again.
fn text(path: &Path) -> String {
    let text = path.to_string_lossy().into_owned();
    if cfg!(windows) { text.replace('\\', "/") } else { text }
}

/// Scheme and rest. One letter is a drive.
fn split(text: &str) -> Option<(&str, &str)> {
    let (scheme, rest) = text.split_once("://")?;
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte);
    (scheme.len() > 1 && scheme.bytes().all(is_word)).then_some((scheme, rest))
}

fn is_url(text: &str) -> bool {
    matches!(split(text), Some(("https" | "http", _)))
}

pub(crate) fn invalid(words: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, words)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Result<Address, String> {
        Address::of(Path::new(text)).map_err(|error| error.to_string())
    }

    #[test]
    fn addresses_have_a_scheme_a_bucket_and_a_key() {
        for (text, expected) in [
            ("s3://b/a/m.onnx", true),
            ("https://h", true),
            ("ftp://h/x", true),
            ("/a/b", false),
            ("C://a", false),
            ("a b://c", false),
            ("x", false),
        ] {
            assert_eq!(is_address(Path::new(text)), expected, "{text}");
        }
        let found = of("s3://b/a/m.onnx").unwrap();
        assert_eq!((found.scheme, found.host.as_str(), found.key.as_str()), (Scheme::S3, "b", "a/m.onnx"));
        assert!(!found.is_folder && of("gs://b").unwrap().is_folder && of("az://b/x/").unwrap().is_folder);
        assert!(of("ftp://h/x").unwrap_err().contains("`ftp` are not supported, expected s3, gs, az, https or http"));
        assert!(of("s3:///x").unwrap_err().contains("no bucket or host"));
    }

    #[test]
    fn people_are_told_the_addresses_of_copies() {
        note_copy(Path::new("/tmp/copy-7/a"), Path::new("s3://b/a"));
        assert_eq!(
            as_given("cannot read `/tmp/copy-7/a/m.onnx`: it is empty"),
            "cannot read `s3://b/a/m.onnx`: it is empty"
        );
    }

    #[test]
    fn secrets_are_taken_out_and_files_are_joined() {
        let given = Path::new("https://me:word@host/a/m.onnx?X-Amz-Signature=abc#x");
        let bare = entered(given);
        assert_eq!(bare, Path::new("https://host/a/m.onnx"));
        assert_eq!(without_secrets("--calib=https://h/a.tar?sig=1"), "--calib=https://h/a.tar");
        assert_eq!(without_secrets("s3://b/what?.npz"), "s3://b/what?.npz");
        assert_eq!(entered(Path::new("s3://b/what?.npz")), Path::new("s3://b/what?.npz"));
        assert_eq!(Path::new("s3://b/d").join("x.npz"), Path::new("s3://b/d/x.npz"));
        assert_eq!(Path::new("s3://b/d/x.npz").parent().unwrap().to_str(), Some("s3://b/d"));
        #[cfg(feature = "remote")]
        assert_eq!(url(&bare), given.to_str().unwrap());
    }
}
