//! Where ONNX Runtime is.
//!
//! | in this order | |
//! |---|---|
//! | a library that is named | it or nothing: one that cannot be used is an error |
//! | a variable | the same |
//! | the package `onnxruntime` of Python | from 1.19 on it has the library as a file of its own |
//! | the system | as its loader finds it |

use std::path::{Path, PathBuf};

use super::elf::{cut_off, is_static};
use super::error::OrtError;
use super::ffi::{Library, Refusal};

/// Where it is looked for; what the environment says is read by whoever makes this.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OrtPlaces {
    /// A library that the user names, or the folder that it lies in.
    pub named: Option<PathBuf>,
    /// The same from a variable.
    pub variable: Option<PathBuf>,
    /// Folders of Python with packages in them, best first.
    pub packages: Vec<PathBuf>,
    /// Whether the system's loader is asked.
    pub system: bool,
}

/// What the library's file is called, without a version.
const FILE: &str = if cfg!(windows) {
    "onnxruntime.dll"
} else if cfg!(target_os = "macos") {
    "libonnxruntime.dylib"
} else {
    "libonnxruntime.so"
};

/// This program's file on Linux.
const OWN_PROGRAM: &str = "/proc/self/exe";

/// The first library in these places, loaded.
pub(super) fn find(places: &OrtPlaces) -> Result<(PathBuf, Library), OrtError> {
    // A static program has no loader; what its C library offers in place of one fails late or crashes.
    if is_static(Path::new(OWN_PROGRAM)) {
        return Err(OrtError::Static);
    }
    let mut looked = Vec::new();
    let not_named = [(&places.named, "`--ort-lib` is not given"), (&places.variable, "`ORT_DYLIB_PATH` is not set")];
    for (named, name) in not_named {
        match named {
            Some(path) => return load(&in_folder(path).unwrap_or_else(|| path.clone())),
            None => looked.push(name.to_owned()),
        }
    }
    for packages in &places.packages {
        let folder = packages.join("onnxruntime").join("capi");
        match in_folder(&folder) {
            Some(path) => return load(&path),
            None if folder.is_dir() => {
                let folder = folder.display();
                looked.push(format!("`{folder}` holds no library (the package has had one since 1.19)"));
            }
            None => looked.push(format!("no package `onnxruntime` in `{}`", packages.display())),
        }
    }
    if places.packages.is_empty() {
        looked.push("no packages of Python are known".to_owned());
    }
    if places.system {
        for name in [FILE.to_owned(), format!("{FILE}.1")] {
            match Library::open(Path::new(&name)) {
                Ok(library) => return Ok((name.into(), library)),
                Err(Refusal::TooOld(version)) => return Err(OrtError::TooOld { path: name.into(), version }),
                Err(Refusal::Broken(detail)) => looked.push(format!("`{name}` of the system: {detail}")),
            }
        }
    }
    Err(OrtError::NotFound { looked })
}

fn load(path: &Path) -> Result<(PathBuf, Library), OrtError> {
    let broken = |detail: String| OrtError::Broken { path: path.to_owned(), detail };
    match path.metadata() {
        Err(error) => return Err(broken(error.to_string())),
        Ok(found) if found.is_dir() => return Err(broken(format!("the folder holds no `{FILE}`"))),
        // A pipe would be waited for.
        Ok(found) if !found.is_file() => return Err(broken("it is not a file".to_owned())),
        Ok(_) => {}
    }
    if let Some(missing) = cut_off(path) {
        return Err(broken(missing));
    }
    // A name alone the system would look for elsewhere.
    let whole = path.canonicalize().map_err(|error| broken(error.to_string()))?;
    match Library::open(&whole) {
        Ok(library) => Ok((path.to_owned(), library)),
        Err(Refusal::Broken(detail)) => Err(broken(detail)),
        Err(Refusal::TooOld(version)) => Err(OrtError::TooOld { path: path.to_owned(), version }),
    }
}

