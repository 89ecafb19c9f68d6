//! Tells what was done to samples, and finds values that no model is fed with.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Serialize;

use super::source::Source;
use super::{CalibSet, evenly_spaced};
use crate::error::CalibError;
use crate::tensor::Tensor;

/// Samples that are looked at.
const LOOKED_AT: usize = 8;
/// No further ones are where these have so many elements.
const MOST_ELEMENTS: usize = 1 << 26;

/// What was done to samples.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct DataReport {
    /// How many of which kind: `32 jpg`.
    pub samples: String,
    /// What they became, in words; absent where they are fed as they are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prepared: Option<String>,
    /// Smallest and largest value of each input of floats, of some of the samples.
    pub ranges: Vec<ValueRange>,
    /// Files of the folder that are no samples.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub skipped: Vec<PathBuf>,
    /// Values that no model is fed with, and what to do.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

/// Values of an input.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct ValueRange {
    /// The input.
    pub input: String,
    /// The smallest.
    pub min: f32,
    /// The largest.
    pub max: f32,
}

impl CalibSet {
    /// What was done to the samples; looks at the values of some.
    pub fn survey(&self) -> Result<DataReport, CalibError> {
        let mut seen = Seen::default();
        let mut elements = 0;
        for sample in evenly_spaced((0..self.len()).collect(), LOOKED_AT) {
            if elements > MOST_ELEMENTS {
                break;
            }
            let values = self.load(sample)?;
            elements += values.iter().map(|(_, tensor)| tensor.len()).sum::<usize>();
            seen.add(&values);
        }
        let prepared = self.reader.prepared();
        let unlikely = self.reader.unlikely().into_iter();
        let warnings = unlikely.chain(seen.warnings(self.is_text())).collect();
        Ok(DataReport {
            samples: kinds(&self.sources),
            prepared,
            ranges: seen.ranges(),
            skipped: self.skipped.clone(),
            warnings,
        })
    }
}

/// What samples hold.
#[derive(Debug, Default)]
struct Seen {
    samples: usize,
    digests: BTreeSet<u64>,
    /// By input of floats.
    ranges: BTreeMap<String, (f32, f32)>,
}

impl Seen {
    fn add(&mut self, sample: &[(String, Tensor)]) {
        let mut hasher = DefaultHasher::new();
        for (name, tensor) in sample {
            digest(tensor, &mut hasher);
            let Some(values) = tensor.to_f32().filter(|values| !values.is_empty()) else { continue };
            let (least, most) = self.ranges.entry(name.clone()).or_insert((f32::INFINITY, f32::NEG_INFINITY));
            values.iter().for_each(|&value| (*least, *most) = (least.min(value), most.max(value)));
        }
        self.samples += 1;
        self.digests.insert(hasher.finish());
    }

    fn ranges(&self) -> Vec<ValueRange> {
        let range = |(input, &(min, max)): (&String, &(f32, f32))| ValueRange { input: input.clone(), min, max };
        self.ranges.iter().map(range).collect()
    }

    /// Texts are numbers that may be alike.
    fn warnings(&self, is_text: bool) -> Vec<String> {
        if is_text {
            return Vec::new();
        }
        let mut warnings = Vec::new();
        let is_one = |(least, most): &(f32, f32)| least == most;
        if !self.ranges.is_empty() && self.ranges.values().all(is_one) {
            let words = self.ranges.iter().map(|(input, (value, _))| format!("`{input}` is {value}"));
            warnings.push(format!(
                "{} in every sample looked at: ranges and errors found on them mean nothing; were they prepared as the model's are?",
                words.collect::<Vec<_>>().join(" and ")
            ));
        } else if self.samples > 1 && self.digests.len() == 1 {
            warnings.push(format!(
                "all of {} samples looked at are equal: one of them tells as much; give samples that differ as those in service do",
                self.samples
            ));
        }
        warnings
    }
}

fn digest(tensor: &Tensor, hasher: &mut DefaultHasher) {
    tensor.shape().hash(hasher);
    if let Some(values) = tensor.to_f32() {
        return values.iter().for_each(|value| value.to_bits().hash(hasher));
    }
    match tensor {
        Tensor::I64(array) => array.hash(hasher),
        Tensor::I32(array) => array.hash(hasher),
        Tensor::I16(array) => array.hash(hasher),
        Tensor::I8(array) => array.hash(hasher),
        Tensor::U64(array) => array.hash(hasher),
        Tensor::U32(array) => array.hash(hasher),
        Tensor::U16(array) => array.hash(hasher),
        Tensor::U8(array) => array.hash(hasher),
        Tensor::Bool(array) => array.hash(hasher),
        Tensor::F32(_) | Tensor::F64(_) | Tensor::F16(_) => {}
    }
}

/// How many samples are of which kind.
fn kinds(sources: &[Source]) -> String {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    sources.iter().for_each(|source| *counts.entry(source.kind()).or_default() += 1);
    counts.iter().map(|(kind, count)| format!("{count} {kind}")).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use ndarray::{ArrayD, IxDyn};

    use super::*;

    fn seen(samples: &[&[f32]]) -> Vec<String> {
        let mut seen = Seen::default();
        for values in samples {
            let array = ArrayD::from_shape_vec(IxDyn(&[1, values.len()]), values.to_vec()).unwrap();
            seen.add(&[("x".to_owned(), Tensor::F32(array))]);
        }
        seen.warnings(false)
    }

    #[test]
    fn values_that_tell_nothing_are_named() {
        assert!(seen(&[&[0.0, 0.0], &[0.0, 0.0]])[0].contains("`x` is 0 in every sample"));
        assert!(seen(&[&[0.1, 0.2], &[0.1, 0.2], &[0.1, 0.2]])[0].contains("all of 3 samples looked at are equal"));
        assert!(seen(&[&[0.1, 0.2], &[0.1, 0.3]]).is_empty());
        assert!(seen(&[&[0.1, 0.2]]).is_empty());
        assert!(seen(&[&[0.0, 0.0], &[0.0, 0.3]]).is_empty());
    }

    #[test]
    fn integers_differ_as_floats_do() {
        let of = |value: i64| [("x".to_owned(), Tensor::I64(ArrayD::from_elem(IxDyn(&[2]), value)))];
        let mut seen = Seen::default();
        seen.add(&of(1));
        seen.add(&of(1));
        assert!(seen.warnings(false)[0].contains("equal") && seen.ranges().is_empty());
        seen.add(&of(2));
        assert!(seen.warnings(false).is_empty());
    }
}
