"""`onnxquant.quantize` does what the command does."""

import logging
import multiprocessing
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time
import unittest
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import onnx

import onnxquant
from shared import ROOT, InFolder, calib, command, ended_by_sigint, model, run, samples, script

# A model, and settings in the words of Python and of the command.
CASES = [
    ("mnist_cnn", {}, []),
    ("digits_mlp", {"scheme": "w4", "method": "optq"}, ["--scheme", "w4", "--method", "optq"]),
    ("digits_mlp", {"scheme": "w8", "min_sqnr": 25}, ["--scheme", "w8", "--min-sqnr", "25"]),
    ("digits_transformer", {"scheme": "w8a8-dynamic", "samples": 12}, ["--scheme", "w8a8-dynamic", "--samples", "12"]),
    ("digits_conv1d", {"threads": 1, "exclude": ["*fc*"], "allow_float": True}, ["--exclude", "*fc*", "--allow-float"]),
]


class SameBytes(InFolder):
    def test_a_folder_of_samples(self):
        for at, (name, settings, words) in enumerate(CASES):
            with self.subTest(name=name, settings=settings):
                by_command, by_python = self.folder / f"c{at}.onnx", self.folder / f"p{at}.onnx"
                found = command(model(name), by_command, "--calib", calib(name), *words)
                result = onnxquant.quantize(model(name), by_python, calibration=calib(name), progress=False, **settings)
                self.assertIn(found.returncode, (0, 1), found.stderr)
                self.assertEqual(found.returncode == 1, result.missed is not None)
                self.assertEqual(by_command.read_bytes(), by_python.read_bytes())
                self.assertEqual(result.path, by_python)

    def test_every_form_of_model_and_samples(self):
        wanted = self.folder / "c.onnx"
        self.assertEqual(command(model("digits_mlp"), wanted, "--calib", calib("digits_mlp")).returncode, 0)
        proto = onnx.load(model("digits_mlp"))
        given = samples("digits_mlp")
        for kind, form in [("path", model("digits_mlp")), ("bytes", proto.SerializeToString()), ("proto", proto)]:
            with self.subTest(form=kind):
                found = onnxquant.quantize(form, calibration=iter(given), progress=False).model
                expected = wanted.read_bytes()
                found = found.SerializeToString() if kind == "proto" else found
                # Protobuf may order fields in another way.
                self.assertEqual(onnx.load_from_string(found), onnx.load_from_string(expected))
                if kind != "proto":
                    self.assertEqual(found, expected)

    def test_a_model_and_samples_at_an_address(self):
        wanted, found = self.folder / "c.onnx", self.folder / "p.onnx"
        one = calib("digits_mlp") / "0000.npz"
        self.assertEqual(command(model("digits_mlp"), wanted, "--calib", one).returncode, 0)
        quiet = type("Quiet", (SimpleHTTPRequestHandler,), {"log_message": lambda *_: None})
        server = ThreadingHTTPServer(("127.0.0.1", 0), partial(quiet, directory=str(model("digits_mlp").parent)))
        threading.Thread(target=server.serve_forever, daemon=True).start()
        at = f"http://127.0.0.1:{server.server_port}"
        try:
            address = f"{at}/model.onnx"
            result = onnxquant.quantize(address, found, calibration=f"{at}/calib/0000.npz", progress=False)
            self.assertEqual(result.path, found)
            self.assertEqual(wanted.read_bytes(), found.read_bytes())
            self.assertEqual(result.report.files.input.name, "model.onnx")
            # Samples from memory, for a model that is elsewhere.
            arrays = onnxquant.quantize(address, calibration=[dict(np.load(one))], progress=False)
            self.assertEqual(arrays.model, wanted.read_bytes())
            with self.assertRaisesRegex(onnxquant.InputError, "nothing is at this address"):
                onnxquant.quantize(f"{at}/none.onnx", found, weights_only=True, progress=False)
        finally:
            server.shutdown()
            server.server_close()

    def test_the_script_is_the_command(self):
        def found(run):
            """What is printed, but for time, memory and the name of the file."""
            return [line for line in run.stdout.splitlines() if not line.startswith(("time ", "wrote "))]

        by_command, by_script = self.folder / "c.onnx", self.folder / "s.onnx"
        words = ["--calib", calib("mnist_cnn")]
        first, second = command(model("mnist_cnn"), by_command, *words), script(model("mnist_cnn"), by_script, *words)
        self.assertEqual((first.returncode, found(first)), (second.returncode, found(second)), second.stderr)
        self.assertEqual(by_command.read_bytes(), by_script.read_bytes())
        for words in (["--version"], ["none.onnx", by_script, "--calib", "none"], ["--shceme", "w4"], ["inspect", model("mnist_cnn")]):
            first, second = command(*words), script(*words)
            self.assertEqual((first.returncode, first.stdout, first.stderr), (second.returncode, second.stdout, second.stderr))

    def test_the_runtime_is_that_of_this_python(self):
        result = onnxquant.quantize(model("digits_mlp"), calibration=calib("digits_mlp"), progress=False)
        import onnxruntime

        self.assertEqual(result.report.measured.runtime, f"ONNX Runtime {onnxruntime.__version__}")

    def test_the_example_of_the_book(self):
        text = (ROOT / "docs/src/python.md").read_text(encoding="utf-8")
        code = text.split("```python\n", 1)[1].split("```", 1)[0]
        found = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
        self.assertEqual(found.returncode, 0, found.stderr)
        self.assertIn("layers quantized to 8 bits", found.stdout)


