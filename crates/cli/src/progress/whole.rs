//! How far a run is as a whole, and how long it will take.
//!
//! # Problem
//!
//! A run has parts whose number nobody knows before: passes over the samples that choose ranges and integers, stages of
//! layers, and models that are compared until accuracy is reached.
//!
//! # Method
//!
//! Three parts of a bar: what comes before the first layer is solved, the layers, and what follows. In the first and the last
//! every pass takes a part of what is left, so that the bar never stands still and never goes back. How long it will take is
//! told once layers are solved: from then on their number says how far it is.

use std::time::Duration;

use onnxquant::Phase;

/// Where the layers begin on the bar, and where they end.
const LAYERS: [f64; 2] = [0.3, 0.85];
/// What a pass takes of what is left before the layers, and behind them.
const PASS: f64 = 0.4;
/// Before that nothing is said of the time that is left.
const PATIENCE: Duration = Duration::from_secs(2);

/// How far a run is.
#[derive(Debug, Default)]
pub(super) struct Whole {
    /// Of 1.
    fraction: f64,
    /// Where the pass began that goes on.
    base: f64,
    /// The pass that goes on, by its phase and how far it is.
    pass: Option<(Phase, usize)>,
    /// Whether layers were solved.
    has_layers: bool,
}

impl Whole {
    /// The part of the whole that is done, once `phase` is so far.
    pub(super) fn moves(&mut self, phase: Phase, done: usize, total: usize) -> f64 {
        let part = done as f64 / total.max(1) as f64;
        let is_new = self.pass.is_none_or(|(before, at)| before != phase || done < at);
        if is_new {
            self.base = self.fraction;
        }
        self.pass = Some((phase, done));
        let reached = match phase {
            Phase::Quantize => {
                self.has_layers = true;
                LAYERS[0] + (LAYERS[1] - LAYERS[0]) * part
            }
            Phase::Calibrate if self.has_layers => self.fraction,
            Phase::Calibrate => self.base + PASS * (LAYERS[0] - self.base) * part,
            Phase::Compare if !self.has_layers => self.base + PASS * (LAYERS[0] - self.base) * part,
            Phase::Compare => self.base + PASS * (1.0 - self.base) * part,
            Phase::Write if done == total => 1.0,
            Phase::Write => self.fraction,
        };
        self.fraction = reached.clamp(self.fraction, 1.0);
        self.fraction
    }

    /// How long it will go on, where that can be told.
    pub(super) fn remaining(&self, elapsed: Duration) -> Option<Duration> {
        let is_known = self.has_layers && elapsed >= PATIENCE && self.fraction > LAYERS[0];
        is_known.then(|| elapsed.mul_f64((1.0 - self.fraction) / self.fraction))
    }
}

/// What is done in a phase, and what is counted.
pub(super) fn words(phase: Phase) -> (&'static str, &'static str) {
    match phase {
        Phase::Calibrate => ("calibrating", "samples"),
        Phase::Quantize => ("quantizing", "layers"),
        Phase::Compare => ("comparing", "samples"),
        Phase::Write => ("writing", "files"),
    }
}

/// A time that is left, no more exact than it is known.
pub(super) fn left(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0..10 => "a few s left".to_owned(),
        10..90 => format!("{} s left", seconds.div_ceil(5) * 5),
        90..5400 => format!("{} min left", seconds.div_ceil(60)),
        _ => format!("{:.1} h left", seconds as f64 / 3600.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_never_goes_back_and_ends_when_it_is_written() {
        let mut whole = Whole::default();
        let steps = [
            (Phase::Calibrate, 5, 10),
            (Phase::Calibrate, 10, 10),
            (Phase::Calibrate, 2, 10),
            (Phase::Compare, 4, 4),
            (Phase::Calibrate, 10, 10),
            (Phase::Quantize, 1, 4),
            (Phase::Calibrate, 10, 10),
            (Phase::Quantize, 4, 4),
            (Phase::Compare, 1, 8),
            (Phase::Compare, 8, 8),
            (Phase::Quantize, 1, 4),
            (Phase::Compare, 8, 8),
            (Phase::Write, 0, 1),
        ];
        let mut last = 0.0;
        for (phase, done, total) in steps {
            let now = whole.moves(phase, done, total);
            assert!((last..1.0).contains(&now), "{phase:?} {done}: {now} after {last}");
            last = now;
        }
        assert_eq!(whole.moves(Phase::Write, 1, 1), 1.0);
    }

    #[test]
    fn what_is_left_is_told_once_layers_tell_it() {
        let mut whole = Whole::default();
        whole.moves(Phase::Calibrate, 10, 10);
        assert_eq!(whole.remaining(Duration::from_secs(60)), None);
        whole.moves(Phase::Quantize, 5, 10);
        assert_eq!(whole.remaining(Duration::from_secs(1)), None);
        let half = whole.remaining(Duration::from_secs(60)).unwrap();
        whole.moves(Phase::Quantize, 10, 10);
        let nearly = whole.remaining(Duration::from_secs(90)).unwrap();
        assert!(half > nearly && nearly < Duration::from_secs(30), "{half:?} {nearly:?}");
        let words = [3, 42, 300, 7200].map(|seconds| left(Duration::from_secs(seconds)));
        assert_eq!(words, ["a few s left", "45 s left", "5 min left", "2.0 h left"]);
    }
}
