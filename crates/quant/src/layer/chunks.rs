//! Which rows of a layer are formed, and how many at a time.

/// How the rows of an input are divided, and which of them are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chunks {
    /// Most rows of a chunk.
    rows: usize,
    /// One of so many chunks is taken.
    every: usize,
    /// The first that is.
    first: usize,
}

impl Chunks {
    /// All rows, `rows` (at least one) at a time.
    pub fn all(rows: usize) -> Self {
        Self { rows: rows.max(1), every: 1, first: 0 }
    }

    /// Of every `every` chunks that with the number `phase`, which is taken modulo `every`.
    pub fn one_of(self, every: usize, phase: usize) -> Self {
        let every = every.max(1);
        Self { every, first: phase % every, ..self }
    }

    /// Most rows of a chunk.
    pub(crate) fn rows(self) -> usize {
        self.rows
    }

    /// The chunks to take, of all those there are.
    pub(crate) fn taken<T>(self, all: impl Iterator<Item = T>) -> impl Iterator<Item = T> {
        all.skip(self.first).step_by(self.every)
    }
}
