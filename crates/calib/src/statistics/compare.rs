//! Compares the outputs of two models over a data set.

pub(super) mod by_part;

use std::sync::Arc;

use ndarray::ArrayD;
use serde::{Deserialize, Serialize};

use super::measurement::{Measurement, NotMeasured, sqnr_db};
use super::original::{Known, Original};
use super::slices::{Slice, SliceError, Slicing, Sums};
use super::spread::Powers;
use super::tokens::{TokenError, TokenSums, Tokens};
use crate::data::CalibSet;
use crate::engine::Session;
use crate::error::CalibError;
use crate::run::{Progress, bytes_of, describe_failure, in_batches, run_order};
use crate::tensor::Tensor;

/// How one output of a model differs from the same output of another, over all samples.
#[derive(Debug, Clone, PartialEq)]
pub struct OutputComparison {
    /// The output's name in the first model.
    pub name: String,
    /// Samples compared.
    pub samples: usize,
    /// Samples left out because the two outputs have different shapes or types.
    pub incomparable: usize,
    /// Whether the values are floats. Others, such as numbers of classes or lengths, have no scale that those of floats
    /// could be compared with.
    pub is_float: bool,
    /// How it differs. Where more samples are left out than compared that is not known.
    pub found: Measurement<OutputError>,
    /// Where it holds scores of the tokens that follow.
    pub tokens: Option<TokenError>,
}

/// The difference between two outputs.
#[derive(Debug, Clone, PartialEq)]
pub struct OutputError {
    /// Sum of the squares of the first model's values.
    pub signal_power: f64,
    /// Sum of the squared differences.
    pub error_power: f64,
    /// The standard error of the ratio of the two, as a part of that ratio: how far other samples of the kind may lead.
    /// Nothing where a single sample was compared, or nothing differs.
    pub spread: Option<f64>,
    /// The SQNR in dB of the sample where it is least; infinite if nothing differs.
    pub worst_sample_db: f64,
    /// Largest absolute difference.
    pub max_abs_error: f64,
    /// Cosine of the angle between the two outputs, averaged over samples; outputs that are
    /// both zero count 1, only one of them 0.
    pub mean_cosine: f64,
    /// Share of elements that are exactly equal.
    pub equal_fraction: f64,
    /// Parts of other scales, and pieces that were put together.
    pub slices: Vec<SliceError>,
}

impl OutputError {
    /// Signal-to-quantization-noise ratio in dB: infinite if nothing differs.
    pub fn sqnr_db(&self) -> f64 {
        sqnr_db(self.signal_power, self.error_power)
    }

    /// The SQNR of the part where it is least, and which that is, unless all of the output is no better.
    pub fn least_sqnr_db(&self) -> (f64, Option<&Slice>) {
        let parts = self.slices.iter().map(|part| (part.sqnr_db(), Some(&part.slice)));
        parts.fold(
            (self.sqnr_db(), None),
            |least, part| if least.0 <= part.0 || least.0.is_nan() { least } else { part },
        )
    }

    /// One minus the mean cosine, or one minus the cosine of the part where that is more.
    pub fn loss(&self) -> f64 {
        self.slices.iter().map(|part| 1.0 - part.cosine).fold(1.0 - self.mean_cosine, larger)
    }
}

/// What is gathered of one output.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Comparing {
    name: String,
    samples: usize,
    incomparable: usize,
    is_float: bool,
    signal_power: f64,
    error_power: f64,
    powers: Powers,
    worst_sample_db: f64,
    max_abs_error: f64,
    elements: usize,
    equal: usize,
    cosine_sum: f64,
    parts: Sums,
    tokens: TokenSums,
}

impl Comparing {
    fn new(name: &str, slicing: Slicing) -> Self {
        Self {
            name: name.into(),
            samples: 0,
            incomparable: 0,
            is_float: false,
            signal_power: 0.0,
            error_power: 0.0,
            powers: Powers::default(),
            worst_sample_db: f64::INFINITY,
            max_abs_error: 0.0,
            elements: 0,
            equal: 0,
            cosine_sum: 0.0,
            parts: Sums::new(slicing),
            tokens: TokenSums::default(),
        }
    }

