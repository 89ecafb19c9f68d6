//! What to do next after a run, the most useful first.

use std::collections::BTreeMap;

use onnxquant_passes::cpu::Cpu;

use crate::accuracy::power;
use crate::report::integers::Sensitivity;
use crate::report::layers::LayerReport;
use crate::report::run::Report;
use crate::report::words::{command_line, decibels};

/// A layer stands out whose error is so many times that of the middle one.
const STANDS_OUT: f64 = 4.0;
/// Below so many times the speed of floats a file is slower.
const SLOWER: f64 = 0.95;
/// Layers that are named.
const NAMED: usize = 3;
/// With so few held-out samples figures say little.
const FEW_SAMPLES: usize = 8;

impl Report {
    /// What to do next, the most useful first.
    pub(super) fn advice(&self) -> Vec<String> {
        let lose_most = self.next_in_float().or_else(|| self.outstanding());
        let first = [self.expects_less(), self.slower(), lose_most, self.slow(), self.saturating()];
        first.into_iter().chain([self.few_samples(), self.simulated(), self.without_data()]).flatten().collect()
    }

    /// The goal is met on the held-out samples, and hardly on others.
    fn expects_less(&self) -> Option<String> {
        let wanted = self.settings.wanted_sqnr_db()?;
        let expected = self.expected_db()?;
        let now = self.judged()?.0.measured()?.sqnr_db;
        (now >= wanted && expected < wanted).then(|| {
            let (expected, wanted) = (decibels(expected), decibels(wanted));
            let remedy = "give more samples, or a higher --min-sqnr";
            format!("on new data {expected} are to be expected, less than the goal of {wanted}: {remedy}")
        })
    }

    /// The layers that go to float next, and the goal at which they do; where what single layers lose was measured.
    fn next_in_float(&self) -> Option<String> {
        self.settings.wanted_sqnr_db()?;
        let now = self.judged()?.0.measured()?.sqnr_db;
        let is_on_codes =
            |label: &str| self.layers.iter().any(|layer| layer.label == label && layer.activations != "float");
        let measured = &self.integers.as_ref()?.sensitivity;
        let left: Vec<&Sensitivity> = measured.iter().filter(|layer| is_on_codes(&layer.label)).collect();
        let powers: Vec<f64> = left.iter().map(|layer| power(&layer.accuracy)).collect();
        let (count, goal) = goal_for_fewer(now, &powers)?;
        let names: Vec<String> = left[..count].iter().map(|layer| format!("`{}`", layer.label)).collect();
        Some(format!("most is lost in {}: `--min-sqnr {goal}` keeps that in float", names.join(", ")))
    }

    /// Layers that lose much more than the others.
    fn outstanding(&self) -> Option<String> {
        let error = |layer: &LayerReport| layer.validation_error.or(layer.error).filter(|error| error.is_finite());
        let mut ranked: Vec<(f64, &LayerReport)> =
            self.layers.iter().filter_map(|layer| Some((error(layer)?, layer))).collect();
        ranked.sort_by(|a, b| b.0.total_cmp(&a.0));
        let middle = ranked.get(ranked.len() / 2)?.0;
        let out: Vec<&LayerReport> = ranked
            .iter()
            .take_while(|(error, _)| *error > STANDS_OUT * middle)
            .take(NAMED)
            .map(|(_, layer)| *layer)
            .collect();
        let first = out.first()?;
        let names: Vec<String> = out.iter().map(|layer| format!("`{}`", layer.label)).collect();
        let label = command_line(std::slice::from_ref(&first.label));
        Some(format!(
            "{} lose most: `--exclude {label}` keeps a layer in float, more --bits or --average-bits make it finer",
            names.join(", ")
        ))
    }

    /// The file is expected to be slower than in float.
    fn slower(&self) -> Option<String> {
        let (cpu, speed) = self.expected_speed.iter().min_by(|a, b| a.1.total_cmp(b.1))?;
        let remedy = "`--scheme auto` uses integers where they save time, `onnxquant bench` measures it";
        (*speed < SLOWER).then(|| format!("about {speed:.2} x as fast as in float on {cpu}: {remedy}"))
    }

    fn slow(&self) -> Option<String> {
        let mut reasons: BTreeMap<&str, usize> = BTreeMap::new();
        self.layers
            .iter()
            .filter_map(|layer| layer.runs_as.slow_because)
            .for_each(|why| *reasons.entry(why).or_insert(0) += 1);
        let (why, count) = reasons.into_iter().max_by_key(|(_, count)| *count)?;
        Some(format!(
            "{count} layers are decoded at every run ({why}): a higher --ort-min or another --granularity may avoid that"
        ))
    }

    fn saturating(&self) -> Option<String> {
        let has_pairs = self.layers.iter().any(|layer| layer.saturating_pairs > Some(0));
        let remedy = "`--cpu portable` avoids that, `onnxquant compare --cpu avx2` shows what it does";
        let saturates = has_pairs && !self.exact_on.contains(&Cpu::Avx2);
        saturates.then(|| format!("codes can saturate on x86 without VNNI: {remedy}"))
    }

    fn few_samples(&self) -> Option<String> {
        let held_out = self.held_out.as_ref()?;
        let count = held_out.held_out_samples;
        let few = held_out.shared || count < FEW_SAMPLES;
        few.then(|| {
            format!(
                "accuracy was measured on {count} samples: with more of them, of the kind that is served, it says more"
            )
        })
    }

    fn simulated(&self) -> Option<String> {
        let is_simulated = self.measured.is_none() && self.held_out.is_some() && self.is_quantized();
        let remedy = "with ONNX Runtime on the machine (`pip install onnxruntime`, or --ort-lib) it is measured";
        is_simulated.then(|| format!("accuracy is simulated: {remedy}"))
    }

    fn without_data(&self) -> Option<String> {
        let none = self.held_out.is_none() && self.is_quantized();
        let remedy = "with samples (--calib) layers are fitted to them, and the outputs are compared";
        none.then(|| format!("nothing was measured: {remedy}"))
    }
}

/// How many of the first layers, at most those that are named, have to go to float, and the whole number of dB for which
/// all of them must: where the outputs have `now` dB and the errors of single layers, of these `powers`, add up in power.
/// Nothing where that gains less than a decibel.
fn goal_for_fewer(now: f64, powers: &[f64]) -> Option<(usize, f64)> {
    let all: f64 = powers.iter().sum();
    let without = |count: usize| now - 10.0 * (1.0 - powers[..count].iter().sum::<f64>() / all).log10();
    let goal = |count: usize| (count, without(count).floor());
    // Without a layer nothing is left to lose: no number says how exact the outputs are then.
    let counts = (1..=NAMED.min(powers.len().saturating_sub(1))).rev();
    counts.map(goal).find(|&(count, goal)| goal.is_finite() && goal >= now + 1.0 && goal > without(count - 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_goal_needs_all_layers_that_are_named() {
        // Half of the error is 3 dB, three quarters are 6.
        assert_eq!(goal_for_fewer(20.1, &[2.0, 1.0, 0.5, 0.5]), Some((3, 29.0)));
        assert_eq!(goal_for_fewer(20.1, &[2.0, 1.0, 0.0, 1.0]), Some((2, 26.0)));
        // A decibel is gained by nothing, or by all that there is.
        assert_eq!(goal_for_fewer(20.1, &[1.0; 40]), None);
        assert_eq!(goal_for_fewer(20.1, &[1.0]), None);
        assert_eq!(goal_for_fewer(f64::INFINITY, &[1.0, 1.0]), None);
        assert_eq!(goal_for_fewer(20.1, &[]), None);
    }
}
