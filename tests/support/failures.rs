//! Tables run all their rows and report all failures.

/// Failures of a table of cases.
#[derive(Default)]
pub struct Failures {
    checked: usize,
    found: Vec<String>,
}

impl Failures {
    /// Notes `message` unless `holds`.
    pub fn check(&mut self, holds: bool, message: impl FnOnce() -> String) {
        self.checked += 1;
        if !holds {
            self.found.push(message());
        }
    }

    /// Fails the test with all messages, and also if nothing was checked.
    pub fn finish(self) {
        assert!(self.checked > 0, "nothing was checked");
        assert!(self.found.is_empty(), "{} failures:\n  {}", self.found.len(), self.found.join("\n  "));
    }
}
