"""compare, bench and inspect."""

import json
import os
import signal
import subprocess
import sys
import time
import unittest

import onnx

import onnxquant
from shared import InFolder, calib, command, ended_by_sigint, model, samples


class Commands(InFolder):
    def test_compare_tells_what_the_command_tells(self):
        small = onnxquant.quantize(model("digits_mlp"), self.folder / "s.onnx", calibration=calib("digits_mlp"), progress=False)
        said = command("compare", model("digits_mlp"), small.path, "--data", calib("digits_mlp"), "--json")
        wanted = json.loads(said.stdout)
        for first, data in [(model("digits_mlp"), calib("digits_mlp")), (onnx.load(model("digits_mlp")), samples("digits_mlp"))]:
            found = onnxquant.compare(first, small.model, data, progress=False)
            self.assertEqual(found.to_dict(), wanted)
        self.assertGreater(found.outputs[0].sqnr_db, 20)
        self.assertEqual(found.outputs[0].name, "logits")

    def test_inspect_tells_what_would_be_done(self):
        said = json.loads(command("inspect", model("mnist_cnn"), "--json", "--scheme", "w4").stdout)
        self.assertEqual(onnxquant.inspect(model("mnist_cnn"), scheme="w4").to_dict(), said)

    def test_bench_measures(self):
        found = onnxquant.bench(model("digits_mlp"), dim={"batch": 4}, threads=1)
        self.assertEqual([timing.threads for timing in found.timings], [1])
        self.assertGreater(found.timings[0].median_ms, 0)
        with self.assertRaisesRegex(onnxquant.InputError, "no symbolic dimension `rows`"):
            onnxquant.bench(model("digits_mlp"), dim={"rows": 4})


@unittest.skipUnless(os.name == "posix", "signals are others here")
class Signals(InFolder):
    def test_signals_end_the_command_and_nothing_is_left(self):
        for number in (signal.SIGTERM, signal.SIGINT):
            with self.subTest(number):
                place = self.folder / number.name
                aside, out = place / "aside", place / "out"
                aside.mkdir(parents=True)
                out.mkdir()
                started = place / "started"
                metric = f"touch '{started}'; exec sleep 600 # {{model}}"
                child = subprocess.Popen(
                    [sys.executable, "-m", "onnxquant", model("digits_mlp"), out / "out.onnx", "--weights-only",
                     "--metric-command", metric],
                    env={**os.environ, "TMPDIR": str(aside)}, preexec_fn=ended_by_sigint,
                )
                while not started.exists():
                    self.assertIsNone(child.poll())
                    time.sleep(0.01)
                self.assertNotEqual(list(aside.iterdir()), [])
                child.send_signal(number)
                self.assertEqual(child.wait(60), -number)
                self.assertEqual([*aside.iterdir(), *out.iterdir()], [])
