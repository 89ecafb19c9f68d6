//! Quick codes of a layer at several widths, and what each width does to the layer's outputs.
//!
//! They come from [`onnxquant_quant::sketch`], or from plain rounding where there are no data or it was asked for.

use ndarray::{Array3, ArrayView3};
use onnxquant_passes::write_codes::PackedWeight;
use onnxquant_quant::{
    LayerProblem, LayerSolution, Method, QuantError, bias_correction, corrected_error, sketch, solve,
};

use crate::config::MethodChoice;
use crate::error::Error;
use crate::observe::calibration::LayerStats;
use crate::plan::layers::PlannedLayer;
use crate::solve::job::{Job, layer_problem, layer_spec};
use crate::solve::weights::{failed, weights};

/// A layer with quick codes.
pub(crate) struct Sketch {
    pub(crate) planned: PlannedLayer,
    pub(crate) weight: PackedWeight,
    /// Squared error of the outputs over their square, on validation rows where there are any; of the weights without data.
    pub(crate) error: f64,
}

/// Quick codes of `layer` at each of these widths.
pub(crate) fn sketch_codes(
    job: Job<'_>,
    layer: &PlannedLayer,
    widths: &[u32],
    exact: &Array3<f32>,
    stats: Option<&LayerStats<'_>>,
) -> Result<Vec<LayerSolution>, Error> {
    let planned = widths.iter().map(|&bits| layer.with_bits(job.config, bits)).collect::<Result<Vec<_>, _>>()?;
    let sketched = || -> Result<Vec<LayerSolution>, QuantError> {
        let specs = planned.iter().map(|layer| layer_spec(job, layer)).collect::<Result<Vec<_>, _>>()?;
        let problem = layer_problem(job, layer, exact, stats.map(|stats| stats.calibration))?;
        match stats.is_none() || job.config.method == MethodChoice::Fixed(Method::Msq) {
            true => specs.iter().map(|spec| solve(Method::Msq, &problem.with_spec(*spec))).collect(),
            false => sketch(&problem, &specs),
        }
    };
    sketched().map_err(|error| failed(job.model, layer, error))
}

/// What codes at each of these widths do to `layer`: its own, unless it shares some.
pub(crate) fn sketch_layer(
    job: Job<'_>,
    layer: &PlannedLayer,
    widths: &[u32],
    stats: Option<&LayerStats<'_>>,
    shared: Option<&Vec<LayerSolution>>,
) -> Result<Vec<Sketch>, Error> {
    let exact = weights(job.model, layer)?;
    let solutions = match shared {
        Some(solutions) => solutions,
        None => &sketch_codes(job, layer, widths, &exact, stats)?,
    };
    let planned = widths.iter().map(|&bits| layer.with_bits(job.config, bits)).collect::<Result<Vec<_>, _>>()?;
    let describe = || -> Result<Vec<Sketch>, QuantError> {
        let problem = layer_problem(job, layer, &exact, stats.map(|stats| stats.calibration))?;
        let parts = planned.into_iter().zip(solutions);
        parts.map(|(planned, solution)| Sketch::new(planned, &problem, solution, stats)).collect()
    };
    describe().map_err(|error| failed(job.model, layer, error))
}

impl Sketch {
    fn new(
        planned: PlannedLayer,
        problem: &LayerProblem<'_>,
        solution: &LayerSolution,
        stats: Option<&LayerStats<'_>>,
    ) -> Result<Self, QuantError> {
        let decoded = solution.dequantize();
        let correction = bias_correction(problem, decoded.view())?;
        let error = match stats.map(|stats| stats.validation.unwrap_or(stats.calibration)) {
            Some(judged) => corrected_error(problem.weights(), decoded.view(), correction.view(), judged)?.powi(2),
            None => weight_error(problem.weights(), &decoded),
        };
        let correction = correction.iter().map(|&c| c as f32).collect();
        let weight = PackedWeight::new(&planned.site, planned.packed_type, planned.granularity, solution, correction)?;
        Ok(Self { planned, weight, error })
    }
}

/// Squared error of the weights over their square.
fn weight_error(exact: ArrayView3<'_, f32>, decoded: &Array3<f32>) -> f64 {
    let square = |x: f32| f64::from(x).powi(2);
    let lost: f64 = exact.iter().zip(decoded).map(|(a, b)| square(a - b)).sum();
    lost / exact.iter().copied().map(square).sum::<f64>().max(f64::MIN_POSITIVE)
}
