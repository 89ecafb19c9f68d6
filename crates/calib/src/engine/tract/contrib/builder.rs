//! Puts standard operators in the place of a node.

use onnxquant_proto::onnx::attribute_proto::AttributeType;
use onnxquant_proto::onnx::type_proto::Value;
use onnxquant_proto::onnx::{AttributeProto, GraphProto, NodeProto, TensorProto};

const FLOAT: i32 = 1;
const INT8: i32 = 3;
const INT64: i32 = 7;
/// From this opset on the axes of Unsqueeze are an input.
const AXES_AS_INPUT: i64 = 13;

/// Appends nodes to a graph in the place of one of its nodes. Values are called by their names.
pub(super) struct Builder<'g> {
    graph: &'g mut GraphProto,
    opset: i64,
    /// What names begin with.
    prefix: String,
    made: usize,
}

impl<'g> Builder<'g> {
    pub(super) fn new(graph: &'g mut GraphProto, node: &NodeProto, opset: i64) -> Self {
        let first = node.output.iter().find(|name| !name.is_empty()).cloned().unwrap_or_default();
        Self { graph, opset, prefix: format!("{first}/plain"), made: 0 }
    }

    fn name(&mut self) -> String {
        self.made += 1;
        format!("{}_{}", self.prefix, self.made)
    }

    /// A node with one output.
    pub(super) fn op(&mut self, op_type: &str, inputs: &[&str]) -> String {
        self.op_with(op_type, inputs, vec![])
    }

    /// The same with attributes.
    pub(super) fn op_with(&mut self, op_type: &str, inputs: &[&str], attribute: Vec<AttributeProto>) -> String {
        let output = self.name();
        self.graph.node.push(NodeProto {
            op_type: Some(op_type.into()),
            name: Some(format!("{output}/node")),
            input: inputs.iter().map(|&name| name.into()).collect(),
            output: vec![output.clone()],
            attribute,
            ..NodeProto::default()
        });
        output
    }

    /// Gives a value the name of an output of the node, where that is wanted.
    pub(super) fn output(&mut self, node: &NodeProto, place: usize, value: &str) {
        let Some(output) = node.output.get(place).filter(|name| !name.is_empty()) else { return };
        self.graph.node.push(NodeProto {
            op_type: Some("Identity".into()),
            name: Some(format!("{output}/named")),
            input: vec![value.into()],
            output: vec![output.clone()],
            ..NodeProto::default()
        });
    }

    fn constant(&mut self, dims: &[i64], data_type: i32, raw: Vec<u8>) -> String {
        let name = self.name();
        self.graph.initializer.push(TensorProto {
            name: Some(name.clone()),
            dims: dims.to_vec(),
            data_type: Some(data_type),
            raw_data: Some(raw.into()),
            ..TensorProto::default()
        });
        name
    }

    /// Integers along an axis.
    pub(super) fn ints(&mut self, numbers: &[i64]) -> String {
        let raw = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
        self.constant(&[numbers.len().try_into().unwrap_or(i64::MAX)], INT64, raw)
    }

    /// An integer without axes.
    pub(super) fn int(&mut self, number: i64) -> String {
        self.constant(&[], INT64, number.to_le_bytes().to_vec())
    }

    /// A number without axes.
    pub(super) fn number(&mut self, number: f32) -> String {
        self.constant(&[], FLOAT, number.to_le_bytes().to_vec())
    }

    /// The length of an axis, an integer without axes.
    pub(super) fn length(&mut self, value: &str, axis: i64) -> String {
        let (shape, axis) = (self.op("Shape", &[value]), self.int(axis));
        self.op_with("Gather", &[&shape, &axis], vec![int("axis", 0)])
    }

    /// In the way of the standard's Reshape: 0 keeps a length, -1 takes what is left.
    pub(super) fn reshape(&mut self, value: &str, shape: &[i64]) -> String {
        let shape = self.ints(shape);
        self.op("Reshape", &[value, &shape])
    }

    pub(super) fn transpose(&mut self, value: &str, order: &[i64]) -> String {
        self.op_with("Transpose", &[value], vec![ints("perm", order)])
    }

    /// A part along an axis; the bounds are constants.
    pub(super) fn slice(&mut self, value: &str, axis: i64, from: i64, to: i64) -> String {
        let (from, to) = (self.ints(&[from]), self.ints(&[to]));
        self.slice_between(value, axis, &from, &to)
    }

