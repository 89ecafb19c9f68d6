"""Writes every model of the ONNX backend tests to a folder, as `NNNN_name.onnx`.

    python tests/python/make_node_models.py FOLDER

These are the models of the node tests, built from the cases in the `onnx` package, and
then the model files that the package ships. The order, and so the numbers, are those of
the sorted names.

Tests of attributes that the package has none of, and of operators of ONNX Runtime's own
domain, follow them: what they expect is what ONNX
Runtime computes, or what the standard's text says where it computes nothing.

What a test is given and what it expects stand in `NNNN_name/`, as `input_N.pb` and
`output_N.pb`, in the order of the graph's inputs and outputs. A test of other things than
tensors has no such folder.
"""

import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from onnx.backend.test.case.node import collect_testcases

from contrib_cases import contrib_nodes


def node_cases():
    """The node tests, in order of their names."""
    return [case for case in sorted(collect_testcases(), key=lambda case: case.name) if case.model is not None]


def as_tensor(value, name):
    """The value as a tensor of this name; `None` for what is no tensor."""
    if value is None or isinstance(value, (list, dict)):
        return None
    tensor = TensorProto()
    tensor.CopyFrom(value if isinstance(value, TensorProto) else numpy_helper.from_array(value))
    tensor.name = name
    return tensor


def test_data(case):
    """File names and encoded tensors of a node test, none if something is no tensor."""
    inputs, outputs = case.data_sets[0]
    sides = [("input", case.model.graph.input, inputs), ("output", case.model.graph.output, outputs)]
    tensors = [(f"{side}_{number}.pb", as_tensor(value, declared.name))
               for side, declarations, values in sides
               for number, (declared, value) in enumerate(zip(declarations, values, strict=True))]
    are_tensors = all(tensor is not None for _, tensor in tensors)
    return [(file, tensor.SerializeToString()) for file, tensor in tensors] if are_tensors else []


def shipped_models():
    """Path and name of every model file in the package, in order of the paths."""
    data = Path(onnx.__file__).parent / "backend" / "test" / "data"
    paths = sorted(data.rglob("*.onnx"))
    return [(path, "_".join(path.relative_to(data).with_suffix("").parts)) for path in paths]


def shipped_data(path):
    """File names and content of the test of a model file."""
    return [(file.name, file.read_bytes()) for file in sorted((path.parent / "test_data_set_0").glob("*.pb"))]


def model_of(node, inputs, outputs, opset):
    """A model of one node, as bytes; only the type of the outputs is declared."""
    declared = [helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(value.dtype), value.shape)
                for name, value in inputs.items()]
    made = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs]
    graph = helper.make_graph([node], "more", declared, made)
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString()


def computed(node, inputs, opset):
    """The outputs of a node in ONNX Runtime, by name."""
    names = [name for name in node.output if name]
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3  # Shapes that it infers otherwise than it computes are no matter here.
    model = model_of(node, inputs, names, opset)
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return dict(zip(names, session.run(names, inputs)))


def numbers(*shape, seed=0):
    """Floats around 0."""
    return np.random.default_rng(seed + sum(shape)).normal(size=shape).astype(np.float32)


def recurrent(op_type, directions, **attributes):
    """A recurrent node, and what it is given: five steps, three samples."""
    gates, hidden = {"RNN": 1, "GRU": 3, "LSTM": 4}[op_type], 4
    inputs = {"x": numbers(5, 3, 6), "w": numbers(directions, gates * hidden, 6),
              "r": numbers(directions, gates * hidden, hidden), "b": numbers(directions, 2 * gates * hidden)}
    return helper.make_node(op_type, list(inputs), ["y", "y_h"], hidden_size=hidden, **attributes), inputs


def from_axis():
    """An addition of the first opsets, whose second input lies along an axis of the first."""
    inputs = {"x": numbers(2, 3, 3, 3), "b": numbers(3)}
    node = helper.make_node("Add", list(inputs), ["y"], axis=1, broadcast=1)
    return node, inputs, {"y": inputs["x"] + inputs["b"].reshape(3, 1, 1)}, 6


