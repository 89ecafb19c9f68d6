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
use crate::decide::measure::Measure;
use crate::decide::trail::{Alone, JudgedBy, Round, Trail, Weights};
use crate::error::Error;
use crate::plan::assignment::Assignment;

/// Validation samples on which the sensitivity of single layers is measured: each layer needs an engine of its own, which
/// takes longer than a run.
pub(super) const SENSITIVITY_SAMPLES: usize = 3;
/// What plans that were chosen on few samples may be worse on others, in dB.
const CHOSEN_DB: f64 = 0.3;
/// What may be left over before fewer layers are tried, in dB, and how often.
const CLOSE_DB: f64 = 0.2;
const MOST_HALVINGS: usize = 3;
/// What weights that are fitted to rounded activations may win back, in dB.
const SLACK_DB: f64 = 3.0;

/// An assignment, and what went back to float to get there.
pub(super) struct Step {
    pub(super) assignment: Assignment,
    to_float: Vec<NodeId>,
    pub(super) to_16_bits: Vec<NodeId>,
}

/// The question which layers must go back, and who can tell what that does.
pub(super) struct Retreat<'a> {
    pub(super) graph: &'a Graph,
    pub(super) config: &'a Config,
    /// What weights are in the measurements of `whole`.
    pub(super) weights: Weights,
    /// Who measures `whole`.
    pub(super) judged_by: JudgedBy,
    /// Says how exact the outputs are with a whole assignment.
    pub(super) whole: &'a dyn Measure<Assignment>,
    /// The same of one layer alone; less exactly, and faster.
    pub(super) alone: &'a (dyn Measure<Assignment> + Sync),
}

/// What all rounds have in common.
struct Search {
    aim: Goal,
    line: Line,
    /// What came nearest to the aim, and by what it misses it.
    nearest: Option<(f64, Assignment)>,
    /// The assignment of the round before, and what was taken from it.
    last: Option<(Assignment, Vec<NodeId>)>,
}

impl Retreat<'_> {
    /// Takes layers of `start` back until the goal is reached, and adds what it finds to `trail`. Where the goal is out of
    /// reach, the assignment that came nearest is left.
    pub(super) fn from(&self, start: Assignment, mut trail: Trail) -> Result<(Assignment, Trail), Error> {
        let Some(goal) = Goal::of(self.config).filter(|_| self.config.activations != Activations::Float) else {
            return Ok((start, trail));
        };
        let goal = if self.weights == Weights::Float { goal.raised(-SLACK_DB) } else { goal };
        let mut search = Search { aim: goal.raised(CHOSEN_DB), line: Line::default(), nearest: None, last: None };
        let mut now = Step { assignment: start, to_float: Vec::new(), to_16_bits: Vec::new() };
        for round in 1_usize.. {
            let accuracy = self.whole.accuracy(&now.assignment)?;
            trail.rounds.push(self.round(&now, &accuracy));
            if search.aim.excess(&accuracy) <= 1.0 || (round == 1 && goal.excess(&accuracy) <= 1.0) {
                let fewer = self.take_back(&search, &accuracy, &mut trail)?;
                return Ok((fewer.unwrap_or(now.assignment), trail));
            }
            if now.assignment.is_empty() {
                return Ok((search.or_nearest(now.assignment, &accuracy), trail));
            }
            let worst = self.worst(&mut search, round, &now.assignment, &accuracy, &mut trail)?;
            let next = Step::after(&now.assignment, self.graph, &worst, self.config)?;
            search.last = Some((now.assignment, worst));
            now = next;
        }
        Ok((now.assignment, trail))
    }

    /// The layers that go next, after a round that fell short.
    fn worst(
        &self,
        search: &mut Search,
        round: usize,
        now: &Assignment,
        accuracy: &Measurement<Accuracy>,
        trail: &mut Trail,
    ) -> Result<Vec<NodeId>, Error> {
        let excess = search.aim.excess(accuracy);
        if search.nearest.as_ref().is_none_or(|(least, _)| excess < *least) {
            search.nearest = Some((excess, now.clone()));
        }
        let leaders = now.leaders();
        let left = self.order(now, trail)?;
        // Errors of weights do not go away: rounds that fall short take more.
        let at_least = round.div_ceil(2);
        let too_much = search.line.too_much(excess, left.iter().map(|layer| layer.power()).sum());
        Ok(first(&left, too_much, at_least).unwrap_or(leaders))
    }

    /// The layers of `now` in the order in which they go; what they do alone is measured, and added to `trail`, where
    /// nothing is known of them.
    pub(super) fn order<'t>(&self, now: &Assignment, trail: &'t mut Trail) -> Result<Vec<&'t Alone>, Error> {
        let leaders = now.leaders();
        let known = |leader: &NodeId| trail.alone.iter().any(|layer| layer.leader == *leader);
        if !leaders.iter().any(known) {
            trail.alone.extend(self.sensitivity(now)?);
        }
        Ok(trail.alone.iter().filter(|layer| leaders.contains(&layer.leader)).collect())
    }

    /// Where the last round was more than enough: looks for the fewest of its layers that must go. Nothing where it must be
    /// all.
    fn take_back(
        &self,
        search: &Search,
        reached: &Measurement<Accuracy>,
        trail: &mut Trail,
    ) -> Result<Option<Assignment>, Error> {
        let Some((before, worst)) = &search.last else { return Ok(None) };
        if search.aim.raised(CLOSE_DB).excess(reached) > 1.0 {
            return Ok(None);
        }
        let (mut too_few, mut enough, mut found) = (0, worst.len(), None);
        for _ in 0..MOST_HALVINGS {
            let some = usize::midpoint(too_few, enough);
            if some == too_few {
                break;
            }
            let step = Step::after(before, self.graph, &worst[..some], self.config)?;
            let accuracy = self.whole.accuracy(&step.assignment)?;
            trail.rounds.push(self.round(&step, &accuracy));
            if search.aim.excess(&accuracy) <= 1.0 {
                (found, enough) = (Some(step.assignment), some);
            } else {
                too_few = some;
            }
        }
        Ok(found)
    }

    fn round(&self, step: &Step, accuracy: &Measurement<Accuracy>) -> Round {
        step.round(self.weights, self.judged_by, accuracy)
    }

    /// The outputs when one layer alone is on integers: first the layers with the largest error for the time they save.
    fn sensitivity(&self, assignment: &Assignment) -> Result<Vec<Alone>, Error> {
        let measured = |leader: NodeId| {
            let accuracy = self.alone.accuracy(&assignment.only(self.graph, leader)?)?;
            Ok(Alone { leader, accuracy, saved_ns: assignment.saved_ns(self.graph, leader) })
        };
        let mut found = assignment.leaders().into_par_iter().map(measured).collect::<Result<Vec<Alone>, Error>>()?;
        // Conversions at new ends of regions take time as well: as much as a layer saves on the average, say.
        let conversions = found.iter().map(|layer| layer.saved_ns).sum::<f64>() / found.len().max(1) as f64;
        let rate = |layer: &Alone| layer.power() / (layer.saved_ns + conversions).max(1.0);
        found.sort_by(|a, b| rate(b).total_cmp(&rate(a)));
        Ok(found)
    }
}

