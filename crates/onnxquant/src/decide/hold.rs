//! Takes layers back to float activations until a figure of the user's own is reached.
//!
//! They go in the order in which they go for an SQNR: first those with the largest error for the time that they save. How
//! many go the figure alone decides.

use crate::accuracy::accuracy;
use crate::decide::fewest::fewest;
use crate::decide::fit::{Fitted, Fitting};
use crate::decide::trail::{JudgedBy, Trail, Weights};
use crate::error::Error;
use crate::judge::held_out::{Judge, OnHeldOut};
use crate::judge::metered::Metered;
use crate::judge::served::seen;
use crate::plan::assignment::Assignment;
use crate::write::evaluated::Arithmetic;
use crate::write::written::written;

/// A model that was written in memory and measured, with the layers that run on integers and what was tried.
pub(super) type Held = (Fitted, Assignment, Trail);

/// Measures a model by the figure of `metered`, and takes as many layers back as it takes to reach it. Where it is out of
/// reach, the better of all and none of them is left.
pub(super) fn hold(fitting: &Fitting<'_>, metered: &Metered, fit: Held) -> Result<Held, Error> {
    let (fitted, assignment, trail) = fit;
    let figure = match fitted.metric {
        Some(figure) => figure,
        None => metered.of(&fitted.written, fitting.config)?,
    };
    let fitted = Fitted { metric: Some(figure), ..fitted };
    let Some(calibration) = fitting.calibration.filter(|_| !metered.is_reached(figure) && !assignment.is_empty())
    else {
        return Ok((fitted, assignment, trail));
    };
    let judge = Judge::new(fitting.model, calibration, Arithmetic::of(fitting.config, fitting.model))?;
    let (order, mut trail) = fitting.order(&judge, &assignment, trail)?;
    let step = |going: usize| fitting.step(&assignment, order.get(..going).unwrap_or(&order));
    let mut measure = |going: usize| {
        let candidate = step(going)?.assignment;
        metered.of(&written(fitting.model, fitting.plan, fitting.codes, &candidate)?.model, fitting.config)
    };
    let found = fewest(order.len(), figure, &|figure| metered.is_reached(figure), &mut measure)?;
    if found.going == 0 {
        return Ok((fitted, assignment, trail));
    }
    let step = step(found.going)?;
    let seen = seen(calibration, fitting.served);
    let found_outputs = judge.compared(fitting.codes, &step.assignment, &seen, fitting.progress)?;
    trail.rounds.push(step.round(Weights::Codes, JudgedBy::Metric, &accuracy(&found_outputs.held_out)));
    let held_out = OnHeldOut::new(fitting.model, calibration, found_outputs);
    let fitted = Fitted { metric: Some(found.figure), ..fitting.written(&step.assignment, Some(held_out))? };
    let held = (fitted, step.assignment, trail);
    // Those that got 16 bits may go on to floats.
    if step.to_16_bits.is_empty() || metered.is_reached(found.figure) { Ok(held) } else { hold(fitting, metered, held) }
}
