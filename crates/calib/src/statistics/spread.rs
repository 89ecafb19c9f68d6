//! How far the ratio of two sums over samples may be from that of other samples.

use serde::{Deserialize, Serialize};

/// The powers of signal and error of every sample.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Powers(Vec<[f64; 2]>);

impl Powers {
    pub(super) fn take_in(&mut self, signal: f64, error: f64) {
        self.0.push([signal, error]);
    }

    pub(super) fn add(&mut self, part: Self) {
        self.0.extend(part.0);
    }

    /// The standard error of the ratio of the sums, of the errors over the signals, as a part of it. It is that of the
    /// jackknife (Efron and Stein, *The jackknife estimate of variance*, Annals of Statistics 9, 1981): where one sample
    /// has most of the signal, the ratio without it tells what others may have, and no residual does.
    pub(super) fn spread(&self) -> Option<f64> {
        let [signal, error] = self.0.iter().fold([0.0, 0.0], |sums, of| [sums[0] + of[0], sums[1] + of[1]]);
        let samples = self.0.len() as f64;
        let without: Vec<f64> = self.0.iter().map(|of| (error - of[1]) / (signal - of[0])).collect();
        let mean = without.iter().sum::<f64>() / samples;
        let squares: f64 = without.iter().map(|ratio| (ratio - mean) * (ratio - mean)).sum();
        let spread = ((samples - 1.0) / samples * squares).sqrt() * signal / error;
        (samples > 1.0 && spread.is_finite()).then_some(spread)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spread(powers: &[[f64; 2]]) -> Option<f64> {
        Powers(powers.to_vec()).spread()
    }

    #[test]
    fn samples_of_equal_signals_have_the_standard_error_of_their_mean() {
        // Errors of 1 and 3: their mean is 2, its standard error 1.
        let of_two = spread(&[[10.0, 1.0], [10.0, 3.0]]).unwrap();
        assert!((of_two - 0.5).abs() < 1e-12, "{of_two}");
        let of_one_ratio = spread(&[[10.0, 1.0], [20.0, 2.0], [5.0, 0.5]]).unwrap();
        assert!(of_one_ratio < 1e-12, "{of_one_ratio}");
    }

    #[test]
    fn a_sample_that_has_most_of_the_signal_does_not_hide_the_others() {
        // A hundredth of the signal in one, a fifth in the others: all together 0.016, without the first one 0.2.
        let found = spread(&[[1000.0, 10.0], [10.0, 2.0], [10.0, 2.0], [10.0, 2.0]]).unwrap();
        assert!((8.0..10.0).contains(&found), "{found}");
    }

    #[test]
    fn nothing_is_told_of_one_sample_or_of_none_that_differs() {
        assert_eq!(spread(&[]), None);
        assert_eq!(spread(&[[1.0, 0.1]]), None);
        assert_eq!(spread(&[[1.0, 0.1], [0.0, 0.0]]), None);
        assert_eq!(spread(&[[1.0, 0.0], [1.0, 0.0]]), None);
    }
}
