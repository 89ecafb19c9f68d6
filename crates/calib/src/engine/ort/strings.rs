//! Text and paths as C has them, and messages.

use std::error::Error;
use std::ffi::{CString, c_char};
use std::path::Path;

use ort_sys::os_char;

/// Text as the library takes it.
pub(super) fn c_string(text: &str) -> Result<CString, String> {
    CString::new(text).map_err(|_| format!("the name {text:?} holds a zero byte"))
}

/// What an error says, and what its causes say: the system's loader gives its reason as a cause.
pub(super) fn with_causes(error: &(dyn Error + 'static)) -> String {
    let causes = std::iter::successors(Some(error), |&error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

/// A path as the library takes it, with 0 at its end.
#[cfg(not(windows))]
pub(super) fn os_path(path: &Path) -> Vec<os_char> {
    use std::os::unix::ffi::OsStrExt;
    let bytes = path.as_os_str().as_bytes().iter().chain(&[0]);
    bytes.map(|byte| c_char::from_ne_bytes([*byte])).collect()
}

/// A path as the library takes it, with 0 at its end.
#[cfg(windows)]
pub(super) fn os_path(path: &Path) -> Vec<os_char> {
    use std::os::windows::ffi::OsStrExt;
    path.as_os_str().encode_wide().chain([0]).collect()
}
