//! Rounding to a grid as one operator.
//!
//! # Problem
//!
//! A network whose activations are rounded as their codes will be, in float operators, spends five operators on each:
//!
//! ```text
//! y = scale * min(max(round(x / scale), low), high)
//! ```
//!
//! The engine goes over the memory several times for that, and rounds element by element with branches.
//!
//! # Method
//!
//! [`fuse`] finds the five with constant scalars, where nothing else reads what lies between, and puts one node in
//! their place, which the engine gets as an operator of its own ([`register`]). That one clips first, which is the same
//! for whole `low` and `high`, and rounds half to even by adding and taking away `1.5 * 2^23`: below `2^22` the sum keeps
//! no fraction. `Round` alone gets the same treatment, without branches.
//!
//! # Guarantee
//!
//! The same numbers as the five operators give that divide and round as ONNX says; a zero may have the other sign.
//! NaN stays NaN.
//!
//! # Cost
//!
//! One pass over the memory, in vectors.

use std::collections::HashMap;

use onnxquant_proto::onnx::{
    AttributeProto, GraphProto, NodeProto, TensorProto, attribute_proto::AttributeType, tensor_proto::DataType,
};
use pulp::{Arch, Simd, WithSimd};
use tract_onnx::Onnx;
use tract_onnx::prelude::{DatumType, Tensor, TractResult};
use tract_onnx::tract_core::ops::element_wise::{ElementWiseMiniOp, ElementWiseOp};
use tract_onnx::tract_core::ops::math::RoundHalfToEven;
use tract_onnx::tract_hir::infer::InferenceOp;
use tract_onnx::tract_hir::ops::element_wise::ElementWiseIntoHir;

use crate::graph::reads;

/// The operator's name. It stands in no file.
const OPERATOR: &str = "onnxquant.RoundToGrid";
/// `1.5 * 2^23`: of a sum with it no fraction is left.
const NO_FRACTION: f32 = 12_582_912.0;
/// Below it, that works.
const MOST_STEPS: f32 = 4_194_304.0;
/// `2^23`: numbers from here on are whole.
const WHOLE: f32 = 8_388_608.0;

/// What an activation is rounded to: `low..=high` steps of `scale`.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Grid {
    scale: f32,
    low: f32,
    high: f32,
}

/// Puts one node in the place of five, wherever only the last of them gives something that is read elsewhere; `values`
/// are read by the caller.
pub(super) fn fuse(graph: &mut GraphProto, values: &[String]) {
    let mut found = Vec::new();
    {
        let finder = Finder::new(graph, values);
        for (index, node) in graph.node.iter().enumerate().filter(|(_, node)| node.op_type() == "Div") {
            found.extend(finder.grid(node).map(|(grid, last)| (index, grid, last)));
        }
    }
    let mut replaced = vec![false; graph.node.len()];
    for (index, grid, last) in found {
        let outputs = std::mem::take(&mut graph.node[last[3]].output);
        last.into_iter().for_each(|between| replaced[between] = true);
        let node = &mut graph.node[index];
        node.input.truncate(1);
        node.output = outputs;
        node.op_type = Some(OPERATOR.into());
        node.attribute = [("scale", grid.scale), ("low", grid.low), ("high", grid.high)].map(float).to_vec();
    }
    let mut replaced = replaced.into_iter();
    graph.node.retain(|_| !replaced.next().unwrap_or(false));
}

fn float((name, number): (&str, f32)) -> AttributeProto {
    AttributeProto {
        name: Some(name.into()),
        f: Some(number),
        r#type: Some(AttributeType::Float.into()),
        ..AttributeProto::default()
    }
}

/// Looks for the five operators.
struct Finder<'a> {
    graph: &'a GraphProto,
    /// By value: where it is read, if in one place alone.
    reader: HashMap<&'a str, Option<usize>>,
    scalars: HashMap<&'a str, f32>,
}

impl<'a> Finder<'a> {
    fn new(graph: &'a GraphProto, values: &'a [String]) -> Self {
        let mut reader = HashMap::new();
        for (index, node) in graph.node.iter().enumerate() {
            for name in reads(node) {
                reader.entry(name).and_modify(|reader| *reader = None).or_insert(Some(index));
            }
        }
        reader.extend(values.iter().map(|name| (name.as_str(), None)));
        let scalars = graph.initializer.iter().filter_map(|tensor| Some((tensor.name.as_deref()?, scalar(tensor)?)));
        Self { graph, reader, scalars: scalars.collect() }
    }

