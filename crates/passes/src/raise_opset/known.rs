//! Element types, shapes and small constants of values, as far as declarations and common operators tell.
//!
//! Only what a step asks for is followed: types and ranks through the operators of usual networks. What is
//! not known is `None`; a step then takes a form that needs no knowledge, or refuses.

use std::collections::HashMap;

use onnxquant_ir::onnx::tensor_proto::DataType;
use onnxquant_ir::onnx::tensor_shape_proto::dimension;
use onnxquant_ir::onnx::{GraphProto, NodeProto, TensorProto, ValueInfoProto, type_proto};
use onnxquant_ir::{onnx::AttributeProto, tensor};

use super::message::input;

/// Constants up to this size are kept for steps to read.
const SMALL_CONSTANT: usize = 64;

/// Tensors of more axes are taken as unknown: nothing real has them, and a file must not choose our memory.
const MAX_RANK: usize = 64;

/// Lengths of the axes; `None` is a length not known.
pub(crate) type Dims = Vec<Option<i64>>;

/// What is known of a value before it is computed.
#[derive(Clone, Debug, Default)]
pub(crate) struct Known {
    pub(crate) element: Option<DataType>,
    pub(crate) dims: Option<Dims>,
    pub(crate) constant: Option<TensorProto>,
}

impl Known {
    fn new(element: Option<DataType>, dims: Option<Dims>) -> Self {
        Self { element, dims, constant: None }
    }

    fn of_tensor(tensor: &TensorProto) -> Self {
        let small = tensor::element_count(tensor).is_ok_and(|count| count <= SMALL_CONSTANT);
        Self {
            element: tensor::data_type(tensor).ok(),
            dims: Some(tensor.dims.iter().map(|&dim| Some(dim)).collect()),
            constant: small.then(|| tensor.clone()),
        }
    }

    fn of_info(info: &ValueInfoProto) -> Self {
        let Some(type_proto::Value::TensorType(found)) = info.r#type.as_ref().and_then(|kind| kind.value.as_ref())
        else {
            return Self::default();
        };
        let length = |value: &Option<dimension::Value>| match value {
            Some(dimension::Value::DimValue(length)) => Some(*length).filter(|&length| length >= 0),
            _ => None,
        };
        let dims = found.shape.as_ref().map(|shape| shape.dim.iter().map(|dim| length(&dim.value)).collect());
        let element = DataType::try_from(found.elem_type()).ok().filter(|&element| element != DataType::Undefined);
        Self::new(element, dims)
    }

    /// What `self` leaves open is taken from `other`.
    fn or(self, other: Self) -> Self {
        Self {
            element: self.element.or(other.element),
            dims: self.dims.or(other.dims),
            constant: self.constant.or(other.constant),
        }
    }
}

/// What is known of the values of a graph, and of those around it.
#[derive(Default)]
pub(crate) struct Scope<'a> {
    values: HashMap<String, Known>,
    outer: Option<&'a Scope<'a>>,
}

impl<'a> Scope<'a> {
    /// `overridable`: whether an initializer that is listed as an input may be replaced by callers.
    pub(crate) fn of_graph(graph: &GraphProto, outer: &'a Scope<'a>, overridable: bool) -> Self {
        let mut scope = Self { values: HashMap::new(), outer: Some(outer) };
        for info in graph.input.iter().chain(&graph.output).chain(&graph.value_info) {
            scope.values.insert(info.name().to_owned(), Known::of_info(info));
        }
        for tensor in &graph.initializer {
            let mut known = Known::of_tensor(tensor);
            if overridable && graph.input.iter().any(|input| input.name() == tensor.name()) {
                known.constant = None;
            }
            scope.values.insert(tensor.name().to_owned(), known);
        }
        scope.follow(&graph.node);
        scope
    }

    pub(crate) fn of_nodes(nodes: &[NodeProto], outer: &'a Scope<'a>) -> Self {
        let mut scope = Self { values: HashMap::new(), outer: Some(outer) };
        scope.follow(nodes);
        scope
    }

    pub(crate) fn find(&self, name: &str) -> Option<&Known> {
        self.values.get(name).or_else(|| self.outer?.find(name))
    }

