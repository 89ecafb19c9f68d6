//! A distribution in a few bins, for people to look at.

use crate::activations::histogram::Histogram;

/// Counts in so many bins of equal width from the least value to the greatest. A bin of the histogram counts where its
/// middle lies, and zeros where zero does.
pub fn outline(histogram: &Histogram, bins: usize) -> Vec<u64> {
    let mut counts = vec![0; bins];
    let (least, greatest) = (f64::from(histogram.min()), f64::from(histogram.max()));
    let width = f64::from(histogram.bin_width());
    let mut add = |x: f64, count: u64| {
        let place = (x.clamp(least, greatest) - least) / (greatest - least).max(f64::MIN_POSITIVE) * bins as f64;
        if let Some(bin) = counts.get_mut((place as usize).min(bins.saturating_sub(1))) {
            *bin += count;
        }
    };
    let middle = |bin: usize| (bin as f64 + 0.5) * width;
    histogram.negative().iter().enumerate().for_each(|(bin, &count)| add(-middle(bin), count));
    histogram.positive().iter().enumerate().for_each(|(bin, &count)| add(middle(bin), count));
    if histogram.count() > 0 {
        add(0.0, histogram.zeros());
    }
    counts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_is_counted_once_in_its_bin() {
        let mut histogram = Histogram::new();
        histogram.push(&[-1.0, -0.9, 0.0, 0.0, 0.2, 2.9, 3.0]).unwrap();
        assert_eq!(outline(&histogram, 4), [2, 3, 0, 2]);
        assert_eq!(outline(&histogram, 1), [7]);
        assert_eq!(outline(&histogram, 0), [0; 0]);
    }

    #[test]
    fn nothing_and_a_single_value_have_their_bins_too() {
        assert_eq!(outline(&Histogram::new(), 3), [0; 3]);
        let mut histogram = Histogram::new();
        histogram.push(&[5.0; 9]).unwrap();
        assert_eq!(outline(&histogram, 3).iter().sum::<u64>(), 9);
    }
}
