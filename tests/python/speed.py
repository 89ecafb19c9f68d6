"""How fast ONNX Runtime runs the forms in which weights are written.

    python tests/python/speed.py make FOLDER
    python tests/python/speed.py measure < sets.json > times.json

`make` writes models of one kind of operator each, `dense.onnx`, `conv.onnx` and `embedding.onnx`, with random weights, and
calibration samples for the convolutions, `calib/*.npz`.

`measure` reads a JSON list of sets: `models`, paths of files that compute the same, and `rows`, sizes of the first axis of the
input (of the second where it holds indices). It prints for each set, size and model the least time of a run in seconds. The
models of a set are run in turn, on one thread, so that whatever else the machine does meets all of them.
"""

import json
import sys
import time
from pathlib import Path

import numpy
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

WIDTHS = [1024, 4096, 1024, 4096, 1024]
CHANNELS, SIDE, LAYERS = 128, 28, 6
TABLE = [30000, 384]
ROUNDS = 12
SECONDS = 0.03
RANDOM = numpy.random.default_rng(1)


def normal(shape, inputs):
    return (RANDOM.standard_normal(shape) / numpy.sqrt(inputs)).astype(numpy.float32)


def save(path, nodes, constants, x, shape):
    constants = [numpy_helper.from_array(array, name) for name, array in constants.items()]
    output = helper.make_tensor_value_info(nodes[-1].output[0], TensorProto.FLOAT, None)
    graph = helper.make_graph(nodes, "g", [helper.make_tensor_value_info("x", x, shape)], [output], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    onnx.save(model, path)


def make(folder):
    steps = list(zip(WIDTHS, WIDTHS[1:]))
    constants = {f"w{i}": normal((k, m), k) for i, (k, m) in enumerate(steps)}
    nodes = [helper.make_node("MatMul", [f"h{i}" if i else "x", f"w{i}"], [f"h{i + 1}"]) for i in range(len(steps))]
    save(folder / "dense.onnx", nodes, constants, TensorProto.FLOAT, ["rows", WIDTHS[0]])

    constants, nodes = {}, []
    for i in range(LAYERS):
        constants[f"w{i}"] = normal((CHANNELS, CHANNELS, 3, 3), 4 * CHANNELS)
        constants[f"b{i}"] = normal(CHANNELS, 1)
        nodes.append(helper.make_node("Conv", [f"h{i}" if i else "x", f"w{i}", f"b{i}"], [f"c{i}"], pads=[1, 1, 1, 1]))
        nodes.append(helper.make_node("Relu", [f"c{i}"], [f"h{i + 1}"]))
    save(folder / "conv.onnx", nodes, constants, TensorProto.FLOAT, ["rows", CHANNELS, SIDE, SIDE])
    (folder / "calib").mkdir()
    for i in range(8):
        numpy.savez(folder / "calib" / f"{i}.npz", x=normal((1, CHANNELS, SIDE, SIDE), 1))

    nodes = [helper.make_node("Gather", ["table", "x"], ["y"])]
    save(folder / "embedding.onnx", nodes, {"table": normal(TABLE, TABLE[1])}, TensorProto.INT64, ["batch", "rows"])


def session(path):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def sample(used, rows):
    (x,) = used.get_inputs()
    if x.type == "tensor(int64)":
        return {x.name: RANDOM.integers(0, TABLE[0], (1, rows))}
    return {x.name: RANDOM.standard_normal([rows, *x.shape[1:]]).astype(numpy.float32)}


def least_time(used, inputs):
    least, spent = numpy.inf, 0.0
    while spent < SECONDS:
        start = time.perf_counter()
        used.run(None, inputs)
        took = time.perf_counter() - start
        least, spent = min(least, took), spent + took
    return least


def measure(models, rows):
    sessions = [session(path) for path in models]
    table = []
    for count in rows:
        inputs = sample(sessions[0], count)
        times = [[least_time(used, inputs) for used in sessions] for _ in range(ROUNDS)]
        table.append(numpy.min(times, axis=0).tolist())
    return table


def main():
    if sys.argv[1] == "make":
        return make(Path(sys.argv[2]))
    return json.dump([measure(**wanted) for wanted in json.load(sys.stdin)], sys.stdout)


if __name__ == "__main__":
    main()
