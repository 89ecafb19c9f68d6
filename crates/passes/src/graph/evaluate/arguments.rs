//! What an operator reads.

use onnxquant_ir::{Node, ValueId};

use super::constant::Constant;

/// Where the constants are.
pub(crate) trait Values {
    /// The constant that a value is.
    fn constant(&self, value: ValueId) -> Option<Constant>;

    /// Its shape, which may be known where the constant is too large to be read.
    fn shape(&self, value: ValueId) -> Option<Vec<usize>>;
}

/// Computes the only result of an operator.
pub(super) type Operator = fn(&Arguments<'_>) -> Option<Constant>;

/// A node and what it may read and make.
pub(super) struct Arguments<'a> {
    pub(super) node: &'a Node,
    pub(super) values: &'a dyn Values,
    pub(super) max_elements: usize,
}

impl Arguments<'_> {
    pub(super) fn given(&self, slot: usize) -> bool {
        self.node.input(slot).is_some()
    }

    pub(super) fn at(&self, slot: usize) -> Option<Constant> {
        self.values.constant(self.node.input(slot)?)
    }

    /// The integers of a tensor of one dimension.
    pub(super) fn list(&self, slot: usize) -> Option<Vec<i64>> {
        self.at(slot).filter(|tensor| tensor.shape().len() == 1)?.integers()
    }

    /// The only integer of a tensor.
    pub(super) fn integer(&self, slot: usize) -> Option<i64> {
        match self.at(slot)?.integers()?[..] {
            [integer] => Some(integer),
            _ => None,
        }
    }

    /// A list that is an attribute in some versions of the operator and input `slot` in others.
    ///
    /// `None` where it is there and no constant, `Some(None)` where it is left out.
    pub(super) fn option(&self, name: &str, slot: usize) -> Option<Option<Vec<i64>>> {
        match self.node.ints(name) {
            Some(list) => Some(Some(list.to_vec())),
            None if self.given(slot) => self.list(slot).map(Some),
            None => Some(None),
        }
    }

    /// The number of elements of a tensor that may be made.
    pub(super) fn allowed(&self, shape: &[usize]) -> Option<usize> {
        let count = shape.iter().try_fold(1usize, |count, &dim| count.checked_mul(dim))?;
        (count <= self.max_elements).then_some(count)
    }
}

/// The shape to which two tensors are broadcast together.
pub(super) fn broadcast(a: &[usize], b: &[usize]) -> Option<Vec<usize>> {
    let rank = a.len().max(b.len());
    let dim = |shape: &[usize], index: usize| (index + shape.len()).checked_sub(rank).map_or(1, |index| shape[index]);
    let joint = |index| match (dim(a, index), dim(b, index)) {
        (a, b) if a == b || b == 1 => Some(a),
        (1, b) => Some(b),
        _ => None,
    };
    (0..rank).map(joint).collect()
}
