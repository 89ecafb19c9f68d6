"""Quantizes a model."""

from __future__ import annotations

import json
import logging
import os
import tempfile
import time
from typing import TYPE_CHECKING, Any

from . import _data, _settings
from ._errors import InputError
from ._listen import Listener
from ._model import Model
from ._result import Report, Result

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from ._keywords import Settings

_LOG = logging.getLogger("onnxquant")


def quantize(model: Any, output: Any = None, *, calibration: Any = None, metric: Any = None, progress: Any = None, **settings: Unpack[Settings]) -> Result:
    """Quantizes `model` as the command `onnxquant` does.

    `model` is a path, the bytes of a file, an `onnx.ModelProto` or what `torch.onnx.export` returns; a folder stands for the
    model in it. `output` is where the quantized one appears, whole or not at all; without it `Result.model` alone has it.
    Paths of models and samples may be addresses: `"s3://bucket/model.onnx"`.

    `calibration` are samples: a folder or file, an array, a `torch.utils.data.DataLoader`, an ONNX Runtime
    `CalibrationDataReader`, the rows of a Hugging Face data set, or any other iterable of dicts, tuples, arrays or tensors.
    Dicts are by input name, tuples in the order of the inputs. Without samples `weights_only=True` asks for plain rounding.

    `metric` is a callable that says how good a model is, the larger the better. Its argument is the path of a model, and has
    what a session of ONNX Runtime has, such as `run`. Layers keep float activations until `min_metric` is reached, or the
    float model's figure less `max_metric_loss`.

    `progress` is a callable of phase, done and total, or `False`; by default there is a bar where tqdm is installed and
    somebody sees it. Warnings go to the logger `onnxquant`.

    All other keywords are options of the command: `scheme="w4"` is `--scheme w4`, `min_sqnr=30` is `--min-sqnr 30`,
    `include=["*attn*"]` is `--include '*attn*'`, `allow_float=True` is `--allow-float`.

    Raises `InputError`, a `ValueError`, with the command's words. A goal that was missed is told by `Result.missed`, for the
    model was written; `quantize(...).check()` raises it.
    """
    started = time.monotonic()
    options = _settings.arguments(settings)
    listener = Listener(progress, metric)
    # Even what is interrupted goes away with the folder.
    with tempfile.TemporaryDirectory(prefix=f"onnxquant-{os.getpid()}-") as folder:
        given = Model(model, output, folder)
        try:
            if calibration is not None:
                samples = _data.spooled(calibration, given.path, folder, listener, settings.get("samples"))
                options.append(f"--calib={os.fsdecode(samples)}")
            elif not settings.get("weights_only"):
                raise InputError("samples are needed, `calibration`; `weights_only=True` rounds weights without any")
            text, missed, summary = listener.run([*options, "--", os.fsdecode(given.path), os.fsdecode(given.output)])
        finally:
            listener.close()
        if missed is not None:
            _LOG.warning("%s; the model was written", missed)
        quantized = given.result()
    seconds = time.monotonic() - started
    return Result(quantized, given.kept, Report(json.loads(text)), missed, seconds, summary)
