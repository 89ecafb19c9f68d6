//! Progress bars on a terminal; nothing in pipes.

use std::sync::Mutex;

use indicatif::{ProgressBar, ProgressStyle};
use onnxquant::Phase;

/// Shows the current phase. Indicatif draws to standard error, and only where that is a terminal.
pub(crate) struct Bars {
    current: Mutex<Option<(Phase, ProgressBar)>>,
}

impl Bars {
    pub(crate) fn new() -> Self {
        Self { current: Mutex::new(None) }
    }

    pub(crate) fn report(&self, phase: Phase, done: usize, total: usize) {
        let Ok(mut current) = self.current.lock() else { return };
        let (_, bar) = match current.take() {
            Some(found) if found.0 == phase => current.insert(found),
            _ => current.insert((phase, bar(phase, total))),
        };
        bar.set_position(done as u64);
        if done == total {
            bar.finish_and_clear();
        }
    }
}

fn bar(phase: Phase, total: usize) -> ProgressBar {
    let what = match phase {
        Phase::Calibrate => "calibrating, samples",
        Phase::Quantize => "quantizing, layers",
        Phase::Compare => "comparing, samples",
        Phase::Write => "writing, files",
    };
    let style = ProgressStyle::with_template("{msg:22} {wide_bar} {pos}/{len} {eta}");
    let bar = ProgressBar::new(total as u64).with_message(what);
    style.map_or(bar.clone(), |style| bar.with_style(style))
}
