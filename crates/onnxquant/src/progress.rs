//! Telling the caller how far a run is.

/// A step of the pipeline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Running samples to gather statistics; counted in samples.
    Calibrate,
    /// Quantizing; counted in layers.
    Quantize,
    /// Comparing outputs on held-out samples; counted in samples.
    Compare,
    /// Writing the model; counted in files. Once that is done the run is, too.
    Write,
}

/// Receives progress: the phase, how much is done, of how much.
pub type Progress<'a> = &'a (dyn Fn(Phase, usize, usize) + Sync);

/// Ignores progress.
pub fn silent(_phase: Phase, _done: usize, _total: usize) {}
