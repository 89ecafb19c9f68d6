//! Changes the rate of a sound.
//!
//! # Method
//! The sample at time `t` is the sum of samples around it, weighted by `sinc` under a Hann window. Where the rate falls,
//! the `sinc` is widened, so that what the new rate cannot hold is left out. Weights of one sample have a sum of 1.
//!
//! # Cost
//! Times repeat after `to / gcd(from, to)` samples, so that weights are computed once for each of these.

/// Zeros of the `sinc` on either side.
const ZEROS: f64 = 48.0;
/// Of the highest frequency that a rate holds, so much is kept.
const KEPT: f64 = 0.97;
/// More weights than these are not kept.
const MOST_WEIGHTS: usize = 1 << 21;

/// Samples of so many that change their rate.
pub(crate) fn resampled_length(samples: usize, from: u32, to: u32) -> usize {
    let length = (samples as u128 * u128::from(to)).div_ceil(u128::from(from.max(1)));
    usize::try_from(length).unwrap_or(usize::MAX)
}

/// A sound at another rate.
pub(crate) fn resample(sound: &[f32], from: u32, to: u32) -> Vec<f32> {
    if from == to {
        return sound.to_vec();
    }
    let common = gcd(from, to);
    let (step, phases) = ((from / common) as usize, (to / common) as usize);
    let kernel = Kernel { cutoff: (f64::from(to) / f64::from(from)).min(1.0) * KEPT, phases };
    let table = (phases.saturating_mul(2 * kernel.reach()) <= MOST_WEIGHTS)
        .then(|| (0..phases).map(|phase| kernel.weights(phase)).collect::<Vec<_>>());
    let sample = |number: usize| {
        let (whole, phase) = (number * step / phases, number * step % phases);
        match &table {
            Some(table) => kernel.sum(sound, whole, &table[phase]),
            None => kernel.sum(sound, whole, &kernel.weights(phase)),
        }
    };
    (0..resampled_length(sound.len(), from, to)).map(sample).collect()
}

struct Kernel {
    /// Cycles of two samples.
    cutoff: f64,
    phases: usize,
}

impl Kernel {
    /// Samples on either side that count.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "rates are bounded")]
    fn reach(&self) -> usize {
        (ZEROS / self.cutoff).ceil() as usize
    }

    /// Of the samples around one, `reach - 1` before it and `reach` behind it, for a time so many phases later.
    fn weights(&self, phase: usize) -> Vec<f64> {
        let reach = self.reach();
        let time = phase as f64 / self.phases as f64;
        let place = |at: usize| at as f64 - (reach - 1) as f64 - time;
        let weights: Vec<f64> = (0..2 * reach).map(|at| self.at(place(at))).collect();
        let sum: f64 = weights.iter().sum();
        weights.into_iter().map(|weight| weight / sum).collect()
    }

    fn at(&self, distance: f64) -> f64 {
        let x = distance * self.cutoff;
        if x.abs() >= ZEROS {
            return 0.0;
        }
        let turned = x * std::f64::consts::PI;
        let sinc = if x == 0.0 { 1.0 } else { turned.sin() / turned };
        sinc * (turned / (2.0 * ZEROS)).cos().powi(2)
    }

    fn sum(&self, sound: &[f32], whole: usize, weights: &[f64]) -> f32 {
        let before = self.reach() - 1;
        let skipped = before.saturating_sub(whole);
        let samples = sound.get(whole.saturating_sub(before)..).unwrap_or_default();
        let products = samples.iter().zip(weights.iter().skip(skipped));
        crate::tensor::narrow(products.map(|(&sample, &weight)| f64::from(sample) * weight).sum())
    }
}

fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a.max(1) } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tone(hertz: f64, rate: u32, samples: usize) -> Vec<f32> {
        let angle = |number: usize| number as f64 * hertz / f64::from(rate) * std::f64::consts::TAU;
        (0..samples).map(|number| angle(number).sin() as f32).collect()
    }

    /// The largest difference from the tone at the new rate, away from the ends.
    fn error(hertz: f64, from: u32, to: u32) -> f32 {
        let found = resample(&tone(hertz, from, from as usize / 4), from, to);
        let expected = tone(hertz, to, found.len());
        let inner = found.iter().zip(&expected).skip(200).take(found.len() - 400);
        inner.map(|(found, expected)| (found - expected).abs()).fold(0.0, f32::max)
    }

    #[test]
    fn tones_stay_what_they_are() {
        for (from, to) in [(44_100, 16_000), (48_000, 16_000), (8_000, 16_000), (22_050, 16_000), (44_101, 16_000)] {
            for hertz in [100.0, 1000.0, 3500.0] {
                let error = error(hertz, from, to);
                assert!(error < 1e-3, "{hertz} Hz from {from} to {to}: {error}");
            }
        }
    }

    #[test]
    fn what_the_new_rate_cannot_hold_is_left_out() {
        let found = resample(&tone(12_000.0, 44_100, 11_025), 44_100, 16_000);
        let loudest = found.iter().skip(200).take(found.len() - 400).fold(0.0_f32, |most, x| most.max(x.abs()));
        assert!(loudest < 1e-3, "{loudest}");
    }

    #[test]
    fn lengths_are_rounded_up_and_the_same_rate_changes_nothing() {
        assert_eq!((resampled_length(441, 44_100, 16_000), resampled_length(442, 44_100, 16_000)), (160, 161));
        assert_eq!(resample(&[0.5, -0.5], 8_000, 8_000), [0.5, -0.5]);
        assert!(resample(&[], 8_000, 16_000).is_empty());
        assert_eq!(resample(&[1.0], 48_000, 16_000).len(), 1);
    }
}
