//! Takes layers back to float activations until the outputs are as exact as asked.
//!
//! Errors of layers add up in power, nearly: what each does alone tells how many must go, those first whose error is
//! large for the time that they save. What the first ones brought tells, on a straight line, how many more must go, so
//! that a few runs suffice.
//!
//! That is done twice: with float weights, before layers are fitted behind activations that have to go again, and with
//! all codes in the end.

use onnxquant_ir::{Graph, NodeId};
use rayon::prelude::*;

use super::IntegerPlan;
use crate::config::{ActivationBits, Activations, Config};
use crate::error::Error;
use crate::judge::Judge;
use crate::progress::silent;
use crate::report::{Sensitivity, Trade, Weights, unless_equal};

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

/// How exact the outputs are.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Accuracy {
    /// SQNR over all outputs in dB.
    pub(crate) sqnr_db: f64,
    /// One minus the mean cosine, of the output where it is largest.
    pub(crate) loss: f64,
}

impl Accuracy {
    /// The power of the error over that of the outputs.
    pub(crate) fn power(&self) -> f64 {
        error_power(self.sqnr_db)
    }
}

/// The power of an error over that of the signal.
fn error_power(sqnr_db: f64) -> f64 {
    10f64.powf(-sqnr_db / 10.0)
}

impl Sensitivity {
    fn power(&self) -> f64 {
        error_power(self.sqnr_db)
    }
}

/// How exact the outputs must be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Goal {
    sqnr_db: Option<f64>,
    loss: Option<f64>,
}

/// What is found on the way.
#[derive(Clone, Debug, Default)]
pub(crate) struct Retreat {
    /// What single layers do, the most sensitive first; empty where nothing had to go.
    pub(crate) sensitivity: Vec<Sensitivity>,
    /// Round by round.
    pub(crate) trade: Vec<Trade>,
}

impl Goal {
    /// What `config` asks for, if anything.
    pub(crate) fn of(config: &Config) -> Option<Self> {
        let goal = Self { sqnr_db: config.wanted_sqnr_db(), loss: config.max_loss };
        (goal.sqnr_db.is_some() || goal.loss.is_some()).then_some(goal)
    }

    /// A goal that is so much higher, in dB.
    fn raised(self, by_db: f64) -> Self {
        let sqnr_db = self.sqnr_db.map(|wanted| wanted + by_db);
        Self { sqnr_db, loss: self.loss.map(|most| most * error_power(by_db)) }
    }

    /// By which factor the power of the error is too large; at most 1 where the goal is reached.
    pub(crate) fn excess(&self, found: &Accuracy) -> f64 {
        let sqnr = self.sqnr_db.map_or(0.0, |wanted| 10f64.powf((wanted - found.sqnr_db) / 10.0));
        // For small errors one minus the cosine grows with their power.
        let loss = self.loss.map_or(0.0, |most| if found.loss <= most { 1.0 } else { found.loss / most });
        // The larger of two numbers hides a NaN.
        if found.sqnr_db.is_nan() || found.loss.is_nan() { f64::INFINITY } else { sqnr.max(loss) }
    }
}

