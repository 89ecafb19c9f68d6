//! The smallest box in which a neuron can still be reproduced.
//!
//! # Problem
//!
//! Given `X`, `w` and walls `lower <= 0 <= upper` around `w`,
//!
//! ```text
//! minimise g    subject to    X z = X w,    g lower <= z <= g upper
//! ```
//!
//! With walls `-1` and `1` this is the solution of `X z = X w` of least maximum norm.
//!
//! # Method
//!
//! A primal simplex method. It starts at the vertex where the kernel walk ends
//! (`g = 1`). Off-wall coordinates and `g` itself are basic; every other
//! coordinate sits on a wall, `z_j = g s_j` with `s_j` one of its two walls at
//! `g = 1`. With `a = sum_j s_j x_j` the basis matrix has the columns of the basic
//! coordinates and, in the place of the one that `g` replaced, `a`. Row `g` of its
//! inverse says how `g` changes when a coordinate leaves its wall; the one with
//! the greatest gain enters, and either a basic coordinate reaches a (moving) wall
//! and leaves, or the entering one crosses to its own other wall. Either way the
//! inverse changes by one rank-one update and additions of row `g`.
//!
//! # Guarantee
//!
//! Every iterate is feasible and `g` never grows, so stopping early is safe. At the
//! optimum at most `rank(X) - 1` coordinates are off their walls.
//!
//! # Numerics
//!
//! `f64`. Gains below `1e-10` (of a total that is 1 by construction) count as
//! none. The inverse is refactored, and basic values recomputed, every 128 exchanges.
//!
//! # Cost
//!
//! O(K r) a step, a few hundred to a few thousand steps; at most 20 K.
//!
//! # Failure
//!
//! Errors of the walk that finds the first vertex. If a later basis is singular to
//! working precision, the last sound vertex is returned.
//!
//! # References
//!
//! Barrodale and Phillips, *Solution of an overdetermined system of linear
//! equations in the Chebyshev norm*, ACM TOMS 1 (1975), treat the dual problem.

use crate::error::QuantError;
use crate::inverse::Inverse;
use crate::kernel::Directions;
use crate::walk::{WalkOptions, Walls};
use faer::Mat;

const REFACTOR_EVERY: usize = 128;
const LEAST_GAIN: f64 = 1e-10;
/// Rates of approach to a wall, relative to the largest, that cannot block.
const NEGLIGIBLE: f64 = 1e-9;
/// Walls nearer than this fraction of the box count as met together.
const TOGETHER: f64 = 1e-11;
const STEPS_PER_INPUT: usize = 20;

/// A solution and its factor `g` on the walls.
pub(crate) fn shrink(directions: &Directions, start: &[f64], walls: &Walls) -> Result<(Vec<f64>, f64), QuantError> {
    let walked = directions.walk(start, walls, WalkOptions::default())?;
    let mut simplex = Simplex::new(directions, walls, start, walked.values, walked.members);
    let mut best = (simplex.values.clone(), 1.0);
    if !simplex.admit_factor() {
        return Ok(best);
    }
    for _ in 0..STEPS_PER_INPUT * start.len() {
        if simplex.inverse.exchanges() >= REFACTOR_EVERY {
            if !simplex.refresh() {
                return Ok(best);
            }
            best = simplex.solution();
        }
        let Some(entering) = simplex.price() else {
            break;
        };
        if !simplex.step(entering) {
            break;
        }
    }
    if simplex.refresh() {
        best = simplex.solution();
    }
    Ok(best)
}

struct Simplex<'a> {
    directions: &'a Directions,
    walls: &'a Walls,
    /// `X w`, in the basis of `directions`.
    target: Vec<f64>,
    values: Vec<f64>,
    /// `s_j` of coordinates on a wall.
    side: Vec<f64>,
    basic: Vec<bool>,
    /// Basic coordinate of every slot; that of `factor_slot` is void.
    members: Vec<usize>,
    factor: f64,
    factor_slot: usize,
    inverse: Inverse,
    y: Vec<f64>,
    prices: Vec<f64>,
}

/// A coordinate that leaves its wall.
#[derive(Clone, Copy)]
struct Entering {
    j: usize,
    /// +1 from the lower wall, -1 from the upper one.
    sign: f64,
}

