//! Kinds of samples, and where one lies.

use std::path::{Path, PathBuf};

use super::named::NamedFile;
use super::part::Part;
use super::picture::EXTENSIONS;

/// What kind of file a sample is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Npz,
    Npy,
    Safetensors,
    /// A folder of `input_*.pb` files.
    TestData,
    Picture,
    Sound,
    /// An archive of samples of another kind.
    Tar,
    /// A file of texts, which is named itself: beside other samples lie texts that are none.
    Text,
}

impl Kind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Npz => ".npz",
            Self::Npy => ".npy",
            Self::Safetensors => ".safetensors",
            Self::TestData => "input_*.pb",
            Self::Picture => "pictures",
            Self::Sound => "sounds",
            Self::Tar => ".tar",
            Self::Text => "texts",
        }
    }

    pub(crate) fn of(path: &Path) -> Option<Self> {
        match path.extension()?.to_str()? {
            "pb" if path.file_name()?.to_str()?.starts_with("input_") => Some(Self::TestData),
            extension => Self::of_extension(extension),
        }
    }

    /// That of files with this extension.
    pub(crate) fn of_extension(extension: &str) -> Option<Self> {
        let extension = extension.to_ascii_lowercase();
        match extension.as_str() {
            "npz" => Some(Self::Npz),
            "npy" => Some(Self::Npy),
            "safetensors" => Some(Self::Safetensors),
            "wav" => Some(Self::Sound),
            "tar" => Some(Self::Tar),
            picture => EXTENSIONS.contains(&picture).then_some(Self::Picture),
        }
    }
}

/// Where a sample lies, or several in one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
    /// In one file, or a member of an archive.
    Part(Part),
    /// In arrays that have names.
    Named(NamedFile),
    /// In files in the order of their numbers.
    TestData(Vec<PathBuf>),
}
