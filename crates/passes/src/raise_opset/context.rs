//! What a step works with: the node's attributes and inputs, what is known of its values, and new names.

use std::collections::{HashMap, HashSet};

use onnxquant_ir::onnx::tensor_proto::DataType;
use onnxquant_ir::onnx::{AttributeProto, NodeProto, TensorProto};
use onnxquant_ir::tensor;

use super::error::Refusal;
use super::facts::Facts;
use super::known::{Known, Scope};

/// What a step may look up and add while it rewrites the nodes of one body.
pub(super) struct Context<'a> {
    facts: &'a mut Facts,
    scope: &'a Scope<'a>,
    /// New constants of the body.
    constants: Vec<TensorProto>,
    /// Names of constants by type, shape and bytes, so that equal ones are added once.
    by_content: HashMap<(i32, Vec<i64>, Vec<u8>), String>,
    /// Values that the body no longer makes.
    dropped: HashSet<String>,
}

impl<'a> Context<'a> {
    pub(super) fn new(facts: &'a mut Facts, scope: &'a Scope<'a>) -> Self {
        Self { facts, scope, constants: Vec::new(), by_content: HashMap::new(), dropped: HashSet::new() }
    }

    /// The new constants and the names of the values dropped.
    pub(super) fn finish(self) -> (Vec<TensorProto>, HashSet<String>) {
        (self.constants, self.dropped)
    }

    /// A name nothing in the model has: `wanted`, or `wanted_1`, `wanted_2`, ...
    pub(super) fn fresh(&mut self, wanted: &str) -> String {
        let numbered = (1u64..).map(|number| format!("{wanted}_{number}"));
        let mut names = std::iter::once(wanted.to_owned()).chain(numbered);
        let name = names.find(|name| !self.facts.taken.contains(name)).expect("the numbers do not end");
        self.facts.taken.insert(name.clone());
        name
    }

    /// The name of a constant that holds `tensor`, called like `wanted` if it has to be added.
    pub(super) fn constant(&mut self, wanted: &str, mut tensor: TensorProto) -> String {
        let bytes = tensor.raw_data.as_deref().unwrap_or_default().to_vec();
        let key = (tensor.data_type(), tensor.dims.clone(), bytes);
        if let Some(name) = self.by_content.get(&key) {
            return name.clone();
        }
        let name = self.fresh(wanted);
        tensor.name = Some(name.clone());
        self.constants.push(tensor);
        self.by_content.insert(key, name.clone());
        name
    }

    /// A constant int64 vector.
    pub(super) fn integers(&mut self, wanted: &str, numbers: &[i64]) -> String {
        self.constant(wanted, tensor::from_i64(&[numbers.len()], numbers))
    }

    /// A constant scalar of the float type of `like`.
    pub(super) fn scalar_like(&mut self, wanted: &str, number: f32, like: &str) -> Result<String, Refusal> {
        let dtype = self.float_type(like)?;
        Ok(self.constant(wanted, tensor::from_f32_as(dtype, &[], &[number])))
    }

    /// A new node of the default domain, named after its output.
    pub(super) fn node(
        &mut self,
        op: &str,
        inputs: &[&str],
        output: &str,
        attributes: Vec<AttributeProto>,
    ) -> NodeProto {
        NodeProto {
            name: Some(self.fresh(&format!("{output}_{op}"))),
            op_type: Some(op.to_owned()),
            input: inputs.iter().map(|&input| input.to_owned()).collect(),
            output: vec![output.to_owned()],
            attribute: attributes,
            ..NodeProto::default()
        }
    }

    /// The element type of a value whose operator takes only floats.
    pub(super) fn float_type(&self, value: &str) -> Result<DataType, Refusal> {
        let everywhere = self.facts.all_floats_are_f32().then_some(DataType::Float);
        let found = self.known(value).and_then(|known| known.element).or(everywhere);
        found.ok_or_else(|| Refusal::UnknownType { value: value.to_owned() })
    }

    pub(super) fn element(&self, value: &str) -> Option<DataType> {
        self.known(value)?.element
    }

    /// Lengths of the axes, where the rank is known.
    pub(super) fn dims(&self, value: &str) -> Option<&[Option<i64>]> {
        self.known(value)?.dims.as_deref()
    }

    pub(super) fn rank(&self, value: &str) -> Option<i64> {
        self.dims(value).and_then(|dims| i64::try_from(dims.len()).ok())
    }

    pub(super) fn known_rank(&self, value: &str) -> Result<i64, Refusal> {
        self.rank(value).ok_or_else(|| Refusal::UnknownRank { value: value.to_owned() })
    }

    /// The tensor of a small constant.
    pub(super) fn tensor(&self, value: &str) -> Option<&TensorProto> {
        self.known(value)?.constant.as_ref()
    }

    /// Whether anything in the model reads `value`.
    pub(super) fn is_read(&self, value: &str) -> bool {
        self.facts.read.contains(value)
    }

    /// Notes that no node makes `value` any more.
    pub(super) fn drop_value(&mut self, value: String) {
        self.dropped.insert(value);
    }

    fn known(&self, value: &str) -> Option<&Known> {
        self.scope.find(value)
    }
}
