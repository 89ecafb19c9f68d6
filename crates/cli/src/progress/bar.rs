//! One bar for a whole run, on a terminal.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use indicatif::{ProgressBar, ProgressStyle};
use onnxquant::Phase;

use super::whole::{Whole, left, words};

/// Steps of the bar.
const STEPS: f64 = 1000.0;

/// A bar on the standard error.
pub(crate) struct Bar {
    begun: Instant,
    /// The bar is drawn once there is something to show.
    state: Mutex<(Whole, Option<ProgressBar>)>,
}

impl Bar {
    pub(super) fn new(begun: Instant) -> Self {
        Self { begun, state: Mutex::new((Whole::default(), None)) }
    }

    fn state(&self) -> MutexGuard<'_, (Whole, Option<ProgressBar>)> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn progress(&self, phase: Phase, done: usize, total: usize) {
        let mut state = self.state();
        let (whole, bar) = &mut *state;
        let fraction = whole.moves(phase, done, total);
        let bar = bar.get_or_insert_with(drawn);
        let (doing, counted) = words(phase);
        let time = whole.remaining(self.begun.elapsed()).map(left).unwrap_or_default();
        bar.set_prefix(format!("{doing} {done}/{total} {counted}"));
        bar.set_message(time);
        bar.set_position((fraction * STEPS) as u64);
        if phase == Phase::Write && done == total {
            bar.finish_and_clear();
        }
    }

    /// A line above the bar.
    pub(super) fn says(&self, text: &str) {
        let say = || crate::sink::tell(&format!("{text}\n"));
        match &self.state().1 {
            Some(bar) => bar.suspend(say),
            None => say(),
        }
    }

    pub(super) fn ends(&self) {
        if let Some(bar) = self.state().1.take() {
            bar.finish_and_clear();
        }
    }
}

fn drawn() -> ProgressBar {
    let style = ProgressStyle::with_template("{prefix:28!} [{wide_bar}] {percent:>3} % {msg}");
    let bar = ProgressBar::new(STEPS as u64);
    style.map_or(bar.clone(), |style| bar.with_style(style.progress_chars("=> ")))
}
