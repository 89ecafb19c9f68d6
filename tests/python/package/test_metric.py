"""A figure of the user's own decides."""

import os
import sys

import numpy as np

import onnxquant
from shared import InFolder, calib, command, model, run

NAME = "digits_resnet"
TEST = np.load(calib(NAME).parent / "test.npz")


def accuracy(candidate):
    """Of labelled digits: what people want to keep."""
    logits = candidate.run(None, {"x": TEST["x"]})[0]
    return float((logits.argmax(1) == TEST["y"]).mean())


def closeness(candidate):
    """A figure that falls with every layer on codes: minus the largest difference to the float model."""
    return -float(np.abs(candidate.run(None, {"x": TEST["x"]})[0] - FLOAT).max())


FLOAT = run(model(NAME), {"x": TEST["x"]})[0]


def quantized(**settings):
    return onnxquant.quantize(model(NAME), calibration=calib(NAME), progress=False, scheme="w8a8", **settings)


def static_layers(result):
    return result.report.integers.static_layers


class Metric(InFolder):
    def test_it_is_told(self):
        result = quantized(metric=accuracy)
        found = result.report.metric
        self.assertEqual(found.of_float, float((FLOAT.argmax(1) == TEST["y"]).mean()))
        answers = run(result.model, {"x": TEST["x"]})[0].argmax(1)
        self.assertEqual(found.value, float((answers == TEST["y"]).mean()))
        self.assertIsNone(result.missed)
        self.assertIn("metric  ", str(result))

    def test_layers_go_back_until_it_is_reached_and_no_more_than_that(self):
        free = quantized(metric=closeness)
        weights_alone = onnxquant.quantize(model(NAME), calibration=calib(NAME), progress=False, scheme="w8", metric=closeness)
        worst, best = free.report.metric.value, weights_alone.report.metric.value
        self.assertLess(worst, best)
        wanted = (worst + best) / 2
        held = quantized(metric=closeness, min_metric=wanted)
        found = held.report.metric
        self.assertGreaterEqual(found.value, wanted)
        self.assertIsNone(held.missed)
        self.assertEqual(found.wanted, wanted)
        self.assertLess(static_layers(held), static_layers(free))
        self.assertGreater(static_layers(held), 0)
        self.assertLess(found.measured, 8)
        # What was measured is what was written.
        answers = run(held.model, {"x": TEST["x"]})[0]
        self.assertEqual(-float(np.abs(answers - FLOAT).max()), found.value)
        by_loss = quantized(metric=closeness, max_metric_loss=-wanted)
        self.assertEqual(by_loss.model, held.model)

    def test_what_cannot_be_reached_is_missed(self):
        result = quantized(metric=closeness, min_metric=-1e-9)
        self.assertIn("at least -0.000000001 wanted", result.missed)
        self.assertEqual(static_layers(result), 0)

    def test_more_than_the_float_model_has_is_refused(self):
        with self.assertRaisesRegex(onnxquant.InputError, "the float model has a metric of"):
            quantized(metric=accuracy, min_metric=1.5)

    def test_it_takes_the_place_of_the_goal_of_auto(self):
        def result(**settings):
            return onnxquant.quantize(model(NAME), calibration=calib(NAME), progress=False, **settings)

        self.assertEqual(result().report.integers.wanted_sqnr_db, 20)
        self.assertNotIn("wanted_sqnr_db", result(metric=accuracy, min_metric=0.5).report.integers)

    def test_what_it_raises_is_raised_and_ends_the_run(self):
        class Mine(Exception):
            pass

        def raises(candidate):
            raise Mine(os.fspath(candidate))

        output = self.folder / "out.onnx"
        with self.assertRaises(Mine):
            onnxquant.quantize(model(NAME), output, calibration=calib(NAME), progress=False, metric=raises)
        with self.assertRaises(TypeError):
            onnxquant.quantize(model(NAME), output, calibration=calib(NAME), progress=False, metric=lambda candidate: None)
        self.assertEqual(list(self.folder.iterdir()), [])


EVAL = """
import sys, numpy, onnxruntime
test = numpy.load(sys.argv[2])
logits = onnxruntime.InferenceSession(sys.argv[1]).run(None, {"x": test["x"]})[0]
print("digits:", len(logits))
print((logits.argmax(1) == test["y"]).mean())
"""


class Command(InFolder):
    def run_command(self, metric, *words):
        script = self.folder / "eval.py"
        script.write_text(EVAL)
        fill = {"python": sys.executable, "script": script, "test": calib(NAME).parent / "test.npz"}
        metric = metric.format(model="{model}", **fill)
        return command(
            model(NAME), self.folder / "out.onnx", "--calib", calib(NAME), "--scheme", "w8a8", "--metric-command", metric, *words
        )

    def test_the_last_line_is_the_number(self):
        found = self.run_command("{python} {script} {model} {test}", "--max-metric-loss", "0.01")
        self.assertEqual(found.returncode, 0, found.stderr)
        same = quantized(metric=accuracy, max_metric_loss=0.01)
        self.assertEqual((self.folder / "out.onnx").read_bytes(), same.model)
        self.assertIn(f"metric  {same.report.metric.value}, in float", found.stdout)

    def test_what_is_no_number_is_told(self):
        for metric, words in [
            ("echo much # {model}", "is `much`, expected a number"),
            ("exit 3 # {model}", "failed (exit status: 3)"),
            ("echo 1", "`{model}` stands for its file"),
        ]:
            found = self.run_command(metric, "--min-metric", "0")
            self.assertEqual(found.returncode, 2)
            self.assertIn(words, found.stderr)
        found = command(model(NAME), self.folder / "out.onnx", "--calib", calib(NAME), "--min-metric", "1")
        self.assertEqual(found.returncode, 2)
        self.assertIn("give --metric-command", found.stderr)
        self.assertFalse((self.folder / "out.onnx").exists())
