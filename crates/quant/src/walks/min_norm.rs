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
//! The dual is a regression in r unknowns in the sum of absolute values: with
//! `t = X w` and `v = X^T y`,
//!
//! ```text
//! minimise sum_j max(upper_j v_j, lower_j v_j)    subject to    t^T y = 1
//! ```
//!
//! and its minimum is `1 / g`. At a vertex `r - 1` coordinates (the members) have
//! `v_j = 0`. Dropping member i opens two edges, along plus and minus row i of the
//! inverse of `B = [x_members, t]`; their slopes follow from `q = B^-1 a`, where
//! `a` sums `x_j` times the wall that the sign of `v_j` selects. The steepest falling edge
//! is followed to its very minimum, across all breakpoints at which some `v_j`
//! changes sign, and the coordinate that stops it becomes a member: one
//! rank-one update. No falling edge: optimal, and `g = 1 / q_t`, `z = -g q` on the
//! members, `g` times the selected wall elsewhere.
//!
//! # Guarantee
//!
//! At the optimum at most `rank(X) - 1` coordinates are off their walls.
//!
//! # Numerics
//!
//! `f64`. Slopes count as falling beyond `1e-9` of the widest box. `B` is
//! refactored every 64 exchanges and before the solution is read off, which is
//! then checked against the box.
//!
//! # Cost
//!
//! O(K (r + log K)) a step, a few times r steps.
//!
//! # Failure
//!
//! None: if the optimum is not reached in `50 (r + 10)` steps, or fails the
//! check, the start is returned with g = 1, which is always feasible.
//!
//! # References
//!
//! I. Barrodale, F. D. K. Roberts, *An improved algorithm for discrete l1 linear
//! approximation*, SIAM J. Numer. Anal. 10 (1973): the long step.

use crate::walks::inverse::Inverse;
use crate::walks::kernel::Directions;
use crate::walks::walls::Walls;

const REFACTOR_EVERY: usize = 64;
/// Slopes, relative to the widest box, that count as falling.
const FALLING: f64 = 1e-9;
/// Relative to the largest, changes of `v` too small to pivot on.
const NEGLIGIBLE: f64 = 1e-10;
/// How far outside its box, in widths, a solution may lie by rounding.
const SLACK: f64 = 1e-8;

/// A solution and its factor `g` on the walls.
pub(crate) fn shrink(directions: &Directions, start: &[f64], walls: &Walls) -> (Vec<f64>, f64) {
    let unchanged = || (start.to_vec(), 1.0);
    let target = directions.image(start);
    let slot = (0..target.len()).max_by(|i, j| target[*i].abs().total_cmp(&target[*j].abs()));
    let Some(slot) = slot.filter(|slot| target[*slot] != 0.0) else {
        return (vec![0.0; start.len()], 0.0);
    };
    let mut dual = Dual::new(directions, walls, target, slot);
    for _ in 0..50 * (directions.rank() + 10) {
        if dual.inverse.exchanges() >= REFACTOR_EVERY && !dual.refresh() {
            return unchanged();
        }
        let Some(edge) = dual.steepest() else {
            return dual.solution().unwrap_or_else(unchanged);
        };
        if !dual.descend(edge) {
            return unchanged();
        }
    }
    unchanged()
}

struct Dual<'a> {
    directions: &'a Directions,
    walls: &'a Walls,
    /// `t = X w`, in the basis of `directions`.
    target: Vec<f64>,
    /// Member of every slot; that of `target_slot` is void.
    members: Vec<usize>,
    target_slot: usize,
    member: Vec<bool>,
    inverse: Inverse,
    /// `v = X^T y`.
    v: Vec<f64>,
    /// The wall that the sign of `v_j` selects.
    side: Vec<f64>,
    /// Sum of `side_j x_j` over all but the members.
    image: Vec<f64>,
    /// `B^-1 image`.
    q: Vec<f64>,
}

/// An edge that leads down: the member that is dropped, and which way.
#[derive(Clone, Copy)]
struct Edge {
    slot: usize,
    sign: f64,
    slope: f64,
}

