//! Where a path leads.

use std::ffi::OsString;
use std::fs::Metadata;
use std::path::{Path, PathBuf};

use onnxquant_temporary::TempFile;

/// Links followed to a file that does not exist yet.
const MAX_LINKS: usize = 40;

/// What tells a file from all others: device and number, or where there are no such numbers its own path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    #[cfg(unix)]
    numbers: (u64, u64),
    #[cfg(not(unix))]
    path: PathBuf,
}

/// Where a path leads, links followed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// The standard output.
    StandardOutput,
    /// A file or folder that exists.
    Present(Identity),
    /// One that does not: the deepest folder that does, and the names below it.
    Absent { folder: PathBuf, identity: Identity, names: Vec<OsString> },
    /// Nobody can tell; nothing can be written there.
    Unknown,
}

impl Identity {
    fn of(path: &Path) -> Option<Self> {
        #[cfg(unix)]
        return std::fs::metadata(path).ok().map(|found| Self::from(&found));
        #[cfg(not(unix))]
        return path.canonicalize().ok().map(|path| Self { path });
    }

    /// Whether it is that of the file with this metadata.
    pub(super) fn is(&self, found: &Metadata) -> bool {
        #[cfg(unix)]
        return *self == Self::from(found);
        #[cfg(not(unix))]
        {
            let _ = found;
            false
        }
    }
}

#[cfg(unix)]
impl From<&Metadata> for Identity {
    fn from(found: &Metadata) -> Self {
        use std::os::unix::fs::MetadataExt;
        Self { numbers: (found.dev(), found.ino()) }
    }
}

/// What is open as the standard output.
pub(super) fn standard_output() -> Option<Identity> {
    #[cfg(unix)]
    {
        use std::os::fd::AsFd;
        let open = std::io::stdout().as_fd().try_clone_to_owned().ok()?;
        std::fs::File::from(open).metadata().ok().map(|found| Identity::from(&found))
    }
    #[cfg(not(unix))]
    None
}

impl Place {
    pub(super) fn of(path: &Path) -> Self {
        Self::within(path, MAX_LINKS)
    }

    fn within(path: &Path, links: usize) -> Self {
        if let Some(identity) = Identity::of(path) {
            return Self::Present(identity);
        }
        let folder = folder_of(path);
        if let Ok(target) = std::fs::read_link(path) {
            return links.checked_sub(1).map_or(Self::Unknown, |links| Self::within(&folder.join(target), links));
        }
        let Some(name) = path.file_name().filter(|_| folder != path) else { return Self::Unknown };
        match Self::within(folder, links) {
            Self::Present(identity) => {
                Self::Absent { folder: folder.to_owned(), identity, names: vec![name.to_owned()] }
            }
            Self::Absent { folder, identity, mut names } => {
                names.push(name.to_owned());
                Self::Absent { folder, identity, names }
            }
            other => other,
        }
    }

    /// Whether both lead to one file.
    pub(super) fn is(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Absent { identity: a, names, folder }, Self::Absent { identity: b, names: others, .. }) => {
                a == b && same_names(names, others, &|| ignores_case(folder))
            }
            (Self::Unknown, _) => false,
            _ => self == other,
        }
    }
}

/// The folder of `path`; the working folder where it names none.
pub(crate) fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Whether these are the names of one file; `ignores_case` is asked where they differ in case only.
fn same_names(names: &[OsString], others: &[OsString], ignores_case: &dyn Fn() -> bool) -> bool {
    let lower = |names: &[OsString]| -> Vec<String> {
        names.iter().map(|name| name.to_string_lossy().to_lowercase()).collect()
    };
    names == others || (lower(names) == lower(others) && ignores_case())
}

/// Whether `folder` takes names that differ in case for one; so it is thought where that cannot be tried.
fn ignores_case(folder: &Path) -> bool {
    let Ok(probe) = TempFile::new_in(folder, ".onnxquant-case-") else { return true };
    let name = probe.path().file_name().map(|name| name.to_string_lossy().to_uppercase());
    name.is_none_or(|name| folder.join(name).exists())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_differ_in_case_are_one_where_the_folder_says_so() {
        let names = |text: &str| text.split('/').map(OsString::from).collect::<Vec<_>>();
        let same = |a: &str, b: &str, ignores| same_names(&names(a), &names(b), &|| ignores);
        assert!(same("a/B.onnx", "a/B.onnx", false) && same("a/B.onnx", "A/b.ONNX", true));
        assert!(!same("a/B.onnx", "A/b.ONNX", false) && !same("a", "b", true) && !same("a", "a/b", true));
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        assert!(ignores_case(&folder.path().join("absent")));
        std::fs::write(folder.path().join("x"), "").expect("it can be written");
        assert_eq!(ignores_case(folder.path()), folder.path().join("X").exists());
    }
}