class Results(InFolder):
    def test_they_tell_what_was_done(self):
        output = self.folder / "small.onnx"
        result = onnxquant.quantize(model("mnist_cnn"), output, calibration=calib("mnist_cnn"), progress=False)
        self.assertEqual(result.model, output)
        self.assertEqual(result.size, output.stat().st_size)
        self.assertEqual(result.size_before, model("mnist_cnn").stat().st_size)
        self.assertGreater(result.accuracy.sqnr_db, 20)
        self.assertGreater(result.seconds, 0)
        self.assertIsNone(result.missed)
        self.assertIs(result.check(), result)
        report = result.report
        self.assertEqual(len(report.layers), 6)
        self.assertEqual({layer.op_type for layer in report.layers}, {"Conv", "Gemm"})
        self.assertGreaterEqual(report.layers[0].certificate.achieved, 0)
        self.assertEqual(report["opset"], report.opset)
        self.assertIsNone(report.not_run)
        self.assertEqual(report.warnings, [])
        self.assertEqual(report.to_dict()["layers"][0]["label"], report.layers[0].label)
        with self.assertRaisesRegex(AttributeError, "`layers` is near"):
            report.layer
        self.assertIn("layers quantized to 8 bits", str(result))

    def test_what_was_missed_is_told_and_raised_on_demand(self):
        with self.assertLogs("onnxquant", logging.WARNING) as logs:
            result = onnxquant.quantize(
                model("digits_mlp"), calibration=calib("digits_mlp"), progress=False, scheme="w2", min_sqnr=60
            )
        self.assertIn("60.00 dB wanted", result.missed)
        self.assertIn("60.00 dB wanted", logs.output[0])
        with self.assertRaisesRegex(onnxquant.Missed, "the model was written"):
            result.check()

    def test_the_model_runs(self):
        result = onnxquant.quantize(model("digits_mlp"), calibration=calib("digits_mlp"), progress=False)
        x = np.load(calib("digits_mlp").parent / "test.npz")["x"]
        float_out, out = run(model("digits_mlp"), {"x": x})[0], run(result.model, {"x": x})[0]
        self.assertGreater((float_out.argmax(1) == out.argmax(1)).mean(), 0.97)


class Errors(InFolder):
    def test_they_have_the_words_of_the_command(self):
        output = self.folder / "out.onnx"
        cases = [
            ((self.folder / "none.onnx", calib("digits_mlp"), {}), []),
            ((model("digits_mlp"), self.folder / "none", {}), []),
            ((model("digits_mlp"), calib("mnist_cnn"), {}), []),
            ((model("digits_mlp"), calib("digits_mlp"), {"scheme": "w4", "beam": 2, "method": "msq"}), ["--scheme", "w4", "--beam", "2", "--method", "msq"]),
            ((model("digits_mlp"), calib("digits_mlp"), {"bits": 12}), ["--bits", "12"]),
            ((model("digits_mlp"), calib("digits_mlp"), {"scheme": "w9"}), ["--scheme", "w9"]),
        ]
        for (path, data, settings), words in cases:
            with self.subTest(path=path, settings=settings):
                said = command(path, output, "--calib", data, *words)
                with self.assertRaises(onnxquant.InputError) as raised:
                    onnxquant.quantize(path, output, calibration=data, progress=False, **settings)
                self.assertEqual(said.returncode, 2)
                self.assertTrue(said.stderr.startswith(f"error: {raised.exception}"), f"{said.stderr}\n{raised.exception}")
                self.assertIsInstance(raised.exception, ValueError)
                self.assertIsInstance(raised.exception, onnxquant.Error)
                self.assertEqual(list(self.folder.iterdir()), [])

    def test_what_is_no_model_is_named(self):
        for given, words in [(7, "builtins.int"), (b"no model", "model.onnx"), (model("digits_mlp").parent, "name the folder")]:
            with self.assertRaisesRegex(onnxquant.InputError, words):
                onnxquant.quantize(given, calibration=calib("digits_mlp"), progress=False)

    def test_samples_are_asked_for(self):
        with self.assertRaisesRegex(onnxquant.InputError, "weights_only=True"):
            onnxquant.quantize(model("digits_mlp"), progress=False)
        result = onnxquant.quantize(model("digits_mlp"), weights_only=True, progress=False)
        self.assertIsNone(result.accuracy)


