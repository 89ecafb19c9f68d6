//! A folder in, a folder out: a model with what belongs to it.
//!
//! The model is the decoder that `genai_config.json` names or, without one, the only ONNX file of the folder. Everything
//! else is copied: configurations, tokenizers, other models with their weights. Hidden files are left out. The folder that
//! is made appears whole or not at all: it is filled beside its place, and gets its name last.

use std::collections::HashSet;
use std::fs;
use std::path::{Component, Path, PathBuf};

use onnxquant_calib::GenaiDecoder;
use onnxquant_ir::external_files_of;

use crate::config::{Config, DataConfig};
use crate::error::Error;
use crate::files::{Files, folder_of};
use crate::pipeline::quantize;
use crate::progress::Progress;
use crate::report::folder::FolderReport;
use crate::report::run::Report;

/// Deeper folders are not copied: a link to a parent folder would not end otherwise.
const MAX_DEPTH: usize = 16;
/// The folder in which the result is made, before it has its name.
const UNFINISHED: &str = ".onnxquant-";

/// A folder that holds a model.
#[derive(Clone, Debug)]
pub struct ModelFolder {
    folder: PathBuf,
    model: PathBuf,
    /// What is copied, from the folder on.
    companions: Vec<PathBuf>,
}

/// The model that `path` stands for: the file itself or, where it is a folder, the one that is quantized in it.
///
/// # Errors
/// The folder holds no model, or several of which none is named.
pub fn model_file(path: &Path) -> Result<PathBuf, Error> {
    if path.is_dir() { find_model(path) } else { Ok(path.to_owned()) }
}

impl ModelFolder {
    /// Looks at what is in `folder`.
    ///
    /// # Errors
    /// As [`model_file`]; or the folder cannot be read.
    pub fn open(folder: &Path) -> Result<Self, Error> {
        let model = find_model(folder)?;
        let mut files = Vec::new();
        list(folder, Path::new(""), MAX_DEPTH, &mut files)?;
        files.sort();
        let kept = weights(&model);
        let others = files.iter().filter(|file| is_model(file)).map(|file| folder.join(file));
        let of_others: HashSet<PathBuf> =
            others.filter(|path| *path != model).flat_map(|path| weights(&path)).collect();
        files.retain(|file| {
            let path = folder.join(file);
            let is_replaced = |path: PathBuf| kept.contains(&path) && !of_others.contains(&path);
            path != model && !path.canonicalize().is_ok_and(is_replaced)
        });
        Ok(Self { folder: folder.to_owned(), model, companions: files })
    }

    /// The model that is quantized.
    pub fn model(&self) -> &Path {
        &self.model
    }

    /// What [`ModelFolder::quantize`] reads and writes with these arguments.
    pub fn files(&self, output: &Path, data: Option<&DataConfig>, config: &Config) -> Files {
        let files = Files::of_folder(&self.model, output, data, config);
        let companions = self.companions.iter().map(|file| self.folder.join(file));
        companions.fold(files, |files, path| files.reads("part of the input", &path))
    }

    /// Quantizes the model into a new folder, and copies everything else.
    ///
    /// # Errors
    /// Those of [`quantize`]; or `output` exists and is not empty, or cannot be made.
    pub fn quantize(
        &self,
        output: &Path,
        data: Option<&DataConfig>,
        config: &Config,
        progress: Progress<'_>,
    ) -> Result<Report, Error> {
        self.files(output, data, config).check()?;
        let failed = |error: std::io::Error| Error::Output { path: output.to_owned(), problem: error.to_string() };
        let is_empty = |folder: &Path| Ok(fs::read_dir(folder)?.next().is_none());
        let exists = output.exists();
        if exists && !is_empty(output).map_err(failed)? {
            let problem = "the folder is not empty: remove it, or name another".to_owned();
            return Err(Error::Output { path: output.to_owned(), problem });
        }
        let unfinished = tempfile::Builder::new().prefix(UNFINISHED).tempdir_in(folder_of(output)).map_err(failed)?;
        // A temporary folder is closed to others; the one in it is as open as usual.
        let made = unfinished.path().join("folder");
        let name = self.model.strip_prefix(&self.folder).unwrap_or(&self.model).to_owned();
        let model = made.join(&name);
        fs::create_dir_all(folder_of(&model)).map_err(failed)?;
        let mut report = quantize(&self.model, &model, data, config, progress)?;
        self.copy_companions(&made)?;
        if exists {
            fs::remove_dir(output).map_err(failed)?;
        }
        fs::rename(&made, output).map_err(failed)?;
        let other_models = self.companions.iter().filter(|file| is_model(file)).cloned().collect();
        report.folder = Some(FolderReport { model: name, copied: self.companions.len(), other_models });
        Ok(report)
    }

