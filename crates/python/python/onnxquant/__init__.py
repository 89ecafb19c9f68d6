"""Makes ONNX models smaller and faster before they are served.

    import onnxquant

    result = onnxquant.quantize("model.onnx", "small.onnx", calibration=samples)
    print(result)

`quantize` takes a model and samples as they are there: paths, bytes, `onnx.ModelProto`; folders, arrays, tensors, loaders
and data sets. It does what the command `onnxquant` does, and writes the same bytes. `compare`, `bench` and `inspect` are
its other commands. `onnxquant.compat` has the functions of `onnxruntime.quantization`, and `onnxquant.ray` does the work on
a cluster.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from . import compat as compat, ray as ray
    from ._commands import bench as bench, compare as compare, inspect as inspect
    from ._errors import Error as Error, InputError as InputError, InternalError as InternalError, Missed as Missed
    from ._quantize import quantize as quantize
    from ._result import Accuracy as Accuracy, Record as Record, Report as Report, Result as Result

    __version__: str

# Where names come from. They are imported when they are used: `import onnxquant` alone takes no time.
_PLACES = {
    "Accuracy": "_result",
    "Error": "_errors",
    "InputError": "_errors",
    "InternalError": "_errors",
    "Missed": "_errors",
    "Record": "_result",
    "Report": "_result",
    "Result": "_result",
    "__version__": "_native",
    "bench": "_commands",
    "compare": "_commands",
    "inspect": "_commands",
    "quantize": "_quantize",
}
_MODULES = ("compat", "ray")

__all__ = sorted(name for name in (*_PLACES, *_MODULES) if not name.startswith("_"))


def __getattr__(name):
    if name in _MODULES:
        return importlib.import_module(f".{name}", __name__)
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f".{_PLACES[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__():
    return sorted({*globals(), *_PLACES, *_MODULES})
