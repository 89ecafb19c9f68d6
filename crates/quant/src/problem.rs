//! One layer to be quantized.

use crate::error::{Array, QuantError};
use crate::options::SolverOptions;
use crate::spec::QuantSpec;
use crate::stats::GramStats;
use crate::view::shape_error;
use ndarray::{ArrayView3, Axis};
use rayon::prelude::*;

/// Weights, what is known of their inputs, and what is wanted.
#[derive(Clone, Copy, Debug)]
pub struct LayerProblem<'a> {
    weights: ArrayView3<'a, f32>, // [groups, K, M]
    stats: Option<&'a [GramStats]>,
    spec: QuantSpec,
    corrects_bias: bool,
    held_out: Option<&'a [GramStats]>,
    options: SolverOptions,
}

impl<'a> LayerProblem<'a> {
    /// Checks shapes and that every weight is finite.
    ///
    /// `weights` is `[groups, K, M]`; `stats`, where given, holds one entry per
    /// group, each of K inputs.
    pub fn new(
        weights: ArrayView3<'a, f32>,
        stats: Option<&'a [GramStats]>,
        spec: QuantSpec,
    ) -> Result<LayerProblem<'a>, QuantError> {
        let (groups, k, m) = weights.dim();
        if groups * k * m == 0 {
            let expected = "at least one group, input and output".into();
            return Err(shape_error("weights", weights.shape(), expected));
        }
        if let Some((index, value)) = weights.indexed_iter().find(|(_, w)| !w.is_finite()) {
            return Err(QuantError::NonFinite {
                array: Array::Weights,
                index: vec![index.0, index.1, index.2],
                value: f64::from(*value),
            });
        }
        if let Some(stats) = stats {
            let inputs: Vec<usize> = stats.iter().map(GramStats::k).collect();
            if inputs != vec![k; groups] {
                let expected = format!("{groups} groups of {k} inputs");
                return Err(shape_error("statistics", &inputs, expected));
            }
        }
        let options = SolverOptions::default();
        Ok(LayerProblem { weights, stats, spec, corrects_bias: true, held_out: None, options })
    }

    /// `[groups, K, M]`.
    pub fn weights(&self) -> ArrayView3<'a, f32> {
        self.weights
    }

    /// One entry per group, if there was calibration data.
    pub fn stats(&self) -> Option<&'a [GramStats]> {
        self.stats
    }

    /// What is wanted.
    pub fn spec(&self) -> &QuantSpec {
        &self.spec
    }

    /// Whether the layer's bias will take off the mean error; so unless stated otherwise.
    pub fn corrects_bias(&self) -> bool {
        self.corrects_bias
    }

    /// The same layer without a bias to correct: its mean error counts like any other.
    pub fn with_fixed_bias(self) -> LayerProblem<'a> {
        LayerProblem { corrects_bias: false, ..self }
    }

    /// The same inputs with other neurons, `[groups, K, M']`.
    pub(crate) fn with_weights<'b>(&self, weights: ArrayView3<'b, f32>) -> Result<LayerProblem<'b>, QuantError>
    where
        'a: 'b,
    {
        let problem = LayerProblem::new(weights, self.stats, self.spec)?;
        let LayerProblem { corrects_bias, held_out, options, .. } = *self;
        Ok(LayerProblem { corrects_bias, held_out, options, ..problem })
    }

    /// Rows that no solver fits, on which it may choose its own settings (one entry per group, with Gram matrices).
    pub fn with_held_out<'b>(self, held_out: &'b [GramStats]) -> Result<LayerProblem<'b>, QuantError>
    where
        'a: 'b,
    {
        let usable = |stats: &GramStats| stats.k() == self.inputs() && stats.gram().is_some();
        if held_out.len() == self.groups() && held_out.iter().all(usable) {
            let LayerProblem { weights, stats, spec, corrects_bias, options, .. } = self;
            let (weights, held_out) = (weights.reborrow(), Some(held_out));
            return Ok(LayerProblem { weights, stats, spec, corrects_bias, held_out, options });
        }
        let found: Vec<usize> = held_out.iter().map(GramStats::k).collect();
        let expected = format!("one Gram matrix per group of {:?}", self.weights.shape());
        Err(shape_error("held-out statistics", &found, expected))
    }

    /// What [`LayerProblem::with_held_out`] was given.
    pub fn held_out(&self) -> Option<&'a [GramStats]> {
        self.held_out
    }

    /// The same layer with settings for the solver.
    pub fn with_options(self, options: SolverOptions) -> LayerProblem<'a> {
        LayerProblem { options, ..self }
    }

    /// The settings for the solver.
    pub fn options(&self) -> &SolverOptions {
        &self.options
    }

    /// The damping from which a factorization starts.
    pub(crate) fn damping(&self) -> f64 {
        self.options.first_damping()
    }

    /// The same layer with another specification.
    pub fn with_spec(self, spec: QuantSpec) -> LayerProblem<'a> {
        LayerProblem { spec, ..self }
    }

    /// Number of groups.
    pub fn groups(&self) -> usize {
        self.weights.dim().0
    }

    /// K, inputs per neuron.
    pub fn inputs(&self) -> usize {
        self.weights.dim().1
    }

    /// M, neurons per group.
    pub fn outputs(&self) -> usize {
        self.weights.dim().2
    }

    /// Inputs whose codes are bound to each other, two by two.
    pub(crate) fn pairs(&self) -> Vec<(usize, usize)> {
        self.spec.pairs().map_or(Vec::new(), |rule| rule.pairs(self.inputs()))
    }

    /// The weights of one neuron.
    pub(crate) fn neuron(&self, group: usize, output: usize) -> Vec<f32> {
        let group = self.weights.index_axis(Axis(0), group);
        group.column(output).to_vec()
    }

    /// Runs `solve(group, output)` for every neuron on the current thread pool;
    /// results come back in order, whatever the threads did.
    pub(crate) fn map_neurons<T: Send>(&self, solve: impl Fn(usize, usize) -> T + Sync) -> Vec<T> {
        let outputs = self.outputs();
        (0..self.groups() * outputs).into_par_iter().map(|index| solve(index / outputs, index % outputs)).collect()
    }
}
