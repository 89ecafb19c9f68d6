//! Samples of a decoder that start behind a past, and whether any starts at the first token.
//!
//! What decoding sees lies behind caches that are full. Of texts every fourth sample, at changing places, gives its first
//! half away: the float model makes caches of it, which a temporary file keeps, and the sample is the other half behind
//! them.

use std::path::{Path, PathBuf};

use onnxquant_temporary::TempFolder;

use super::source::Source;
use super::text_inputs::{Window, past_axis};
use super::{CalibSet, Sample, write_captures};
use crate::error::CalibError;
use crate::tensor::Tensor;

/// Of so many samples one continues a text.
const ONE_IN: usize = 4;

impl CalibSet {
    /// Whether the samples are made of texts.
    pub fn is_text(&self) -> bool {
        self.reader.text().is_some()
    }

    /// Tokens of a sample of a text, those before it counted.
    pub fn tokens(&self, sample: usize) -> Option<usize> {
        match self.sources.get(sample) {
            Some(Source::Text { window, .. }) => Some(window.tokens.len() - window.filling),
            _ => None,
        }
    }

    /// Whether all caches of all samples hold tokens, so that the first token of a text is in none. Of a model that takes
    /// an encoder's caches (`past_key_values.0.encoder.key`) nobody can say: another file or branch sees the first token.
    pub fn starts_late(&self) -> bool {
        if self.inputs.iter().any(|spec| self.decoder.is_cache(&spec.name) && spec.name.contains(".encoder.")) {
            return false;
        }
        let axes: Vec<(usize, usize)> = (self.inputs.iter().enumerate())
            .filter(|(_, spec)| self.decoder.is_cache(&spec.name))
            .filter_map(|(at, _)| Some((at, past_axis(self.shapes.first()?.get(at)?.len())?)))
            .collect();
        let is_late = |shapes: &Vec<Vec<usize>>| axes.iter().all(|&(at, axis)| shapes[at].get(axis) > Some(&0));
        !axes.is_empty() && self.shapes.iter().all(is_late)
    }

    /// The caches of a decoder of texts, each with the names that the output may have which continues it.
    pub fn caches(&self) -> Vec<(String, Vec<String>)> {
        let caches = self.reader.text().map(|text| text.caches().collect::<Vec<_>>()).unwrap_or_default();
        let names = caches.into_iter().filter_map(|number| self.reader.name(number));
        names.map(|name| (name.to_owned(), self.decoder.continued(name))).collect()
    }

    /// Samples that are to continue a text: one in four, and in each four another one, for what divides samples counts
    /// too.
    pub fn to_continue(&self) -> Vec<usize> {
        let is_one = |sample: &usize| sample % ONE_IN == sample / ONE_IN % ONE_IN;
        (0..self.len()).filter(is_one).filter(|&sample| self.halved(sample).is_some()).collect()
    }

    /// The first half of a sample of a text, for the float model to make caches of; none where there is no such half.
    pub fn first_half(&self, sample: usize) -> Result<Option<Sample>, CalibError> {
        let Some((path, first)) = self.halved(sample) else { return Ok(None) };
        let source = Source::Text { path: path.to_owned(), number: sample, window: first, caches: None };
        let tensors = self.reader.load(&source, &self.inputs)?;
        Ok(Some(self.inputs.iter().map(|i| i.name.clone()).zip(tensors).collect()))
    }

    /// Lets a sample begin behind its first half, of which these are the caches by input. Tells whether they are such;
    /// else the sample stays as it is.
    pub fn continue_behind(&mut self, sample: usize, caches: &[(String, Tensor)]) -> Result<bool, CalibError> {
        let folder = match self.spool.take() {
            Some(folder) => folder,
            None => TempFolder::new("onnxquant-").map_err(CalibError::Spill)?,
        };
        let file = self.spool.insert(folder).path().join(format!("{sample}.npz"));
        self.keep_caches(sample, Some(file.clone()))?;
        let given = |name: &str| caches.iter().find(|(input, _)| input == name).map(|(_, tensor)| tensor);
        let fits = |(name, _): (String, Vec<String>)| {
            let at = self.inputs.iter().position(|spec| spec.name == name)?;
            let tensor = given(&name).filter(|tensor| tensor.element_type().is_float())?;
            (tensor.shape() == self.shapes(sample)[at]).then_some(())
        };
        if !self.caches().into_iter().all(|cache| fits(cache).is_some()) {
            self.start_over(sample)?;
            return Ok(false);
        }
        let (names, values): (Vec<String>, Vec<Tensor>) = caches.iter().cloned().unzip();
        write_captures(&file, &names, &values)?;
        Ok(true)
    }

    /// Lets it begin at the first token again.
    pub fn start_over(&mut self, sample: usize) -> Result<(), CalibError> {
        self.keep_caches(sample, None)
    }

    /// Says where the caches of a sample are, if it has any.
    fn keep_caches(&mut self, sample: usize, file: Option<PathBuf>) -> Result<(), CalibError> {
        let Some(source) = self.sources.get_mut(sample) else { return Ok(()) };
        if let Source::Text { caches, .. } = source {
            *caches = file;
            self.shapes[sample] = self.reader.scan(source)?.into_iter().map(|(_, shape)| shape).collect();
        }
        Ok(())
    }

    /// Where the text of a sample is, and the first half of its tokens.
    fn halved(&self, sample: usize) -> Option<(&Path, Window)> {
        match self.sources.get(sample) {
            Some(Source::Text { path, window, .. }) => Some((path, window.halves()?.0)),
            _ => None,
        }
    }
}