/// Takes layers of `integers` back until `measure` finds the goal reached, and adds what it finds to that of `weights` found
/// before. Where the goal is out of reach, the plan that came nearest is left.
///
/// `measure` gets a plan and says how exact its outputs are.
pub(crate) fn retreat(
    integers: &mut IntegerPlan,
    judge: &Judge<'_>,
    config: &Config,
    weights: Weights,
    measure: &dyn Fn(&IntegerPlan) -> Result<Accuracy, Error>,
) -> Result<(), Error> {
    let graph = judge.model().graph();
    let Some(goal) = Goal::of(config).filter(|_| config.activations != Activations::Float) else { return Ok(()) };
    let goal = if weights == Weights::Float { goal.raised(-SLACK_DB) } else { goal };
    let aim = goal.raised(CHOSEN_DB);
    let (mut to_float, mut to_16_bits): (Vec<NodeId>, Vec<NodeId>) = Default::default();
    let mut line = Line::default();
    let mut nearest: Option<(f64, IntegerPlan)> = None;
    let mut last: Option<(IntegerPlan, Vec<NodeId>)> = None;
    for round in 1_usize.. {
        let accuracy = measure(integers)?;
        let row = trade(integers, graph, [&to_float, &to_16_bits], weights, &accuracy);
        integers.retreat.trade.push(row);
        let excess = aim.excess(&accuracy);
        if excess <= 1.0 || (round == 1 && goal.excess(&accuracy) <= 1.0) {
            if let Some((before, worst)) = last.filter(|_| aim.raised(CLOSE_DB).excess(&accuracy) <= 1.0) {
                let reaches = |accuracy: &Accuracy| aim.excess(accuracy) <= 1.0;
                take_back(integers, (before, &worst), (graph, config, weights), measure, &reaches)?;
            }
            break;
        }
        if integers.is_empty() {
            // Out of reach: what came nearest, which is faster than this at any rate.
            if let Some((_, nearest)) = nearest.filter(|(least, _)| *least < excess) {
                let found = std::mem::replace(integers, nearest);
                integers.retreat = found.retreat;
            }
            break;
        }
        if nearest.as_ref().is_none_or(|(least, _)| excess < *least) {
            nearest = Some((excess, integers.clone()));
        }
        let leaders = integers.leaders();
        let known = |leader: &NodeId| integers.retreat.sensitivity.iter().any(|layer| layer.node == *leader);
        if !leaders.iter().any(known) {
            integers.retreat.sensitivity.extend(sensitivity(integers, judge)?);
        }
        let sensitivity = &integers.retreat.sensitivity;
        let left: Vec<&Sensitivity> = sensitivity.iter().filter(|layer| leaders.contains(&layer.node)).collect();
        // Errors of weights do not go away: rounds that fall short take more.
        let at_least = round.div_ceil(2);
        let too_much = line.too_much(excess, left.iter().map(|layer| layer.power()).sum());
        let worst = first(&left, too_much, at_least).unwrap_or(leaders);
        last = Some((integers.clone(), worst.clone()));
        [to_float, to_16_bits] = integers.give_up(graph, &worst, config)?;
    }
    Ok(())
}

impl IntegerPlan {
    /// Gives `leaders` float activations, or 16 bits where they may have them; which got what.
    fn give_up(&mut self, graph: &Graph, leaders: &[NodeId], config: &Config) -> Result<[Vec<NodeId>; 2], Error> {
        let mixed = config.activation_bits == ActivationBits::Mixed;
        let may_widen = |leader: &&NodeId| mixed && !self.is_dynamic(**leader) && !self.is_widened(**leader);
        let (to_16_bits, to_float): (Vec<NodeId>, Vec<NodeId>) = leaders.iter().partition(may_widen);
        self.widen(graph, &to_16_bits, config)?;
        self.keep_in_float(graph, &to_float)?;
        Ok([to_float, to_16_bits])
    }

    /// Adds that the outputs were exact enough at once.
    pub(crate) fn note_reached(&mut self, graph: &Graph, accuracy: &Accuracy) {
        if !self.is_empty() {
            let row = trade(self, graph, [&[], &[]], Weights::Codes, accuracy);
            self.retreat.trade.push(row);
        }
    }
}

