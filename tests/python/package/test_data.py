"""Samples as they are given."""

import itertools
import unittest

import numpy as np
import onnx
from onnx import TensorProto, helper

import onnxquant
from shared import InFolder, calib, model, samples

X = [sample["x"] for sample in samples("digits_mlp")]


class Tensor:
    """As torch has it: it may need to be detached and brought home before numpy sees it."""

    def __init__(self, array, dtype="torch.float32"):
        self._array, self._is_home = array, False
        self.dtype, self.shape = dtype, array.shape

    def detach(self):
        return self

    def cpu(self):
        self._is_home = True
        return self

    def float(self):
        self.dtype = "torch.float32"
        return self

    def numpy(self):
        if not self._is_home or self.dtype == "torch.bfloat16":
            raise TypeError("this tensor cannot be seen by numpy")
        return self._array


class Lent:
    """What other libraries have: memory that is lent by DLPack."""

    def __init__(self, array):
        self._array, self.shape = array, array.shape

    def __dlpack__(self, **options):
        return self._array.__dlpack__(**options)

    def __dlpack_device__(self):
        return self._array.__dlpack_device__()


class Reader:
    """As ONNX Runtime wants it."""

    def __init__(self, arrays):
        self._arrays, self._left = arrays, iter(arrays)

    def get_next(self):
        array = next(self._left, None)
        return None if array is None else {"x": array}

    def rewind(self):
        self._left = iter(self._arrays)


class Rows:
    """A data set of torch: rows by number, and no iterator."""

    def __init__(self, arrays):
        self._arrays = arrays

    def __len__(self):
        return len(self._arrays)

    def __getitem__(self, at):
        return self._arrays[at][0], at % 10


class Loader:
    """A loader: batches of inputs and labels, as many times as it is asked."""

    def __init__(self, arrays, size, wrap=Tensor):
        self._arrays, self._size, self._wrap = arrays, size, wrap

    def __iter__(self):
        for at in range(0, len(self._arrays), self._size):
            batch = np.concatenate(self._arrays[at : at + self._size])
            yield [self._wrap(batch), self._wrap(np.arange(len(batch)))]


def quantized(data, path="digits_mlp", **settings):
    given = model(path) if isinstance(path, str) else path
    return onnxquant.quantize(given, calibration=data, progress=False, **settings).model


class Forms(InFolder):
    def test_every_form_of_the_same_samples_gives_the_same_bytes(self):
        wanted = quantized(calib("digits_mlp"))
        np.save(self.folder / "x.npy", np.concatenate(X))
        forms = {
            "dicts": [{"x": x} for x in X],
            "a generator": ({"x": x} for x in X),
            "other columns": [{"x": x, "label": 3, "text": "seven"} for x in X],
            "arrays": X,
            "tuples": [(x, 7) for x in X],
            "dicts with labels": [({"x": x}, 7) for x in X],
            "tensors": [{"x": Tensor(x)} for x in X],
            "tensors of bfloat16": [{"x": Tensor(x, "torch.bfloat16")} for x in X],
            "lent memory": [{"x": Lent(x)} for x in X],
            "a loader": Loader(X, 1),
            "a reader": Reader(X),
            "rows": Rows(X),
            "rows of numbers": [{"x": x[0].tolist(), "label": 2} for x in X],
            "numbers": [x[0].tolist() for x in X],
            "no batch axis": [{"x": x[0]} for x in X],
            "an array": np.concatenate(X),
            "float64": [{"x": x.astype(np.float64)} for x in X],
            "a file": self.folder / "x.npy",
        }
        for name, data in forms.items():
            with self.subTest(form=name):
                self.assertEqual(quantized(data), wanted)

    def test_a_reader_can_be_read_again(self):
        reader = Reader(X)
        self.assertEqual(quantized(reader), quantized(reader))

    def test_a_stream_ends_where_it_is_told_to(self):
        endless = itertools.cycle([{"x": x} for x in X])
        self.assertEqual(quantized(endless, samples=12), quantized([{"x": x} for x in X[:12]]))

    def test_batches_are_cut_up_where_the_model_takes_one_row(self):
        proto = onnx.load(model("digits_mlp"))
        for port in [*proto.graph.input, *proto.graph.output]:
            port.type.tensor_type.shape.dim[0].dim_value = 1
        path = self.folder / "one.onnx"
        onnx.save(proto, path)
        self.assertEqual(quantized(Loader(X, 16), path), quantized([{"x": x} for x in X], path))
        found = onnxquant.quantize(path, calibration=Loader(X, 16), progress=False).report.held_out
        self.assertEqual(found.calibration_samples + found.validation_samples + found.held_out_samples, 48)

    def test_batches_stay_where_the_model_takes_any(self):
        found = onnxquant.quantize(model("digits_mlp"), calibration=Loader(X, 12), progress=False).report.held_out
        self.assertEqual(found.calibration_samples + found.validation_samples + found.held_out_samples, 4)