class OnTheWay(InFolder):
    def test_progress_is_told_in_the_thread_that_called(self):
        told = []

        def progress(phase, done, total):
            told.append((phase, done, total, threading.get_ident()))

        onnxquant.quantize(model("mnist_cnn"), calibration=samples("mnist_cnn"), progress=progress)
        self.assertEqual({phase for phase, *_ in told}, {"read", "calibrate", "quantize", "compare", "write"})
        self.assertEqual({thread for *_, thread in told}, {threading.get_ident()})
        self.assertEqual(told[-1][:3], ("write", 1, 1))
        self.assertIn(("read", 48, 48), [one[:3] for one in told])

    def test_what_progress_raises_ends_the_run_and_leaves_nothing(self):
        class Enough(Exception):
            pass

        for wanted in ("read", "calibrate", "quantize", "compare", "write"):
            def progress(phase, done, total):
                if phase == wanted and done < (total or 2):
                    raise Enough

            with self.subTest(phase=wanted), self.assertRaises(Enough):
                output = self.folder / "out.onnx"
                onnxquant.quantize(model("mnist_cnn"), output, calibration=samples("mnist_cnn"), progress=progress)
            if wanted != "write":
                self.assertEqual(list(self.folder.iterdir()), [])

    def test_other_threads_of_python_go_on(self):
        ticks, done = [], threading.Event()

        def tick():
            while not done.wait(0.002):
                ticks.append(time.monotonic())

        thread = threading.Thread(target=tick)
        thread.start()
        result = onnxquant.quantize(model("mnist_cnn"), calibration=calib("mnist_cnn"), progress=False)
        done.set()
        thread.join()
        longest = max(after - before for before, after in zip(ticks, ticks[1:]))
        self.assertGreater(len(ticks), 10)
        self.assertLess(longest, max(0.5, result.seconds / 4))

    def test_several_runs_side_by_side_give_what_one_gives(self):
        alone = onnxquant.quantize(model("digits_mlp"), calibration=calib("digits_mlp"), progress=False).model
        found = []

        def one():
            found.append(onnxquant.quantize(model("digits_mlp"), calibration=calib("digits_mlp"), progress=False).model)

        threads = [threading.Thread(target=one) for _ in range(3)]
        [thread.start() for thread in threads]
        [thread.join() for thread in threads]
        self.assertEqual(found, [alone] * 3)

    @unittest.skipUnless(hasattr(os, "fork"), "processes are not forked here")
    def test_a_process_that_is_forked_after_a_run_can_quantize(self):
        onnxquant.quantize(model("digits_mlp"), calibration=calib("digits_mlp"), progress=False, ort_lib="off")
        child = multiprocessing.get_context("fork").Process(target=_in_child)
        child.start()
        child.join(120)
        self.assertEqual(child.exitcode, 0)


def _in_child():
    onnxquant.quantize(model("digits_mlp"), calibration=calib("digits_mlp"), progress=False, ort_lib="off")


INTERRUPTED = """
import sys, onnxquant
def progress(phase, done, total):
    print(phase, flush=True)
try:
    onnxquant.quantize(
        sys.argv[1], sys.argv[2], calibration=sys.argv[3], progress=progress,
        scheme="w2", method="feedback", beam=64, ort_lib="off",
    )
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""


@unittest.skipUnless(os.name == "posix", "signals are others here")
class Interrupts(InFolder):
    def test_control_c_ends_a_run_and_leaves_nothing(self):
        aside = self.folder / "aside"
        aside.mkdir()
        out = self.folder / "out"
        out.mkdir()
        child = subprocess.Popen(
            [sys.executable, "-c", INTERRUPTED, model("digits_resnet"), out / "out.onnx", calib("digits_resnet")],
            stdout=subprocess.PIPE, text=True, env={**os.environ, "TMPDIR": str(aside)}, preexec_fn=ended_by_sigint,
        )
        for line in child.stdout:
            if line.strip() == "quantize":
                break
        child.send_signal(signal.SIGINT)
        before = time.monotonic()
        rest = child.stdout.read()
        child.stdout.close()
        self.assertEqual(child.wait(), 0)
        self.assertTrue(rest.endswith("interrupted\n"), rest)
        self.assertLess(time.monotonic() - before, 20)
        self.assertEqual(list(out.iterdir()), [])
        self.assertEqual(list(aside.iterdir()), [])


class Imports(unittest.TestCase):
    def test_importing_brings_nothing_else_along(self):
        code = "import sys; before = set(sys.modules); import onnxquant; print(*sorted(set(sys.modules) - before))"
        found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
        heavy = {name for name in found if name.split(".")[0] in ("numpy", "onnx", "onnxruntime", "logging", "tqdm", "torch")}
        self.assertEqual(heavy, set())
        self.assertNotIn("onnxquant._native", found)

    def test_importing_takes_no_time(self):
        # What others do on the machine does not count.
        code = "import time; t = time.process_time(); import onnxquant; print(time.process_time() - t)"
        times = [float(subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout) for _ in range(5)]
        self.assertLess(min(times), 0.05)

    def test_the_types_are_there(self):
        folder = pathlib.Path(onnxquant.__file__).parent
        self.assertTrue((folder / "py.typed").exists())
        self.assertEqual(onnxquant.__version__, command("--version").stdout.split()[1])
        for name in onnxquant.__all__:
            self.assertTrue(hasattr(onnxquant, name), name)
