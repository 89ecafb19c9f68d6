"""Quantizes a model on a cluster of Ray.

    import onnxquant.ray

    result = onnxquant.ray.quantize("model.onnx", "small.onnx", calibration="samples/", state="/shared/run", workers=4)

Tasks of Ray are the processes of `onnxquant calibrate` and `onnxquant solve`: shares of the samples, and of the layers. They
exchange what they have done over the folder `state`, which all machines of the cluster see under one path, as they see model
and samples (which may have addresses). Every share is a step that can be done again: a task that dies, with its worker or
its machine, is started anew, and goes on where it was. The bytes are those of `onnxquant.quantize`.
"""

from __future__ import annotations

import json
import logging
import os
import time
from typing import Any

from . import _data, _settings
from ._errors import InputError
from ._listen import Listener
from ._place import place
from ._result import Report, Result

__all__ = ["quantize"]

_LOG = logging.getLogger("onnxquant")

# The duties of tasks, as the command calls them.
_CALIBRATE, _SOLVE = "calibrate", "solve"
# Seconds between two looks at tasks, in which an interruption is seen.
_PATIENCE = 0.5


def quantize(
    model: Any,
    output: Any,
    *,
    calibration: Any,
    state: Any,
    workers: int | None = None,
    cpus: int = 1,
    memory: int | None = None,
    retries: int = 3,
    progress: Any = None,
    **settings: Any,
) -> Result:
    """Quantizes `model`, a path or an address, as `onnxquant.quantize` does, with the tasks of `workers` processes.

    `state` is a folder that all machines see. `calibration` is a path or an address or, as in `onnxquant.quantize`, samples,
    which are then written into that folder. A task has `cpus` threads, and asks Ray for as many CPUs and, where it is
    given, for so many bytes of `memory`; without `workers` there are as many as the cluster has room for. A task that dies
    is started again up to `retries` times. Where Ray is not connected to a cluster, `ray.init()` is called, which starts one
    on this machine.

    The driver reads the model, writes the result and returns it. `progress` and the other keywords are those of
    `onnxquant.quantize`, but `metric`, which is asked for in one process alone.

    Raises what `onnxquant.quantize` raises; an error of a task is that of the run.
    """
    started = time.monotonic()
    if "metric" in settings:
        raise InputError("a metric is measured in one process: leave out `metric`, or use `onnxquant.quantize`")
    listener = Listener(progress)
    folder = os.path.abspath(os.fsdecode(state))
    os.makedirs(folder, exist_ok=True)
    path = os.fsdecode(_absolute(model))
    samples = _samples(calibration, path, folder, listener, settings.get("samples"))
    options = [*_settings.arguments(settings), f"--calib={samples}", f"--state={folder}", f"--threads={int(cpus)}"]
    try:
        tasks = _Tasks(_connected(), workers, cpus, memory, retries)
        shares = {
            _CALIBRATE: [*options, "--wait", "--", path],
            _SOLVE: [f"--state={folder}", f"--threads={int(cpus)}", "--wait"],
        }
        tasks.run(shares, bool(settings.get("one_pass")), listener)
        written = os.fsdecode(place(output))
        text, missed, summary = listener.run(["finish", f"--state={folder}", "--", written])
    finally:
        listener.close()
    if missed is not None:
        _LOG.warning("%s; the model was written", missed)
    kept = place(output)
    return Result(kept, kept, Report(json.loads(text)), missed, time.monotonic() - started, summary)


def _absolute(given):
    """A path that other machines understand."""
    if not isinstance(given, (str, os.PathLike)):
        raise InputError("a model for a cluster is a path or an address: save it where all machines see it")
    found = place(given)
    return found if isinstance(found, str) else found.absolute()


def _samples(calibration, model, folder, listener, most):
    if isinstance(calibration, (str, os.PathLike)):
        return os.fsdecode(_absolute(calibration))
    target = os.path.join(folder, "given")
    if not os.path.isdir(os.path.join(target, "samples")):
        os.makedirs(target, exist_ok=True)
        _data.spooled(calibration, model, target, listener, most)
    return os.path.join(target, "samples")


def _connected():
    try:
        import ray
    except ImportError as error:
        raise InputError("Ray is needed: `pip install onnxquant[ray]`") from error
    if not ray.is_initialized():
        ray.init(log_to_driver=False)
    return ray


def _share(duty, words, number, count):
    """What a task does: one share, in the process of Ray's worker, so that it ends with it."""
    listener = Listener(False)
    listener.run([duty, f"--shard={number}/{count}", *words])
    return number


class _Tasks:
    """Shares as tasks of Ray."""

    def __init__(self, ray, workers, cpus, memory, retries):
        self._ray = ray
        room = int(ray.cluster_resources().get("CPU", 0)) // int(cpus)
        self._count = int(workers or room)
        if not 1 <= self._count <= room:
            # All shares wait for one another: none may wait for room.
            raise InputError(f"{self._count} workers of {cpus} CPUs do not fit the cluster, which has room for {room}")
        hints = {"memory": int(memory)} if memory else {}
        self._options = {"max_retries": int(retries), "retry_exceptions": False, **hints}
        self._cpus = int(cpus)

    def run(self, shares, one_pass, listener):
        """Does all shares. Where layers wait for samples and samples for layers, tasks of both kinds are there at once, and
        those that solve ask for no CPU of their own."""
        calibrating = self._started(_CALIBRATE, shares[_CALIBRATE], self._cpus)
        if one_pass:
            self._finished(calibrating, listener)
            self._finished(self._started(_SOLVE, shares[_SOLVE], self._cpus), listener)
        else:
            self._finished({**calibrating, **self._started(_SOLVE, shares[_SOLVE], 0)}, listener)

    def _started(self, duty, words, cpus):
        task = self._ray.remote(_share).options(num_cpus=cpus, name=f"onnxquant {duty}", **self._options)
        return {task.remote(duty, words, number, self._count): duty for number in range(1, self._count + 1)}

    def _finished(self, tasks, listener):
        """Waits for tasks, and tells how many of each kind are done; where one fails, the others are ended."""
        totals = {duty: sum(other == duty for other in tasks.values()) for duty in tasks.values()}
        done = dict.fromkeys(totals, 0)
        left = list(tasks)
        try:
            while left:
                ready, left = self._ray.wait(left, timeout=_PATIENCE)
                for task in ready:
                    self._result(task)
                    duty = tasks[task]
                    done[duty] += 1
                    listener.progress({_CALIBRATE: "calibrate", _SOLVE: "quantize"}[duty], done[duty], totals[duty])
        finally:
            for task in left:
                self._ray.cancel(task, force=True)

    def _result(self, task):
        try:
            self._ray.get(task)
        except self._ray.exceptions.RayTaskError as error:
            # That of the command, as it was raised there.
            raise error.cause from error
