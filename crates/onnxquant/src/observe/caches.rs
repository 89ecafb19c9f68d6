//! The scales of caches that will be codes, from what the float model keeps on calibration samples.
//!
//! # Problem
//!
//! Each head and channel of a cache gets one scale, which is to hold for every token that the model will see, at every place.
//!
//! # Method
//!
//! The scale is the largest number of the channel over all calibration samples, or the size of its mean and five deviations where
//! that is more, over 127. A number that saturates costs more than wider steps do, and few tokens do not show the largest: of a
//! network of noise ten samples of six tokens left 27 dB by the largest number alone.
//!
//! Keys are kept after they were rotated: a channel pair `(a, b)` is turned by an angle that grows with the place of the token,
//! for some channels so slowly that no sample turns them far. What does not change is `sqrt(a^2 + b^2)`, which bounds both
//! channels at any place: it is taken in their stead.
//!
//! # Failure
//!
//! Numbers that no sample comes near saturate. A channel of zeros gets the scale of the largest channel of its cache, or 1.

use ndarray::{ArrayD, ArrayView1, Axis};
use onnxquant_calib::{CalibError, SampleRun, Tensor, for_each_batch};
use onnxquant_ir::Model;
use onnxquant_passes::caches::{Caches, Rotation, find_caches};
use onnxquant_passes::write_caches::ScaledCaches;

use crate::error::Error;
use crate::observe::calibration::Calibration;
use crate::progress::{Phase, Progress};

/// The largest code that has its negative.
const STEPS: f32 = 127.0;
/// Standard deviations from the mean that a scale covers at least.
const DEVIATIONS: f64 = 5.0;
/// Axes of heads and of channels, in `[batch, heads, tokens, channels]`.
const AXES: [usize; 2] = [1, 3];

/// The caches of `model`, with the scales that calibration samples give them.
pub(crate) fn scaled_caches(
    model: &Model,
    calibration: &Calibration,
    progress: Progress<'_>,
) -> Result<Vec<ScaledCaches>, Error> {
    let graph = model.graph();
    let caches = find_caches(graph).map_err(|reason| refused(&reason.to_string()))?;
    let behind = calibration.reach.behind(graph);
    let values: Vec<_> = caches.iter().flat_map(|caches| caches.present).collect();
    if let Some(&value) = values.iter().find(|value| behind.contains_key(value)) {
        let name = graph.value(value).name();
        return Err(refused(&format!(
            "no engine here computes `{name}` on samples, from which its scales would follow"
        )));
    }
    let names: Vec<String> = values.iter().map(|&value| graph.value(value).name().to_owned()).collect();
    let rotations = caches.iter().flat_map(|caches| [caches.rotation, None]);
    let heads = caches.iter().flat_map(|caches| [caches.heads; 2]);
    let mut largest: Vec<Largest> =
        rotations.zip(heads).map(|(rotation, heads)| Largest { rotation, heads, ..Largest::default() }).collect();
    let samples = &calibration.samples;
    let session = samples.session(model, &names, &samples.split.calibration)?;
    let report = |state: onnxquant_calib::Progress| progress(Phase::Calibrate, state.done, state.total);
    for_each_batch(&[&*session], &samples.data, &samples.split.calibration, &report, &mut |runs| {
        for SampleRun { sample, values } in runs {
            for ((largest, name), value) in largest.iter_mut().zip(&names).zip(values.iter().flatten()) {
                largest.take_in(value).map_err(|detail| CalibError::Activation {
                    value: name.clone(),
                    sample: samples.data.describe(sample),
                    detail,
                })?;
            }
        }
        Ok(())
    })?;
    let mut scales = largest.iter().map(Largest::scales);
    caches.into_iter().map(|caches| scaled(caches, [scales.next(), scales.next()])).collect()
}

fn refused(reason: &str) -> Error {
    Error::Usage(format!("caches cannot be int8: {reason}; leave out --kv-cache, or give another model"))
}

fn scaled(caches: Caches, scales: [Option<Vec<f32>>; 2]) -> Result<ScaledCaches, Error> {
    let scales = scales.map(Option::unwrap_or_default);
    match scales.each_ref().map(|scales| scales.len() / caches.heads) {
        [0, _] | [_, 0] => Err(refused("no calibration sample holds a token")),
        [head_size, of_values] if head_size == of_values => Ok(ScaledCaches { caches, head_size, scales }),
        sizes => Err(refused(&format!("a key has {} channels and a value {}", sizes[0], sizes[1]))),
    }
}

/// The largest numbers of a cache, by head and channel.
#[derive(Debug, Default)]
struct Largest {
    rotation: Option<Rotation>,
    heads: usize,
    found: Vec<f32>,
    /// Sums, and sums of squares.
    sums: Vec<[f64; 2]>,
    tokens: usize,
}

impl Largest {
    /// Adds what the cache holds for a sample; says what is wrong with it, if something is.
    fn take_in(&mut self, value: &Tensor) -> Result<(), String> {
        let Some(numbers) = value.to_f32() else {
            return Err(format!("it is {}, expected a floating-point type", value.element_type()));
        };
        let shape = numbers.shape().to_vec();
        let [_, heads, _, channels] = shape[..] else {
            return Err(format!("it has shape {shape:?}, expected the axes batch, heads, tokens and channels"));
        };
        if heads != self.heads || (!self.found.is_empty() && self.found.len() != heads * channels) {
            let heads = self.heads;
            return Err(format!("it has shape {shape:?}, expected {heads} heads and as many channels as before"));
        }
        if let Some(index) = value.first_nan() {
            return Err(format!("it is NaN at {index:?}"));
        }
        if self.found.is_empty() && !numbers.is_empty() {
            self.found = vec![0.0; heads * channels];
            self.sums = vec![[0.0; 2]; heads * channels];
        }
        self.raise(&numbers);
        match self.found.iter().all(|largest| largest.is_finite()) {
            true => Ok(()),
            false => Err("it holds infinite numbers".to_owned()),
        }
    }