/// Which basic coordinate stops the step, and at which of its walls.
#[derive(Clone, Copy)]
struct Block {
    slot: usize,
    wall: f64,
    step: f64,
}

impl<'a> Simplex<'a> {
    fn new(
        directions: &'a Directions,
        walls: &'a Walls,
        start: &[f64],
        values: Vec<f64>,
        members: Vec<usize>,
    ) -> Simplex<'a> {
        let rank = members.len();
        let mut basic = vec![false; values.len()];
        members.iter().for_each(|i| basic[*i] = true);
        Simplex {
            directions,
            walls,
            target: directions.image(start),
            side: values.clone(),
            values,
            basic,
            members,
            factor: 1.0,
            factor_slot: usize::MAX,
            inverse: Inverse::identity(rank),
            y: vec![0.0; rank],
            prices: vec![0.0; rank],
        }
    }

    /// `a`: what the coordinates on walls contribute at `g = 1`.
    fn wall_image(&self) -> Vec<f64> {
        let on_wall = |(side, basic): (&f64, &bool)| if *basic { 0.0 } else { *side };
        let sides: Vec<f64> = self.side.iter().zip(&self.basic).map(on_wall).collect();
        self.directions.image(&sides)
    }

    /// Shrinks the box until a basic coordinate blocks; `g` takes its slot.
    /// False if there is no basic coordinate or nothing blocks.
    fn admit_factor(&mut self) -> bool {
        if self.members.is_empty() || !self.refactor() {
            return false;
        }
        let image = self.wall_image();
        self.inverse.apply(&image, &mut self.y);
        let y = self.y.clone();
        let Some(block) = self.first_block(&y, 1.0, f64::INFINITY) else {
            return false;
        };
        self.advance(&y, 1.0, block.step);
        self.y[block.slot] += block.wall;
        self.retire(block);
        self.factor_slot = block.slot;
        self.inverse.exchange(block.slot, &self.y);
        true
    }

    /// The coordinate on a wall whose departure lowers `g` most.
    fn price(&mut self) -> Option<Entering> {
        self.inverse.copy_row(self.factor_slot, &mut self.prices);
        let mut best = None;
        let mut most = LEAST_GAIN;
        for j in (0..self.values.len()).filter(|j| !self.basic[*j]) {
            let column = self.directions.column(j);
            let price: f64 = self.prices.iter().zip(column).map(|(p, x)| p * x).sum();
            let width = self.walls.upper()[j] - self.walls.lower()[j];
            let sign = if self.side[j] == self.walls.lower()[j] { 1.0 } else { -1.0 };
            let gain = sign * price * width;
            if gain > most {
                most = gain;
                best = Some(Entering { j, sign });
            }
        }
        best
    }

    /// Moves `entering` off its wall; false if the basis cannot follow.
    fn step(&mut self, entering: Entering) -> bool {
        let Entering { j, sign } = entering;
        self.inverse.apply(self.directions.column(j), &mut self.y);
        let y: Vec<f64> = self.y.iter().map(|y| -sign * y).collect();
        let falling = -y[self.factor_slot];
        let width = self.walls.upper()[j] - self.walls.lower()[j];
        let crossing = self.factor * width / (1.0 + falling * width);
        let blocked = self.first_block(&y, falling, crossing);
        self.advance(&y, falling, blocked.map_or(crossing, |block| block.step));
        match blocked {
            None => self.cross(j, sign * width),
            Some(block) => self.replace(block, j, sign),
        }
    }

    /// The first basic coordinate to meet a wall within `limit`, when basic values
    /// move at rates `y` while `g` falls at rate `falling`.
    fn first_block(&self, y: &[f64], falling: f64, limit: f64) -> Option<Block> {
        let slots = || (0..y.len()).filter(|slot| *slot != self.factor_slot);
        let approach = |slot: usize, wall: f64, sign: f64| {
            let gap = sign * (self.factor * wall - self.values[self.members[slot]]);
            (gap.max(0.0), sign * (y[slot] + falling * wall))
        };
        let both = |slot: usize| {
            let i = self.members[slot];
            let (lower, upper) = (self.walls.lower()[i], self.walls.upper()[i]);
            [(lower, -1.0), (upper, 1.0)].map(|(wall, sign)| {
                let (gap, rate) = approach(slot, wall, sign);
                (wall, gap, rate, upper - lower)
            })
        };
        let fastest = slots().flat_map(both).fold(0.0f64, |most, (_, _, rate, _)| most.max(rate));
        let able = |rate: f64| rate > NEGLIGIBLE * fastest && rate > 0.0;
        let mut reach = limit;
        for (_, gap, rate, width) in slots().flat_map(both).filter(|wall| able(wall.2)) {
            reach = reach.min((gap + TOGETHER * width) / rate);
        }
        let mut best: Option<(f64, Block)> = None;
        for slot in slots() {
            for (wall, gap, rate, _) in both(slot) {
                let step = gap / rate;
                let better = best.is_none_or(|(most, _)| rate > most);
                if able(rate) && step <= reach && step < limit && better {
                    best = Some((rate, Block { slot, wall, step }));
                }
            }
        }
        best.map(|(_, block)| block)
    }

    fn advance(&mut self, y: &[f64], falling: f64, step: f64) {
        self.factor -= step * falling;
        for (slot, rate) in y.iter().enumerate() {
            if slot != self.factor_slot {
                self.values[self.members[slot]] += step * rate;
            }
        }
    }

    /// A basic coordinate settles on the wall it met.
    fn retire(&mut self, block: Block) {
        let i = self.members[block.slot];
        self.basic[i] = false;
        self.side[i] = block.wall;
    }

    /// Coordinate `j` goes to its other wall, `change` away at `g = 1`.
    fn cross(&mut self, j: usize, change: f64) -> bool {
        let (lower, upper) = (self.walls.lower()[j], self.walls.upper()[j]);
        self.side[j] = if change > 0.0 { upper } else { lower };
        self.y.iter_mut().for_each(|y| *y *= change);
        self.y[self.factor_slot] += 1.0;
        self.pivot(self.factor_slot)
    }

    /// Coordinate `j` becomes basic in the place of the one that blocks.
    fn replace(&mut self, block: Block, j: usize, sign: f64) -> bool {
        let (slot, side) = (block.slot, self.side[j]);
        self.values[j] = self.factor * side + sign * block.step;
        self.retire(block);
        self.basic[j] = true;
        self.members[slot] = j;
        self.inverse.add_row(slot, self.factor_slot, -block.wall);
        self.y[slot] -= block.wall * self.y[self.factor_slot];
        let sound = self.pivot(slot);
        self.inverse.add_row(slot, self.factor_slot, side);
        sound
    }

    fn pivot(&mut self, slot: usize) -> bool {
        let sound = self.y[slot] != 0.0;
        if sound {
            self.inverse.exchange(slot, &self.y);
        }
        sound
    }

    /// Factors the basis matrix; false if it is singular.
    fn refactor(&mut self) -> bool {
        let image = self.wall_image();
        let rank = self.members.len();
        let basis = Mat::from_fn(rank, rank, |i, slot| {
            if slot == self.factor_slot { image[i] } else { self.directions.column(self.members[slot])[i] }
        });
        self.inverse.refactor(basis)
    }

    /// Factors the basis matrix and recomputes all values; false if that fails
    /// or shows that the iterate had left the box.
    fn refresh(&mut self) -> bool {
        if !self.refactor() {
            return false;
        }
        let target = std::mem::take(&mut self.target);
        self.inverse.apply(&target, &mut self.y);
        self.target = target;
        self.factor = self.y[self.factor_slot].max(0.0);
        for slot in (0..self.members.len()).filter(|slot| *slot != self.factor_slot) {
            self.values[self.members[slot]] = self.y[slot];
        }
        let slack = 1e-9 * self.factor;
        (0..self.values.len()).filter(|i| self.basic[*i]).all(|i| {
            let (lower, upper) = (self.walls.lower()[i], self.walls.upper()[i]);
            let slack = slack * (upper - lower);
            let value = self.values[i];
            value >= self.factor * lower - slack && value <= self.factor * upper + slack
        })
    }

    fn solution(&self) -> (Vec<f64>, f64) {
        let value = |i: usize| {
            if self.basic[i] { self.values[i] } else { self.factor * self.side[i] }
        };
        ((0..self.values.len()).map(value).collect(), self.factor)
    }
}

#[cfg(test)]
#[path = "min_norm_tests.rs"]
mod tests;
