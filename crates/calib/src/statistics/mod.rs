//! What is gathered over a data set: second moments of layer inputs, distributions and ranges of activations, and how far
//! one model's outputs, and what they say of the tokens that follow, are from another's.

mod activations;
mod compare;
mod measurement;
mod moments;
mod original;
mod slices;
mod spread;
mod tokens;

pub use activations::{collect_channels, collect_histograms, observe_shapes, observe_sizes};
pub use compare::{OutputComparison, OutputError, compare, compare_streams, judged_outputs, larger};
pub use measurement::{Measurement, NotMeasured};
pub use moments::{LayerMoments, PairRequest, StatKind, StatRequest, collect, collect_pairs, gram_bytes};
pub use original::Original;
pub use slices::{Slice, SliceError, Slicing};
pub use tokens::TokenError;
