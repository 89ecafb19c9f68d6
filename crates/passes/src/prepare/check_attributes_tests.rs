use onnxquant_ir::onnx::AttributeProto;
use onnxquant_ir::onnx::TensorProto;
use onnxquant_ir::{int_attribute, ints_attribute};

use super::*;
use crate::testing::{body, floats, graph_attribute, message, node};

/// What is found of a node `y` that reads `x`, of four axes [2, 3, 8, 8], then these constants.
fn found(op_type: &str, attributes: Vec<AttributeProto>, constants: Vec<TensorProto>) -> Vec<String> {
    let names = ["a", "b", "c", "d", "e"];
    let inputs: Vec<&str> = std::iter::once("x").chain(names).take(1 + constants.len()).collect();
    let constants = names.into_iter().zip(constants).chain([("x", floats(&[2, 3, 8, 8], 1))]).collect();
    let model = message("", constants, vec![node(op_type, &inputs, &["y"], attributes)], "y");
    check_attributes(&model).iter().map(ToString::to_string).collect()
}

fn integers(numbers: &[i64]) -> TensorProto {
    tensor::from_i64(&[numbers.len()], numbers)
}

#[test]
fn every_rule_takes_its_limits_and_nothing_beyond() {
    let int = |name: &str, number| vec![int_attribute(name, number)];
    let ints = |name: &str, numbers: &[i64]| vec![ints_attribute(name, numbers)];
    type Attributes = Vec<AttributeProto>;
    let table: Vec<(&str, Vec<Attributes>, Vec<Attributes>)> = vec![
        ("LayerNormalization", vec![int("axis", -4), int("axis", 3)], vec![int("axis", 4), int("axis", -5)]),
        ("Concat", vec![int("axis", 3)], vec![int("axis", i64::MAX), int("axis", i64::MIN)]),
        ("Flatten", vec![int("axis", 4), int("axis", -4)], vec![int("axis", 5)]),
        ("Softmax", vec![int("axis", -1)], vec![int("axis", 2_147_483_647)]),
        ("OneHot", vec![int("axis", 4), int("axis", -5)], vec![int("axis", 5)]),
        ("ReduceMean", vec![ints("axes", &[]), ints("axes", &[-1, 0])], vec![ints("axes", &[1, 4])]),
        ("Unsqueeze", vec![ints("axes", &[0, 5])], vec![ints("axes", &[0, 6])]),
        ("Transpose", vec![ints("perm", &[3, 1, 0, 2])], vec![ints("perm", &[0, 1, 1, 2]), ints("perm", &[0, 1])]),
        (
            "MaxPool",
            vec![ints("kernel_shape", &[2048, 2048])],
            vec![ints("kernel_shape", &[2, 2_147_483_647]), ints("kernel_shape", &[4096, 4096])],
        ),
        (
            "AveragePool",
            vec![ints("kernel_shape", &[1, 1])],
            vec![ints("kernel_shape", &[2]), ints("strides", &[0, 1])],
        ),
        ("Conv", vec![ints("dilations", &[1, 9])], vec![ints("dilations", &[-1, 1]), int("group", 0)]),
        ("Conv", vec![ints("pads", &[-1, 0, 0, 0])], vec![ints("pads", &[1 << 40, 0, 0, 0])]),
        ("LpPool", vec![ints("pads", &[1, 0, 0, 0])], vec![ints("pads", &[-1, 0, 0, 0])]),
        ("ConvTranspose", vec![ints("output_padding", &[0, 1])], vec![ints("output_padding", &[-1, 0])]),
        ("DepthToSpace", vec![int("blocksize", 2)], vec![int("blocksize", 0)]),
        ("LSTM", vec![int("hidden_size", 8)], vec![int("hidden_size", i64::MAX)]),
        ("Split", vec![int("num_outputs", 2)], vec![int("num_outputs", 0)]),
        ("Scan", vec![int("num_scan_inputs", 1)], vec![int("num_scan_inputs", 2), int("num_scan_inputs", 70_000)]),
    ];
    for (op_type, legal, illegal) in table {
        for attributes in legal {
            assert_eq!(found(op_type, attributes.clone(), vec![]), [""; 0], "{op_type} {attributes:?}");
        }
        for attributes in illegal {
            let problems = found(op_type, attributes.clone(), vec![]);
            let named = format!("node `node_y` ({op_type}): `{}` is ", attributes[0].name());
            assert!(problems.len() == 1 && problems[0].starts_with(&named), "{attributes:?}: {problems:?}");
        }
    }
}

