"""The other commands: compare, bench, inspect."""

from __future__ import annotations

import json
import os
import tempfile
from typing import Any

from . import _data, _settings
from ._listen import Listener
from ._model import Model
from ._result import Record


def compare(first: Any, second: Any, data: Any, *, progress: Any = None, **settings: Any) -> Record:
    """How the outputs of two models differ on samples: `outputs` with SQNR, cosine and largest error.

    Models and samples are as in `quantize`; other keywords are options of `onnxquant compare`.
    """
    return _run("compare", [first, second], data, "data", progress, settings)


def bench(model: Any, other: Any = None, data: Any = None, *, progress: Any = None, **settings: Any) -> Record:
    """How long one or two models take in ONNX Runtime: `timings` with milliseconds and speed.

    Without samples `dim={"batch": 8}` gives the lengths of symbolic dimensions; other keywords are options of `onnxquant
    bench`.
    """
    models = [model] if other is None else [model, other]
    return _run("bench", models, data, "calib", progress, settings)


def inspect(model: Any, **settings: Any) -> Record:
    """What would be done with every layer of a model: `layers`, and those that are `skipped` with the reason.

    Other keywords are options of `onnxquant inspect`.
    """
    return _run("inspect", [model], None, None, False, settings)


def _run(command, models, data, option, progress, settings):
    options = ["--json", *_settings.arguments(settings, command)]
    listener = Listener(progress)
    with tempfile.TemporaryDirectory(prefix=f"onnxquant-{os.getpid()}-") as folder:
        paths = []
        for at, model in enumerate(models):
            own = os.path.join(folder, str(at))
            os.mkdir(own)
            paths.append(Model(model, os.path.join(own, "unused"), own).path)
        if data is not None:
            samples = _data.spooled(data, paths[0], folder, listener, settings.get("samples"))
            options.append(f"--{option}={os.fsdecode(samples)}")
        text, _, _ = listener.run([command, *options, "--", *map(os.fsdecode, paths)])
    return Record(json.loads(text))
