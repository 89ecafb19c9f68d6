"""Code for `onnxruntime.quantization` runs with another import."""

import inspect
import subprocess
import sys

import numpy as np
import onnx
import onnxruntime.quantization

import onnxquant
from onnxquant import compat
from shared import InFolder, calib, model, run, samples

# As ONNX Runtime's documentation has it: a reader, and the two functions.
CODE = """
import sys
import numpy
from {package} import CalibrationDataReader, CalibrationMethod, QuantFormat, QuantType, quantize_dynamic, quantize_static

class Reader(CalibrationDataReader):
    def __init__(self, path):
        self.arrays = numpy.load(path)["x"][:64, None]
        self.data = iter([{{"x": array}} for array in self.arrays])

    def get_next(self):
        return next(self.data, None)

    def rewind(self):
        self.data = iter([{{"x": array}} for array in self.arrays])

model, samples, static, dynamic = sys.argv[1:]
quantize_static(
    model, static, Reader(samples), quant_format=QuantFormat.QDQ, per_channel=True, weight_type=QuantType.QInt8,
    activation_type=QuantType.QUInt8, calibrate_method=CalibrationMethod.MinMax, extra_options={{"ActivationSymmetric": False}},
)
quantize_dynamic(model, dynamic, weight_type=QuantType.QInt8)
"""


class Reader(compat.CalibrationDataReader):
    def __init__(self, given):
        self.left = iter(given)

    def get_next(self):
        return next(self.left, None)


class SameCode(InFolder):
    def test_the_same_code_runs_with_both(self):
        test = np.load(calib("digits_resnet").parent / "test.npz")
        right, sizes = {}, {}
        for package in ("onnxruntime.quantization", "onnxquant.compat"):
            static, dynamic = self.folder / f"{package}.s.onnx", self.folder / f"{package}.d.onnx"
            words = [model("digits_resnet"), calib("digits_resnet").parent / "test.npz", static, dynamic]
            found = subprocess.run([sys.executable, "-c", CODE.format(package=package), *words], capture_output=True, text=True)
            self.assertEqual(found.returncode, 0, found.stderr)
            answers = [run(path, {"x": test["x"]})[0].argmax(1) for path in (static, dynamic)]
            right[package] = [(answer == test["y"]).mean() for answer in answers]
            sizes[package] = static.stat().st_size
            self.assertIn("QuantizeLinear", {node.op_type for node in onnx.load(static).graph.node})
        theirs, ours = right.values()
        for before, after in zip(theirs, ours):
            self.assertGreaterEqual(after, before - 0.005)
        self.assertGreater(min(ours), 0.97)
        self.assertLess(sizes["onnxquant.compat"], model("digits_resnet").stat().st_size / 2)

    def test_signatures_and_names_are_theirs(self):
        for name in ("quantize_static", "quantize_dynamic", "quantize"):
            theirs, ours = (inspect.signature(getattr(one, name)).parameters for one in (onnxruntime.quantization, compat))
            self.assertEqual(list(ours), list(theirs), name)
            for parameter in theirs:
                defaults = [getattr(one[parameter].default, "name", one[parameter].default) for one in (theirs, ours)]
                self.assertEqual(*defaults, f"{name}: {parameter}")
        for name in ("QuantType", "QuantFormat", "CalibrationMethod"):
            theirs, ours = ({one.name: one.value for one in getattr(of, name)} for of in (onnxruntime.quantization, compat))
            self.assertEqual(ours, theirs)

    def test_their_enumerations_are_taken_too(self):
        theirs = onnxruntime.quantization
        result = compat.quantize_static(
            str(model("digits_mlp")), self.folder / "o.onnx", Reader(samples("digits_mlp")),
            quant_format=theirs.QuantFormat.QDQ, activation_type=theirs.QuantType.QUInt8, weight_type=theirs.QuantType.QInt8,
            calibrate_method=theirs.CalibrationMethod.Entropy,
        )
        self.assertEqual(result.report.settings.granularity, "tensor")
        self.assertEqual(result.report.settings.activations, "static")


class Arguments(InFolder):
    def quantize(self, name="digits_mlp", **arguments):
        return compat.quantize_static(model(name), self.folder / "o.onnx", Reader(samples(name)), **arguments)

    def test_they_become_settings(self):
        table = [
            ({"per_channel": True}, {"granularity": "channel"}),
            ({"weight_type": compat.QuantType.QUInt8}, {"symmetry": "symmetric"}),
            ({"weight_type": compat.QuantType.QInt4}, {"bits": 4}),
            ({"reduce_range": True}, {"bits": 7}),
            ({"extra_options": {"CalibMovingAverage": True}}, {"range": "moving-average"}),
            ({"activation_type": compat.QuantType.QUInt8}, {"signed_activations": False}),
        ]
        for arguments, expected in table:
            with self.subTest(arguments=arguments):
                settings = self.quantize(**arguments).report.settings.to_dict()
                self.assertEqual({name: settings[name] for name in expected}, expected)

    def test_layers_are_chosen_by_operator_and_name(self):
        labels = [layer.label for layer in self.quantize("mnist_cnn").report.layers]
        convolutions = self.quantize("mnist_cnn", op_types_to_quantize=["Conv"]).report.layers
        self.assertEqual({layer.op_type for layer in convolutions}, {"Conv"})
        one = self.quantize("mnist_cnn", nodes_to_quantize=labels[:1]).report.layers
        self.assertEqual([layer.label for layer in one], labels[:1])
        others = self.quantize("mnist_cnn", nodes_to_exclude=labels[:1]).report.layers
        self.assertEqual([layer.label for layer in others], labels[1:])

    def test_what_has_no_counterpart_is_told(self):
        table = [
            ({"quant_format": compat.QuantFormat.QOperator}, "QOperator has no counterpart"),
            ({"calibrate_method": compat.CalibrationMethod.Distribution}, "Distribution has no counterpart"),
            ({"activation_type": compat.QuantType.QFLOAT8E4M3FN}, "QFLOAT8E4M3FN has no counterpart"),
            ({"weight_type": compat.QuantType.QInt16}, "`weight_type` QInt16 has no counterpart"),
            ({"calibration_providers": ["CUDAExecutionProvider"]}, "`calibration_providers` has no counterpart"),
            ({"extra_options": {"SmoothQuant": True}}, "`SmoothQuant` = True has no counterpart"),
            ({"extra_options": {"WeightSymmetric": False}}, "`WeightSymmetric` = False has no counterpart"),
            ({"extra_options": {"NoSuchThing": 1}}, "`NoSuchThing` = 1 has no counterpart"),
            ({"op_types_to_quantize": ["Softmax"]}, "names no layer that holds weights"),
        ]
        for arguments, words in table:
            with self.subTest(words=words), self.assertRaisesRegex(onnxquant.InputError, words):
                self.quantize(**arguments)
        with self.assertRaisesRegex(onnxquant.InputError, "`calibration_data_reader` is needed"):
            compat.quantize_static(model("digits_mlp"), self.folder / "o.onnx")
        self.quantize(extra_options={"SmoothQuant": False, "MatMulConstBOnly": True, "CalibMaxIntermediateOutputs": 100})
