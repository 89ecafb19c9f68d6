//! Finds the constant behind a value, through the nodes that exporters put in between.
//!
//! Followed are `Identity`, `Cast` between float types, `Transpose`, and the pure changes of shape
//! `Reshape`, `Flatten`, `Squeeze` and `Unsqueeze` with constant arguments. A chain is followed without computing
//! anything; its numbers are computed when they are asked for, element by element from the initializer to the result, so
//! that nothing lies in memory beside these two. The graph is not changed.

mod elements;

use onnxquant_ir::onnx::TensorProto;
use onnxquant_ir::onnx::tensor_proto::DataType;
use onnxquant_ir::{Graph, Node, Origin, Use, ValueId, tensor};
use onnxquant_proto::data_type_bits;

use elements::{Step, computed};

/// Longest chain followed.
const MAX_LINKS: usize = 16;

/// A constant tensor and where its numbers come from.
#[derive(Clone, Debug)]
pub struct Resolved {
    /// The tensor as the last node of the chain would make it.
    pub tensor: TensorProto,
    /// The initializer at the start of the chain.
    pub source: ValueId,
}

/// What is known of a constant without its numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Declared {
    /// The type of its elements.
    pub dtype: DataType,
    /// Its shape.
    pub shape: Vec<usize>,
}

/// A chain from an initializer to a value.
#[derive(Clone, Debug, PartialEq)]
struct Chain {
    source: ValueId,
    dtype: DataType,
    dims: Vec<i64>,
    /// What is done to the elements, from the initializer on.
    steps: Vec<Step>,
}

/// The initializer at the start of the chain that ends in `value`, without computing anything.
pub fn source(graph: &Graph, value: ValueId) -> Option<ValueId> {
    let mut value = value;
    for _ in 0..MAX_LINKS {
        match graph.value(value).origin() {
            Origin::Constant | Origin::Overridable => return Some(value),
            Origin::Input => return None,
            Origin::Output(node, _) => value = Some(graph.node(node)).filter(|node| is_link(node))?.input(0)?,
        }
    }
    None
}

/// Who reads the constant `source`, each with the value that it reads: at the ends of all chains that begin there.
pub(crate) fn readers(graph: &Graph, source: ValueId) -> Vec<(ValueId, Use)> {
    let (mut found, mut values) = (Vec::new(), vec![source]);
    while let Some(value) = values.pop() {
        for &user in graph.value(value).uses() {
            let made = match user {
                Use::Input(node, 0) => graph.node(node).output(0),
                _ => None,
            };
            match made.filter(|&made| self::source(graph, made) == Some(source)) {
                Some(made) => values.push(made),
                None => found.push((value, user)),
            }
        }
    }
    found
}

/// Whether `value` is the matrix at the start of its chain the other way round; `None` where it is neither that nor the
/// matrix itself.
pub(crate) fn is_turned(graph: &Graph, value: ValueId) -> Option<bool> {
    let chain = follow(graph, value, MAX_LINKS)?;
    let mut dims = sizes(&graph.value(chain.source).constant()?.dims).filter(|dims| dims.len() == 2)?;
    let mut turned = false;
    for step in &chain.steps {
        let perm = step.permutation_of(&dims)?;
        if perm == [1, 0] {
            dims.reverse();
            turned = !turned;
        }
    }
    (sizes(&chain.dims)? == dims).then_some(turned)
}

/// The value that the chain which ends in `value` starts with, a constant or not.
pub(crate) fn start(graph: &Graph, value: ValueId) -> ValueId {
    let before = |value: &ValueId| graph.producer(*value).filter(|(_, node)| is_link(node))?.1.input(0);
    std::iter::successors(Some(value), before).take(MAX_LINKS + 1).last().unwrap_or(value)
}

/// The constant behind `value`; `None` when it is no constant or the chain holds another operator.
pub fn resolve(graph: &Graph, value: ValueId) -> Option<Resolved> {
    let chain = follow(graph, value, MAX_LINKS)?;
    let tensor = chain.tensor(graph)?;
    Some(Resolved { tensor, source: chain.source })
}

