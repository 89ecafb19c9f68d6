//! Models with layers inside bodies and local functions, made by hand. All of `x [4, 32] -> y [4, 32]`.

use onnxquant_ir::onnx::attribute_proto::AttributeType;
use onnxquant_ir::onnx::tensor_proto::DataType;
use onnxquant_ir::onnx::type_proto;
use onnxquant_ir::onnx::{
    AttributeProto, FunctionProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorProto, ValueInfoProto,
};
use onnxquant_ir::tensor;

use super::models::{float_tensor, float_value, integers, model_of, node, noise, with_ints};

/// Rows of `x`, and inputs and outputs of its layers.
const SHAPE: [i64; 2] = [4, 32];

/// A weight `[32, 32]`.
pub fn weight(name: &str, seed: usize) -> TensorProto {
    float_tensor(name, &[32, 32], noise(seed, 1024, 0.4))
}

/// A node with a name.
pub fn called(name: &str, node: NodeProto) -> NodeProto {
    NodeProto { name: Some(name.to_owned()), ..node }
}

/// A node with a body under an attribute.
pub fn holding(node: NodeProto, bodies: Vec<(&str, GraphProto)>) -> NodeProto {
    let attribute = |(name, body): (&str, GraphProto)| AttributeProto {
        name: Some(name.to_owned()),
        r#type: Some(AttributeType::Graph as i32),
        g: Some(Box::new(body)),
        ..AttributeProto::default()
    };
    NodeProto { attribute: node.attribute.iter().cloned().chain(bodies.into_iter().map(attribute)).collect(), ..node }
}

/// A body; inputs and outputs are declared.
pub fn body(
    input: Vec<ValueInfoProto>,
    node: Vec<NodeProto>,
    output: Vec<ValueInfoProto>,
    initializer: Vec<TensorProto>,
) -> GraphProto {
    GraphProto { name: Some("body".to_owned()), input, node, output, initializer, ..GraphProto::default() }
}

/// A value of this type.
fn value(name: &str, kind: DataType, dims: &[i64]) -> ValueInfoProto {
    let mut info = float_value(name, dims);
    if let Some(type_proto::Value::TensorType(tensor)) = info.r#type.as_mut().and_then(|kind| kind.value.as_mut()) {
        tensor.elem_type = Some(kind as i32);
    }
    info
}

fn constant(output: &str, tensor: TensorProto) -> NodeProto {
    let attribute = AttributeProto {
        name: Some("value".to_owned()),
        r#type: Some(AttributeType::Tensor as i32),
        t: Some(Box::new(tensor)),
        ..AttributeProto::default()
    };
    NodeProto { attribute: vec![attribute], ..node("Constant", &[], &[output]) }
}

fn matmul(name: &str, input: &str, weight: &str, output: &str) -> NodeProto {
    called(name, node("MatMul", &[input, weight], &[output]))
}

fn whole(nodes: Vec<NodeProto>, constants: Vec<TensorProto>) -> ModelProto {
    model_of(nodes, constants, vec![float_value("x", &SHAPE)], vec![float_value("y", &SHAPE)])
}

/// Nodes that make `c`: whether the numbers of `x` have a sum above 0.
fn condition() -> [NodeProto; 2] {
    let sum = super::models::with_int(node("ReduceSum", &["x"], &["sum"]), "keepdims", 0);
    [sum, node("Greater", &["sum", "zero"], &["c"])]
}

fn zero() -> TensorProto {
    float_tensor("zero", &[], std::iter::once(0.0))
}

/// An If of two branches; constants are weights of the main graph.
fn choosing(branches: [GraphProto; 2], mut constants: Vec<TensorProto>) -> ModelProto {
    let [then, other] = branches;
    let choose = called("choose", node("If", &["c"], &["h"]));
    let choose = holding(choose, vec![("then_branch", then), ("else_branch", other)]);
    let nodes = condition().into_iter().chain([choose, matmul("head", "h", "last", "y")]).collect();
    constants.extend([zero(), weight("last", 9)]);
    whole(nodes, constants)
}

fn branch(nodes: Vec<NodeProto>, output: &str, constants: Vec<TensorProto>) -> GraphProto {
    body(vec![], nodes, vec![float_value(output, &SHAPE)], constants)
}

/// An If: both branches read one weight of the main graph, one has a weight of its own, the other one in a `Constant`.
pub fn two_branches() -> ModelProto {
    let then = vec![
        matmul("shared", "x", "both", "t1"),
        node("Relu", &["t1"], &["t2"]),
        called("own", node("Gemm", &["t2", "mine"], &["t3"])),
    ];
    let other = vec![
        constant("held", weight("", 3)),
        matmul("shared", "x", "both", "e1"),
        node("Tanh", &["e1"], &["e2"]),
        matmul("constant", "e2", "held", "e3"),
    ];
    let branches = [branch(then, "t3", vec![weight("mine", 2)]), branch(other, "e3", vec![])];
    choosing(branches, vec![weight("both", 1)])
}

/// An If in whose first branch an initializer has the name of the weight that the main graph reads.
pub fn shadowing_branch() -> ModelProto {
    let then = branch(vec![matmul("inner", "x", "last", "t")], "t", vec![weight("last", 4)]);
    choosing([then, branch(vec![node("Relu", &["x"], &["e"])], "e", vec![])], vec![])
}

/// An If whose branches call their output as the If does, as optimum merges the decoders without and with a past.
pub fn merged_branches() -> ModelProto {
    let then = vec![matmul("first", "x", "one", "t"), node("Relu", &["t"], &["h"])];
    let other = vec![matmul("both", "x", "one", "e"), node("Tanh", &["e"], &["f"]), matmul("later", "f", "two", "h")];
    choosing([branch(then, "h", vec![]), branch(other, "h", vec![])], vec![weight("one", 5), weight("two", 6)])
}