    /// The grid to which the quotient `node` is rounded, and the four nodes behind it.
    fn grid(&self, node: &NodeProto) -> Option<(Grid, [usize; 4])> {
        let scale = self.scalar(node)?;
        let round = self.next(node, "Round")?;
        let max = self.next(&self.graph.node[round], "Max")?;
        let min = self.next(&self.graph.node[max], "Min")?;
        let mul = self.next(&self.graph.node[min], "Mul")?;
        let [low, high, again] = [max, min, mul].map(|index| self.scalar(&self.graph.node[index]));
        let grid = Grid { scale, low: low?, high: high? };
        let whole = |steps: f32| steps.fract() == 0.0 && steps.abs() <= MOST_STEPS;
        let is_grid = again? == scale && whole(grid.low) && whole(grid.high) && grid.low <= grid.high;
        is_grid.then_some((grid, [round, max, min, mul]))
    }

    /// The one reader of the node's result, as its first input, if it is this operator.
    fn next(&self, node: &NodeProto, op_type: &str) -> Option<usize> {
        let result = node.output.first()?;
        let next = (*self.reader.get(result.as_str())?)?;
        let reader = &self.graph.node[next];
        let is_first = reader.input.first() == Some(result) && reader.output.len() == 1;
        (reader.op_type() == op_type && is_first).then_some(next)
    }

    /// The second of two inputs, if it is a constant scalar.
    fn scalar(&self, node: &NodeProto) -> Option<f32> {
        let [_, second] = node.input.as_slice() else { return None };
        self.scalars.get(second.as_str()).copied()
    }
}

fn scalar(tensor: &TensorProto) -> Option<f32> {
    let is_scalar = tensor.dims.is_empty() && tensor.data_type == Some(DataType::Float.into());
    let raw = tensor.raw_data.as_deref().filter(|_| is_scalar)?;
    Some(f32::from_le_bytes(raw.try_into().ok()?))
}

/// Makes the operator known to the engine, and `Round` fast.
pub(super) fn register(onnx: &mut Onnx) {
    onnx.op_register.insert(OPERATOR, |_, node| {
        let number = |name: &str| node.attribute.iter().find(|a| a.name == name).map_or(f32::NAN, |a| a.f);
        let grid = Grid { scale: number("scale"), low: number("low"), high: number("high") };
        Ok((element_wise(grid), vec![]))
    });
    onnx.op_register.insert("Round", |_, _| Ok((element_wise(Round), vec![])));
}

fn element_wise(operator: impl ElementWiseMiniOp) -> Box<dyn InferenceOp> {
    ElementWiseOp(Box::new(operator), None).into_hir()
}

impl Eq for Grid {}

impl ElementWiseMiniOp for Grid {
    fn name(&self) -> String {
        "RoundToGrid".into()
    }

    fn eval_in_place(&self, tensor: &mut Tensor, _: Option<DatumType>) -> TractResult<()> {
        let mut memory = tensor.try_as_plain_ram_mut()?;
        Arch::new().dispatch(OnGrid { grid: *self, numbers: memory.as_slice_mut::<f32>()? });
        Ok(())
    }
}

/// Compiled for the widest vectors that the machine has, with the same results on all.
struct OnGrid<'a> {
    grid: Grid,
    numbers: &'a mut [f32],
}

impl WithSimd for OnGrid<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let Grid { scale, low, high } = self.grid;
        for x in self.numbers {
            let steps = *x / scale;
            let steps = if steps < low { low } else { steps };
            let steps = if steps > high { high } else { steps };
            *x = ((steps + NO_FRACTION) - NO_FRACTION) * scale;
        }
    }
}

/// ONNX's `Round`: half to even.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Round;

impl ElementWiseMiniOp for Round {
    fn name(&self) -> String {
        "RoundHalfToEven".into()
    }