    fn follow(&mut self, nodes: &[NodeProto]) {
        for node in nodes.iter().filter(|node| matches!(node.domain(), "" | "ai.onnx")) {
            for (slot, output) in node.output.iter().enumerate().filter(|(_, output)| !output.is_empty()) {
                let declared = self.values.remove(output).unwrap_or_default();
                let known = declared.or(Reader { scope: self, node }.output(slot));
                self.values.insert(output.clone(), known);
            }
        }
    }
}

/// Reads what is known of a node's inputs.
struct Reader<'a> {
    scope: &'a Scope<'a>,
    node: &'a NodeProto,
}

impl Reader<'_> {
    /// What is known of output `slot`.
    fn output(&self, slot: usize) -> Known {
        let op = self.node.op_type();
        if op == "Constant" {
            return self.constant();
        }
        let element = self.element(slot);
        let dims = if slot == 0 || EVERY_OUTPUT_ALIKE.contains(&op) { self.dims() } else { None };
        Known::new(element, dims.filter(|dims| dims.len() <= MAX_RANK))
    }

    fn known(&self, slot: usize) -> Option<&Known> {
        self.scope.find(input(self.node, slot)?)
    }

    fn input_dims(&self, slot: usize) -> Option<&Dims> {
        self.known(slot)?.dims.as_ref()
    }

    fn input_rank(&self, slot: usize) -> Option<usize> {
        self.input_dims(slot).map(Vec::len)
    }

    fn numbers(&self, slot: usize) -> Option<Vec<i64>> {
        tensor::to_i64(self.known(slot)?.constant.as_ref()?).ok()
    }

    fn attribute(&self, name: &str) -> Option<&AttributeProto> {
        self.node.attribute.iter().find(|attribute| attribute.name() == name)
    }

    fn int(&self, name: &str, default: i64) -> i64 {
        self.attribute(name).map_or(default, AttributeProto::i)
    }

    /// Axes as the attribute or the second input gives them.
    fn axes(&self) -> Option<Vec<i64>> {
        self.attribute("axes").map(|axes| axes.ints.clone()).or_else(|| self.numbers(1))
    }

    fn constant(&self) -> Known {
        let Some(attribute) = self.node.attribute.first() else { return Known::default() };
        match (attribute.name(), &attribute.t) {
            ("value", Some(value)) => Known::of_tensor(value),
            ("value_int", _) => Known::of_tensor(&tensor::from_i64(&[], &[attribute.i()])),
            ("value_ints", _) => Known::of_tensor(&tensor::from_i64(&[attribute.ints.len()], &attribute.ints)),
            ("value_float", _) => Known::of_tensor(&tensor::from_f32(&[], &[attribute.f()])),
            ("value_floats", _) => Known::of_tensor(&tensor::from_f32(&[attribute.floats.len()], &attribute.floats)),
            _ => Known::default(),
        }
    }

    fn element(&self, slot: usize) -> Option<DataType> {
        let of_input = |slot| self.known(slot).and_then(|known| known.element);
        match self.node.op_type() {
            "Cast" => DataType::try_from(i32::try_from(self.int("to", 0)).ok()?).ok(),
            "Shape" | "Size" | "NonZero" | "ArgMax" | "ArgMin" => Some(DataType::Int64),
            "TopK" | "MaxPool" if slot > 0 => Some(DataType::Int64),
            op if TO_BOOL.contains(&op) => Some(DataType::Bool),
            "ConstantOfShape" => match self.attribute("value") {
                Some(value) => DataType::try_from(value.t.as_ref()?.data_type()).ok(),
                None => Some(DataType::Float),
            },
            "DequantizeLinear" | "Where" => of_input(1),
            "QuantizeLinear" => of_input(2),
            "Dropout" | "BatchNormalization" if slot > 0 => None,
            op if KEEPS_TYPE.contains(&op) || SHAPE_OF_INPUT.contains(&op) || RANK_OF_INPUT.contains(&op) => {
                of_input(0)
            }
            op if BROADCASTS.contains(&op) || op.starts_with("Reduce") => of_input(0),
            _ => None,
        }
    }

    fn dims(&self) -> Option<Dims> {
        let op = self.node.op_type();
        match op {
            _ if SHAPE_OF_INPUT.contains(&op) => self.input_dims(0).cloned(),
            "GlobalAveragePool" | "GlobalMaxPool" | "GlobalLpPool" => {
                let dims = self.input_dims(0)?;
                Some(dims.iter().enumerate().map(|(axis, &dim)| if axis < 2 { dim } else { Some(1) }).collect())
            }
            _ if RANK_OF_INPUT.contains(&op) => Some(vec![None; self.input_rank(0)?]),
            "PRelu" => self.input_dims(0).cloned(),
            _ if BROADCASTS.contains(&op) => self.broadcast(),
            _ if op.starts_with("Reduce") || matches!(op, "ArgMax" | "ArgMin") => self.reduced(),
            "MatMul" => self.matmul(),
            "Gemm" | "Flatten" | "NonZero" => Some(vec![None; 2]),
            "Reshape" => self.reshaped(),
            "Squeeze" => self.squeezed(),
            "Unsqueeze" => self.unsqueezed(),
            "Gather" => {
                let (data, indices) = (self.input_rank(0)?, self.input_dims(1)?);
                let rest = data.checked_sub(1)?;
                Some(if rest == 0 { indices.clone() } else { vec![None; rest + indices.len()] })
            }
            "Concat" => self.concatenated(),
            "Shape" => Some(vec![i64::try_from(self.input_rank(0)?).ok().filter(|_| self.node.attribute.is_empty())]),
            "Size" => Some(Vec::new()),
            "Expand" => Some(vec![None; self.input_rank(0)?.max(self.length(1)?)]),
            "ConstantOfShape" => Some(vec![None; self.length(0)?]),
            "LSTM" | "GRU" | "RNN" => Some(vec![None; 4]),
            "OneHot" => Some(vec![None; self.input_rank(0)? + 1]),
            _ => None,
        }
    }

    /// The length of a vector.
    fn length(&self, slot: usize) -> Option<usize> {
        match self.input_dims(slot)?.as_slice() {
            [Some(length)] => usize::try_from(*length).ok().filter(|&length| length <= MAX_RANK),
            _ => None,
        }
    }

    fn broadcast(&self) -> Option<Dims> {
        let operands = (0..self.node.input.len()).map(|slot| self.input_dims(slot)).collect::<Option<Vec<_>>>()?;
        let rank = operands.iter().map(|dims| dims.len()).max()?;
        let at = |dims: &Dims, axis: usize| (axis + dims.len()).checked_sub(rank).map_or(Some(1), |axis| dims[axis]);
        let join = |a: Option<i64>, b: Option<i64>| match (a, b) {
            (Some(1), other) | (other, Some(1)) => other,
            (Some(a), _) => Some(a),
            (None, other) => other,
        };
        let joined = |axis: usize| operands.iter().map(|dims| at(dims, axis)).reduce(join).flatten();
        Some((0..rank).map(joined).collect())
    }

    fn reduced(&self) -> Option<Dims> {
        let dims = self.input_dims(0)?;
        let arg = self.node.op_type().starts_with("Arg");
        let axes = if arg { Some(vec![self.int("axis", 0)]) } else { self.axes() };
        let by_input = !arg && input(self.node, 1).is_some();
        let all = !by_input && axes.as_ref().is_none_or(Vec::is_empty);
        match (self.int("keepdims", 1) != 0, axes) {
            (true, _) => Some(vec![None; dims.len()]),
            (false, _) if all => Some(Vec::new()),
            (false, axes) => Some(vec![None; dims.len().checked_sub(axes?.len())?]),
        }
    }

    fn matmul(&self) -> Option<Dims> {
        let (a, b) = (self.input_rank(0)?, self.input_rank(1)?);
        Some(vec![None; a.max(b).checked_sub(usize::from(a == 1) + usize::from(b == 1))?])
    }

    fn reshaped(&self) -> Option<Dims> {
        let Some(wanted) = self.numbers(1) else {
            return Some(vec![None; self.length(1)?]);
        };
        let dims = self.input_dims(0);
        let copies = self.int("allowzero", 0) == 0;
        let length = |(axis, &dim): (usize, &i64)| match dim {
            0 if copies => dims.and_then(|dims| *dims.get(axis)?),
            dim => Some(dim).filter(|&dim| dim >= 0),
        };
        Some(wanted.iter().enumerate().map(length).collect())
    }

    fn squeezed(&self) -> Option<Dims> {
        let dims = self.input_dims(0)?;
        let rank = i64::try_from(dims.len()).ok()?;
        let dropped = match self.axes() {
            Some(axes) => axes.iter().map(|&axis| if axis < 0 { axis + rank } else { axis }).collect::<Vec<_>>(),
            None => return None,
        };
        let keeps = |axis: usize| i64::try_from(axis).is_ok_and(|axis| !dropped.contains(&axis));
        Some(dims.iter().enumerate().filter(|&(axis, _)| keeps(axis)).map(|(_, &dim)| dim).collect())
    }

    fn unsqueezed(&self) -> Option<Dims> {
        let (dims, axes) = (self.input_dims(0)?, self.axes()?);
        let rank = i64::try_from(dims.len() + axes.len()).ok()?;
        let mut old = dims.iter();
        let is_new = |axis: i64| axes.iter().any(|&new| new == axis || new.checked_add(rank) == Some(axis));
        (0..rank).map(|axis| if is_new(axis) { Some(Some(1)) } else { old.next().copied() }).collect()
    }

    fn concatenated(&self) -> Option<Dims> {
        let slots = 0..self.node.input.len();
        if let (Some(1), 0 | -1) = (self.input_rank(0), self.int("axis", 1)) {
            let total = slots.map(|slot| self.length(slot)).sum::<Option<usize>>();
            return Some(vec![total.and_then(|total| i64::try_from(total).ok())]);
        }
        Some(vec![None; slots.filter_map(|slot| self.input_rank(slot)).next()?])
    }
}

