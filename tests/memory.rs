//! What a run takes of memory, by what lies between a weight and its layer.

use std::path::Path;

use onnxquant_ir::onnx::NodeProto;

use crate::support::{MatMulModel, folder, node, onnxquant, python_code, write};

const INPUTS: i64 = 2048;
const OUTPUTS: i64 = 12288;
/// Bytes of the weight.
const WEIGHT: u64 = (INPUTS * OUTPUTS * 4) as u64;

/// Largest resident set of the command with these arguments, in bytes.
fn peak(args: &[&Path], more: &[&str]) -> u64 {
    const SCRIPT: &str = "import resource, subprocess, sys; subprocess.run(sys.argv[1:], check=True); \
                          print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024)";
    let mut command = onnxquant(args);
    command.args(more).args(["--weights-only", "--quiet", "--threads", "2"]);
    let mut python = python_code(SCRIPT);
    let output = python.arg(command.get_program()).args(command.get_args()).output().expect("Python can be started");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim().parse().expect("it prints a number")
}

#[test]
fn nodes_between_a_weight_and_its_layer_take_one_copy_at_most() {
    let folder = folder();
    let at = |name: &str| folder.path().join(name);
    let plain = MatMulModel::new(INPUTS, OUTPUTS).proto();
    write(&plain, &at("plain.onnx"));
    // The weight lies the other way round, and goes back and forth.
    let mut behind = plain;
    let graph = behind.graph.as_mut().expect("it has a graph");
    graph.initializer[0].dims.reverse();
    graph.node[0].input[1] = "c".to_owned();
    let links: [NodeProto; 3] =
        [node("Transpose", &["w"], &["a"]), node("Transpose", &["a"], &["b"]), node("Transpose", &["b"], &["c"])];
    graph.node.splice(0..0, links);
    write(&behind, &at("behind.onnx"));
    let peaks = ["plain.onnx", "behind.onnx"].map(|name| peak(&[&at(name), &at("out.onnx")], &[]));
    // The allocator keeps some of what was given back.
    assert!(peaks[1] < peaks[0] + WEIGHT + WEIGHT / 4, "{peaks:?} bytes, the weight has {WEIGHT}");
}
