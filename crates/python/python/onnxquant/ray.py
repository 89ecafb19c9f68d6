"""Quantizes a model on a cluster of Ray.

    import onnxquant.ray

    result = onnxquant.ray.quantize("s3://bucket/model.onnx", "small.onnx", calibration="s3://bucket/samples/", workers=4)

Tasks of Ray do what `onnxquant calibrate` and `onnxquant solve` do: shares of the samples, and of the layers. They exchange
what they have done through the object store of Ray or, where `state` names one, over a folder that all machines see or an
address, which outlive the driver. Every share is a step that can be done again: a task that dies, with its worker or its machine, is
started anew, and goes on where it was. The bytes are those of `onnxquant.quantize`.
"""

from __future__ import annotations

import json
import logging
import os
import tempfile
import time
from collections import Counter
from typing import Any

from . import _data, _settings
from ._errors import InputError
from ._listen import Listener
from ._objects import Actors, Objects
from ._place import place
from ._result import Report, Result

__all__ = ["quantize"]

_LOG = logging.getLogger("onnxquant")

# The duties of tasks, as the command calls them.
_CALIBRATE, _SOLVE = "calibrate", "solve"
# What `--state` is where there is no folder.
_NO_FOLDER = "objects-of-ray"
# How names of samples begin that travel through the object store.
_GIVEN = "given/"
# Seconds between two looks at tasks, in which an interruption is seen.
_PATIENCE = 0.5


def quantize(
    model: Any,
    output: Any,
    *,
    calibration: Any,
    state: Any = None,
    workers: int | None = None,
    cpus: int = 1,
    memory: int | None = None,
    retries: int = 3,
    progress: Any = None,
    **settings: Any,
) -> Result:
    """Quantizes `model`, a path that all machines see or an address, as `onnxquant.quantize` does, with the tasks of
    `workers` processes.

    `calibration` is a path or an address as well or, as in `onnxquant.quantize`, samples, which then travel to the tasks.
    A task has `cpus` threads, and asks Ray for as many CPUs and, where it is given, for so many bytes of `memory`; without
    `workers` there are as many as the cluster has room for. A task that dies is started again up to `retries` times. Where
    Ray is not connected to a cluster, `ray.init()` is called, which starts one on this machine.

    What tasks have done lies in the object store, and is gone with the driver; with `state`, a folder that all machines see
    or an address, it lies there, and the same call goes on there.

    The driver reads the model, writes the result and returns it. `progress` and the other keywords are those of
    `onnxquant.quantize`, but `metric`, which is asked for in one process alone.

    Raises what `onnxquant.quantize` raises; an error of a task is that of the run.
    """
    started = time.monotonic()
    if "metric" in settings:
        raise InputError("a metric is measured in one process: leave out `metric`, or use `onnxquant.quantize`")
    path, keeps = os.fsdecode(_absolute(model)), state is None
    # Samples that are no files which tasks can read.
    are_given = not isinstance(calibration, (str, os.PathLike))
    folder = f"--state={_NO_FOLDER if keeps else os.fsdecode(_absolute(state))}"
    words = [folder, f"--threads={int(cpus)}", "--wait"]
    words = {_CALIBRATE: [*_settings.arguments(settings), *words, "--", path], _SOLVE: words}
    ray = _connected()
    actors = Actors(ray) if keeps or are_given else None
    objects = actors and Objects(ray, actors)
    listener = Listener(progress, store=objects if keeps else None)
    try:
        with tempfile.TemporaryDirectory(prefix="onnxquant-ray-") as spool:
            samples = os.fsdecode(_absolute(_data.spooled(calibration, path, spool, listener, settings.get("samples"))))
            if are_given:
                _send(samples, objects)
            seen = None if are_given else samples
            tasks = _Tasks(ray, actors, keeps, seen, words, (workers, cpus, memory, retries))
            tasks.run(bool(settings.get("one_pass")), listener)
            written = os.fsdecode(place(output))
            text, missed, summary = listener.run(["finish", folder, f"--calib={samples}", "--", written])
    finally:
        listener.close()
        if actors is not None:
            actors.end(ray)
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


def _connected():
    try:
        import ray
    except ImportError as error:
        raise InputError("Ray is needed: `pip install onnxquant[ray]`") from error
    if not ray.is_initialized():
        ray.init(log_to_driver=False)
    return ray


