//! The fewest layers that must go for a figure of the user's own.
//!
//! # Problem
//!
//! Layers stand in the order in which they would go back to float activations. Each measurement writes a model and takes
//! as long as the user's evaluation does: how many must go is to be found with few of them.
//!
//! # Method
//!
//! All of them first: where that is not enough nothing is. Then the number is halved in between, as if the figure rose
//! with every layer that goes.
//!
//! # Guarantee
//!
//! What is returned was measured. It is enough where any of the measured numbers is.
//!
//! # Failure
//!
//! Where the figure does not rise with every layer, fewer layers than those found may do.

use crate::error::Error;

/// What was found: how many go, and the figure then.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Found {
    pub(super) going: usize,
    pub(super) figure: f64,
}

/// The fewest of `all` layers that are enough; where all are not, the number with the largest figure. `none` is the figure
/// while none goes, which is not enough.
pub(super) fn fewest(
    all: usize,
    none: f64,
    is_enough: &dyn Fn(f64) -> bool,
    measure: &mut dyn FnMut(usize) -> Result<f64, Error>,
) -> Result<Found, Error> {
    let at_all = Found { going: all, figure: measure(all)? };
    if !is_enough(at_all.figure) {
        let is_better = at_all.figure >= none || none.is_nan();
        return Ok(if is_better { at_all } else { Found { going: 0, figure: none } });
    }
    let (mut too_few, mut best) = (0, at_all);
    while best.going - too_few > 1 {
        let going = usize::midpoint(too_few, best.going);
        let found = Found { going, figure: measure(going)? };
        if is_enough(found.figure) {
            best = found;
        } else {
            too_few = going;
        }
    }
    Ok(best)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is found where a layer alone brings `figure(going)` and `wanted` is asked for, and how many were measured.
    fn found(all: usize, wanted: f64, figure: impl Fn(usize) -> f64) -> (Found, usize) {
        let mut measured = 0;
        let mut measure = |going: usize| {
            measured += 1;
            Ok(figure(going))
        };
        let found = fewest(all, figure(0), &|figure| figure >= wanted, &mut measure).unwrap();
        (found, measured)
    }

    #[test]
    fn the_fewest_are_found_in_few_measurements() {
        for needed in 1..=100 {
            let (found, measured) = found(100, 0.5, |going| if going >= needed { 0.5 } else { 0.25 });
            assert_eq!(found, Found { going: needed, figure: 0.5 });
            assert!(measured <= 8, "{needed}: {measured}");
        }
    }

    #[test]
    fn what_is_out_of_reach_leaves_the_better_of_both_ends() {
        assert_eq!(found(9, 2.0, |going| going as f64 / 9.0), (Found { going: 9, figure: 1.0 }, 1));
        assert_eq!(found(9, 2.0, |going| 1.0 - going as f64), (Found { going: 0, figure: 1.0 }, 1));
        assert_eq!(found(9, 2.0, |going| if going == 0 { f64::NAN } else { 1.0 }).0.going, 9);
    }
}
