//! The members of a walk's basis: where they stand, and which of them meets a wall first.
//!
//! # Method
//!
//! What the search asks of each member lies side by side, by slot. It goes over pieces of [`PIECE`] slots: whether any of a
//! piece can change what was found so far is asked in vectors, for all of them at once; only where one can are they
//! looked at one by one. What was found so far only falls (the reach) or rises (the rate), so that a piece that could
//! change nothing when it began cannot later: the result is that of the plain loop, bit by bit.

use faer::traits::pulp::{Arch, Simd, WithSimd};

use crate::walks::walls::Walls;

/// Walls nearer than this fraction of the box's width count as met together.
const TOGETHER: f64 = 1e-10;
/// Slots asked at once.
const PIECE: usize = 32;

/// The members, by slot; numbers are filled up with zeros to whole pieces.
#[derive(Clone, Debug)]
pub(crate) struct Members {
    indices: Vec<usize>,
    values: Vec<f64>,
    lower: Vec<f64>,
    upper: Vec<f64>,
    /// How far beyond its wall each still counts as at it.
    slack: Vec<f64>,
}

/// The coordinate that enters.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entering {
    value: f64,
    lower: f64,
    upper: f64,
    slack: f64,
}

/// The first wall met in one direction.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Hit {
    /// Signed step of the entering coordinate.
    pub(crate) step: f64,
    /// Slot of the member that hits, or `None` for the entering coordinate.
    pub(crate) slot: Option<usize>,
}

impl Entering {
    /// Coordinate `j`, which stands at `value`.
    pub(crate) fn new(j: usize, value: f64, walls: &Walls) -> Entering {
        Entering { value, lower: walls.lower()[j], upper: walls.upper()[j], slack: slack(walls, j) }
    }
}

fn slack(walls: &Walls, i: usize) -> f64 {
    TOGETHER * walls.width(i)
}

impl Members {
    /// These coordinates, with their values among all.
    pub(crate) fn new(indices: &[usize], values: &[f64], walls: &Walls) -> Members {
        let of = |number: &dyn Fn(usize) -> f64| {
            let mut numbers: Vec<f64> = indices.iter().map(|i| number(*i)).collect();
            numbers.resize(indices.len().next_multiple_of(PIECE), 0.0);
            numbers
        };
        Members {
            indices: indices.to_vec(),
            values: of(&|i| values[i]),
            lower: of(&|i| walls.lower()[i]),
            upper: of(&|i| walls.upper()[i]),
            slack: of(&|i| slack(walls, i)),
        }
    }

    /// The coordinate in a slot.
    pub(crate) fn index(&self, slot: usize) -> usize {
        self.indices[slot]
    }

    /// The coordinates, by slot.
    pub(crate) fn into_indices(self) -> Vec<usize> {
        self.indices
    }

    /// Every coordinate and its value.
    pub(crate) fn values(&self) -> impl Iterator<Item = (usize, f64)> {
        self.indices.iter().copied().zip(self.values.iter().copied())
    }

    /// The same, to be changed.
    pub(crate) fn values_mut(&mut self) -> impl Iterator<Item = (usize, &mut f64)> {
        self.indices.iter().copied().zip(&mut self.values)
    }

    /// Puts coordinate `j` with its value into a slot.
    pub(crate) fn replace(&mut self, slot: usize, j: usize, value: f64, walls: &Walls) {
        self.indices[slot] = j;
        self.values[slot] = value;
        self.lower[slot] = walls.lower()[j];
        self.upper[slot] = walls.upper()[j];
        self.slack[slot] = slack(walls, j);
    }

    /// Moves each by `factor` times its rate `y`, no further than to its walls.
    pub(crate) fn move_by(&mut self, factor: f64, y: &[f64]) {
        let Members { values, lower, upper, .. } = self;
        Arch::new().dispatch(Move { values, lower, upper, factor, y });
    }

    /// The first wall when the entering coordinate moves in direction `sign` and the members against it, each at its
    /// rate `y`. Members whose rate is below `negligible` do not block.
    pub(crate) fn first_wall(&self, y: &[f64], entering: &Entering, sign: f64, negligible: f64) -> Hit {
        Arch::new().dispatch(Search { members: self, y, entering, sign, negligible })
    }

