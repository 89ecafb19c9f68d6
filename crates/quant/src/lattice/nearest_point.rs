//! The best codes of a neuron with few inputs, by branch and bound.
//!
//! # Method
//!
//! Schnorr and Euchner's enumeration: inputs from the last to the first, codes of
//! each in the order of their distance from the target that error feedback
//! gives it, a branch cut as soon as it costs as much as the best codes known.
//! Depth first, so the first leaf is the nearest plane.
//!
//! # Guarantee
//!
//! Never worse than the codes it starts from; the optimum for the given scales
//! unless the limit of nodes was reached.
//!
//! # Cost
//!
//! At most [`MOST_NODES`] nodes of O(K).
//!
//! # References
//!
//! C. P. Schnorr, M. Euchner, Lattice basis reduction: improved practical
//! algorithms and solving subset sum problems, Math. Programming 66 (1994).

use crate::layer::grid::{Affine, Grid};
use crate::layer::pairs::PairRule;
use faer::MatRef;

/// Inputs up to which a search is worth trying.
pub(crate) const MOST_INPUTS: usize = 16;
const MOST_NODES: usize = 1 << 14;
/// A smaller relative gain is rounding noise and no reason to change codes.
const NOISE: f64 = 1e-5;

/// One neuron on its live inputs.
pub(crate) struct Search<'a> {
    pub(crate) factor: MatRef<'a, f32>,
    pub(crate) weights: &'a [f32],
    pub(crate) affine: &'a [Affine],
    pub(crate) grid: &'a Grid,
    /// As those of a [`crate::lattice::panel::Panel`].
    pub(crate) partners: &'a [Option<usize>],
}

struct State {
    codes: Vec<i16>,
    errors: Vec<f64>,
    best: Option<Vec<i16>>,
    limit: f64,
    nodes: usize,
}

impl Search<'_> {
    /// Codes whose error is below `energy`, the least if the search came to its end.
    pub(crate) fn below(&self, energy: f64) -> Option<Vec<i16>> {
        let k = self.weights.len();
        let limit = energy * (1.0 - NOISE);
        let mut state = State { codes: vec![0; k], errors: vec![0.0; k], best: None, limit, nodes: 0 };
        self.descend(k, 0.0, &mut state);
        state.best
    }

    /// The codes that input `i` may have beside one that was chosen before.
    fn room(&self, i: usize, codes: &[i16]) -> (i16, i16) {
        let chosen = self.partners.get(i).copied().flatten().filter(|partner| *partner > i);
        chosen.map_or((self.grid.min_code(), self.grid.max_code()), |partner| PairRule::room(codes[partner]))
    }

    /// Tries the codes of input `level - 1`, those above being chosen at `cost`.
    fn descend(&self, level: usize, cost: f64, state: &mut State) {
        let Some(i) = level.checked_sub(1) else {
            state.best = Some(state.codes.clone());
            state.limit = cost * (1.0 - NOISE);
            return;
        };
        let pivot = f64::from(self.factor[(i, i)]);
        let carried: f64 = (level..self.weights.len()).map(|k| f64::from(self.factor[(k, i)]) * state.errors[k]).sum();
        let target = f64::from(self.weights[i]) + carried / pivot;
        let affine = self.affine[i];
        let distance = |code: i16| pivot * (f64::from(affine.dequantize(code)) - target).abs();
        let (least, greatest) = self.room(i, &state.codes);
        let nearest = affine.quantize(target as f32, self.grid).clamp(least, greatest);
        let allowed = |code: &i16| (least..=greatest).contains(code);
        let [mut below, mut above] = self.grid.neighbours(nearest);
        let mut code = nearest;
        loop {
            state.nodes += 1;
            let total = cost + distance(code).powi(2);
            // NaN cannot be better.
            if state.nodes > MOST_NODES || !matches!(total.partial_cmp(&state.limit), Some(std::cmp::Ordering::Less)) {
                return;
            }
            state.codes[i] = code;
            state.errors[i] = f64::from(self.weights[i]) - f64::from(affine.dequantize(code));
            self.descend(i, total, state);
            let upper = above.filter(allowed);
            let is_next = |lower: &i16| upper.is_none_or(|upper| distance(*lower) <= distance(upper));
            code = match (below.filter(allowed).filter(is_next), upper) {
                (Some(lower), _) => {
                    below = self.grid.neighbours(lower)[0];
                    lower
                }
                (None, Some(upper)) => {
                    above = self.grid.neighbours(upper)[1];
                    upper
                }
                (None, None) => return,
            };
        }
    }
}
