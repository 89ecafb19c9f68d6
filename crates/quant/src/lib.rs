//! The mathematics of weight quantization: matrices in, codes and certificates out.
//!
//! A caller reads a layer as matrices ([`MatrixView`]), gathers second moments of
//! its inputs ([`GramAccumulator`]), states what is wanted ([`LayerProblem`]) and
//! gets codes ([`solve`], [`LayerSolution`]). [`certify`] then recomputes error
//! and bound without trusting the solver, and [`auto`] lets held-out rows choose
//! between methods.
//!
//! ```
//! use ndarray::{Array2, Array3};
//! use onnxquant_quant::*;
//!
//! let rows = Array2::from_shape_fn((4, 32), |(i, k)| ((i * 37 + k * 11) % 17) as f32 - 8.0);
//! let weights = Array3::from_shape_fn((1, 32, 2), |(_, k, m)| ((k * 7 + m) % 13) as f32 - 6.0);
//! let stats = [GramStats::from_rows(rows.view())?];
//! let spec = QuantSpec::new(Grid::symmetric(4)?, Granularity::Channel, ScaleRule::Max)?;
//! let problem = LayerProblem::new(weights.view(), Some(&stats), spec)?;
//! let solution = solve("maly-saab".parse()?, &problem)?;
//! let certificate = certify(&problem, &solution)?.certificate;
//! assert!(certificate.achieved.unwrap() <= certificate.bound.unwrap());
//! # Ok::<(), QuantError>(())
//! ```
//!
//! Activations are another matter: their values are seen once ([`Histogram`]) and get one
//! scale and zero point per tensor ([`choose_range`], [`ActivationParams`]).
//!
//! Symbols: one group of a layer has K inputs and M outputs, its weights are
//! K x M (one column a neuron), its calibration rows n x K. There is no ONNX and
//! no I/O in this crate.

#![forbid(unsafe_code)]

mod activations;
mod certify;
mod choose;
mod error;
#[cfg(test)]
mod float_grid_tests;
mod lattice;
mod layer;
mod linalg;
#[cfg(test)]
mod pair_rule_tests;
mod stats;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod walk_family_tests;
mod walks;

pub use activations::density::{expected_square_error, signal_power};
pub use activations::equalization::{Equalization, equalization_factors};
pub use activations::grid::{ActivationGrid, ActivationParams};
pub use activations::histogram::Histogram;
pub use activations::migration::{ChannelAxis, ChannelRanges, migration_factors};
pub use activations::outline::outline;
pub use activations::range::{RangeMethod, choose_range};
pub use certify::bias::{bias_correction, corrected_error};
pub use certify::certificate::{Certificate, Certified, Hypothesis, HypothesisKind, certify};
pub use choose::allocation::{Choice, cheapest, least_error};
pub use choose::judge::{Candidate, Verdict, auto, guarded, relative_error};
pub use choose::sketch::sketch;
pub use choose::solve::solve;
pub use error::{Array, QuantError};
pub use layer::alphabet::Alphabet;
pub use layer::chunks::Chunks;
pub use layer::geometry::{ConvGeometry, Padding};
pub use layer::grid::{Affine, Grid, Symmetry};
pub use layer::method::{Method, Saturation};
pub use layer::options::SolverOptions;
pub use layer::outcome::Outcome;
pub use layer::pairs::PairRule;
pub use layer::problem::LayerProblem;
pub use layer::scale_type::ScaleType;
pub use layer::solution::{LayerSolution, Note, Promise};
pub use layer::spec::{Granularity, QuantSpec, ScaleRule};
pub use layer::transposed::TransposedConv;
pub use layer::view::MatrixView;
pub use stats::drift::Drift;
pub use stats::gram::diagonal::DiagonalAccumulator;
pub use stats::gram::{GramAccumulator, GramStats};
pub use stats::paired::PairedAccumulator;
pub use stats::paired::part::MomentPart;
pub use walks::kernel::{Directions, Kernel};
pub use walks::walk::{WalkOptions, Walked};
pub use walks::walls::Walls;
