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

mod activation;
mod allocation;
mod beam;
mod bias;
mod cell_walk;
mod certificate;
mod column_sums;
mod density;
mod drift;
mod effective_dimension;
mod entropy_range;
mod equalization;
mod error;
mod feedback;
mod gpfq;
mod grid;
mod histogram;
mod inverse;
mod judge;
mod kernel;
mod lattice;
mod layer_error;
mod least_error_range;
mod linalg;
mod maly_saab;
mod method;
mod migration;
mod min_norm;
mod msq;
mod nearest_point;
mod options;
mod optq;
#[cfg(test)]
mod pair_rule_tests;
mod pairs;
mod panel;
mod preprocess;
mod problem;
mod quadratic;
mod retarget;
mod saturate;
mod scale;
mod scale_refit;
mod scale_type;
mod shrink;
mod sketch;
mod solution;
mod solve;
mod spec;
mod stats;
#[cfg(test)]
mod testing;
mod unfold;
mod view;
mod walk;
#[cfg(test)]
mod walk_family_tests;

pub use activation::{ActivationGrid, ActivationParams, RangeMethod, choose_range};
pub use allocation::{Choice, cheapest, least_error};
pub use bias::{bias_correction, corrected_error};
pub use certificate::{Certificate, Certified, Hypothesis, HypothesisKind, certify};
pub use density::{expected_square_error, signal_power};
pub use drift::{Drift, PairedAccumulator};
pub use equalization::{Equalization, equalization_factors};
pub use error::{Array, QuantError};
pub use grid::{Affine, Grid, Symmetry};
pub use histogram::Histogram;
pub use judge::{Candidate, Outcome, Verdict, auto, guarded, relative_error};
pub use kernel::{Directions, Kernel};
pub use method::{Method, Saturation};
pub use migration::{ChannelAxis, ChannelRanges, migration_factors};
pub use options::SolverOptions;
pub use pairs::PairRule;
pub use problem::LayerProblem;
pub use scale_type::ScaleType;
pub use sketch::sketch;
pub use solution::{LayerSolution, Note, Promise};
pub use solve::solve;
pub use spec::{Granularity, QuantSpec, ScaleRule};
pub use stats::{DiagonalAccumulator, GramAccumulator, GramStats};
pub use view::{Chunks, ConvGeometry, MatrixView, Padding};
pub use walk::{WalkOptions, Walked, Walls};