    /// The same with bounds that are computed, integers along an axis of length 1.
    pub(super) fn slice_between(&mut self, value: &str, axis: i64, from: &str, to: &str) -> String {
        let axes = self.ints(&[axis]);
        self.op("Slice", &[value, from, to, &axes])
    }

    pub(super) fn concat(&mut self, values: &[&str], axis: i64) -> String {
        self.op_with("Concat", values, vec![int("axis", axis)])
    }

    /// A new axis of length 1.
    pub(super) fn unsqueeze(&mut self, value: &str, axis: i64) -> String {
        if self.opset < AXES_AS_INPUT {
            return self.op_with("Unsqueeze", &[value], vec![ints("axes", &[axis])]);
        }
        let axes = self.ints(&[axis]);
        self.op("Unsqueeze", &[value, &axes])
    }

    /// Rows of a table.
    pub(super) fn rows(&mut self, table: &str, indices: &str) -> String {
        self.op_with("Gather", &[table, indices], vec![int("axis", 0)])
    }

    pub(super) fn as_int64(&mut self, value: &str) -> String {
        self.op_with("Cast", &[value], vec![int("to", INT64.into())])
    }

    pub(super) fn as_int8(&mut self, value: &str) -> String {
        self.op_with("Cast", &[value], vec![int("to", INT8.into())])
    }

    pub(super) fn as_float(&mut self, value: &str) -> String {
        self.op_with("Cast", &[value], vec![int("to", FLOAT.into())])
    }

    /// `0, 1, ..` up to a length that is an integer without axes.
    pub(super) fn count_to(&mut self, length: &str) -> String {
        let (zero, one) = (self.int(0), self.int(1));
        self.op("Range", &[&zero, length, &one])
    }

    /// The numbers of axes of a value, where the graph says it at a glance.
    pub(super) fn rank(&self, value: &str) -> Option<usize> {
        self.rank_within(value, 16)
    }

    fn rank_within(&self, value: &str, steps: usize) -> Option<usize> {
        let declared = self.graph.input.iter().chain(&self.graph.value_info).find(|info| info.name() == value);
        if let Some(Value::TensorType(tensor)) = declared.and_then(|info| info.r#type.as_ref()?.value.as_ref())
            && let Some(shape) = &tensor.shape
        {
            return Some(shape.dim.len());
        }
        if let Some(constant) = self.graph.initializer.iter().find(|constant| constant.name() == value) {
            return Some(constant.dims.len());
        }
        let maker = self.graph.node.iter().find(|node| node.output.iter().any(|output| output == value))?;
        match maker.op_type() {
            "Transpose" => maker.attribute.iter().find(|order| order.name() == "perm").map(|order| order.ints.len()),
            "Reshape" => {
                let shape = self.graph.initializer.iter().find(|shape| shape.name.as_ref() == maker.input.get(1));
                shape.and_then(|shape| usize::try_from(*shape.dims.first()?).ok())
            }
            "Identity" | "Cast" | "Concat" => self.rank_within(maker.input.first()?, steps.checked_sub(1)?),
            _ => None,
        }
    }
}

pub(super) fn int(name: &str, number: i64) -> AttributeProto {
    AttributeProto {
        name: Some(name.into()),
        i: Some(number),
        r#type: Some(AttributeType::Int.into()),
        ..AttributeProto::default()
    }
}

pub(super) fn ints(name: &str, numbers: &[i64]) -> AttributeProto {
    AttributeProto {
        name: Some(name.into()),
        ints: numbers.to_vec(),
        r#type: Some(AttributeType::Ints.into()),
        ..AttributeProto::default()
    }
}

pub(super) fn float(name: &str, number: f32) -> AttributeProto {
    AttributeProto {
        name: Some(name.into()),
        f: Some(number),
        r#type: Some(AttributeType::Float.into()),
        ..AttributeProto::default()
    }
}

pub(super) fn text(name: &str, text: &str) -> AttributeProto {
    AttributeProto {
        name: Some(name.into()),
        s: Some(text.as_bytes().to_vec()),
        r#type: Some(AttributeType::String.into()),
        ..AttributeProto::default()
    }
}