#[test]
fn arguments_that_became_inputs_are_checked_there() {
    let cases = [
        ("ReduceSum", vec![integers(&[3])], vec![integers(&[4])]),
        ("Squeeze", vec![integers(&[-4])], vec![integers(&[-5])]),
        ("Unsqueeze", vec![integers(&[4])], vec![integers(&[5])]),
        ("Pad", vec![integers(&[0, 0, 1, 1, 0, 0, -1, 1])], vec![integers(&[0, 0, 1, 1, 0, 0, 1 << 33, 1])]),
        ("Tile", vec![integers(&[1, 1, 2, 0])], vec![integers(&[1, 1, 1 << 33, 1])]),
        ("Tile", vec![integers(&[1, 1, 64, 64])], vec![integers(&[1, 100, 1 << 10, 1 << 10])]),
        ("Expand", vec![integers(&[2, 3, 800, 800])], vec![integers(&[2, 3, 1 << 20, 1 << 20])]),
    ];
    for (op_type, legal, illegal) in cases {
        assert_eq!(found(op_type, vec![], legal), [""; 0], "{op_type}");
        let problems = found(op_type, vec![], illegal);
        assert!(problems.len() == 1 && problems[0].contains("input 1 (`"), "{op_type}: {problems:?}");
    }
}

#[test]
fn normalizations_have_a_parameter_a_channel() {
    let of = |dims: &[usize]| vec![floats(dims, 2); 4];
    assert_eq!(found("BatchNormalization", vec![], of(&[3])), [""; 0]);
    let message = "node `node_y` (BatchNormalization): the shape of input 1 is [4], expected [3], a number for each \
                   channel of the input";
    assert_eq!(found("BatchNormalization", vec![], of(&[4])), [message]);
    assert_eq!(found("InstanceNormalization", vec![], vec![floats(&[3], 1); 2]), [""; 0]);
    assert_eq!(found("InstanceNormalization", vec![], vec![floats(&[3, 1], 1); 2]).len(), 1);
    let vector = vec![("v", floats(&[4], 1))];
    let alone = message_of(vector, node("BatchNormalization", &["v", "v", "v", "v", "v"], &["y"], vec![]));
    assert_eq!(check_attributes(&alone).len(), 1, "a tensor of one axis has one channel");
}

fn message_of(constants: Vec<(&str, TensorProto)>, node: NodeProto) -> ModelProto {
    message("u", constants, vec![node], "y")
}

#[test]
fn unknown_ranks_leave_room_and_ranks_are_followed_through_operators() {
    let softmax = |axis| node("Softmax", &["u"], &["y"], vec![int_attribute("axis", axis)]);
    assert_eq!(check_attributes(&message_of(vec![], softmax(40))), []);
    assert_eq!(check_attributes(&message_of(vec![], softmax(2_147_483_647))).len(), 1);
    let nodes = vec![
        node("MatMul", &["c", "w"], &["m"], vec![]),
        node("Relu", &["m"], &["r"], vec![]),
        node("ArgMax", &["r"], &["y"], vec![int_attribute("axis", 2)]),
    ];
    let constants = vec![("c", floats(&[2, 4], 1)), ("w", floats(&[4, 4], 2))];
    assert_eq!(check_attributes(&message("u", constants, nodes, "y"))[0].node, "node_y");
}

#[test]
fn bodies_are_checked_and_other_domains_are_not() {
    let bad = || node("Concat", &["u", "u"], &["y"], vec![int_attribute("axis", 99)]);
    let branch = || graph_attribute("then_branch", body(vec![bad()], &["y"]));
    let inside = message_of(vec![], node("If", &["u"], &["z"], vec![branch()]));
    assert_eq!(check_attributes(&inside).len(), 1);
    let foreign = NodeProto { domain: Some("org.example".to_owned()), ..bad() };
    assert_eq!(check_attributes(&message_of(vec![], foreign)), []);
}