/// Type and shape of the constant behind `value`, without computing it.
pub fn declared(graph: &Graph, value: ValueId) -> Option<Declared> {
    let Chain { dtype, dims, .. } = follow(graph, value, MAX_LINKS)?;
    Some(Declared { dtype, shape: sizes(&dims)? })
}

/// Whether the constants behind two values are the same numbers.
pub fn same_numbers(graph: &Graph, a: ValueId, b: ValueId) -> bool {
    let chains = follow(graph, a, MAX_LINKS).zip(follow(graph, b, MAX_LINKS));
    let numbers = |chain: &Chain| Some((chain.dtype, chain.tensor(graph)?.raw_data?));
    chains.is_some_and(|(a, b)| a == b || (a.dims == b.dims && numbers(&a).is_some_and(|a| Some(a) == numbers(&b))))
}

fn is_link(node: &Node) -> bool {
    node.domain().is_empty() && is_link_type(node.op_type())
}

/// Whether chains lead through this operator of the default domain.
pub(crate) fn is_link_type(op_type: &str) -> bool {
    ["Identity", "Cast", "Transpose", "Reshape", "Flatten", "Squeeze", "Unsqueeze"].contains(&op_type)
}

fn follow(graph: &Graph, value: ValueId, links: usize) -> Option<Chain> {
    if let Some(tensor) = graph.value(value).constant() {
        let dtype = tensor::data_type(tensor).ok()?;
        return Some(Chain { source: value, dtype, dims: tensor.dims.clone(), steps: Vec::new() });
    }
    let (_, node) = graph.producer(value).filter(|(_, node)| is_link(node))?;
    let chain = follow(graph, node.input(0)?, links.checked_sub(1)?)?;
    let argument = |slot| graph.value(node.input(slot)?).constant().and_then(|tensor| tensor::to_i64(tensor).ok());
    let axes = || node.ints("axes").map(<[i64]>::to_vec).or_else(|| argument(1));
    let has_axes = node.attribute("axes").is_some() || node.input(1).is_some();
    match node.op_type() {
        "Identity" => Some(chain),
        "Cast" => chain.cast(DataType::try_from(i32::try_from(node.int("to", 0)).ok()?).ok()?),
        "Transpose" => chain.transposed(node.ints("perm")),
        "Reshape" => chain.shaped(|dims| reshaped(dims, &argument(1)?, node.int("allowzero", 0) != 0)),
        "Flatten" => chain.shaped(|dims| flattened(dims, node.int("axis", 1))),
        "Squeeze" if has_axes => chain.shaped(|dims| squeezed(dims, Some(&axes()?))),
        "Squeeze" => chain.shaped(|dims| squeezed(dims, None)),
        "Unsqueeze" => chain.shaped(|dims| unsqueezed(dims, &axes()?)),
        _ => None,
    }
}

impl Chain {
    fn cast(mut self, to: DataType) -> Option<Self> {
        if self.dtype != to {
            let is_float =
                |dtype| matches!(dtype, DataType::Float | DataType::Float16 | DataType::Bfloat16 | DataType::Double);
            (is_float(self.dtype) && is_float(to)).then_some(())?;
            self.steps.push(Step::Cast(to));
            self.dtype = to;
        }
        Some(self)
    }

    fn transposed(mut self, perm: Option<&[i64]>) -> Option<Self> {
        data_type_bits(self.dtype).filter(|bits| bits % 8 == 0)?;
        let (shape, perm) = (sizes(&self.dims)?, permutation(perm, self.dims.len())?);
        self.dims = perm.iter().map(|&axis| self.dims.get(axis).copied()).collect::<Option<_>>()?;
        self.steps.push(Step::Transpose { shape, perm });
        Some(self)
    }

    /// With other dimensions of as many elements.
    fn shaped(mut self, dims: impl FnOnce(&[i64]) -> Option<Vec<i64>>) -> Option<Self> {
        let count = |dims: &[i64]| sizes(dims)?.iter().try_fold(1usize, |count, &dim| count.checked_mul(dim));
        let dims = dims(&self.dims)?;
        (count(&dims)? == count(&self.dims)?).then_some(())?;
        self.dims = dims;
        Some(self)
    }