    /// How far the member in a slot may move in the direction of `motion`.
    #[inline(always)]
    fn gap(&self, slot: usize, motion: f64) -> f64 {
        gap(self.values[slot], self.lower[slot], self.upper[slot], motion)
    }
}

#[inline(always)]
fn gap(value: f64, lower: f64, upper: f64, motion: f64) -> f64 {
    if motion > 0.0 { upper - value } else { value - lower }
}

struct Move<'a> {
    values: &'a mut [f64],
    lower: &'a [f64],
    upper: &'a [f64],
    factor: f64,
    y: &'a [f64],
}

impl WithSimd for Move<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let Move { values, lower, upper, factor, y } = self;
        for (((value, lower), upper), y) in values.iter_mut().zip(lower).zip(upper).zip(y) {
            let mut moved = *value + factor * y;
            moved = if moved < *lower { *lower } else { moved };
            moved = if moved > *upper { *upper } else { moved };
            *value = moved;
        }
    }
}

struct Search<'a> {
    members: &'a Members,
    y: &'a [f64],
    entering: &'a Entering,
    sign: f64,
    negligible: f64,
}

impl WithSimd for Search<'_> {
    type Output = Hit;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> Hit {
        let Entering { value, lower, upper, slack } = *self.entering;
        let own = gap(value, lower, upper, self.sign);
        let mut reach = own + slack;
        self.pieces(|piece| {
            // Whether the member blocks before `reach`.
            let nearer = |piece: &Piece<'_>, at: usize, reach: f64| {
                let rate = piece.y[at].abs();
                (rate > self.negligible) & (piece.gap(at, self.sign) + piece.slack[at] < reach * rate)
            };
            if piece.any(|at| nearer(&piece, at, reach)) {
                for at in 0..PIECE {
                    if nearer(&piece, at, reach) {
                        reach = (piece.gap(at, self.sign) + piece.slack[at]) / piece.y[at].abs();
                    }
                }
            }
        });
        let (mut rate, mut slot) = (if own <= reach { 1.0 } else { 0.0f64 }, None);
        self.pieces(|piece| {
            // Whether the member is at a wall within `reach`, at a larger rate.
            let faster = |piece: &Piece<'_>, at: usize, rate: f64| {
                let own = piece.y[at].abs();
                (own > rate.max(self.negligible)) & (piece.gap(at, self.sign) <= reach * own)
            };
            if piece.any(|at| faster(&piece, at, rate)) {
                for at in 0..PIECE {
                    if faster(&piece, at, rate) {
                        (rate, slot) = (piece.y[at].abs(), Some(piece.first + at));
                    }
                }
            }
        });
        let first = slot.map_or(own, |slot| self.members.gap(slot, -self.sign * self.y[slot]) / rate);
        Hit { step: self.sign * first, slot }
    }
}

fn pieces(numbers: &[f64]) -> &[[f64; PIECE]] {
    numbers.as_chunks().0
}

/// Slots side by side; behind the last member nothing that could block.
struct Piece<'a> {
    first: usize,
    y: [f64; PIECE],
    values: &'a [f64; PIECE],
    lower: &'a [f64; PIECE],
    upper: &'a [f64; PIECE],
    slack: &'a [f64; PIECE],
}

impl Piece<'_> {
    #[inline(always)]
    fn gap(&self, at: usize, sign: f64) -> f64 {
        gap(self.values[at], self.lower[at], self.upper[at], -sign * self.y[at])
    }

    /// Without a way out before the end, so that it is done in vectors.
    #[inline(always)]
    fn any(&self, holds: impl Fn(usize) -> bool) -> bool {
        (0..PIECE).fold(false, |any, at| any | holds(at))
    }
}

impl Search<'_> {
    #[inline(always)]
    fn pieces(&self, mut visit: impl FnMut(Piece<'_>)) {
        let Members { values, lower, upper, slack, .. } = self.members;
        let walls = pieces(lower).iter().zip(pieces(upper)).zip(pieces(slack));
        for ((index, values), ((lower, upper), slack)) in pieces(values).iter().enumerate().zip(walls) {
            let first = index * PIECE;
            let of_members = &self.y[first..self.y.len().min(first + PIECE)];
            let mut y = [0.0; PIECE];
            y[..of_members.len()].copy_from_slice(of_members);
            visit(Piece { first, y, values, lower, upper, slack });
        }
    }
}