    fn copy_companions(&self, made: &Path) -> Result<(), Error> {
        for file in &self.companions {
            let (from, to) = (self.folder.join(file), made.join(file));
            let failed = |problem: String| Error::Output {
                path: file.clone(),
                problem: format!("cannot copy `{}`: {problem}", from.display()),
            };
            if to.exists() {
                return Err(failed("the quantized model keeps its weights in a file of that name".to_owned()));
            }
            let copied = fs::create_dir_all(folder_of(&to)).and_then(|()| fs::copy(&from, &to));
            copied.map_err(|error| failed(error.to_string()))?;
        }
        Ok(())
    }
}

/// The model in a folder that is quantized.
fn find_model(folder: &Path) -> Result<PathBuf, Error> {
    let unusable = |problem: String| Error::Folder { path: folder.to_owned(), problem };
    if let Some(name) = GenaiDecoder::read(folder)?.and_then(|decoder| decoder.filename) {
        let is_inside = Path::new(&name).components().all(|part| matches!(part, Component::Normal(_)));
        let path = folder.join(&name);
        return match is_inside && path.is_file() {
            true => Ok(path),
            false => Err(unusable(format!("its genai_config.json names the decoder `{name}`, which is not in it"))),
        };
    }
    let mut files = Vec::new();
    list(folder, Path::new(""), 0, &mut files)?;
    files.retain(|file| is_model(file));
    files.sort();
    match files.as_slice() {
        [one] => Ok(folder.join(one)),
        [] => Err(unusable("it holds no .onnx file".to_owned())),
        several => {
            let names: Vec<String> = several.iter().map(|file| format!("`{}`", file.display())).collect();
            let names = names.join(", ");
            Err(unusable(format!(
                "it holds several models ({names}) and no genai_config.json that names one: name a file"
            )))
        }
    }
}

fn is_model(file: &Path) -> bool {
    file.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("onnx"))
}

/// The files in which a model keeps its weights, links followed; none where it cannot be read, which is told when it is.
fn weights(model: &Path) -> Vec<PathBuf> {
    external_files_of(model).unwrap_or_default()
}

/// The files below `folder`, as paths from there on.
fn list(folder: &Path, below: &Path, depth: usize, files: &mut Vec<PathBuf>) -> Result<(), Error> {
    let path = folder.join(below);
    let failed = |error: std::io::Error| Error::Folder { path: path.clone(), problem: error.to_string() };
    for entry in fs::read_dir(&path).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name();
        if name.to_string_lossy().starts_with('.') {
            continue;
        }
        let found = below.join(&name);
        if folder.join(&found).is_dir() {
            if depth > 0 {
                list(folder, &found, depth - 1, files)?;
            }
        } else if folder.join(&found).is_file() {
            files.push(found);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(found: &ModelFolder) -> Vec<String> {
        found.companions.iter().map(|file| file.display().to_string()).collect()
    }

    #[test]
    fn the_model_is_the_one_that_is_named_or_the_only_one() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            fs::create_dir_all(folder_of(&folder.path().join(name))).unwrap();
            fs::write(folder.path().join(name), text).unwrap();
        };
        let problem = || ModelFolder::open(folder.path()).unwrap_err().to_string();
        assert!(problem().contains("it holds no .onnx file"));
        write("a.onnx", "");
        write("more/tokenizer.json", "{}");
        write(".hidden", "");
        let found = ModelFolder::open(folder.path()).unwrap();
        assert_eq!(found.model(), folder.path().join("a.onnx"));
        assert_eq!(names(&found), ["more/tokenizer.json"]);
        write("b.onnx", "");
        assert!(problem().contains("`a.onnx`, `b.onnx`"));
        write("genai_config.json", r#"{"model": {"decoder": {"filename": "b.onnx"}}}"#);
        let found = ModelFolder::open(folder.path()).unwrap();
        assert_eq!(found.model(), folder.path().join("b.onnx"));
        assert_eq!(names(&found), ["a.onnx", "genai_config.json", "more/tokenizer.json"]);
        assert_eq!(model_file(&folder.path().join("a.onnx")).unwrap(), folder.path().join("a.onnx"));
        for name in ["c.onnx", "../b.onnx"] {
            write("genai_config.json", &format!(r#"{{"model": {{"decoder": {{"filename": "{name}"}}}}}}"#));
            assert!(problem().contains(&format!("`{name}`, which is not in it")));
        }
    }
}