    fn tensor(&self, graph: &Graph) -> Option<TensorProto> {
        let source = graph.value(self.source).constant()?;
        let computed = match self.steps.as_slice() {
            [] => source.clone(),
            steps => computed(source, steps)?,
        };
        Some(TensorProto { dims: self.dims.clone(), ..computed })
    }
}

/// Dimensions, none of which is negative.
fn sizes(dims: &[i64]) -> Option<Vec<usize>> {
    dims.iter().map(|&dim| usize::try_from(dim).ok()).collect()
}

/// The shape that `Reshape` makes of `dims`; whether the counts agree is for the caller to check.
pub(crate) fn reshaped(dims: &[i64], wanted: &[i64], allow_zero: bool) -> Option<Vec<i64>> {
    let mut result = Vec::new();
    for (index, &dim) in wanted.iter().enumerate() {
        result.push(if dim == 0 && !allow_zero { *dims.get(index)? } else { dim });
    }
    let count = product(dims)?;
    let known = result.iter().filter(|&&dim| dim != -1).try_fold(1i64, |product, &dim| product.checked_mul(dim))?;
    if let Some(open) = result.iter().position(|&dim| dim == -1) {
        result[open] = count.checked_div(known)?;
    }
    Some(result)
}

pub(crate) fn flattened(dims: &[i64], axis: i64) -> Option<Vec<i64>> {
    let rank = i64::try_from(dims.len()).ok()?;
    let axis = usize::try_from(if axis < 0 { axis + rank } else { axis }).ok()?;
    let (rows, columns) = dims.split_at_checked(axis)?;
    Some(vec![product(rows)?, product(columns)?])
}

fn product(dims: &[i64]) -> Option<i64> {
    dims.iter().try_fold(1i64, |product, &dim| product.checked_mul(dim))
}

/// Without axes, all dimensions of 1 go; a dimension that is named must be 1.
pub(crate) fn squeezed(dims: &[i64], axes: Option<&[i64]>) -> Option<Vec<i64>> {
    let dropped = match axes {
        Some(axes) => positions(axes, dims.len())?,
        None => (0..dims.len()).filter(|&index| dims[index] == 1).collect(),
    };
    let is_one = |&index: &usize| dims.get(index) == Some(&1);
    let rest = dims.iter().enumerate().filter(|(index, _)| !dropped.contains(index)).map(|(_, &dim)| dim);
    dropped.iter().all(is_one).then(|| rest.collect())
}

/// New dimensions of 1 stand at `axes` of the result.
pub(crate) fn unsqueezed(dims: &[i64], axes: &[i64]) -> Option<Vec<i64>> {
    let rank = dims.len() + axes.len();
    let new = positions(axes, rank)?;
    let mut rest = dims.iter();
    (0..rank).map(|index| if new.contains(&index) { Some(1) } else { rest.next().copied() }).collect()
}

/// Axes counted from the front; `None` where one lies outside `rank` dimensions.
pub(crate) fn positions(axes: &[i64], rank: usize) -> Option<Vec<usize>> {
    let rank = i64::try_from(rank).ok()?;
    let inside = |&axis: &i64| (-rank..rank).contains(&axis).then(|| usize::try_from(axis.rem_euclid(rank)).ok())?;
    axes.iter().map(inside).collect()
}

/// The permutation of `Transpose`: reversed axes where the attribute is absent.
pub(crate) fn permutation(perm: Option<&[i64]>, rank: usize) -> Option<Vec<usize>> {
    let Some(perm) = perm else { return Some((0..rank).rev().collect()) };
    let perm = perm.iter().map(|&axis| usize::try_from(axis).ok()).collect::<Option<Vec<_>>>()?;
    let mut sorted = perm.clone();
    sorted.sort_unstable();
    (sorted == (0..rank).collect::<Vec<_>>()).then_some(perm)
}

#[cfg(test)]
#[path = "constant_chain_tests.rs"]
mod tests;
