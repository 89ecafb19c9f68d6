//! How far a run is, for those who wait: a bar on a terminal, lines elsewhere.

mod bar;
mod log;
mod whole;

use std::time::Instant;

use onnxquant::Phase;

pub(crate) use log::LogForm;

use bar::Bar;
use log::Log;

/// Who is told how far a run is, on the standard error.
pub(crate) enum Teller {
    /// Nobody.
    Silent,
    /// Who sees a terminal.
    Screen(Bar),
    /// Who reads lines.
    Lines(Log),
}

impl Teller {
    /// Of a run of which nobody wants to know.
    pub(crate) fn silent() -> Self {
        Self::Silent
    }

    /// In lines of this form.
    pub(crate) fn lines(form: LogForm) -> Self {
        Self::Lines(Log::new(form, Instant::now()))
    }

    /// As a bar, which is drawn on terminals alone.
    pub(crate) fn screen() -> Self {
        Self::Screen(Bar::new(Instant::now()))
    }

    /// How far it is.
    pub(crate) fn progress(&self, phase: Phase, done: usize, total: usize) {
        match self {
            Self::Silent => {}
            Self::Screen(bar) => bar.progress(phase, done, total),
            Self::Lines(log) => log.progress(phase, done, total),
        }
    }

    /// What may cost accuracy, or is not as usual.
    pub(crate) fn warn(&self, warning: &str) {
        match self {
            Self::Silent => {}
            Self::Screen(bar) => bar.says(&format!("warning: {warning}")),
            Self::Lines(log) => log.warn(warning),
        }
    }

    /// That the run is over: nothing of a bar stays.
    pub(crate) fn ends(&self) {
        if let Self::Screen(bar) = self {
            bar.ends();
        }
    }

    /// Why the run failed, or what it missed. It is told even where nothing else is.
    pub(crate) fn fail(&self, problem: &str) {
        self.ends();
        match self {
            Self::Lines(log) => log.fail(problem),
            Self::Silent | Self::Screen(_) => crate::sink::tell(&format!("error: {problem}\n")),
        }
    }

    /// A text for people, where the standard output is for something else.
    pub(crate) fn text(&self, text: &str) {
        match self {
            Self::Silent => {}
            Self::Screen(_) => crate::sink::tell(text),
            Self::Lines(log) => log.text(text),
        }
    }
}