    fn eval_in_place(&self, tensor: &mut Tensor, datum_type: Option<DatumType>) -> TractResult<()> {
        if tensor.datum_type() != DatumType::F32 {
            return RoundHalfToEven {}.eval_in_place(tensor, datum_type);
        }
        for x in tensor.try_as_plain_ram_mut()?.as_slice_mut::<f32>()? {
            let rounded = ((x.abs() + WHOLE) - WHOLE).copysign(*x);
            *x = if x.abs() < WHOLE { rounded } else { *x };
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::node;

    fn evaluated(operator: &dyn ElementWiseMiniOp, numbers: &[f32]) -> Vec<f32> {
        let mut tensor = Tensor::from_shape(&[numbers.len()], numbers).unwrap();
        operator.eval_in_place(&mut tensor, None).unwrap();
        tensor.try_as_plain_ram().unwrap().as_slice::<f32>().unwrap().to_vec()
    }

    /// Ties, ends, and numbers between which floats have no fraction.
    fn numbers() -> Vec<f32> {
        let ties = (-600..600).map(|i| 0.5 * i as f32);
        let large = [WHOLE - 0.5, WHOLE, WHOLE + 1.0, MOST_STEPS + 0.5, 3e38, f32::INFINITY, 1e-45, 0.3];
        ties.chain(large).chain(large.map(|x| -x)).collect()
    }

    #[test]
    fn round_is_half_to_even() {
        for (x, found) in numbers().iter().zip(evaluated(&Round, &numbers())) {
            assert_eq!(found.to_bits(), x.round_ties_even().to_bits(), "{x}");
        }
        assert!(evaluated(&Round, &[f32::NAN])[0].is_nan());
    }

    #[test]
    fn one_operator_gives_what_five_do() {
        for (scale, low, high) in
            [(0.5, -128.0, 127.0), (0.37, 0.0, 255.0), (1.0, -32768.0, 32767.0), (1e-3, -3.0, -2.0)]
        {
            let grid = Grid { scale, low, high };
            for (x, found) in numbers().iter().zip(evaluated(&grid, &numbers())) {
                let wanted = scale * (x / scale).round_ties_even().max(low).min(high);
                assert_eq!(found, wanted, "{x} {grid:?}");
            }
            assert!(evaluated(&grid, &[f32::NAN])[0].is_nan());
        }
    }

    fn constant(name: &str, number: f32) -> TensorProto {
        TensorProto {
            name: Some(name.into()),
            data_type: Some(DataType::Float.into()),
            raw_data: Some(number.to_le_bytes().to_vec().into()),
            ..TensorProto::default()
        }
    }

    fn rounding() -> GraphProto {
        GraphProto {
            node: vec![
                node("Div", &["x", "s"], "a"),
                node("Round", &["a"], "b"),
                node("Max", &["b", "low"], "c"),
                node("Min", &["c", "high"], "d"),
                node("Mul", &["d", "s"], "y"),
                node("Relu", &["y"], "z"),
            ],
            initializer: vec![constant("s", 0.5), constant("low", -128.0), constant("high", 127.0)],
            ..GraphProto::default()
        }
    }

    #[test]
    fn five_nodes_become_one() {
        let mut graph = rounding();
        fuse(&mut graph, &["z".into()]);
        let [rounded, relu] = graph.node.as_slice() else { panic!("{:?}", graph.node) };
        assert_eq!((rounded.op_type(), rounded.input.as_slice()), (OPERATOR, ["x".to_owned()].as_slice()));
        assert_eq!((rounded.output.as_slice(), relu.op_type()), (["y".to_owned()].as_slice(), "Relu"));
        let numbers: Vec<f32> = rounded.attribute.iter().map(AttributeProto::f).collect();
        assert_eq!(numbers, [0.5, -128.0, 127.0]);
    }

    #[test]
    fn what_is_read_between_or_is_no_grid_stays() {
        let mut other_scale = rounding();
        other_scale.node[4].input[1] = "low".into();
        let mut fraction = rounding();
        fraction.initializer[1] = constant("low", -127.5);
        let mut input = rounding();
        input.initializer.remove(0);
        let mut read_twice = rounding();
        read_twice.node.push(node("Relu", &["b"], "w"));
        let mut order = rounding();
        order.node[0].input.reverse();
        for (mut graph, value) in
            [(rounding(), "c"), (other_scale, "z"), (fraction, "z"), (input, "z"), (read_twice, "z"), (order, "z")]
        {
            let before = graph.clone();
            fuse(&mut graph, &[value.into()]);
            assert_eq!(graph, before);
        }
    }
}
