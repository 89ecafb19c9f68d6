//! Takes layers back to float activations until the outputs are as exact as asked.
//!
//! Errors of layers add up in power, nearly: what each does alone tells how many must go, those first whose error is
//! large for the time that they save. What the first ones brought tells, on a straight line, how many more must go, so
//! that a few runs suffice.
//!
//! That is done twice: with float weights, before layers are fitted behind activations that have to go again, and with
//! all codes in the end.

use onnxquant_calib::Measurement;
use onnxquant_ir::{Graph, NodeId};
use rayon::prelude::*;

use crate::accuracy::Accuracy;
use crate::config::{ActivationBits, Activations, Config};
use crate::decide::goal::Goal;
use crate::decide::trail::{Alone, Round, Trail, Weights};
use crate::error::Error;
use crate::judge::held_out::Judge;
use crate::plan::assignment::Assignment;
use crate::progress::silent;

/// Held-out samples on which the sensitivity of single layers is measured: each layer needs an engine of its own, which
/// takes longer than a run.
const SENSITIVITY_SAMPLES: usize = 3;
/// What plans that were chosen on the held-out samples may be worse on others, in dB.
const CHOSEN_DB: f64 = 0.3;
/// What may be left over before fewer layers are tried, in dB, and how often.
const CLOSE_DB: f64 = 0.2;
const MOST_HALVINGS: usize = 3;
/// What weights that are fitted to rounded activations may win back, in dB.
const SLACK_DB: f64 = 3.0;

/// An assignment, and what went back to float to get there.
struct Step {
    assignment: Assignment,
    to_float: Vec<NodeId>,
    to_16_bits: Vec<NodeId>,
}

/// Takes layers of `assignment` back until `measure` finds the goal reached, and adds what it finds to `trail`. Where the
/// goal is out of reach, the assignment that came nearest is left.
///
/// `measure` gets an assignment and says how exact its outputs are.
pub(super) fn retreat(
    assignment: Assignment,
    trail: &mut Trail,
    judge: &Judge<'_>,
    config: &Config,
    weights: Weights,
    measure: &dyn Fn(&Assignment) -> Result<Measurement<Accuracy>, Error>,
) -> Result<Assignment, Error> {
    let graph = judge.model().graph();
    let Some(goal) = Goal::of(config).filter(|_| config.activations != Activations::Float) else {
        return Ok(assignment);
    };
    let goal = if weights == Weights::Float { goal.raised(-SLACK_DB) } else { goal };
    let aim = goal.raised(CHOSEN_DB);
    let mut now = Step { assignment, to_float: Vec::new(), to_16_bits: Vec::new() };
    let mut line = Line::default();
    let mut nearest: Option<(f64, Assignment)> = None;
    let mut last: Option<(Assignment, Vec<NodeId>)> = None;
    for round in 1_usize.. {
        let accuracy = measure(&now.assignment)?;
        trail.rounds.push(now.round(weights, &accuracy));
        let excess = aim.excess(&accuracy);
        if excess <= 1.0 || (round == 1 && goal.excess(&accuracy) <= 1.0) {
            if let Some((before, worst)) = last.filter(|_| aim.raised(CLOSE_DB).excess(&accuracy) <= 1.0) {
                let reaches = |accuracy: &Measurement<Accuracy>| aim.excess(accuracy) <= 1.0;
                let found = take_back((&before, &worst), trail, (graph, config, weights), measure, &reaches)?;
                now.assignment = found.unwrap_or(now.assignment);
            }
            break;
        }
        if now.assignment.is_empty() {
            // Out of reach: what came nearest, which is faster than this at any rate.
            if let Some((_, nearest)) = nearest.filter(|(least, _)| *least < excess) {
                now.assignment = nearest;
            }
            break;
        }
        if nearest.as_ref().is_none_or(|(least, _)| excess < *least) {
            nearest = Some((excess, now.assignment.clone()));
        }
        let leaders = now.assignment.leaders();
        let known = |leader: &NodeId| trail.alone.iter().any(|layer| layer.leader == *leader);
        if !leaders.iter().any(known) {
            trail.alone.extend(sensitivity(&now.assignment, judge)?);
        }
        let left: Vec<&Alone> = trail.alone.iter().filter(|layer| leaders.contains(&layer.leader)).collect();
        // Errors of weights do not go away: rounds that fall short take more.
        let at_least = round.div_ceil(2);
        let too_much = line.too_much(excess, left.iter().map(|layer| layer.power()).sum());
        let worst = first(&left, too_much, at_least).unwrap_or(leaders);
        last = Some((now.assignment.clone(), worst.clone()));
        now = Step::after(&now.assignment, graph, &worst, config)?;
    }
    Ok(now.assignment)
}

impl Step {
    /// Gives `leaders` of `before` float activations, or 16 bits where they may have them.
    fn after(before: &Assignment, graph: &Graph, leaders: &[NodeId], config: &Config) -> Result<Self, Error> {
        let mixed = config.activation_bits == ActivationBits::Mixed;
        let may_widen = |leader: &&NodeId| mixed && !before.is_dynamic(**leader) && !before.is_widened(**leader);
        let (to_16_bits, to_float): (Vec<NodeId>, Vec<NodeId>) = leaders.iter().partition(may_widen);
        let assignment = before.widen(graph, &to_16_bits, config)?.keep_in_float(graph, &to_float)?;
        Ok(Self { assignment, to_float, to_16_bits })
    }

