//! Timed lines for pipes and files.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use onnxquant::Phase;
use serde_json::{Value, json};

use super::whole::{Whole, left, words};
use crate::sink::tell;

/// A phase that was told of before is told of again after so long.
const PATIENCE: Duration = Duration::from_secs(10);

/// How lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LogForm {
    /// For people.
    Plain,
    /// A JSON object a line.
    Json,
}

/// Lines on the standard error.
pub(crate) struct Log {
    form: LogForm,
    begun: Instant,
    state: Mutex<State>,
}

/// What was told.
#[derive(Debug, Default)]
struct State {
    whole: Whole,
    known: Vec<Phase>,
    last: Option<Instant>,
}

impl State {
    /// Whether that is told at `now`: the beginning of a phase that is new, and else how far it is from time to time.
    fn tells(&mut self, phase: Phase, now: Instant) -> bool {
        let is_new = !self.known.contains(&phase);
        let is_late = self.last.is_none_or(|last| now.duration_since(last) >= PATIENCE);
        if is_new {
            self.known.push(phase);
        }
        if is_new || is_late {
            self.last = Some(now);
        }
        is_new || is_late
    }
}

impl Log {
    pub(super) fn new(form: LogForm, begun: Instant) -> Self {
        Self { form, begun, state: Mutex::new(State::default()) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn progress(&self, phase: Phase, done: usize, total: usize) {
        let mut state = self.state();
        state.whole.moves(phase, done, total);
        let now = Instant::now();
        let is_end = phase == Phase::Write && done == total;
        if !state.tells(phase, now) && !is_end {
            return;
        }
        let remaining = state.whole.remaining(now.duration_since(self.begun)).filter(|_| !is_end);
        let (doing, counted) = words(phase);
        let message = format!("{doing} {done} of {total} {counted}");
        match self.form {
            LogForm::Plain => {
                self.plain(&(message + &remaining.map_or(String::new(), |time| format!(", {}", left(time)))))
            }
            LogForm::Json => self.json(json!({
                "level": "info",
                "phase": name(phase),
                "done": done,
                "total": total,
                "seconds_left": remaining.map(|time| rounded(time.as_secs_f64())),
                "message": message,
            })),
        }
    }

    pub(super) fn warn(&self, warning: &str) {
        match self.form {
            LogForm::Plain => tell(&format!("warning: {warning}\n")),
            LogForm::Json => self.json(json!({ "level": "warning", "message": warning })),
        }
    }

    pub(super) fn fail(&self, problem: &str) {
        match self.form {
            LogForm::Plain => tell(&format!("error: {problem}\n")),
            LogForm::Json => self.json(json!({ "level": "error", "message": problem })),
        }
    }

    pub(super) fn text(&self, text: &str) {
        match self.form {
            LogForm::Plain => tell(text),
            LogForm::Json => self.json(json!({ "level": "info", "message": text })),
        }
    }

    fn plain(&self, message: &str) {
        tell(&format!("{:7.1} s  {message}\n", self.begun.elapsed().as_secs_f64()));
    }

    /// One line with the time since the beginning in seconds.
    fn json(&self, mut event: Value) {
        if let Some(object) = event.as_object_mut() {
            object.retain(|_, value| !value.is_null());
            object.insert("time".to_owned(), rounded(self.begun.elapsed().as_secs_f64()).into());
        }
        tell(&format!("{event}\n"));
    }
}

/// To milliseconds.
fn rounded(seconds: f64) -> f64 {
    (seconds * 1000.0).round() / 1000.0
}

/// The name of a phase where programs read it.
fn name(phase: Phase) -> &'static str {
    match phase {
        Phase::Calibrate => "calibrate",
        Phase::Quantize => "quantize",
        Phase::Compare => "compare",
        Phase::Write => "write",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_phase_is_told_of_when_it_begins_and_then_from_time_to_time() {
        let (mut state, begun) = (State::default(), Instant::now());
        let mut tells = |phase, seconds| state.tells(phase, begun + Duration::from_secs(seconds));
        assert!(tells(Phase::Calibrate, 0) && tells(Phase::Quantize, 1));
        assert!(!tells(Phase::Calibrate, 2) && !tells(Phase::Quantize, 10));
        assert!(tells(Phase::Quantize, 11) && !tells(Phase::Calibrate, 12) && tells(Phase::Compare, 13));
    }
}