fn looping(nodes: Vec<NodeProto>, constants: Vec<TensorProto>, mut outer: Vec<TensorProto>) -> ModelProto {
    let input = vec![value("i", DataType::Int64, &[]), value("go", DataType::Bool, &[]), float_value("s", &SHAPE)];
    let output = vec![value("go_on", DataType::Bool, &[]), float_value("next", &SHAPE)];
    let nodes = nodes.into_iter().chain([node("Identity", &["go"], &["go_on"])]).collect();
    let repeat = called("repeat", node("Loop", &["times", "", "x"], &["y"]));
    outer.push(TensorProto { name: Some("times".to_owned()), ..tensor::from_i64(&[], &[3]) });
    whole(vec![holding(repeat, vec![("body", body(input, nodes, output, constants))])], outer)
}

/// A Loop with a weight of its own, a bias, and a weight of the main graph.
pub fn steps() -> ModelProto {
    let nodes = vec![
        matmul("up", "s", "outer", "a"),
        node("Relu", &["a"], &["b"]),
        called("down", node("Gemm", &["b", "inner", "bias"], &["d"])),
        node("Add", &["d", "s"], &["e"]),
        node("Tanh", &["e"], &["next"]),
    ];
    let bias = float_tensor("bias", &[32], noise(7, 32, 0.2));
    looping(nodes, vec![weight("inner", 2), bias], vec![weight("outer", 1)])
}

/// An If in a Loop: the first step and the others have different weights.
pub fn branches_of_steps() -> ModelProto {
    let then = branch(vec![matmul("first", "s", "one", "t")], "t", vec![weight("one", 5)]);
    let other = branch(vec![matmul("later", "s", "two", "f")], "f", vec![]);
    let pick = called("pick", node("If", &["is_first"], &["z"]));
    let nodes = vec![
        constant("none", tensor::from_i64(&[], &[0])),
        node("Equal", &["i", "none"], &["is_first"]),
        holding(pick, vec![("then_branch", then), ("else_branch", other)]),
        node("Tanh", &["z"], &["next"]),
    ];
    looping(nodes, vec![], vec![weight("two", 6)])
}

/// A Scan over the rows of `x`: a Conv along each row, whose mean is added to a state, and a MatMul of that.
pub fn rows() -> ModelProto {
    let nodes = vec![
        node("Unsqueeze", &["row", "two_axes"], &["signal"]),
        with_ints(called("conv", node("Conv", &["signal", "kernel"], &["filtered"])), "pads", &[1, 1]),
        super::models::with_int(
            with_ints(node("ReduceMean", &["filtered"], &["mean"]), "axes", &[0, 1]),
            "keepdims",
            0,
        ),
        node("Add", &["mean", "state"], &["sum"]),
        node("Tanh", &["sum"], &["kept"]),
        node("Unsqueeze", &["kept", "axis"], &["line"]),
        matmul("out", "line", "outer", "product"),
        node("Squeeze", &["product", "axis"], &["made"]),
    ];
    let input = vec![float_value("state", &[32]), float_value("row", &[32])];
    let output = vec![float_value("kept", &[32]), float_value("made", &[32])];
    let kernel = float_tensor("kernel", &[64, 1, 3], noise(3, 192, 1.0));
    let constants = vec![integers("two_axes", &[0, 1]), integers("axis", &[0]), kernel];
    let scan = called("scan", node("Scan", &["start", "x"], &["end", "y"]));
    let scan = super::models::with_int(scan, "num_scan_inputs", 1);
    let start = float_tensor("start", &[32], std::iter::repeat_n(0.0, 32));
    whole(vec![holding(scan, vec![("body", body(input, nodes, output, constants))])], vec![weight("outer", 8), start])
}

fn import(domain: &str, version: i64) -> OperatorSetIdProto {
    OperatorSetIdProto { domain: Some(domain.to_owned()), version: Some(version) }
}

fn function(name: &str, inputs: &[&str], nodes: Vec<NodeProto>, opset: i64) -> FunctionProto {
    FunctionProto {
        name: Some(name.to_owned()),
        domain: Some("pkg".to_owned()),
        input: inputs.iter().map(|&input| input.to_owned()).collect(),
        output: vec!["o".to_owned()],
        node: nodes,
        opset_import: vec![import("", opset), import("pkg", 1)],
        ..FunctionProto::default()
    }
}

fn call(name: &str, function: &str, inputs: &[&str], output: &str) -> NodeProto {
    NodeProto { domain: Some("pkg".to_owned()), ..called(name, node(function, inputs, &[output])) }
}

/// A function that calls another one, which holds a layer, in the main graph and in a branch; a third holds none. Functions
/// are of opset 13, whose `Squeeze` reads as that of the model's 17.
pub fn functions() -> ModelProto {
    let linear = vec![called("product", node("Gemm", &["a", "w"], &["o"]))];
    let block = vec![call("first", "Linear", &["a", "w"], "b"), call("then", "Soften", &["b"], "o")];
    let branches = [
        branch(vec![call("inner", "Block", &["x", "one"], "t")], "t", vec![weight("one", 2)]),
        branch(vec![call("soft", "Soften", &["x"], "e")], "e", vec![]),
    ];
    let mut model = choosing(branches, vec![]);
    if let Some(graph) = &mut model.graph {
        graph.node.pop();
        graph.node.push(call("outer", "Block", &["h", "last"], "y"));
    }
    model.opset_import.push(import("pkg", 1));
    model.functions = vec![
        function("Linear", &["a", "w"], linear, 13),
        function("Soften", &["a"], vec![node("Tanh", &["a"], &["o"])], 13),
        function("Block", &["a", "w"], block, 13),
    ];
    model
}