    fn round(&self, weights: Weights, accuracy: &Measurement<Accuracy>) -> Round {
        Round {
            to_float: self.to_float.clone(),
            to_16_bits: self.to_16_bits.clone(),
            integer_layers: self.assignment.layers(),
            accuracy: accuracy.clone(),
            relative_time: self.assignment.regions().relative_time,
            weights,
        }
    }
}

impl Trail {
    /// Adds that the outputs were exact enough at once.
    pub(super) fn note_reached(&mut self, assignment: &Assignment, accuracy: &Measurement<Accuracy>) {
        if !assignment.is_empty() {
            let step = Step { assignment: assignment.clone(), to_float: Vec::new(), to_16_bits: Vec::new() };
            self.rounds.push(step.round(Weights::Codes, accuracy));
        }
    }
}

/// Looks for the fewest of the `worst` layers of the assignment `before` that must go, where all of them are more than
/// enough; nothing where it must be all.
fn take_back(
    (before, worst): (&Assignment, &[NodeId]),
    trail: &mut Trail,
    (graph, config, weights): (&Graph, &Config, Weights),
    measure: &dyn Fn(&Assignment) -> Result<Measurement<Accuracy>, Error>,
    reaches: &dyn Fn(&Measurement<Accuracy>) -> bool,
) -> Result<Option<Assignment>, Error> {
    let (mut too_few, mut enough, mut found) = (0, worst.len(), None);
    for _ in 0..MOST_HALVINGS {
        let some = usize::midpoint(too_few, enough);
        if some == too_few {
            break;
        }
        let step = Step::after(before, graph, &worst[..some], config)?;
        let accuracy = measure(&step.assignment)?;
        trail.rounds.push(step.round(weights, &accuracy));
        if reaches(&accuracy) {
            (found, enough) = (Some(step.assignment), some);
        } else {
            too_few = some;
        }
    }
    Ok(found)
}

/// By how much the error is too large, over what single layers do alone.
#[derive(Debug, Default)]
struct Line {
    before: Option<(f64, f64)>,
}

impl Line {
    /// The power of single layers' errors that must go, where `power` is left and the error is `excess` times that
    /// wanted.
    fn too_much(&mut self, excess: f64, power: f64) -> f64 {
        let proportional = (1.0 - 1.0 / excess) * power;
        let slope = self.before.map(|(before, power_before)| (before - excess) / (power_before - power));
        self.before = Some((excess, power));
        slope.filter(|slope| *slope > 0.0).map_or(proportional, |slope| (excess - 1.0) / slope)
    }
}

/// The outputs when one layer alone is on integers: first the layers with the largest error for the time they save.
fn sensitivity(assignment: &Assignment, judge: &Judge<'_>) -> Result<Vec<Alone>, Error> {
    let (graph, samples) = (judge.model().graph(), judge.first_samples(SENSITIVITY_SAMPLES));
    let measured = |leader: NodeId| {
        let alone = assignment.only(graph, leader)?;
        let accuracy = judge.with_float_weights(&alone, samples, &silent)?;
        Ok(Alone { leader, accuracy, saved_ns: assignment.saved_ns(graph, leader) })
    };
    let mut found = assignment.leaders().into_par_iter().map(measured).collect::<Result<Vec<Alone>, Error>>()?;
    // Conversions at new ends of regions take time as well: as much as a layer saves on the average, say.
    let conversions = found.iter().map(|layer| layer.saved_ns).sum::<f64>() / found.len().max(1) as f64;
    let rate = |layer: &Alone| layer.power() / (layer.saved_ns + conversions).max(1.0);
    found.sort_by(|a, b| rate(b).total_cmp(&rate(a)));
    Ok(found)
}

/// The first layers of `left` whose errors have this power together, at least so many; `None` where no layer is left to
/// blame.
fn first(left: &[&Alone], power: f64, at_least: usize) -> Option<Vec<NodeId>> {
    let (mut removed, mut chosen) = (0.0, Vec::new());
    for layer in left {
        if chosen.len() >= at_least && removed >= power {
            break;
        }
        removed += layer.power();
        chosen.push(layer.leader);
    }
    (!chosen.is_empty()).then_some(chosen)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_through_two_rounds_says_what_must_go() {
        let mut line = Line::default();
        // 1 + 3 of power: half of all must go.
        assert!((line.too_much(2.0, 4.0) - 2.0).abs() < 1e-12);
        // 0.5 is not theirs: excess = 0.5 + 0.375 power; of the 2 left 2/3 must go.
        assert!((line.too_much(1.25, 2.0) - 2.0 / 3.0).abs() < 1e-12);
        // No gain by what went: as at first.
        assert!((line.too_much(1.25, 1.0) - 0.2).abs() < 1e-12);
        assert!(Line::default().too_much(f64::INFINITY, 3.0) >= 3.0);
    }
}