    fn take_in(&mut self, a: &Tensor, b: &Tensor, tokens: Option<&Tokens>) {
        self.is_float |= matches!(a, Tensor::F32(_) | Tensor::F64(_) | Tensor::F16(_));
        let (a, b) = (wide(a), wide(b));
        if a.shape() != b.shape() {
            self.incomparable += 1;
            return;
        }
        let (mut aa, mut bb, mut ab, mut error_power) = (0.0, 0.0, 0.0, 0.0);
        for (&x, &y) in a.iter().zip(&b) {
            let difference = x - y;
            aa += x * x;
            bb += y * y;
            ab += x * y;
            error_power += if x == y { 0.0 } else { difference * difference };
            if x != y {
                self.max_abs_error = larger(self.max_abs_error, difference.abs());
            }
            self.equal += usize::from(x == y);
        }
        self.elements += a.len();
        self.signal_power += aa;
        self.error_power += error_power;
        self.powers.take_in(aa, error_power);
        self.worst_sample_db = smaller(self.worst_sample_db, sqnr_db(aa, error_power));
        self.cosine_sum += if aa == 0.0 && bb == 0.0 {
            1.0
        } else if aa == 0.0 || bb == 0.0 {
            0.0
        } else {
            ab / (aa * bb).sqrt()
        };
        self.samples += 1;
        self.parts.take_in(&a, &b);
        tokens.into_iter().for_each(|tokens| self.tokens.take_in(tokens, &a, &b));
    }

    /// Adds what was gathered of other samples.
    fn add(&mut self, part: Self) {
        self.samples += part.samples;
        self.incomparable += part.incomparable;
        self.is_float |= part.is_float;
        self.signal_power += part.signal_power;
        self.error_power += part.error_power;
        self.powers.add(part.powers);
        self.worst_sample_db = smaller(self.worst_sample_db, part.worst_sample_db);
        self.max_abs_error = larger(self.max_abs_error, part.max_abs_error);
        self.elements += part.elements;
        self.equal += part.equal;
        self.cosine_sum += part.cosine_sum;
        self.parts.add(part.parts);
        self.tokens.add(part.tokens);
    }

    fn finish(self) -> OutputComparison {
        let Self { name, samples, incomparable, is_float, .. } = self;
        let all = samples + incomparable;
        let found = if all == 0 {
            Measurement::NotMeasured(NotMeasured::NoSamples)
        } else if incomparable > samples {
            Measurement::NotMeasured(NotMeasured::Incomparable { incomparable, samples: all })
        } else if self.elements == 0 {
            Measurement::NotMeasured(NotMeasured::NoElements { samples: all })
        } else {
            Measurement::Measured(OutputError {
                signal_power: self.signal_power,
                error_power: self.error_power,
                spread: self.powers.spread(),
                worst_sample_db: self.worst_sample_db,
                max_abs_error: self.max_abs_error,
                mean_cosine: self.cosine_sum / samples as f64,
                equal_fraction: self.equal as f64 / self.elements as f64,
                slices: self.parts.finish(samples),
            })
        };
        OutputComparison { name, samples, incomparable, is_float, found, tokens: self.tokens.finish() }
    }
}

/// The outputs by which a model is judged: floats, or all where none is.
pub fn judged_outputs(outputs: &[OutputComparison]) -> impl Iterator<Item = &OutputComparison> {
    let any_float = outputs.iter().any(|output| output.is_float);
    outputs.iter().filter(move |output| output.is_float || !any_float)
}

/// The larger number; NaN if either is, where `f64::max` would hide it.
pub fn larger(a: f64, b: f64) -> f64 {
    if a.is_nan() || b.is_nan() { f64::NAN } else { a.max(b) }
}

/// The smaller number; NaN if either is.
fn smaller(a: f64, b: f64) -> f64 {
    if a.is_nan() || b.is_nan() { f64::NAN } else { a.min(b) }
}

