//! Where a sample's values lie.

use std::path::{Path, PathBuf};

use super::named::NamedFile;
use super::npy::Header;
use super::part::Part;
use super::text_inputs::Window;

/// One sample.
#[derive(Debug)]
pub(crate) enum Source {
    Named(NamedFile),
    /// The array, or one row of it.
    Npy {
        path: PathBuf,
        header: Header,
        row: Option<usize>,
    },
    /// Files in the order of their numbers.
    TestData(Vec<PathBuf>),
    Picture(Part),
    Sound(Part),
    /// Tokens of a text, or of several.
    Text {
        path: PathBuf,
        number: usize,
        window: Window,
        /// A file of the caches of its first half, where that is given away.
        caches: Option<PathBuf>,
    },
}

impl Source {
    /// The (first) file.
    pub(crate) fn path(&self) -> &Path {
        match self {
            Self::Npy { path, .. } | Self::Text { path, .. } => path,
            Self::Named(file) => file.label(),
            Self::Picture(part) | Self::Sound(part) => part.label(),
            Self::TestData(files) => files.first().map_or(Path::new(""), PathBuf::as_path),
        }
    }

    /// The files that hold it, as far as they are read when it is scanned.
    pub(crate) fn files(&self) -> Vec<PathBuf> {
        match self {
            Self::Named(NamedFile::Npz(part) | NamedFile::Safetensors(part))
            | Self::Picture(part)
            | Self::Sound(part) => {
                vec![part.file().to_owned()]
            }
            Self::TestData(files) => files.clone(),
            Self::Named(NamedFile::Npys { .. }) | Self::Npy { .. } | Self::Text { .. } => Vec::new(),
        }
    }

    pub(crate) fn describe(&self) -> String {
        match self {
            Self::Npy { path, row: Some(row), .. } => format!("row {row} of `{}`", path.display()),
            Self::Text { path, number, .. } => format!("sample {number} of `{}`", path.display()),
            Self::TestData(_) => format!("`{}`", self.path().parent().unwrap_or(Path::new("")).display()),
            _ => format!("`{}`", self.path().display()),
        }
    }

    /// What it is, in a word or two.
    pub(crate) fn kind(&self) -> String {
        let extension = self.path().extension().map(|extension| extension.to_string_lossy().to_ascii_lowercase());
        match self {
            Self::Npy { row: Some(_), .. } => "rows of npy".to_owned(),
            Self::TestData(_) => "test data sets".to_owned(),
            Self::Text { .. } => "texts".to_owned(),
            Self::Named(file) => file.kind().to_owned(),
            Self::Npy { .. } | Self::Picture(_) | Self::Sound(_) => extension.unwrap_or_default(),
        }
    }
}
