//! Mends weights: finds the layers whose codes lose most, where the outputs are less exact than asked because of them.
//!
//! # Problem
//!
//! A few weights that are a thousand times the others of their channel leave no codes for these. Whatever goes back to float
//! activations then, the outputs stay wrong.
//!
//! # Method
//!
//! Errors of layers add up in power, nearly. Layers are taken by the square of their relative error on validation samples,
//! the largest first, until what is left is a quarter of what the goal allows. Those of fewer than 8 bits get 8, the others
//! stay in float. Layers whose bits a rule names keep them.
//!
//! # Failure
//!
//! A layer with a small error of its own may be one that the outputs depend on. Where layers of 8 bits that hold more than
//! half of the weights would have to go, the codes are not to blame, and nothing is done. Neither is it where layers whose bits
//! a rule names lose too much by themselves.

use onnxquant_ir::NodeId;
use onnxquant_passes::layers::SkipReason;

use crate::config::Config;
use crate::error::Error;
use crate::plan::layers::{Plan, PlannedLayer, SkippedLayer};
use crate::solve::solved::AboutLayer;

/// The part of the error that a goal allows from which on weights are to blame.
pub(super) const TO_BLAME: f64 = 0.5;
/// The part of it that weights may make when they are mended.
const AIM: f64 = 0.25;
/// Bits that layers get.
const BITS: u32 = 8;
/// The largest part of the weights that goes back to float.
const MOST_FLOATS: f64 = 0.5;

/// `plan` with better weights, of whose layers `about` tells; their error is `excess` times what is allowed.
pub(super) fn mended(plan: &Plan, about: &[AboutLayer], excess: f64, config: &Config) -> Result<Option<Plan>, Error> {
    let powers: Vec<f64> = about.iter().map(power).collect();
    let keeps_bits: Vec<bool> = plan.layers.iter().map(|layer| layer.own.bits.is_some()).collect();
    let chosen = worst(&powers, &keeps_bits, excess);
    let is_chosen = |at: &usize| chosen.contains(at);
    let parameters = |layer: &PlannedLayer| layer.site.parameters() as f64;
    let of_eight = |at: &usize| plan.layers[*at].bits >= BITS;
    let to_float: f64 = chosen.iter().filter(|at| of_eight(at)).map(|&at| parameters(&plan.layers[at])).sum();
    let all: f64 = plan.layers.iter().map(parameters).sum();
    if chosen.is_empty() || to_float > MOST_FLOATS * all {
        return Ok(None);
    }
    let mut mended = Plan { layers: Vec::new(), ..plan.clone() };
    for (at, layer) in plan.layers.iter().enumerate() {
        match (is_chosen(&at), of_eight(&at)) {
            (false, _) => mended.layers.push(layer.clone()),
            (true, false) => mended.layers.push(layer.with_bits(config, BITS)?),
            (true, true) => mended.skipped.push(left(layer)),
        }
    }
    Ok(Some(mended))
}

/// The layers that mending left in float.
pub(super) fn left_in_float(plan: &Plan) -> Vec<NodeId> {
    let left = plan.skipped.iter().filter(|layer| layer.reason == SkipReason::CostsAccuracy);
    left.filter_map(|layer| layer.node).collect()
}

fn left(layer: &PlannedLayer) -> SkippedLayer {
    SkippedLayer {
        node: Some(layer.site.node),
        label: layer.label.clone(),
        op_type: layer.op_type.clone(),
        weight_shape: Some(layer.site.view.weight_shape()),
        reason: SkipReason::CostsAccuracy,
    }
}

/// The power of a layer's error over that of its output.
fn power(about: &AboutLayer) -> f64 {
    let error = about.findings.validation_error.or(about.findings.error).unwrap_or(0.0);
    error * error
}

/// The fewest of `powers` without which the others have [`AIM`] of what is allowed, largest first; `excess` times that is
/// what all have. None where those that keep their bits have more by themselves.
fn worst(powers: &[f64], keeps_bits: &[bool], excess: f64) -> Vec<usize> {
    let total: f64 = powers.iter().sum();
    let most = total * AIM / excess.max(f64::MIN_POSITIVE);
    let keeps = |at: usize| keeps_bits.get(at).copied().unwrap_or(false);
    let kept: f64 = powers.iter().enumerate().filter(|(at, _)| keeps(*at)).map(|(_, power)| power).sum();
    if kept > most {
        return Vec::new();
    }
    let mut order: Vec<usize> = (0..powers.len()).filter(|&at| !keeps(at)).collect();
    order.sort_by(|&a, &b| powers[b].total_cmp(&powers[a]));
    let mut left = total;
    let needed = |&at: &usize| {
        let is_needed = left > most && powers[at] > 0.0;
        left -= powers[at];
        is_needed
    };
    order.into_iter().take_while(needed).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fewest_that_make_the_others_exact_enough_are_taken() {
        let powers = [1e-4, 0.5, 2e-4, 0.1];
        let free = |powers: &[f64], excess| worst(powers, &vec![false; powers.len()], excess);
        assert_eq!(free(&powers, 100.0), [1, 3]);
        assert_eq!(free(&powers, 1.2), [1]);
        assert_eq!(free(&powers, 1e9), [1, 3, 2, 0]);
        assert_eq!(free(&[0.0, 0.0], 5.0), [0; 0]);
        assert_eq!(free(&[0.3, f64::NAN], 5.0), [0; 0]);
    }

    #[test]
    fn layers_that_keep_their_bits_are_not_taken_nor_others_in_their_place() {
        let powers = [1e-4, 0.5, 2e-4, 0.1];
        assert_eq!(worst(&powers, &[true, false, false, false], 100.0), [1, 3]);
        assert_eq!(worst(&powers, &[false, false, false, true], 1.2), [1]);
        assert_eq!(worst(&powers, &[false, false, false, true], 100.0), [0; 0]);
        assert_eq!(worst(&powers, &[false, true, false, false], 100.0), [0; 0]);
    }
}