/// Runs both models on the samples `indices` and compares what they observe, value by value in
/// order. Both sessions should observe the graph's outputs.
pub fn compare<S: Session>(
    a: &Original<S>,
    b: &dyn Session,
    data: &CalibSet,
    indices: &[usize],
    progress: &dyn Fn(Progress),
) -> Result<Vec<OutputComparison>, CalibError> {
    let mut outputs = comparing(a.values(), a.slicings());
    let run = |sample: usize| {
        let known = a.known(data, sample)?;
        let values = b.run(&known.sample).map_err(|error| describe_failure(error, data, sample))?;
        Ok((known, values))
    };
    let bytes = |(known, values): &(Arc<Known>, Vec<Tensor>)| known.bytes() + bytes_of(values);
    let order: Vec<&dyn Session> = a.session().map(|a| a as &dyn Session).into_iter().chain([b]).collect();
    in_batches(run_order(&order, data, indices), &run, &bytes, progress, &mut |runs| {
        for (known, values) in &runs {
            take_in(&mut outputs, &known.values, values, Tokens::of(&known.sample).as_ref());
        }
        Ok(())
    })?;
    Ok(outputs.into_iter().map(Comparing::finish).collect())
}

fn comparing(names: &[String], slicings: &[Slicing]) -> Vec<Comparing> {
    let slicings = slicings.iter().cloned().chain(std::iter::repeat(Slicing::default()));
    names.iter().zip(slicings).map(|(name, slicing)| Comparing::new(name, slicing)).collect()
}

fn take_in(outputs: &mut [Comparing], a: &[Tensor], b: &[Tensor], tokens: Option<&Tokens>) {
    outputs.iter_mut().zip(a.iter().zip(b)).for_each(|(output, (x, y))| output.take_in(x, y, tokens));
}

/// Any tensor as 64-bit floats; 64-bit integers beyond 2^53 are rounded.
fn wide(tensor: &Tensor) -> ArrayD<f64> {
    match tensor {
        Tensor::F32(a) => a.mapv(f64::from),
        Tensor::F64(a) => a.clone(),
        Tensor::F16(a) => a.mapv(f64::from),
        Tensor::I64(a) => a.mapv(|x| x as f64),
        Tensor::U64(a) => a.mapv(|x| x as f64),
        Tensor::I32(a) => a.mapv(f64::from),
        Tensor::U32(a) => a.mapv(f64::from),
        Tensor::I16(a) => a.mapv(f64::from),
        Tensor::U16(a) => a.mapv(f64::from),
        Tensor::I8(a) => a.mapv(f64::from),
        Tensor::U8(a) => a.mapv(f64::from),
        Tensor::Bool(a) => a.mapv(|x| if x { 1.0 } else { 0.0 }),
    }
}

#[cfg(test)]
mod tests {
    use ndarray::array;

    use super::*;

    fn compared(pairs: &[(Tensor, Tensor)]) -> OutputComparison {
        let mut output = Comparing::new("y", Slicing::default());
        pairs.iter().for_each(|(a, b)| output.take_in(a, b, None));
        output.finish()
    }

    fn error(pairs: &[(Tensor, Tensor)]) -> OutputError {
        compared(pairs).found.measured().unwrap().clone()
    }

    fn floats(values: [f32; 2]) -> Tensor {
        Tensor::F32(array![values[0], values[1]].into_dyn())
    }

    fn one() -> Tensor {
        Tensor::F32(array![1.0].into_dyn())
    }

    #[test]
    fn powers_and_cosine_are_those_of_the_definition() {
        let output = error(&[(floats([3.0, 4.0]), floats([3.0, 3.0])), (floats([1.0, 0.0]), floats([0.0, 1.0]))]);
        assert_eq!((output.signal_power, output.error_power, output.max_abs_error), (26.0, 3.0, 1.0));
        let cosine = (9.0 + 12.0) / (25.0_f64 * 18.0).sqrt();
        assert!((output.mean_cosine - cosine / 2.0).abs() < 1e-12);
        assert_eq!(output.equal_fraction, 0.25);
        assert!((output.worst_sample_db - 10.0 * 0.5_f64.log10()).abs() < 1e-12);
        assert!((output.sqnr_db() - 10.0 * (26.0_f64 / 3.0).log10()).abs() < 1e-12);
    }

