use onnxquant_ir::onnx::{NodeProto, TensorProto};
use onnxquant_ir::{ints_attribute, tensor, text_attribute};

use super::*;
use crate::testing::{assert_valid, floats, model, node};

/// `x -> Q -> DQ = d`, then `middle`, which makes `m` of `d`, then `m -> Relu -> Q -> DQ = y`.
fn between(middle: Vec<NodeProto>, constants: Vec<(&'static str, TensorProto)>) -> onnxquant_ir::Model {
    let codes = |input: &str, name: &str, output: &str| {
        [
            node("QuantizeLinear", &[input, "s", "z"], &[name], vec![]),
            node("DequantizeLinear", &[name, "s", "z"], &[output], vec![]),
        ]
    };
    let zero = tensor::from_raw(onnxquant_ir::onnx::tensor_proto::DataType::Uint8, &[], vec![128]);
    let fixed = [("s", tensor::from_f32(&[], &[0.1])), ("z", zero)];
    let relu = node("Relu", &["m"], &["r"], vec![]);
    let nodes = codes("x", "q", "d").into_iter().chain(middle).chain([relu]).chain(codes("r", "p", "y"));
    model("x", constants.into_iter().chain(fixed).collect(), nodes.collect(), "y")
}

/// How many nodes read a Sum now, where `d` was decoded.
fn kept(middle: Vec<NodeProto>, constants: Vec<(&'static str, TensorProto)>) -> usize {
    let mut model = between(middle, constants);
    let decoded = HashSet::from([model.graph().find("d").unwrap()]);
    let before = model.graph().nodes().count();
    let kept = keep_float(model.graph_mut(), &HashSet::new(), &decoded);
    assert_valid(&model);
    assert_eq!(model.graph().nodes().count(), before + kept);
    assert_eq!(keep_float(model.graph_mut(), &HashSet::new(), &decoded), 0, "once is enough");
    kept
}

fn plain(op_type: &str, inputs: &[&str], output: &str) -> NodeProto {
    node(op_type, inputs, &[output], vec![])
}

#[test]
fn what_the_runtime_would_compute_on_codes_reads_a_sum() {
    let weight = || vec![("w", floats(&[3, 3, 1, 1], 1))];
    let window = || vec![ints_attribute("kernel_shape", &[2, 2])];
    let linear = vec![text_attribute("mode", "linear")];
    let codes = tensor::from_raw(onnxquant_ir::onnx::tensor_proto::DataType::Int8, &[4, 4], vec![1; 16]);
    let of_codes = || vec![("c", codes.clone())];
    let decode = || plain("DequantizeLinear", &["c", "s"], "w");
    let moved =
        |op_type| vec![plain("Flatten", &["d"], "f"), plain(op_type, &["f", "w"], "c"), plain("Relu", &["c"], "m")];
    let table = [
        ("Conv", vec![plain("Conv", &["d", "w"], "m")], weight(), 1),
        ("ConvTranspose", vec![plain("ConvTranspose", &["d", "w"], "m")], weight(), 1),
        ("Gemm over moves", moved("Gemm"), weight(), 1),
        ("MatMul, float weight", moved("MatMul"), weight(), 0),
        ("MatMul, codes", vec![decode(), plain("MatMul", &["d", "w"], "m")], of_codes(), 1),
        ("AveragePool", vec![node("AveragePool", &["d"], &["m"], window())], vec![], 1),
        ("GlobalAveragePool", vec![plain("GlobalAveragePool", &["d"], "m")], vec![], 1),
        ("Resize", vec![node("Resize", &["d"], &["m"], linear)], vec![], 1),
        ("Resize, nearest", vec![plain("Resize", &["d"], "m")], vec![], 0),
        ("Softmax", vec![plain("Softmax", &["d"], "m")], vec![], 0),
        ("behind a Softmax", vec![plain("Softmax", &["d"], "t"), plain("Conv", &["t", "w"], "m")], weight(), 0),
        ("before a Softmax", vec![plain("Conv", &["d", "w"], "t"), plain("Softmax", &["t"], "m")], weight(), 0),
        ("of the graph's input", vec![plain("Conv", &["x", "w"], "m")], weight(), 0),
    ];
    for (what, middle, constants, expected) in table {
        assert_eq!(kept(middle, constants), expected, "{what}");
    }
}

#[test]
fn nodes_on_codes_and_what_the_model_decodes_are_left_alone() {
    let conv = || vec![plain("Conv", &["d", "w"], "m")];
    let mut model = between(conv(), vec![("w", floats(&[3, 3, 1, 1], 1))]);
    let graph = model.graph_mut();
    let coded = graph.nodes().filter(|(_, node)| node.is("Conv")).map(|(id, _)| id).collect();
    let decoded = HashSet::from([graph.find("d").unwrap()]);
    assert_eq!(keep_float(graph, &coded, &decoded), 0);
    assert_eq!(keep_float(graph, &HashSet::new(), &HashSet::new()), 0);
}
