//! Takes layers back to float activations until the outputs are as exact as asked.
//!
//! Errors of layers add up in power, nearly: what each does alone tells how many of the worst must go. The prediction
//! is scaled to what was measured and tried again, so that a few runs suffice.

use onnxquant_ir::{Graph, NodeId};
use rayon::prelude::*;

use super::IntegerPlan;
use crate::config::{ActivationBits, Activations, Config};
use crate::error::Error;
use crate::report::{Sensitivity, Trade, finite};

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
        10f64.powf(-self.sqnr_db / 10.0)
    }
}

/// How exact the outputs must be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Goal {
    sqnr_db: Option<f64>,
    loss: Option<f64>,
}

/// What was found on the way.
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

    /// By which factor the power of the error is too large; at most 1 where the goal is reached.
    fn excess(&self, found: &Accuracy) -> f64 {
        let sqnr = self.sqnr_db.map_or(0.0, |wanted| 10f64.powf((wanted - found.sqnr_db) / 10.0));
        // For small errors one minus the cosine grows with their power.
        let loss = self.loss.map_or(0.0, |most| if found.loss <= most { 1.0 } else { found.loss / most });
        // The larger of two numbers hides a NaN.
        if found.sqnr_db.is_nan() || found.loss.is_nan() { f64::INFINITY } else { sqnr.max(loss) }
    }
}

/// Takes layers of `integers` back until `measure` finds the goal reached, or none is left.
///
/// `measure` gets a plan and says how exact its outputs are; `measure_alone` the same for a plan with one layer on
/// integers, by a cheaper run.
pub(crate) fn retreat(
    integers: &mut IntegerPlan,
    graph: &Graph,
    config: &Config,
    measure: &dyn Fn(&IntegerPlan) -> Result<Accuracy, Error>,
    measure_alone: &(dyn Fn(&IntegerPlan) -> Result<Accuracy, Error> + Sync),
) -> Result<Retreat, Error> {
    let mut found = Retreat::default();
    let Some(goal) = Goal::of(config).filter(|_| config.activations != Activations::Float) else { return Ok(found) };
    let (mut to_float, mut to_16_bits): (Vec<NodeId>, Vec<NodeId>) = Default::default();
    loop {
        let accuracy = measure(integers)?;
        found.trade.push(trade(integers, graph, [&to_float, &to_16_bits], &accuracy));
        let excess = goal.excess(&accuracy);
        if excess <= 1.0 || integers.is_empty() {
            return Ok(found);
        }
        if found.sensitivity.is_empty() {
            found.sensitivity = sensitivity(integers, graph, measure_alone)?;
        }
        // Errors of weights do not go away: rounds that fall short take more.
        let at_least = found.trade.len().div_ceil(2);
        let worst = worst(&found.sensitivity, &integers.leaders(), excess, at_least);
        let mixed = config.activation_bits == ActivationBits::Mixed;
        let may_widen = |leader: &NodeId| mixed && !integers.dynamic.contains(leader) && !integers.is_widened(*leader);
        (to_16_bits, to_float) = worst.into_iter().partition(may_widen);
        integers.widen(graph, &to_16_bits, config)?;
        integers.retreat(graph, &to_float)?;
    }
}

fn trade(integers: &IntegerPlan, graph: &Graph, [to_float, to_16_bits]: [&[NodeId]; 2], accuracy: &Accuracy) -> Trade {
    let labels = |nodes: &[NodeId]| nodes.iter().map(|node| graph.label(*node).to_owned()).collect();
    Trade {
        to_float: labels(to_float),
        to_16_bits: labels(to_16_bits),
        integer_layers: integers.layers(),
        sqnr_db: finite(accuracy.sqnr_db),
        loss: finite(accuracy.loss),
        relative_time: integers.regions.relative_time,
    }
}

/// The outputs when one layer alone is on integers, the most sensitive layer first.
fn sensitivity(
    integers: &IntegerPlan,
    graph: &Graph,
    measure: &(dyn Fn(&IntegerPlan) -> Result<Accuracy, Error> + Sync),
) -> Result<Vec<Sensitivity>, Error> {
    let measured = |node: NodeId| {
        let sqnr_db = measure(&integers.only(graph, node)?)?.sqnr_db;
        Ok(Sensitivity { node, label: graph.label(node).to_owned(), sqnr_db })
    };
    let mut found = integers.leaders().into_par_iter().map(measured).collect::<Result<Vec<Sensitivity>, Error>>()?;
    found.sort_by(|a, b| a.sqnr_db.total_cmp(&b.sqnr_db));
    Ok(found)
}

/// The layers to take back so that the power of the error falls to `1 / excess`; at least so many.
fn worst(ranked: &[Sensitivity], left: &[NodeId], excess: f64, at_least: usize) -> Vec<NodeId> {
    let ranked: Vec<&Sensitivity> = ranked.iter().filter(|layer| left.contains(&layer.node)).collect();
    let power = |layer: &Sensitivity| 10f64.powf(-layer.sqnr_db / 10.0);
    let total: f64 = ranked.iter().map(|layer| power(layer)).sum();
    let (mut removed, mut chosen) = (0.0, Vec::new());
    for layer in ranked {
        if chosen.len() >= at_least && removed >= (1.0 - 1.0 / excess) * total {
            break;
        }
        removed += power(layer);
        chosen.push(layer.node);
    }
    // Where no layer is left to blame, all go.
    if chosen.is_empty() { left.to_vec() } else { chosen }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accuracy(sqnr_db: f64, loss: f64) -> Accuracy {
        Accuracy { sqnr_db, loss }
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
