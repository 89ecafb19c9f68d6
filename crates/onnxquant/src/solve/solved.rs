//! What solving a layer returns.

use onnxquant_passes::write_codes::PackedWeight;
use onnxquant_quant::{Alphabet, Certificate, LayerSolution, Method, QuantError, Verdict};
use serde::{Deserialize, Serialize};

use crate::plan::layers::PlannedLayer;

/// A layer with its codes.
pub(crate) struct SolvedLayer {
    pub(crate) planned: PlannedLayer,
    pub(crate) weight: PackedWeight,
    pub(crate) about: AboutLayer,
}

/// What is known of a layer beside its codes.
#[derive(Clone, Debug)]
pub(crate) struct AboutLayer {
    /// Of layers that read one weight this is the first, for which the weight counts.
    pub(crate) is_first_reader: bool,
    /// What the codes stand for.
    pub(crate) alphabet: Alphabet,
    pub(crate) findings: Findings,
}

impl SolvedLayer {
    /// What is written on the one hand, what is known of it on the other.
    pub(crate) fn into_parts(self) -> ((PlannedLayer, PackedWeight), AboutLayer) {
        ((self.planned, self.weight), self.about)
    }
}

/// What the solver found for a layer.
pub(crate) struct Solved {
    pub(crate) solution: LayerSolution,
    /// Added to the bias, one number an output.
    pub(crate) correction: Vec<f32>,
    pub(crate) findings: Findings,
}

/// What is known of a solution.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Findings {
    pub(crate) saturating_pairs: Option<usize>,
    pub(crate) calibration_rows: Option<usize>,
    pub(crate) method: Method,
    pub(crate) error: Option<f64>,
    pub(crate) validation_error: Option<f64>,
    pub(crate) notes: Vec<String>,
    pub(crate) certificate: Certificate,
    pub(crate) verdict: Option<Verdict>,
}

impl Solved {
    /// The codes of `layer` as they are written, and what is known of them.
    pub(crate) fn into_layer(self, layer: &PlannedLayer, is_first_reader: bool) -> Result<SolvedLayer, QuantError> {
        let Self { solution, correction, findings } = self;
        let weight = PackedWeight::new(&layer.site, layer.packed_type, layer.granularity, &solution, correction)?;
        let about = AboutLayer { is_first_reader, alphabet: solution.alphabet, findings };
        Ok(SolvedLayer { planned: layer.clone(), weight, about })
    }
}