/// All outputs have the shape that is worked out for the first.
const EVERY_OUTPUT_ALIKE: &[&str] = &["Split", "TopK", "Dropout", "MaxPool"];

#[rustfmt::skip]
const TO_BOOL: &[&str] = &[
    "And", "Or", "Xor", "Not", "Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "IsNaN", "IsInf",
];

/// The first output has the shape of the first input.
#[rustfmt::skip]
const SHAPE_OF_INPUT: &[&str] = &[
    "Abs", "BatchNormalization", "BitwiseNot", "Cast", "Ceil", "Celu", "Clip", "Cos", "CumSum", "Dropout", "Elu", "Erf",
    "Exp", "Floor", "Gelu", "HardSigmoid", "HardSwish", "Hardmax", "Identity", "InstanceNormalization", "IsInf", "IsNaN",
    "LRN", "LayerNormalization", "LeakyRelu", "Log", "LogSoftmax", "LpNormalization", "MeanVarianceNormalization",
    "Mish", "Neg", "Not", "Reciprocal", "Relu", "Round", "Selu", "Sigmoid", "Sign", "Sin", "Softmax", "Softplus",
    "Softsign", "Sqrt", "Tan", "Tanh", "ThresholdedRelu", "Trilu", "DequantizeLinear", "QuantizeLinear", "Shrink",
];

/// The first output has the rank of the first input.
#[rustfmt::skip]
const RANK_OF_INPUT: &[&str] = &[
    "AveragePool", "Conv", "ConvTranspose", "DepthToSpace", "LpPool", "MaxPool", "Pad", "Resize", "ReverseSequence",
    "ScatterElements", "ScatterND", "Scatter", "Slice", "SpaceToDepth", "Split", "Tile", "TopK", "Transpose", "Upsample",
];

/// The output has the broadcast shape of all inputs.
#[rustfmt::skip]
const BROADCASTS: &[&str] = &[
    "Add", "And", "Div", "Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Max", "Mean", "Min", "Mod",
    "Mul", "Or", "Pow", "Sub", "Sum", "Where", "Xor",
];

/// The first output has the type of the first input, and a shape of its own.
#[rustfmt::skip]
const KEEPS_TYPE: &[&str] = &[
    "Concat", "Expand", "Flatten", "GRU", "Gather", "GatherElements", "GatherND", "Gemm", "GlobalAveragePool",
    "GlobalLpPool", "GlobalMaxPool", "LSTM", "MatMul", "PRelu", "RNN", "Reshape", "Squeeze", "Unsqueeze",
];
