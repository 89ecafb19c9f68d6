//! A folder in, a folder out: a model with what belongs to it.
//!
//! The model is the decoder that `genai_config.json` names or, without one, the largest of the folder. Other models in it get
//! weights of 8 bits without data, or what the settings say where samples of their own are given
//! ([`DataConfig::of_model`]); those that would be no smaller are copied. So is everything else: configurations, tokenizers.
//! Hidden files are left out. The folder that is made appears whole or not at all: it is filled beside its place, and gets
//! its name last.

use std::collections::HashSet;
use std::fs;
use std::path::{Component, Path, PathBuf};

use onnxquant_calib::GenaiDecoder;
use onnxquant_ir::{ScratchFolder, external_files_of};
use onnxquant_storage::{MAX_DEPTH, Unlisted, list};

use crate::config::{Config, DataConfig};
use crate::error::Error;
use crate::files::{Files, folder_of, model_bytes};
use crate::pipeline::{Finished, quantize};
use crate::progress::Progress;
use crate::report::folder::{FolderReport, OtherModel, OtherQuantized};
use crate::report::run::Report;

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
/// The folder holds no model, or not the one that is named.
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
        let mut files = files(folder, MAX_DEPTH)?;
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
        self.quantize_unnamed(output, data, config, progress)?.name()
    }

    /// The same, but the folder gets its name later.
    ///
    /// # Errors
    /// As [`ModelFolder::quantize`].
    pub fn quantize_unnamed(
        &self,
        output: &Path,
        data: Option<&DataConfig>,
        config: &Config,
        progress: Progress<'_>,
    ) -> Result<Finished, Error> {
        let files = self.files(output, data, config);
        files.check()?;
        files.sweep();
        let failed = |error: std::io::Error| Error::Output { path: output.to_owned(), problem: error.to_string() };
        let is_empty = |folder: &Path| Ok(fs::read_dir(folder)?.next().is_none());
        let exists = output.exists();
        if exists && !is_empty(output).map_err(failed)? {
            let problem = "the folder is not empty: remove it, or name another".to_owned();
            return Err(Error::Output { path: output.to_owned(), problem });
        }
        let unfinished = ScratchFolder::inside(folder_of(output)).map_err(failed)?;
        // A temporary folder is closed to others; the one in it is as open as usual.
        let made = unfinished.path().join("folder");
        let name = self.model.strip_prefix(&self.folder).unwrap_or(&self.model).to_owned();
        let model = made.join(&name);
        fs::create_dir_all(folder_of(&model)).map_err(failed)?;
        let report = quantize(&self.model, &model, data, config, progress)?;
        let other_models = self.quantize_others(&made, data, config, progress)?;
        let copied = self.copy_companions(&made, &other_models)?;
        let report = report.in_folder(FolderReport { model: name, copied, other_models });
        let output = output.to_owned();
        Ok(Finished::new(report, move || {
            let emptied = if exists { fs::remove_dir(&output) } else { Ok(()) };
            let named = emptied.and_then(|()| unfinished.name(&made, &output));
            named.map_err(|error| Error::Output { path: output, problem: error.to_string() })
        }))
    }

    /// Quantizes the other models into `made`, those alone that get smaller by it.
    fn quantize_others(
        &self,
        made: &Path,
        data: Option<&DataConfig>,
        config: &Config,
        progress: Progress<'_>,
    ) -> Result<Vec<OtherModel>, Error> {
        let quantize_one = |file: &PathBuf| {
            let (from, to) = (self.folder.join(file), made.join(file));
            let own = data.filter(|data| data.has_own(&from));
            let config = if own.is_some() { config.for_own_samples() } else { config.for_other_model() };
            let bytes_before = model_bytes(&from, &weights(&from));
            let failed = |error: std::io::Error| Error::Output { path: to.clone(), problem: error.to_string() };
            fs::create_dir_all(folder_of(&to)).map_err(failed)?;
            // What is larger is thrown away.
            let place = ScratchFolder::inside(folder_of(&to)).map_err(failed)?;
            let tried = place.path().join(to.file_name().unwrap_or_default());
            let because = match quantize(&from, &tried, own, &config, progress) {
                Ok(report) if report.is_quantized() && report.bytes_after < bytes_before => {
                    move_files(place.path(), folder_of(&to)).map_err(failed)?;
                    let quantized = Some(OtherQuantized {
                        layers: report.layers.len(),
                        bytes_after: report.bytes_after,
                        expected_db: report.expected_db(),
                        missed: report.missed(),
                    });
                    return Ok(OtherModel { model: file.clone(), bytes_before, quantized, because: None });
                }
                Ok(_) => "it would be no smaller".to_owned(),
                Err(error @ (Error::Write(_) | Error::Output { .. })) => return Err(error),
                Err(error) => error.to_string(),
            };
            Ok(OtherModel { model: file.clone(), bytes_before, quantized: None, because: Some(because) })
        };
        self.companions.iter().filter(|file| is_model(file)).map(quantize_one).collect()
    }

    /// Copies what is not made anew; returns how many files that were.
    fn copy_companions(&self, made: &Path, others: &[OtherModel]) -> Result<usize, Error> {
        let (anew, copied): (Vec<&OtherModel>, Vec<&OtherModel>) =
            others.iter().partition(|other| other.quantized.is_some());
        let weights_of = |models: Vec<&OtherModel>| -> HashSet<PathBuf> {
            models.into_iter().flat_map(|other| weights(&self.folder.join(&other.model))).collect()
        };
        let models: HashSet<&PathBuf> = anew.iter().map(|other| &other.model).collect();
        let (replaced, kept) = (weights_of(anew), weights_of(copied));
        let mut count = 0;
        for file in &self.companions {
            let is_replaced = |path: PathBuf| replaced.contains(&path) && !kept.contains(&path);
            if models.contains(file) || self.folder.join(file).canonicalize().is_ok_and(is_replaced) {
                continue;
            }
            count += 1;
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
        Ok(count)
    }
}

/// Moves all files of a folder into another one.
fn move_files(from: &Path, to: &Path) -> std::io::Result<()> {
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        fs::rename(entry.path(), to.join(entry.file_name()))?;
    }
    Ok(())
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
    let mut files = files(folder, 0)?;
    files.retain(|file| is_model(file));
    match files.as_slice() {
        [one] => Ok(folder.join(one)),
        [] => Err(unusable("it holds no .onnx file".to_owned())),
        several => {
            let bytes = |file: &&PathBuf| {
                let path = folder.join(file);
                model_bytes(&path, &weights(&path))
            };
            // Of equals the first.
            let largest = several.iter().rev().max_by_key(bytes);
            largest.map(|file| folder.join(file)).ok_or_else(|| unusable("it holds no .onnx file".to_owned()))
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

/// The files below `folder`, sorted, as paths from there on.
fn files(folder: &Path, depth: usize) -> Result<Vec<PathBuf>, Error> {
    let failed = |Unlisted { path, source }| Error::Folder { path, problem: source.to_string() };
    let found = list(folder, depth).map_err(failed)?;
    let mut files: Vec<PathBuf> =
        found.iter().map(|path| path.strip_prefix(folder).unwrap_or(path).to_owned()).collect();
    files.sort();
    Ok(files)
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
        write("b.onnx", "longer");
        assert_eq!(ModelFolder::open(folder.path()).unwrap().model(), folder.path().join("b.onnx"));
        write("a.onnx", "longer");
        assert_eq!(ModelFolder::open(folder.path()).unwrap().model(), folder.path().join("a.onnx"));
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