def more_nodes():
    """Name, node, inputs and opset of tests whose outputs ONNX Runtime computes."""
    make = helper.make_node
    infinite = np.array([[-np.inf, -np.inf], [-np.inf, 1]], np.float32)
    picture, kernel = numbers(1, 2, 5, 5), numbers(2, 3, 3, 3)
    crop = {"x": picture, "roi": np.array([0, 0, 0.2, 0.2, 1, 1, 0.8, 0.8], np.float32),
            "scales": np.array([1, 1, 1.5, 1.5], np.float32)}
    return [
        ("rnn_relu", *recurrent("RNN", 1, activations=["Relu"]), 14),
        ("rnn_back", *recurrent("RNN", 1, direction="reverse"), 7),
        ("gru_clip", *recurrent("GRU", 1, clip=0.5), 14),
        ("gru_hard", *recurrent("GRU", 2, direction="bidirectional",
                                activations=["Sigmoid", "Tanh", "HardSigmoid", "Tanh"]), 14),
        ("gru_back", *recurrent("GRU", 1, direction="reverse", linear_before_reset=1), 14),
        ("lstm_relu", *recurrent("LSTM", 1, activations=["Sigmoid", "Tanh", "Relu"]), 14),
        ("lstm_coupled", *recurrent("LSTM", 1, input_forget=1), 14),
        ("lstm_back", *recurrent("LSTM", 1, direction="reverse"), 14),
        ("lstm_both", *recurrent("LSTM", 2, direction="bidirectional"), 14),
        ("global_lp_pool", make("GlobalLpPool", ["x"], ["y"]), {"x": picture}, 14),
        ("global_lp_pool_p1", make("GlobalLpPool", ["x"], ["y"], p=1), {"x": picture}, 14),
        ("resize_crop_scales", make("Resize", list(crop), ["y"], mode="linear",
                                    coordinate_transformation_mode="tf_crop_and_resize"), crop, 13),
        ("conv_transpose_of_size_9", make("ConvTranspose", ["x", "w"], ["y"], output_shape=[9, 9], strides=[2, 2]),
         {"x": picture, "w": kernel}, 14),
        ("conv_transpose_of_size_10", make("ConvTranspose", ["x", "w"], ["y"], output_shape=[10, 10], strides=[2, 2]),
         {"x": picture, "w": kernel}, 14),
        ("conv_transpose_same", make("ConvTranspose", ["x", "w"], ["y"], auto_pad="SAME_UPPER", strides=[2, 2]),
         {"x": picture, "w": kernel}, 14),
        ("conv_transpose_same_padded", make("ConvTranspose", ["x", "w"], ["y"], auto_pad="SAME_UPPER",
                                            strides=[2, 2], output_padding=[1, 1]), {"x": picture, "w": kernel}, 14),
        ("celu", make("Celu", ["x"], ["y"], alpha=2.5), {"x": numbers(4, 5)}, 12),
        ("reduce_max_infinite", make("ReduceMax", ["x"], ["y"], axes=[1], keepdims=0), {"x": infinite}, 13),
        ("reduce_min_infinite", make("ReduceMin", ["x"], ["y"], axes=[0]), {"x": -infinite}, 13),
    ]


def more_tests():
    """Name, model and data of the tests that are made here."""
    tests = [(name, node, inputs, computed(node, inputs, opset), opset)
             for name, node, inputs, opset in [*more_nodes(), *contrib_nodes()]]
    tests.append(("add_from_axis", *from_axis()))
    for name, node, inputs, outputs, opset in tests:
        sides = [("input", inputs), ("output", outputs)]
        data = [(f"{side}_{number}.pb", as_tensor(value, key).SerializeToString())
                for side, values in sides for number, (key, value) in enumerate(values.items())]
        yield "more_" + name, model_of(node, inputs, list(outputs), opset), data


def main():
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    nodes, shipped = node_cases(), shipped_models()
    tests = [(case.name, case.model.SerializeToString(), test_data(case)) for case in nodes]
    tests += [(name, path.read_bytes(), shipped_data(path)) for path, name in shipped]
    more = list(more_tests())
    tests += more
    for number, (name, model, data) in enumerate(tests):
        (folder / f"{number:04}_{name}.onnx").write_bytes(model)
        for file, content in data:
            path = folder / f"{number:04}_{name}" / file
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(content)
    print(f"{len(nodes)} node test models and {len(shipped)} shipped models, {len(more)} more, in {folder}")


if __name__ == "__main__":
    main()
