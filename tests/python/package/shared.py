"""What the tests of the Python package share."""

import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import unittest

import numpy as np

ROOT = pathlib.Path(__file__).resolve().parents[3]
FIXTURES = ROOT / "fixtures"
# The program that is built beside the package.
COMMAND = os.environ["ONNXQUANT_COMMAND"]


def model(name):
    """A trained model."""
    return FIXTURES / name / "model.onnx"


def calib(name):
    """Its samples."""
    return FIXTURES / name / "calib"


def samples(name, most=None):
    """Their arrays, as dicts."""
    return [dict(np.load(path)) for path in sorted(calib(name).iterdir())[:most]]


def command(*arguments):
    """Runs the program, with the ONNX Runtime that this Python has."""
    environment = {**os.environ, "ONNXQUANT_PYTHON": sys.executable}
    return subprocess.run([COMMAND, *map(os.fspath, arguments)], capture_output=True, text=True, env=environment)


def script(*arguments):
    """Runs the command that the package brings."""
    program = pathlib.Path(sys.executable).with_name("onnxquant")
    return subprocess.run([program, *map(os.fspath, arguments)], capture_output=True, text=True)


def run(outputs, given):
    """The outputs of a model in ONNX Runtime."""
    import onnxruntime

    model = os.fspath(outputs) if isinstance(outputs, os.PathLike) else outputs
    return onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"]).run(None, given)


class InFolder(unittest.TestCase):
    """A test with a folder of its own, which is empty again of what the package puts aside."""

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)
        self.addCleanup(self.check_aside, set(self.aside()))

    @staticmethod
    def aside():
        """What the package keeps in the folder for temporary files."""
        return pathlib.Path(tempfile.gettempdir()).glob(f"onnxquant-{os.getpid()}-*")

    def check_aside(self, before):
        """That nothing is left."""
        self.assertEqual(set(self.aside()) - before, set())


def ended_by_sigint():
    """Run in a child process before it starts: SIGINT ends it, also where a shell that ignores it runs the tests."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