impl Search {
    /// Out of reach: what came nearest, which is faster than `now` at any rate.
    fn or_nearest(self, now: Assignment, accuracy: &Measurement<Accuracy>) -> Assignment {
        let excess = self.aim.excess(accuracy);
        self.nearest.filter(|(least, _)| *least < excess).map_or(now, |(_, nearest)| nearest)
    }
}

impl Step {
    /// Gives `leaders` of `before` float activations, or 16 bits where they may have them.
    pub(super) fn after(
        before: &Assignment,
        graph: &Graph,
        leaders: &[NodeId],
        config: &Config,
    ) -> Result<Self, Error> {
        let mixed = config.activation_bits == ActivationBits::Mixed;
        let may_widen = |leader: &&NodeId| mixed && !before.is_dynamic(**leader) && !before.is_widened(**leader);
        let (to_16_bits, to_float): (Vec<NodeId>, Vec<NodeId>) = leaders.iter().partition(may_widen);
        let assignment = before.widen(graph, &to_16_bits, config)?.keep_in_float(graph, &to_float)?;
        Ok(Self { assignment, to_float, to_16_bits })
    }

    pub(super) fn round(&self, weights: Weights, judged_by: JudgedBy, accuracy: &Measurement<Accuracy>) -> Round {
        Round {
            to_float: self.to_float.clone(),
            to_16_bits: self.to_16_bits.clone(),
            integer_layers: self.assignment.layers(),
            accuracy: accuracy.clone(),
            relative_time: self.assignment.regions().relative_time,
            weights,
            judged_by,
        }
    }
}

impl Trail {
    /// Adds that the outputs were exact enough at once.
    pub(super) fn note_reached(&mut self, assignment: &Assignment, accuracy: &Measurement<Accuracy>) {
        if !assignment.is_empty() {
            let step = Step { assignment: assignment.clone(), to_float: Vec::new(), to_16_bits: Vec::new() };
            self.rounds.push(step.round(Weights::Codes, JudgedBy::Simulation, accuracy));
        }
    }
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
#[path = "retreat_tests.rs"]
mod tests;
