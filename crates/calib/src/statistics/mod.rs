//! What is gathered over a data set: second moments of layer inputs, distributions and ranges of activations, and how far
//! one model's outputs, and what they say of the tokens that follow, are from another's.

mod activations;
mod compare;
mod measurement;
mod moments;
mod original;
mod request;
mod slices;
mod spread;
mod sums;
mod tokens;

pub use activations::{collect_channels, collect_histograms, observe_shapes};
pub use compare::by_part::{ComparisonSums, PartComparison, compare_stream_parts, compare_streams};
pub use compare::{OutputComparison, OutputError, compare, judged_outputs, larger};
pub use measurement::{Measurement, NotMeasured};
pub use moments::{PartMoments, TakePart, collect, collect_pair_parts, collect_pairs, collect_parts};
pub use original::Original;
pub use request::{PairRequest, StatKind, StatRequest, gram_bytes};
pub use slices::{Slice, SliceError, Slicing};
pub use sums::{LayerMoments, MomentSums, RequestPart};
pub use tokens::TokenError;