impl<'a> Dual<'a> {
    /// The vertex at which all unit columns but the one of `slot` are members.
    fn new(directions: &'a Directions, walls: &'a Walls, target: Vec<f64>, slot: usize) -> Dual<'a> {
        let (rank, k) = (directions.rank(), directions.inputs());
        let members = directions.basis().to_vec();
        let mut member = vec![false; k];
        members.iter().for_each(|i| member[*i] = true);
        member[members[slot]] = false;
        let mut inverse = Inverse::identity(rank);
        inverse.exchange(slot, &target);
        let mut dual = Dual {
            directions,
            walls,
            target,
            members,
            target_slot: slot,
            member,
            inverse,
            v: Vec::new(),
            side: vec![0.0; k],
            image: Vec::new(),
            q: vec![0.0; rank],
        };
        dual.recompute();
        dual
    }

    /// `X^T` times a row of the inverse.
    fn products(&self, slot: usize) -> Vec<f64> {
        let mut row = vec![0.0; self.members.len()];
        self.inverse.copy_row(slot, &mut row);
        (0..self.side.len()).map(|j| dot(&row, self.directions.column(j))).collect()
    }

    fn selected(&self, j: usize) -> f64 {
        if self.v[j] > 0.0 { self.walls.upper()[j] } else { self.walls.lower()[j] }
    }

    /// Everything that follows from members and inverse.
    fn recompute(&mut self) {
        self.v = self.products(self.target_slot);
        for j in 0..self.v.len() {
            if self.member[j] {
                self.v[j] = 0.0;
                self.side[j] = 0.0;
            } else {
                self.side[j] = self.selected(j);
            }
        }
        self.image = self.directions.image(&self.side);
    }

    /// Factors the basis matrix anew; false if it is singular.
    fn refresh(&mut self) -> bool {
        let (target, target_slot, members) = (&self.target, self.target_slot, &self.members);
        let sound = self
            .inverse
            .refactor(|i, slot| if slot == target_slot { target[i] } else { self.directions.column(members[slot])[i] });
        if sound {
            self.recompute();
        }
        sound
    }

    /// The edge along which the objective falls most.
    fn steepest(&mut self) -> Option<Edge> {
        self.inverse.apply(&self.image, &mut self.q);
        let width = |i: usize| self.walls.upper()[i] - self.walls.lower()[i];
        let widest = (0..self.v.len()).fold(0.0f64, |widest, i| widest.max(width(i)));
        let mut best: Option<Edge> = None;
        for slot in (0..self.members.len()).filter(|slot| *slot != self.target_slot) {
            let i = self.members[slot];
            let up = self.q[slot] + self.walls.upper()[i];
            let down = -self.q[slot] - self.walls.lower()[i];
            let (sign, slope) = if up < down { (1.0, up) } else { (-1.0, down) };
            if slope < best.map_or(-FALLING * widest, |edge| edge.slope) {
                best = Some(Edge { slot, sign, slope });
            }
        }
        best
    }

    /// Follows `edge` to its minimum; false if there is none.
    fn descend(&mut self, edge: Edge) -> bool {
        let mut change = self.products(edge.slot);
        change.iter_mut().for_each(|u| *u *= edge.sign);
        let largest = change.iter().fold(0.0f64, |largest, u| largest.max(u.abs()));
        let leaving = self.members[edge.slot];
        let crosses = |j: &usize| {
            let towards = change[*j] * (self.side[*j] - self.opposite(*j));
            !self.member[*j] && change[*j].abs() > NEGLIGIBLE * largest && towards < 0.0
        };
        let mut breaks: Vec<(f64, usize)> =
            (0..self.v.len()).filter(crosses).map(|j| ((-self.v[j] / change[j]).max(0.0), j)).collect();
        breaks.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        let mut slope = edge.slope;
        let stop = breaks.iter().position(|(_, j)| {
            slope += change[*j].abs() * (self.side[*j] - self.opposite(*j)).abs();
            slope >= 0.0
        });
        let Some(stop) = stop else {
            return false;
        };
        let (step, entering) = breaks[stop];
        for (_, j) in &breaks[..stop] {
            self.turn(*j, self.opposite(*j));
        }
        for (v, u) in self.v.iter_mut().zip(&change) {
            *v += step * u;
        }
        self.replace(edge, leaving, entering)
    }

    fn replace(&mut self, edge: Edge, leaving: usize, entering: usize) -> bool {
        self.turn(entering, 0.0);
        let side = if edge.sign > 0.0 { self.walls.upper() } else { self.walls.lower() }[leaving];
        self.turn(leaving, side);
        (self.member[leaving], self.member[entering]) = (false, true);
        self.members[edge.slot] = entering;
        for (slot, member) in self.members.iter().enumerate() {
            if slot != self.target_slot {
                self.v[*member] = 0.0;
            }
        }
        self.inverse.apply(self.directions.column(entering), &mut self.q);
        let sound = self.q[edge.slot] != 0.0;
        if sound {
            self.inverse.exchange(edge.slot, &self.q);
        }
        sound
    }

    fn opposite(&self, j: usize) -> f64 {
        let (lower, upper) = (self.walls.lower()[j], self.walls.upper()[j]);
        if self.side[j] == upper { lower } else { upper }
    }

    /// Coordinate `j` selects another wall.
    fn turn(&mut self, j: usize, side: f64) {
        let change = side - self.side[j];
        for (sum, x) in self.image.iter_mut().zip(self.directions.column(j)) {
            *sum += change * x;
        }
        self.side[j] = side;
    }

    /// The primal solution that belongs to this vertex, if it is inside the box.
    fn solution(mut self) -> Option<(Vec<f64>, f64)> {
        if !self.refresh() {
            return None;
        }
        self.inverse.apply(&self.image, &mut self.q);
        let factor = 1.0 / self.q[self.target_slot];
        let mut values: Vec<f64> = self.side.iter().map(|side| factor * side).collect();
        for slot in (0..self.members.len()).filter(|slot| *slot != self.target_slot) {
            let i = self.members[slot];
            let (lower, upper) = (self.walls.lower()[i], self.walls.upper()[i]);
            let slack = SLACK * (upper - lower);
            let relative = -self.q[slot];
            if !(lower - slack..=upper + slack).contains(&relative) {
                return None;
            }
            values[i] = factor * relative.clamp(lower, upper);
        }
        (factor > 0.0 && factor <= 1.0 + SLACK).then_some((values, factor.min(1.0)))
    }
}

/// With four independent sums, so that additions need not wait for each other.
fn dot(a: &[f64], b: &[f64]) -> f64 {
    let (mut quads_a, mut quads_b) = (a.chunks_exact(4), b.chunks_exact(4));
    let mut sums = [0.0; 4];
    for (a, b) in (&mut quads_a).zip(&mut quads_b) {
        for (sum, (a, b)) in sums.iter_mut().zip(a.iter().zip(b)) {
            *sum += a * b;
        }
    }
    let rest = quads_a.remainder().iter().zip(quads_b.remainder());
    sums.iter().sum::<f64>() + rest.map(|(a, b)| a * b).sum::<f64>()
}

#[cfg(test)]
#[path = "min_norm_tests.rs"]
mod tests;
