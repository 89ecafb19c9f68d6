//! The kernel walk: moves weights to walls without changing what they do.
//!
//! # Problem
//!
//! Given the data `X` (n x K), one neuron `w` and a box `lower <= w <= upper`,
//! find `z` with
//!
//! ```text
//! X z = X w,    lower <= z <= upper,    z_i on a wall for all but at most rank(X) indices
//! ```
//!
//! With walls at the two ends of the grid this is the pre-processing of Maly and
//! Saab; with walls at the two levels next to each weight it is the cell walk.
//!
//! # Shapes and units
//!
//! Everything in units of the weights. K coordinates, `r = rank(X)`.
//!
//! # Method
//!
//! | paper's idea | here |
//! |---|---|
//! | window of r + 1 dependent columns | `members` (r independent ones) and the entering column j |
//! | `b` with `X_window b = 0` | `-y` on the members, 1 on j; `y = B^-1 x_j` |
//! | move until one coordinate hits | [`Members::first_wall`], both directions, the nearer one |
//! | fix it, take the next column | j replaces the member that hit, or is itself fixed |
//!
//! The columns enter in ascending order; each enters once, so there are K - r
//! steps. They are known in advance: `B^-1` is applied to 32 of them at a time, and
//! the exchanges made meanwhile are added one by one ([`crate::walks::inverse`]).
//!
//! # Guarantee
//!
//! At the end only members can be off a wall, and they are independent: `z` is a
//! vertex of the polytope above, with at most r free coordinates. Coordinates
//! that hit are set to the wall's value, bit by bit.
//!
//! # Numerics
//!
//! `f64`. Among walls met within `1e-10` of the box's width the one with the
//! largest pivot is taken, the others are snapped; entries of `y` below `1e-9`
//! of the largest do not block. `B^-1` is refactored every 256 exchanges (less
//! than the exchanges themselves cost) or after a pivot below
//! `1e-7`; then, and at the end, the members are corrected by
//! `B^-1 X (w - z)`. A drift `|X (z - w)|` above `1e-9 |X w|` is corrected again
//! after refactoring.
//!
//! # Cost
//!
//! `2 (K - r) r min(r, K - r)` multiply-adds a neuron at most, nearly all in
//! matrix products, and `8 r min(r, K - r)` bytes.
//!
//! # Failure
//!
//! A basis that is singular to working precision, or a drift that stays above
//! `1e-6`, is an error; nothing is changed.
//!
//! # References
//!
//! J. Maly, R. Saab, *A simple approach for quantizing neural networks*, Applied
//! and Computational Harmonic Analysis 66 (2023) 138-150, arXiv 2209.03487.

use crate::error::QuantError;
use crate::walks::inverse::{BLOCK, Inverse};
use crate::walks::kernel::Directions;
use crate::walks::members::{Entering, Members};
use crate::walks::walls::Walls;

const REFACTOR_EVERY: usize = 256;
const POLISH_EVERY: usize = 256;
/// Smaller directions, relative to the largest, cannot block.
const NEGLIGIBLE: f64 = 1e-9;
const SMALL_PIVOT: f64 = 1e-7;
const DRIFT_GOAL: f64 = 1e-9;
const DRIFT_LIMIT: f64 = 1e-6;

/// How a walk keeps its basis.
#[derive(Clone, Copy, Debug)]
pub struct WalkOptions {
    /// Exchanges between two factorizations; 1 factors anew every time.
    pub refactor_every: usize,
}

impl Default for WalkOptions {
    fn default() -> WalkOptions {
        WalkOptions { refactor_every: REFACTOR_EVERY }
    }
}

/// Where a walk ended.
#[derive(Clone, Debug)]
pub struct Walked {
    /// The weights, K.
    pub values: Vec<f64>,
    /// The r coordinates that may be off their walls.
    pub members: Vec<usize>,
    /// How many basis exchanges it took.
    pub exchanges: usize,
}

impl Directions {
    /// Walks from `start` inside `walls`; a start outside is moved to the
    /// nearest wall first, and it is that point whose image is kept.
    pub fn walk(&self, start: &[f64], walls: &Walls, options: WalkOptions) -> Result<Walked, QuantError> {
        if start.len() != self.inputs() || walls.lower().len() != self.inputs() {
            return Err(QuantError::Shape {
                what: "start of a walk",
                found: vec![start.len(), walls.lower().len()],
                expected: format!("{} coordinates and as many walls", self.inputs()),
            });
        }
        Walk::new(self, start, walls, options).run()
    }
}

struct Walk<'a> {
    directions: &'a Directions,
    walls: &'a Walls,
    options: WalkOptions,
    start: Vec<f64>,
    /// `X start`, in the length of which drift is measured.
    image_norm: f64,
    /// Those of members stand in `members` until they are [put down](Walk::put_down).
    values: Vec<f64>,
    members: Members,
    inverse: Inverse,
    y: Vec<f64>,
    exchanges: usize,
}