/// The library in a folder, of several the one of the newest version.
fn in_folder(folder: &Path) -> Option<PathBuf> {
    let (stem, extension) = FILE.rsplit_once('.')?;
    let entries = std::fs::read_dir(folder).ok()?.filter_map(Result::ok).map(|entry| entry.path());
    let of_file = |path: PathBuf| {
        let name = path.file_name()?.to_str()?.to_owned();
        let version = match name.strip_prefix(FILE) {
            Some(version) => version,
            // libonnxruntime.1.32.0.dylib
            None => name.strip_prefix(stem)?.strip_suffix(extension)?.strip_suffix('.')?,
        };
        let numbers = version.split('.').filter(|part| !part.is_empty()).map(|part| part.parse::<u32>().ok());
        Some((numbers.collect::<Option<Vec<u32>>>()?, path))
    };
    entries.filter_map(of_file).max().map(|(_, path)| path)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is said where there is nothing to be found.
    fn refused(places: &OrtPlaces) -> String {
        find(places).err().map(|error| error.to_string()).unwrap_or_default()
    }

    #[test]
    fn the_newest_library_of_a_folder_is_taken() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(in_folder(folder.path()), None);
        let (stem, extension) = FILE.rsplit_once('.').unwrap();
        let named = |version: &str| match extension {
            "so" => format!("{FILE}{version}"),
            _ => format!("{stem}{version}.{extension}"),
        };
        for version in ["", ".1.9.0", ".1.32.0", ".1.4.0"] {
            std::fs::write(folder.path().join(named(version)), "").unwrap();
        }
        for other in ["libonnxruntime_providers_shared.so", "onnxruntime_providers_shared.dll", "libother.so.9.9"] {
            std::fs::write(folder.path().join(other), "").unwrap();
        }
        assert_eq!(in_folder(folder.path()), Some(folder.path().join(named(".1.32.0"))));
    }

    #[test]
    fn every_place_is_told_of_where_nothing_is_found() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(folder.path().join("old/onnxruntime/capi")).unwrap();
        let packages = ["none", "old"].map(|name| folder.path().join(name)).to_vec();
        let said = refused(&OrtPlaces { packages, ..OrtPlaces::default() });
        for part in ["no ONNX Runtime found", "no package `onnxruntime` in", "since 1.19", "pip install", "--ort-lib"] {
            assert!(said.contains(part), "{part}: {said}");
        }
    }

    #[test]
    fn what_is_named_is_taken_or_refused_with_its_reason() {
        let folder = tempfile::tempdir().unwrap();
        let text = folder.path().join("text.so");
        std::fs::write(&text, "no library").unwrap();
        // A library, but another one: what the system loads for every program.
        let cases =
            [(folder.path().join("none.so"), "No such file"), (text, "failed: "), (folder.path().into(), "holds no")];
        for (path, part) in cases {
            let by_name = OrtPlaces { named: Some(path.clone()), ..OrtPlaces::default() };
            let by_variable = OrtPlaces { variable: Some(path), system: true, ..OrtPlaces::default() };
            for places in [by_name, by_variable] {
                let said = refused(&places);
                assert!(said.starts_with("cannot load `") && said.contains(part), "{part}: {said}");
            }
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn what_is_no_file_is_refused_and_what_the_system_lacks_is_told() {
        let said = refused(&OrtPlaces { named: Some("/dev/null".into()), ..OrtPlaces::default() });
        assert!(said.contains("it is not a file"), "{said}");
        // Where the system has one it is found.
        let said = refused(&OrtPlaces { system: true, ..OrtPlaces::default() });
        assert!(said.is_empty() || said.contains("`libonnxruntime.so.1` of the system: "), "{said}");
    }

    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    #[test]
    fn another_library_is_not_taken_for_it() {
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        let libc = maps.lines().filter_map(|line| line.split_whitespace().last()).find(|path| path.contains("/libc"));
        let Some(libc) = libc else { panic!("this test is linked to no C library: {maps}") };
        let said = refused(&OrtPlaces { named: Some(libc.into()), ..OrtPlaces::default() });
        assert!(said.contains("does not export `OrtGetApiBase`"), "{said}");
    }
}
