//! Where text goes: the standard output, pipes and terminals, files.

use std::fs::OpenOptions;
use std::io::{self, ErrorKind, Write};
use std::path::Path;

use anyhow::Context;
use onnxquant::{PendingFile, is_standard_output};

/// Prints to the standard output. A reader that went away has seen enough.
pub(crate) fn print(text: &str) -> anyhow::Result<()> {
    match to_standard_output(text) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(error).context("cannot write to the standard output")
        }
        _ => Ok(()),
    }
}

/// Tells a text on the standard error. Where that cannot be written nobody reads it, and there is no other place to say so.
pub(crate) fn tell(text: &str) {
    let mut output = io::stderr().lock();
    output.write_all(text.as_bytes()).and_then(|()| output.flush()).unwrap_or_default();
}

/// Writes a text to `path`: through what is no regular file, whole or not at all else; `-` is the standard output.
pub(crate) fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    let written = match () {
        () if is_standard_output(path) => to_standard_output(text),
        () if is_open_elsewhere(path) => through(path, text),
        () => whole(path, text),
    };
    written.with_context(|| format!("cannot write `{}`", path.display()))
}

/// Whether a report of this name is a page.
pub(crate) fn is_page(path: &Path) -> bool {
    let extension = path.extension().map(|extension| extension.to_ascii_lowercase());
    extension.is_some_and(|extension| extension == "html" || extension == "htm")
}

fn to_standard_output(text: &str) -> io::Result<()> {
    let mut output = io::stdout().lock();
    output.write_all(text.as_bytes())?;
    output.flush()
}

/// Whether others have it open and would not see a new file of its name: a pipe or a terminal, or what the shell opened.
fn is_open_elsewhere(path: &Path) -> bool {
    let is_special = std::fs::metadata(path).is_ok_and(|found| !found.is_file());
    is_special || ["/dev/fd", "/dev/stderr", "/proc"].iter().any(|open| path.starts_with(open))
}

fn through(path: &Path, text: &str) -> io::Result<()> {
    OpenOptions::new().append(true).open(path)?.write_all(text.as_bytes())
}

fn whole(path: &Path, text: &str) -> io::Result<()> {
    let mut file = PendingFile::create(path)?;
    file.file().write_all(text.as_bytes())?;
    file.commit()
}
