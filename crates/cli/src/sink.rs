//! Where text goes: the standard output, pipes and terminals, files.

use std::fs::OpenOptions;
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};

use anyhow::Context;
use onnxquant::storage::{Upload, is_address};
use onnxquant::{PendingFile, is_open_elsewhere, is_standard_output};

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

/// Where a text goes that a path names: through what is no regular file, whole or not at all else, to an address too; `-` is the standard
/// output.
#[derive(Debug)]
pub(crate) struct Sink {
    path: PathBuf,
    way: Way,
}

#[derive(Debug)]
enum Way {
    StandardOutput,
    Through,
    Whole(PendingFile),
    /// To an address; begun when the text is known.
    Sent(Option<Upload>),
}

impl Sink {
    /// Opens it before the text is known. A pipe is opened when the text is written: it waits for a reader.
    pub(crate) fn open(path: &Path) -> anyhow::Result<Self> {
        let way = match () {
            () if is_address(path) => {
                Upload::begin(path).with_context(|| unwritable(path))?;
                Way::Sent(None)
            }
            () if is_standard_output(path) => Way::StandardOutput,
            () if is_open_elsewhere(path) => Way::Through,
            () => Way::Whole(PendingFile::create(path).with_context(|| unwritable(path))?),
        };
        Ok(Self { path: path.to_owned(), way })
    }

    /// Hands it the whole text. A regular file gets its name later, by [`Sink::name`].
    pub(crate) fn fill(&mut self, text: &str) -> anyhow::Result<()> {
        let filled = match &mut self.way {
            Way::StandardOutput => to_standard_output(text),
            Way::Through => through(&self.path, text),
            Way::Sent(upload) => Upload::begin(&self.path).and_then(|mut begun| {
                begun.fill(&mut text.as_bytes())?;
                *upload = Some(begun);
                Ok(())
            }),
            Way::Whole(file) => file.file().write_all(text.as_bytes()).and_then(|()| file.file().sync_all()),
        };
        filled.with_context(|| unwritable(&self.path))
    }

    /// Gives a regular file its name.
    pub(crate) fn name(self) -> anyhow::Result<()> {
        match self.way {
            Way::StandardOutput | Way::Through => Ok(()),
            Way::Sent(upload) => upload.map_or(Ok(()), Upload::finish).with_context(|| unwritable(&self.path)),
            Way::Whole(file) => file.commit().with_context(|| unwritable(&self.path)),
        }
    }
}

/// Writes a text to what `path` names.
pub(crate) fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    let mut sink = Sink::open(path)?;
    sink.fill(text)?;
    sink.name()
}

fn unwritable(path: &Path) -> String {
    format!("cannot write `{}`", path.display())
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

fn through(path: &Path, text: &str) -> io::Result<()> {
    OpenOptions::new().append(true).open(path)?.write_all(text.as_bytes())
}