    #[test]
    fn spread_is_the_standard_error_of_the_ratio() {
        let sample = |signal: f32, error: f32| (floats([signal, 0.0]), floats([signal, error]));
        // Ratios of 0.1 and 0.3 of equal signals: 0.2, and 0.1 for its standard error.
        let found = error(&[sample(10.0, 10f32.sqrt()), sample(10.0, 30f32.sqrt())]);
        assert!((found.spread.unwrap() - 0.5).abs() < 1e-6, "{found:?}");
        // Errors in proportion to the signal say nothing of a spread, however large they are.
        let found = error(&[sample(1.0, 0.5), sample(100.0, 50.0), sample(7.0, 3.5)]);
        assert!(found.spread.unwrap() < 1e-6, "{found:?}");
        assert_eq!(error(&[sample(1.0, 0.5)]).spread, None);
        assert_eq!(error(&[sample(1.0, 0.0), sample(2.0, 0.0)]).spread, None);
    }

    #[test]
    fn equal_outputs_have_infinite_sqnr() {
        let output = error(&[(floats([0.0, 0.0]), floats([0.0, 0.0]))]);
        assert_eq!((output.sqnr_db(), output.mean_cosine), (f64::INFINITY, 1.0));
        assert_eq!((output.least_sqnr_db(), output.loss()), ((f64::INFINITY, None), 0.0));
    }

    #[test]
    fn an_output_is_as_exact_as_its_least_exact_part() {
        let output = error(&[(floats([1000.0, 1.0]), floats([1001.0, 0.0]))]);
        assert!(output.sqnr_db() > 50.0);
        let (sqnr_db, slice) = output.least_sqnr_db();
        assert_eq!((sqnr_db, slice.unwrap().to_string().as_str(), output.loss()), (0.0, "[1:2]", 1.0));
    }

    #[test]
    fn integers_are_judged_only_where_there_are_no_floats() {
        let lengths = || Tensor::I64(array![1_000_000].into_dyn());
        let float = compared(&[(floats([3.0, 4.0]), floats([3.0, 3.0]))]);
        let integer = compared(&[(lengths(), lengths())]);
        assert_eq!(judged_outputs(&[integer.clone(), float.clone()]).collect::<Vec<_>>(), [&float]);
        assert_eq!(judged_outputs(std::slice::from_ref(&integer)).collect::<Vec<_>>(), [&integer]);
    }

    #[test]
    fn nan_does_not_look_like_agreement() {
        let output = error(&[(floats([1.0, 1.0]), floats([1.0, f32::NAN]))]);
        assert!(output.max_abs_error.is_nan() && output.error_power.is_nan() && output.least_sqnr_db().0.is_nan());
    }

    #[test]
    fn what_cannot_be_compared_is_not_measured() {
        let (same, other) = ((one(), one()), (floats([1.0, 1.0]), one()));
        let empty = || Tensor::F32(ndarray::ArrayD::zeros(vec![0, 4]));
        let not = |pairs: &[(Tensor, Tensor)]| compared(pairs).found.why_not().cloned();
        assert_eq!(not(&[]), Some(NotMeasured::NoSamples));
        assert_eq!(not(std::slice::from_ref(&other)), Some(NotMeasured::Incomparable { incomparable: 1, samples: 1 }));
        assert_eq!(
            not(&[other.clone(), other.clone(), same.clone()]),
            Some(NotMeasured::Incomparable { incomparable: 2, samples: 3 })
        );
        assert_eq!(not(&[(empty(), empty())]), Some(NotMeasured::NoElements { samples: 1 }));
        let partly = compared(&[other, same]);
        assert_eq!((partly.found.why_not(), partly.samples, partly.incomparable), (None, 1, 1));
    }
}