def _send(folder, objects):
    """Puts the samples of a folder where tasks find them."""
    for name in sorted(os.listdir(folder)):
        with open(os.path.join(folder, name), "rb") as file:
            objects.write(_GIVEN + name, file.read())


def _receive(folder, objects):
    for name in objects.names(_GIVEN):
        with open(os.path.join(folder, name[len(_GIVEN) :]), "wb") as file:
            file.write(objects.read(name))


def _share(duty, words, number, count, samples, actors, keeps):
    """What a task does: one share, in the process of Ray's worker, so that it ends with it. It reads `samples` or, where that
    is `None`, those that were sent; `keeps` says whether what it does is kept in the object store."""
    import ray

    objects = actors and Objects(ray, actors, (duty, number))
    listener = Listener(False, store=objects if keeps else None)
    with tempfile.TemporaryDirectory(prefix="onnxquant-ray-") as folder:
        if samples is None:
            samples = folder
            _receive(folder, objects)
        listener.run([duty, f"--shard={number}/{count}", f"--calib={samples}", *words])


class _Tasks:
    """Shares as tasks of Ray."""

    def __init__(self, ray, actors, keeps, samples, words, asked):
        workers, cpus, memory, retries = asked
        self._ray, self._actors = ray, actors
        self._words, self._last = words, (samples, actors, keeps)
        room = int(ray.cluster_resources().get("CPU", 0)) // int(cpus)
        self._count = int(workers or room)
        if not 1 <= self._count <= room:
            # All shares wait for one another: none may wait for room.
            raise InputError(f"{self._count} workers of {cpus} CPUs do not fit the cluster, which has room for {room}")
        hints = {"memory": int(memory)} if memory else {}
        self._options = {"max_retries": int(retries), "retry_exceptions": False, **hints}
        self._cpus, self._retries = int(cpus), int(retries)
        # By task its share: the duty and the number.
        self._tasks = {}
        # By share, how often it was started again for what was lost.
        self._again = Counter()

    def run(self, one_pass, listener):
        """Does all shares. Where layers wait for samples and samples for layers, tasks of both kinds are there at once, and
        those that solve ask for no CPU of their own."""
        try:
            for duties in [[_CALIBRATE], [_SOLVE]] if one_pass else [[_CALIBRATE, _SOLVE]]:
                shares = [(duty, number) for duty in duties for number in range(1, self._count + 1)]
                for share in shares:
                    self._start(share, self._cpus if share[0] == duties[0] else 0)
                self._finish(shares, listener)
        finally:
            for task in self._tasks:
                self._ray.cancel(task, force=True)

    def _start(self, share, cpus):
        duty, number = share
        task = self._ray.remote(_share).options(num_cpus=cpus, name=f"onnxquant {duty}", **self._options)
        self._tasks[task.remote(duty, self._words[duty], number, self._count, *self._last)] = share

    def _finish(self, shares, listener):
        """Waits for tasks, and tells how many of each kind are done."""
        done, totals = {_CALIBRATE: set(), _SOLVE: set()}, [duty for duty, _ in shares]
        while self._tasks:
            ready, _ = self._ray.wait(list(self._tasks), timeout=_PATIENCE)
            for task in ready:
                duty, number = self._tasks.pop(task)
                self._result(task)
                done[duty].add(number)
                if duty in totals:
                    told = {_CALIBRATE: "calibrate", _SOLVE: "quantize"}[duty]
                    listener.progress(told, len(done[duty]), totals.count(duty))
            self._make_again()

    def _result(self, task):
        try:
            self._ray.get(task)
        except self._ray.exceptions.RayTaskError as error:
            # That of the command, as it was raised there.
            raise error.cause from error

    def _make_again(self):
        """Starts shares again of which something was lost with a machine."""
        lost = self._actors.index.makers_of_lost.remote() if self._actors else None
        for share in self._ray.get(lost) if lost else []:
            if share is None:
                raise InputError("samples were lost with a machine: give their path or address, or start again")
            self._again[share] += 1
            if self._again[share] > self._retries:
                raise InputError("machines of the cluster died more often than `retries` allows")
            for task in [task for task, other in self._tasks.items() if other == share]:
                self._ray.cancel(task, force=True)
                del self._tasks[task]
            # Others may have all room, and wait for it.
            self._start(share, 0)
