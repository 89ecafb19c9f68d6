//! Runs samples and gathers what the decisions and the solvers need to know.
//!
//! | file | what it does |
//! |---|---|
//! | `samples` | the samples, and engines that run models on them |
//! | `engine` | which engine that is |
//! | `texts` | samples of texts that continue behind a past |
//! | `reach` | what of a model the engine can compute |
//! | `seen` | opens the samples with that engine, and says what they are |
//! | `slicing` | which parts of the outputs are judged apart |
//! | `bodies` | second moments of what layers inside bodies read |
//! | `calibration` | second moments of what layers read |
//! | `observer` | distributions, channels and sizes of activations, kept in a file where that is wanted |

pub(crate) mod bodies;
pub(crate) mod caches;
pub(crate) mod calibration;
pub(crate) mod engine;
pub(crate) mod observer;
pub(crate) mod reach;
pub(crate) mod samples;
pub(crate) mod seen;
pub(crate) mod slicing;
pub(crate) mod texts;
