"""`onnxquant.ray.quantize` on a cluster of this machine gives the bytes of the command, with a worker that is killed too."""

import os
import signal
import threading
import time
import unittest
import unittest.mock

import ray

import onnxquant
import onnxquant.ray
from shared import InFolder, calib, command, model, samples

WORKERS = 4


def setUpModule():
    ray.init(num_cpus=WORKERS, log_to_driver=False, include_dashboard=False)


def tearDownModule():
    ray.shutdown()


def busy():
    """Processes of workers that do a share now."""
    found = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{name}/cmdline", "rb") as file:
                title = file.read().decode(errors="replace")
        except OSError:
            continue
        if title.startswith("ray::onnxquant"):
            found.append(int(name))
    return found


class Cluster(InFolder):
    def expected(self, name, *words):
        wanted = self.folder / "wanted.onnx"
        self.assertEqual(command(model(name), wanted, "--calib", calib(name), *words).returncode, 0)
        return wanted.read_bytes()

    def quantized(self, name, **settings):
        found = self.folder / "found.onnx"
        settings = {"calibration": calib(name), "progress": False, **settings}
        result = onnxquant.ray.quantize(model(name), found, workers=WORKERS, **settings)
        self.assertEqual(result.path, found)
        return found.read_bytes()

    def test_four_workers_give_the_bytes_of_the_command(self):
        wanted = self.expected("digits_transformer", "--scheme", "w4")
        self.assertEqual(self.quantized("digits_transformer", scheme="w4"), wanted)

    def test_a_run_over_a_folder_goes_on(self):
        wanted = self.expected("digits_mlp", "--scheme", "w4")
        state = self.folder / "run"
        self.assertEqual(self.quantized("digits_mlp", scheme="w4", state=state), wanted)
        layers = {path: path.stat().st_mtime_ns for path in state.rglob("*.layer")}
        self.assertTrue(layers)
        self.assertEqual(self.quantized("digits_mlp", scheme="w4", state=state), wanted)
        self.assertEqual({path: path.stat().st_mtime_ns for path in state.rglob("*.layer")}, layers)

    def test_one_pass_and_samples_from_memory(self):
        wanted = self.expected("digits_mlp", "--scheme", "w4", "--one-pass")
        given = iter(samples("digits_mlp"))
        self.assertEqual(self.quantized("digits_mlp", scheme="w4", one_pass=True, calibration=given), wanted)

    def test_a_worker_is_killed(self):
        wanted = self.expected("digits_transformer", "--scheme", "w4")
        killed = []

        def kill():
            end = time.monotonic() + 60
            while not killed and time.monotonic() < end:
                for process in busy()[:1]:
                    os.kill(process, signal.SIGKILL)
                    killed.append(process)
                time.sleep(0.01)

        thread = threading.Thread(target=kill)
        thread.start()
        try:
            self.assertEqual(self.quantized("digits_transformer", scheme="w4"), wanted)
        finally:
            thread.join()
        self.assertTrue(killed)

    def test_what_is_lost_with_a_machine_is_made_again(self):
        wanted = self.expected("digits_transformer", "--scheme", "w4", "--one-pass")
        actors, lost = [], []

        class Noted(onnxquant.ray.Actors):
            def __init__(self, *given):
                super().__init__(*given)
                actors.append(self)

        def progress(phase, done, total):
            if phase == "calibrate" and done == total and not lost:
                held, _ = ray.get(actors[0].index.since.remote(0))
                lost.extend(name for name, value in held.items() if value.keeper)
                for keeper in actors[0].keepers.values():
                    ray.kill(keeper, no_restart=False)

        with unittest.mock.patch.object(onnxquant.ray, "Actors", Noted):
            found = self.quantized("digits_transformer", scheme="w4", one_pass=True, progress=progress)
        self.assertEqual(found, wanted)
        self.assertTrue(any(name.endswith(".moments") for name in lost), lost)

    def test_what_goes_wrong_in_a_task_is_told_as_usual(self):
        with self.assertRaisesRegex(onnxquant.InputError, "none.onnx"):
            onnxquant.ray.quantize("none.onnx", self.folder / "o.onnx", calibration=calib("digits_mlp"),
                                   workers=2, retries=0, progress=False)
        with self.assertRaisesRegex(onnxquant.InputError, "do not fit the cluster"):
            self.quantized("digits_mlp", cpus=2)
        with self.assertRaisesRegex(onnxquant.InputError, "metric"):
            self.quantized("digits_mlp", metric=lambda _: 1.0)


if __name__ == "__main__":
    unittest.main()
