//! What solving a layer returns.

use onnxquant_passes::write_codes::PackedWeight;
use onnxquant_quant::{Affine, Alphabet, Certificate, LayerSolution, Method, QuantError, Verdict};
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
    pub(crate) codes: CodeUse,
    pub(crate) findings: Findings,
}

/// Which codes a layer has.
#[derive(Clone, Debug)]
pub(crate) struct CodeUse {
    /// What the lowest and the highest of them stand for, on the scale that is the median of all.
    pub(crate) ends: [f32; 2],
    /// How many weights have each, from the lowest to the highest.
    pub(crate) counts: Vec<u64>,
}

impl CodeUse {
    fn of(solution: &LayerSolution) -> Self {
        let (least, greatest) = match (solution.codes.iter().min(), solution.codes.iter().max()) {
            (Some(&least), Some(&greatest)) => (least, greatest),
            _ => return Self { ends: [0.0; 2], counts: Vec::new() },
        };
        let place = |code: i16| (i32::from(code) - i32::from(least)).unsigned_abs() as usize;
        let mut counts = vec![0; place(greatest) + 1];
        solution.codes.iter().for_each(|&code| counts[place(code)] += 1);
        let mut scales: Vec<(f32, i16)> =
            solution.scales.iter().copied().zip(solution.zero_points.iter().copied()).collect();
        let middle = scales.len() / 2;
        let median =
            scales.get(middle).is_some().then(|| *scales.select_nth_unstable_by(middle, |a, b| a.0.total_cmp(&b.0)).1);
        let level = |code: i16| {
            let affine = median.and_then(|(scale, zero_point)| Affine::new(scale, zero_point).ok());
            affine.map_or(0.0, |affine| affine.with_alphabet(solution.alphabet).dequantize(code))
        };
        Self { ends: [level(least), level(greatest)], counts }
    }
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
        let codes = CodeUse::of(&solution);
        let about = AboutLayer { is_first_reader, alphabet: solution.alphabet, codes, findings };
        Ok(SolvedLayer { planned: layer.clone(), weight, about })
    }
}
