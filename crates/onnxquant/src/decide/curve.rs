//! What bits buy: the sizes of files that bits layer by layer can make, and how exact their outputs are.
//!
//! Estimated from what the sweep has measured; nothing is run for it. Harms of layers add up in power.

use onnxquant_quant::least_error;

use crate::decide::bits::{Harms, WIDTHS};

/// Average bits at which a point is looked for.
const STEPS: [f64; 13] = [2.0, 2.25, 2.5, 2.75, 3.0, 3.5, 4.0, 4.5, 5.0, 5.5, 6.0, 7.0, 8.0];

/// What bits buy.
#[derive(Clone, Debug)]
pub(crate) struct Curve {
    pub(crate) probe_bits: u32,
    /// By layer: SQNR of the outputs in dB when it alone has codes of so many bits.
    pub(crate) alone: Vec<(String, f64)>,
    /// Bytes, average bits, SQNR in dB.
    pub(crate) points: Vec<(u64, f64, f64)>,
}

/// The SQNR in dB that an error of this power leaves.
fn decibels(power: f64) -> f64 {
    -10.0 * power.log10()
}

impl Harms {
    /// What bits buy; `labels` are the layers' names, and `probe` is the place of the width at which they were measured
    /// alone.
    pub(super) fn curve(&self, labels: impl Iterator<Item = String>, probe: usize) -> Curve {
        let power = |layer: usize, width: usize| self.errors[layer][width] * self.sensitivity[layer];
        let alone = labels.enumerate().map(|(layer, label)| (label, decibels(power(layer, probe)))).collect();
        let all: u64 = self.parameters.iter().sum();
        let cost = |layer: usize, width: usize| self.parameters[layer] * u64::from(WIDTHS[width]);
        let choices = self.choices(1.0, &cost);
        let mut points: Vec<(u64, f64, f64)> = Vec::new();
        for step in STEPS {
            let budget = (step * all as f64 * (1.0 + 1e-12)).floor() as u64;
            let Some(widths) = least_error(&choices, budget).map(|of_units| self.of_layers(&of_units)) else {
                continue;
            };
            let bits: u64 = widths.iter().enumerate().map(|(layer, &width)| cost(layer, width)).sum();
            let harm: f64 = widths.iter().enumerate().map(|(layer, &width)| power(layer, width)).sum();
            let bytes = self.rest_bytes.saturating_add(self.spent(&widths));
            if points.last().is_none_or(|last| last.0 != bytes) {
                points.push((bytes, bits as f64 / all.max(1) as f64, decibels(harm)));
            }
        }
        Curve { probe_bits: WIDTHS[probe], alone, points }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_bytes_buy_a_smaller_error() {
        let harms = Harms {
            units: vec![vec![0], vec![1]],
            parameters: vec![1000, 1000],
            errors: vec![[0.1, 0.03, 0.01, 1e-4], [0.2, 0.06, 0.02, 2e-4]],
            sensitivity: vec![1.0, 4.0],
            bytes: vec![[250, 375, 500, 1000]; 2],
            rest_bytes: 100,
        };
        let curve = harms.curve(["a", "b"].map(str::to_owned).into_iter(), 1);
        assert_eq!(curve.points.first().map(|point| (point.0, point.1)), Some((600, 2.0)));
        assert_eq!(curve.points.last().map(|point| (point.0, point.1)), Some((2100, 8.0)));
        assert!(curve.points.is_sorted_by(|a, b| a.0 < b.0 && a.2 < b.2), "{:?}", curve.points);
        assert!((curve.alone[1].1 - -10.0 * 0.24f64.log10()).abs() < 1e-12 && curve.probe_bits == 3);
    }
}