    fn raise(&mut self, numbers: &ArrayD<f32>) {
        // A lane holds the channels of one head and token.
        let channels = numbers.len_of(Axis(AXES[1]));
        let tokens = numbers.len_of(Axis(AXES[1] - 1));
        for (at, lane) in numbers.lanes(Axis(AXES[1])).into_iter().enumerate() {
            let head = at / tokens.max(1) % self.heads;
            self.tokens += usize::from(head == 0);
            for channel in 0..channels {
                let (size, at) = (self.size(&lane, channel), head * channels + channel);
                if let (Some(largest), Some([sum, squares])) = (self.found.get_mut(at), self.sums.get_mut(at)) {
                    *largest = largest.max(size.abs());
                    *sum += f64::from(size);
                    *squares += f64::from(size).powi(2);
                }
            }
        }
    }

    /// What a scale covers.
    fn bound(&self, (largest, [sum, squares]): (&f32, &[f64; 2])) -> f32 {
        let count = self.tokens.max(1) as f64;
        let mean = sum / count;
        let deviation = (squares / count - mean * mean).max(0.0).sqrt();
        largest.max((mean.abs() + DEVIATIONS * deviation) as f32)
    }

    /// A channel of a head, or what bounds it at any place.
    fn size(&self, lane: &ArrayView1<'_, f32>, channel: usize) -> f32 {
        let partner = self.rotation.and_then(|rotation| rotation.partner(channel, lane.len()));
        partner.map_or(lane[channel], |partner| lane[channel].hypot(lane[partner]))
    }

    /// Real numbers per code step.
    fn scales(&self) -> Vec<f32> {
        let bounds: Vec<f32> = self.found.iter().zip(&self.sums).map(|found| self.bound(found)).collect();
        let most = bounds.iter().copied().fold(0.0, f32::max) / STEPS;
        let instead = if most >= f32::MIN_POSITIVE { most } else { 1.0 };
        let scale = |bound: &f32| Some(bound / STEPS).filter(|scale| *scale >= f32::MIN_POSITIVE).unwrap_or(instead);
        bounds.iter().map(scale).collect()
    }
}

#[cfg(test)]
mod tests {
    use ndarray::IxDyn;

    use super::*;

    fn largest(rotation: Option<Rotation>, shape: [usize; 4], numbers: &[f32]) -> Result<Largest, String> {
        let mut found = Largest { rotation, heads: 2, ..Largest::default() };
        let array = ArrayD::from_shape_vec(IxDyn(&shape), numbers.to_vec()).unwrap();
        found.take_in(&Tensor::F32(array))?;
        Ok(found)
    }

    #[test]
    fn scales_are_those_of_the_largest_number_of_a_head_and_channel() {
        // Two samples side by side, two heads, two tokens, two channels.
        let numbers = [1.0, 2.0, -3.0, 1.0, 5.0, 0.0, 4.0, 0.0, 0.0, 127.0, 0.0, 0.0, -254.0, 0.0, 1.0, 0.0];
        let found = largest(None, [2, 2, 2, 2], &numbers).unwrap();
        assert_eq!((&found.found[..], found.tokens), (&[3.0, 127.0, 254.0, 0.0][..], 4));
        assert_eq!(found.sums[..2], [[-2.0, 10.0], [130.0, 5.0 + 127.0 * 127.0]]);
        // 64 tokens of which one is large, in one head; the other holds nothing.
        let mut numbers = [0.0; 128];
        numbers[5] = -254.0;
        assert_eq!(largest(None, [1, 2, 64, 1], &numbers).unwrap().scales(), [2.0, 2.0]);
    }

    #[test]
    fn scales_cover_several_deviations() {
        let found = largest(None, [1, 2, 2, 1], &[127.0, -127.0, 254.0, 508.0]).unwrap();
        assert_eq!(found.scales(), [5.0, 8.0]);
    }

    #[test]
    fn rotated_channels_are_bounded_by_their_pair() {
        let rotation = Rotation { channels: None, interleaved: false };
        let found = largest(Some(rotation), [1, 2, 1, 2], &[3.0, 4.0, 0.0, -1.0]).unwrap();
        assert_eq!(found.found, [5.0, 5.0, 1.0, 1.0]);
        assert_eq!(found.scales(), [5.0, 5.0, 1.0, 1.0].map(|bound| bound / 127.0));
    }

    #[test]
    fn no_token_gives_no_scale_and_zeros_give_one() {
        assert!(largest(None, [1, 2, 0, 2], &[]).unwrap().scales().is_empty());
        assert_eq!(largest(None, [1, 2, 1, 1], &[0.0, 0.0]).unwrap().scales(), [1.0, 1.0]);
    }

    #[test]
    fn what_is_no_cache_is_told() {
        for (shape, numbers, wanted) in [
            ([1, 2, 1, 1], vec![f32::NAN, 0.0], "NaN at [0, 0, 0, 0]"),
            ([1, 2, 1, 1], vec![0.0, f32::INFINITY], "infinite"),
            ([1, 1, 1, 2], vec![0.0, 0.0], "expected 2 heads"),
        ] {
            let problem = largest(None, shape, &numbers).unwrap_err();
            assert!(problem.contains(wanted), "{problem}");
        }
    }
}
