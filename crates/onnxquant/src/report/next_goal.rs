//! Which goal would keep the layers in float that lose most on integers.
//!
//! # Problem
//!
//! A run that took layers back to float activations has measured what each of the others does to the outputs alone. Whoever
//! wants more exact outputs asks for a number of dB, and does not know which number takes which layers back.
//!
//! # Method
//!
//! Layers go in one order ([`crate::decide::retreat`]), and the powers of their errors add up, nearly: `p_1, p_2, ...` of those
//! on integers still, in that order, `E` of all that was measured, `W` of the codes of weights alone. The first `n` go where
//! the goal is above what is left without `n - 1` of them, and no more than these where it is below what is left without `n`:
//!
//! ```text
//! E - p_1 - ... - p_n  <  power of the goal  <  E - p_1 - ... - p_(n-1)
//! ```
//!
//! # Guarantee
//!
//! Of one layer the upper end was measured, so that a run with that goal takes it back. Of several it is as right as
//! errors add up; [`MARGIN_DB`] lies between. Weights lose at most half of what the goal allows, so that they are not
//! [mended](crate::decide::mend), which would begin anew with all layers on integers. Where weights were not measured, they
//! count as all that is left.
//!
//! # Failure
//!
//! An operator that is no layer makes, alone, the error that the layer behind it makes as well: only layers before the first
//! such operator are named. Nothing is told where none of these stands out, or no whole number of dB lies between both ends.

use crate::accuracy::error_power;

/// A layer stands out whose error has so many times the power of that of the middle one.
const STANDS_OUT: f64 = 4.0;
/// Layers that are named.
const NAMED: usize = 3;
/// Between a goal and what is expected with one layer more or less, in dB; runs aim 0.3 dB above a goal.
const MARGIN_DB: f64 = 0.5;
/// What the goal must be below what weights alone reach, in dB, so that they are not to blame: 3 dB, and what powers that are
/// added up may be off.
const WEIGHTS_DB: f64 = 4.0;
/// Layers that go take this part of the error with them at most, where weights were not measured.
const MOST_GAINED: f64 = 0.9;

/// A layer that runs on integers still, or another operator that goes as layers do.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Left {
    pub(super) label: String,
    pub(super) is_layer: bool,
    /// The power of the error that it makes alone, over that of the outputs.
    pub(super) power: f64,
}

/// A goal, and what it does.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct NextGoal {
    /// The layers that go back to float activations.
    pub(super) layers: Vec<String>,
    /// The goal in whole dB.
    pub(super) sqnr_db: f64,
}

impl NextGoal {
    /// The goal that takes back the layers that stand out of `left`, which are in the order in which they go; `now_db` is
    /// reached, and weights alone reach `weights_db`, where that was measured.
    pub(super) fn of(left: &[Left], now_db: f64, weights_db: Option<f64>) -> Option<Self> {
        let mut powers: Vec<f64> = left.iter().map(|layer| layer.power).collect();
        powers.sort_by(f64::total_cmp);
        let middle = *powers.get(powers.len() / 2)?;
        let out = left.iter().take(NAMED).take_while(|left| left.is_layer && left.power > STANDS_OUT * middle).count();
        let without = |gone: usize| {
            let power: f64 = left.iter().take(gone).map(|layer| layer.power).sum();
            let (now, weights) = (error_power(now_db), weights_db.map(error_power));
            -10.0 * (now - power).max(weights.unwrap_or((1.0 - MOST_GAINED) * now)).log10()
        };
        let goal = |gone: usize| {
            let most = weights_db.unwrap_or_else(|| without(gone)) - WEIGHTS_DB;
            let (low, high) = (without(gone - 1) + MARGIN_DB, most.min(without(gone) - MARGIN_DB));
            let between = [f64::midpoint(low, high).floor(), low.ceil()];
            between.into_iter().find(|goal| (low..=high).contains(goal)).map(|sqnr_db| {
                let layers = left.iter().take(gone).map(|layer| layer.label.clone()).collect();
                Self { layers, sqnr_db }
            })
        };
        (1..=out).rev().find_map(goal)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Errors of the layers that stand out, of the model and of its weights, in dB; layers that are named, and the goal.
    type Case = (&'static [f64], f64, f64, Option<(usize, f64)>);

    /// Layers that lose so much alone, in dB.
    fn left(decibels: &[f64]) -> Vec<Left> {
        let layer = |(at, db): (usize, &f64)| Left { label: at.to_string(), is_layer: true, power: error_power(*db) };
        decibels.iter().enumerate().map(layer).collect()
    }

    #[test]
    fn layers_that_stand_out_go_for_a_goal_between_what_is_left_with_and_without_them() {
        let others = [50.0, 50.0, 50.0, 50.0, 50.0];
        let rows: [Case; 7] = [
            // 22 dB now; without the first 26.3, without both 34.8.
            (&[24.0, 27.0], 22.0, 60.0, Some((2, 30.0))),
            (&[24.0], 23.9, 60.0, Some((1, 32.0))),
            // Weights reach no more than 32 dB: a goal above 28 would mend them.
            (&[24.0, 27.0], 22.0, 32.0, Some((2, 27.0))),
            (&[24.0, 27.0], 22.0, 25.5, None),
            // Most of the error is somewhere else.
            (&[35.0], 22.0, 60.0, None),
            // It stands behind others in the order, so that these would have to go before.
            (&[50.0, 24.0], 23.9, 60.0, None),
            (&[50.0], 40.0, 60.0, None),
        ];
        for (first, now_db, weights_db, expected) in rows {
            let left = left(&[first, &others].concat());
            let found = NextGoal::of(&left, now_db, Some(weights_db));
            let found = found.map(|goal| (goal.layers.len(), goal.sqnr_db));
            assert_eq!(found, expected, "{first:?}, {now_db} dB, weights {weights_db} dB");
        }
        let mut behind_another = left(&[24.0, 27.0, 50.0, 50.0, 50.0]);
        behind_another[1].is_layer = false;
        let found = NextGoal::of(&behind_another, 22.0, Some(60.0)).unwrap();
        assert_eq!((found.layers, found.sqnr_db), (vec!["0".to_owned()], 24.0));
        behind_another[0].is_layer = false;
        assert_eq!(NextGoal::of(&behind_another, 22.0, Some(60.0)), None);
        assert_eq!(NextGoal::of(&[], 20.0, Some(60.0)), None);
        assert_eq!(NextGoal::of(&left(&[f64::NAN, 50.0]), 20.0, None), None);
        // Weights may be all that is left behind the first, or the other way round: 10 dB more at most.
        let found = NextGoal::of(&left(&[24.0, 50.0, 50.0, 50.0]), 23.9, None).unwrap();
        assert_eq!((found.layers.len(), found.sqnr_db), (1, 27.0));
    }
}