class TwoInputs(InFolder):
    """Words and weights, as models of texts have inputs of integers; one is called as an argument of numpy's `savez`."""

    def setUp(self):
        super().setUp()
        random = np.random.default_rng(0)
        weight = helper.make_tensor("w", TensorProto.FLOAT, [16, 32], random.normal(size=512).astype(np.float32))
        table = helper.make_tensor("t", TensorProto.FLOAT, [10, 16], random.normal(size=160).astype(np.float32))
        nodes = [
            helper.make_node("Gather", ["t", "ids"], ["rows"]),
            helper.make_node("Mul", ["rows", "file"], ["scaled"]),
            helper.make_node("MatMul", ["scaled", "w"], ["y"], name="product"),
        ]
        inputs = [
            helper.make_tensor_value_info("ids", TensorProto.INT64, ["batch", "tokens"]),
            helper.make_tensor_value_info("file", TensorProto.FLOAT, ["batch", "tokens", 1]),
        ]
        outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", "tokens", 32])]
        graph = helper.make_graph(nodes, "g", inputs, outputs, [weight, table])
        self.path = self.folder / "two.onnx"
        onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), self.path)
        self.rows = [(random.integers(0, 10, (1, 5)), random.normal(size=(1, 5, 1)).astype(np.float32)) for _ in range(16)]

    def test_tuples_are_in_the_order_of_the_inputs(self):
        dicts = [{"file": scale, "ids": ids} for ids, scale in self.rows]
        wanted = quantized(dicts, self.path)
        self.assertEqual(quantized(self.rows, self.path), wanted)
        rows = [{"ids": ids[0].tolist(), "file": scale[0].tolist(), "text": "..."} for ids, scale in self.rows]
        self.assertEqual(quantized(rows, self.path), wanted)
        self.assertEqual(quantized([(*row, np.zeros(3)) for row in self.rows], self.path), wanted)

    def test_samples_that_do_not_fit_are_named(self):
        ids, scale = self.rows[0]
        cases = [
            ([{"ids": ids}], "file"),
            ([(ids,)], r"1 arrays, the model 2 inputs \(`ids`, `file`\)"),
            ([ids], "expected a dict or a tuple"),
            ([{"idz": ids}], "`idz`, none of which is an input"),
            ([{"ids": ids, "file": ["a", "b"]}], "`file` of sample 0 is no array"),
            ([{"ids": ids, "file": np.array(["a"])}], "holds <U1"),
            ([{"ids": [[0.5]], "file": scale}], "float64, expected int64"),
            ({"ids": ids, "file": scale}, "a dict, which is one sample"),
            ([], "no samples"),
            (7, "builtins.int"),
        ]
        for data, words in cases:
            with self.subTest(words=words), self.assertRaisesRegex(onnxquant.InputError, words):
                quantized(data, self.path)


if __name__ == "__main__":
    unittest.main()