/// Looks for the fewest of the `worst` layers of the plan `before` that must go, where all of them are more than enough.
fn take_back(
    integers: &mut IntegerPlan,
    (before, worst): (IntegerPlan, &[NodeId]),
    (graph, config, weights): (&Graph, &Config, Weights),
    measure: &dyn Fn(&IntegerPlan) -> Result<Accuracy, Error>,
    reaches: &dyn Fn(&Accuracy) -> bool,
) -> Result<(), Error> {
    let (mut too_few, mut enough) = (0, worst.len());
    for _ in 0..MOST_HALVINGS {
        let some = usize::midpoint(too_few, enough);
        if some == too_few {
            break;
        }
        let mut plan = before.clone();
        let [to_float, to_16_bits] = plan.give_up(graph, &worst[..some], config)?;
        let accuracy = measure(&plan)?;
        integers.retreat.trade.push(trade(&plan, graph, [&to_float, &to_16_bits], weights, &accuracy));
        if reaches(&accuracy) {
            let found = std::mem::replace(integers, plan);
            (integers.retreat, enough) = (found.retreat, some);
        } else {
            too_few = some;
        }
    }
    Ok(())
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

fn trade(
    integers: &IntegerPlan,
    graph: &Graph,
    [to_float, to_16_bits]: [&[NodeId]; 2],
    weights: Weights,
    accuracy: &Accuracy,
) -> Trade {
    let labels = |nodes: &[NodeId]| nodes.iter().map(|node| graph.label(*node).to_owned()).collect();
    Trade {
        to_float: labels(to_float),
        to_16_bits: labels(to_16_bits),
        integer_layers: integers.layers(),
        sqnr_db: unless_equal(accuracy.sqnr_db),
        loss: accuracy.loss,
        relative_time: integers.regions.relative_time,
        weights,
    }
}

/// The outputs when one layer alone is on integers: first the layers with the largest error for the time they save.
fn sensitivity(integers: &IntegerPlan, judge: &Judge<'_>) -> Result<Vec<Sensitivity>, Error> {
    let (graph, samples) = (judge.model().graph(), judge.first_samples(SENSITIVITY_SAMPLES));
    let measured = |node: NodeId| {
        let alone = integers.only(graph, node)?;
        let sqnr_db = judge.with_float_weights(&alone, samples, &silent)?.sqnr_db;
        Ok(Sensitivity { node, label: graph.label(node).to_owned(), sqnr_db, saved_ns: integers.saved_ns(graph, node) })
    };
    let mut found = integers.leaders().into_par_iter().map(measured).collect::<Result<Vec<Sensitivity>, Error>>()?;
    // Conversions at new ends of regions take time as well: as much as a layer saves on the average, say.
    let conversions = found.iter().map(|layer| layer.saved_ns).sum::<f64>() / found.len().max(1) as f64;
    let rate = |layer: &Sensitivity| layer.power() / (layer.saved_ns + conversions).max(1.0);
    found.sort_by(|a, b| rate(b).total_cmp(&rate(a)));
    Ok(found)
}

/// The first layers of `left` whose errors have this power together, at least so many; `None` where no layer is left to
/// blame.
fn first(left: &[&Sensitivity], power: f64, at_least: usize) -> Option<Vec<NodeId>> {
    let (mut removed, mut chosen) = (0.0, Vec::new());
    for layer in left {
        if chosen.len() >= at_least && removed >= power {
            break;
        }
        removed += layer.power();
        chosen.push(layer.node);
    }
    (!chosen.is_empty()).then_some(chosen)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accuracy(sqnr_db: f64, loss: f64) -> Accuracy {
        Accuracy { sqnr_db, loss }
    }

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

    #[test]
    fn excess_is_that_of_the_goal_that_is_missed_most() {
        let config = Config { min_sqnr_db: Some(30.0), max_loss: Some(0.01), ..Config::default() };
        let goal = Goal::of(&config).unwrap();
        let table = [
            (accuracy(30.0, 0.01), 1.0),
            (accuracy(40.0, 0.0), 1.0),
            (accuracy(20.0, 0.0), 10.0),
            (accuracy(50.0, 0.05), 5.0),
            (accuracy(f64::NAN, 0.0), f64::INFINITY),
            (accuracy(50.0, f64::NAN), f64::INFINITY),
        ];
        for (found, expected) in table {
            let excess = goal.excess(&found);
            assert!(excess == expected || (excess - expected).abs() < 1e-9, "{found:?}: {excess}");
        }
        let exact = Config { max_loss: Some(0.0), ..Config::default() };
        let exact = Goal::of(&exact).unwrap();
        assert!(exact.excess(&accuracy(90.0, 1e-9)) > 1.0);
        assert!(exact.excess(&accuracy(f64::INFINITY, 0.0)) <= 1.0);
        assert!(Goal::of(&Config::default()).is_none());
    }
}