impl<'a> Walk<'a> {
    fn new(directions: &'a Directions, start: &[f64], walls: &'a Walls, options: WalkOptions) -> Walk<'a> {
        let clamp = |(i, value): (usize, &f64)| walls.clamp(i, *value);
        let start: Vec<f64> = start.iter().enumerate().map(clamp).collect();
        let rank = directions.rank();
        Walk {
            directions,
            walls,
            options,
            image_norm: directions.norm(&start),
            values: start.clone(),
            members: Members::new(directions.basis(), &start, walls),
            start,
            inverse: Inverse::identity(rank),
            y: vec![0.0; rank],
            exchanges: 0,
        }
    }

    fn run(mut self) -> Result<Walked, QuantError> {
        let mut entering = vec![true; self.values.len()];
        for member in self.directions.basis() {
            entering[*member] = false;
        }
        let free = |j: &usize| entering[*j] && !self.walls.touched(*j, self.values[*j]);
        let entering: Vec<usize> = (0..self.values.len()).filter(free).collect();
        for block in entering.chunks(BLOCK) {
            let columns: Vec<&[f64]> = block.iter().map(|j| self.directions.column(*j)).collect();
            let prepared = self.inverse.prepare(&columns);
            for (index, j) in block.iter().enumerate() {
                if !self.inverse.finish(&prepared, index, &mut self.y) {
                    self.inverse.apply(columns[index], &mut self.y);
                }
                self.enter(*j)?;
            }
        }
        self.settle()?;
        Ok(Walked { values: self.values, members: self.members.into_indices(), exchanges: self.exchanges })
    }

    /// Moves along the kernel direction of column `j`, of which `y = B^-1 x_j`, until something is fixed.
    fn enter(&mut self, j: usize) -> Result<(), QuantError> {
        let negligible = NEGLIGIBLE * self.y.iter().fold(1.0f64, |most, y| most.max(y.abs()));
        let entering = Entering::new(j, self.values[j], self.walls);
        let up = self.members.first_wall(&self.y, &entering, 1.0, negligible);
        let down = self.members.first_wall(&self.y, &entering, -1.0, negligible);
        let hit = if -down.step < up.step { down } else { up };
        self.members.move_by(-hit.step, &self.y);
        let wall = |walls: &Walls, i: usize, motion: f64| {
            if motion > 0.0 { walls.upper()[i] } else { walls.lower()[i] }
        };
        let Some(slot) = hit.slot else {
            self.values[j] = wall(self.walls, j, hit.step);
            return Ok(());
        };
        let member = self.members.index(slot);
        let sign = 1f64.copysign(hit.step);
        self.values[member] = wall(self.walls, member, -sign * self.y[slot]);
        self.values[j] = self.walls.clamp(j, self.values[j] + hit.step);
        self.exchange(slot, j)
    }

    /// Column `j` takes the place of member `slot`.
    fn exchange(&mut self, slot: usize, j: usize) -> Result<(), QuantError> {
        self.members.replace(slot, j, self.values[j], self.walls);
        self.exchanges += 1;
        let largest = self.y.iter().fold(0.0f64, |largest, y| largest.max(y.abs()));
        self.inverse.exchange(slot, &self.y);
        let poor = self.y[slot].abs() < SMALL_PIVOT * largest;
        if poor || self.inverse.exchanges() >= self.options.refactor_every {
            self.refactor()?;
        }
        if self.exchanges.is_multiple_of(POLISH_EVERY) {
            self.polish();
        }
        Ok(())
    }

    fn refactor(&mut self) -> Result<(), QuantError> {
        let rank = self.directions.rank();
        if self.inverse.refactor(|i, slot| self.directions.column(self.members.index(slot))[i]) {
            return Ok(());
        }
        Err(QuantError::Factorization {
            matrix: "basis of the kernel walk",
            reason: format!("its {rank} columns are dependent to working precision"),
        })
    }

    /// Writes the members' values into all.
    fn put_down(&mut self) {
        for (i, value) in self.members.values() {
            self.values[i] = value;
        }
    }

    /// Moves the members so that `X z = X w` holds again.
    fn polish(&mut self) {
        self.put_down();
        let moved: Vec<f64> = self.start.iter().zip(&self.values).map(|(w, z)| w - z).collect();
        let lost = self.directions.image(&moved);
        self.inverse.apply(&lost, &mut self.y);
        let walls = self.walls;
        for (correction, (i, value)) in self.y.iter().zip(self.members.values_mut()) {
            if !walls.touched(i, *value) {
                *value = walls.clamp(i, *value + correction);
            }
        }
        self.put_down();
    }

    /// Corrects what drifted, snaps, and checks.
    fn settle(&mut self) -> Result<(), QuantError> {
        self.polish();
        if self.drift() > DRIFT_GOAL && self.directions.rank() > 0 {
            self.refactor()?;
            self.polish();
        }
        for (i, value) in self.members.values_mut() {
            *value = self.walls.snapped(i, *value);
        }
        self.put_down();
        let drift = self.drift();
        if drift <= DRIFT_LIMIT {
            return Ok(());
        }
        Err(QuantError::Factorization {
            matrix: "basis of the kernel walk",
            reason: format!("the walk changed the layer's output by {drift:.1e} of its norm"),
        })
    }

    /// `|X (z - w)| / |X w|`.
    fn drift(&self) -> f64 {
        let moved: Vec<f64> = self.values.iter().zip(&self.start).map(|(z, w)| z - w).collect();
        let norm = |v: &[f64]| v.iter().map(|x| x * x).sum::<f64>().sqrt();
        // `X w` may vanish; then rounding is judged against the size of the factors.
        let noise = f64::EPSILON * self.directions.size() * (norm(&self.start) + norm(&self.values));
        let drift = self.directions.norm(&moved);
        drift / (self.image_norm + noise / DRIFT_GOAL).max(f64::MIN_POSITIVE)
    }
}

#[cfg(test)]
#[path = "walk_tests.rs"]
mod tests;
