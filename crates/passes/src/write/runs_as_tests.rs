use onnxquant_ir::onnx::{AttributeProto, NodeProto, OperatorSetIdProto};
use onnxquant_ir::{Model, int_attribute, tensor};

use super::*;
use crate::testing::{floats, message, node};

fn constants(codes: DataType, scale: DataType) -> Vec<(&'static str, TensorProto)> {
    vec![
        ("q", tensor::from_codes(codes, &[32, 4], vec![0; 128])),
        ("s", tensor::from_f32_as(scale, &[], &[0.5])),
        ("z", tensor::from_codes(DataType::Uint8, &[], [0])),
        ("b", floats(&[4], 1)),
        ("bq", tensor::from_i32(&[4], &[0; 4])),
        ("w", floats(&[32, 4], 2)),
    ]
}

fn of(nodes: Vec<NodeProto>, codes: DataType, scale: DataType) -> Model {
    in_blocks(nodes, codes, scale, 0)
}

/// With scales in blocks where `block` is not 0.
fn in_blocks(nodes: Vec<NodeProto>, codes: DataType, scale: DataType, block: usize) -> Model {
    let mut constants = constants(codes, scale);
    if block > 0 {
        let count = 32usize.div_ceil(block);
        constants[1].1 = tensor::from_f32_as(scale, &[count, 4], &vec![0.5; count * 4]);
    }
    let mut proto = message("x", constants, nodes, "y");
    proto.opset_import.push(OperatorSetIdProto { domain: Some("com.microsoft".into()), version: Some(1) });
    Model::from_proto(proto).expect("the model of a test is valid")
}

/// What the node that makes `l` runs as.
fn predicted(model: &Model, oldest: &str) -> RunsAs {
    let graph = model.graph();
    let (layer, _) = graph.producer(graph.find("l").expect("the layer makes `l`")).expect("a node makes `l`");
    runs_as(graph, layer, oldest.parse().expect("a version"))
}

fn dequantize(inputs: &[&str], output: &str, attributes: Vec<AttributeProto>) -> NodeProto {
    node("DequantizeLinear", inputs, &[output], attributes)
}

fn layer(op_type: &str, inputs: &[&str]) -> NodeProto {
    node(op_type, inputs, &["l"], vec![])
}

#[test]
fn layers_on_codes_run_as_what_follows_them_allows() {
    let input =
        || vec![node("QuantizeLinear", &["x", "s", "z"], &["xq"], vec![]), dequantize(&["xq", "s", "z"], "d", vec![])];
    let weight = || dequantize(&["q", "s"], "v", vec![]);
    let to_codes = |value: &str| node("QuantizeLinear", &[value, "s", "z"], &["y"], vec![]);
    let float = || node("Exp", &["l"], &["y"], vec![]);
    let relu = || vec![node("Relu", &["l"], &["r"], vec![]), to_codes("r")];
    let add = || vec![dequantize(&["bq", "s"], "bd", vec![]), node("Add", &["l", "bd"], &["y"], vec![])];
    let table: [(&str, Vec<NodeProto>, Option<Kernel>); 9] = [
        ("Conv", vec![to_codes("l")], Some(Kernel::QLinearConv)),
        ("Conv", relu(), Some(Kernel::QLinearConv)),
        ("Conv", vec![float()], None),
        ("Gemm", vec![to_codes("l")], Some(Kernel::QGemm)),
        ("Gemm", vec![float()], Some(Kernel::QGemm)),
        ("MatMul", vec![to_codes("l")], Some(Kernel::QLinearMatMul)),
        ("MatMul", vec![float()], Some(Kernel::MatMulIntegerToFloat)),
        ("MatMul", add(), Some(Kernel::QGemm)),
        ("MatMul", vec![node("Add", &["l", "b"], &["y"], vec![])], Some(Kernel::MatMulIntegerToFloat)),
    ];
    for (op_type, after, expected) in table {
        let nodes = [input(), vec![weight(), layer(op_type, &["d", "v"])], after].concat();
        let found = predicted(&of(nodes, DataType::Int8, DataType::Float), "1.22");
        assert_eq!(found.kernel, expected.unwrap_or(Kernel::Float), "{op_type}");
        assert_eq!(found.slow_because.is_some(), expected.is_none(), "{op_type}");
    }
}

#[test]
fn weights_that_are_decoded_run_as_the_version_allows() {
    use DataType::{Bfloat16, Float, Int4, Int8};
    type Row = (&'static str, DataType, DataType, usize, [bool; 2]);
    let table: [Row; 8] = [
        ("MatMul", Int4, Float, 32, [true, true]),
        ("MatMul", Int8, Float, 32, [false, true]),
        ("MatMul", Int4, Float, 0, [false, true]),
        ("Gemm", Int4, Float, 32, [false, true]),
        ("MatMul", Int4, Float, 8, [false, false]),
        ("MatMul", Int4, Float, 48, [false, false]),
        ("MatMul", Int4, Bfloat16, 32, [false, false]),
        ("Conv", Int8, Float, 0, [false, false]),
    ];
    for (op_type, codes, scale, block, fused) in table {
        let what = format!("{op_type} {codes:?} {scale:?} in blocks of {block}");
        let attributes = match block {
            0 => vec![],
            size => vec![int_attribute("axis", 0), int_attribute("block_size", size as i64)],
        };
        let after = node("Exp", &["l"], &["y"], vec![]);
        let nodes = vec![dequantize(&["q", "s"], "v", attributes), layer(op_type, &["x", "v"]), after];
        let model = in_blocks(nodes, codes, scale, block);
        for (oldest, fused) in ["1.22", "1.26"].into_iter().zip(fused) {
            let found = predicted(&model, oldest);
            assert_eq!(found.kernel == Kernel::MatMulNBits, fused, "{what} in {oldest}");
            assert_eq!(found.slow_because.is_none(), fused, "{what} in {oldest}");
        }
    }
}

#[test]
fn other_forms_run_alike_in_all_versions() {
    let after = || node("Exp", &["l"], &["y"], vec![]);
    let nbits = NodeProto { domain: Some("com.microsoft".into()), ..layer("MatMulNBits", &["x", "q", "s"]) };
    let folded = vec![
        node("Cast", &["q"], &["c"], vec![int_attribute("to", 1)]),
        node("Mul", &["c", "s"], &["v"], vec![]),
        layer("MatMul", &["x", "v"]),
        after(),
    ];
    let dynamic = |more: Vec<NodeProto>| {
        let quantize = node("DynamicQuantizeLinear", &["x"], &["xq", "xs", "xz"], vec![]);
        [vec![quantize, layer("MatMulInteger", &["xq", "q", "xz"])], more, vec![after()]].concat()
    };
    let shared = dynamic(vec![node("MatMulInteger", &["xq", "q", "xz"], &["other"], vec![])]);
    for (nodes, expected) in [
        (vec![nbits, after()], Kernel::MatMulNBits),
        (folded, Kernel::Float),
        (vec![layer("MatMul", &["x", "w"]), after()], Kernel::Float),
        (dynamic(vec![]), Kernel::DynamicQuantizeMatMul),
        (shared, Kernel::MatMulIntegerToFloat),
    ] {
        let found = predicted(&of(nodes, DataType::Int8, DataType::Float), "1.19");
        assert_eq!(found, RunsAs { kernel: expected, slow_because: None });
        assert!(found.kernel == Kernel::Float || found.kernel.is(expected.name()));
    }
}
