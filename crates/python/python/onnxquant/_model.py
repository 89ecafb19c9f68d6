"""Models as they are given, and as they are given back."""

from __future__ import annotations

import os
from pathlib import Path

from ._errors import InputError
from ._place import place


class Model:
    """A model on the way to a file and back.

    `given` is a path or an address, the bytes of a file, an `onnx.ModelProto`, or what torch exports (it has a `model_proto`). Where it is
    no path, or no output is named, files lie in `folder`.
    """

    def __init__(self, given, output, folder):
        self._proto = None
        self.path = self._input(given, folder)
        self.is_path = isinstance(given, (str, os.PathLike))
        if output is None and isinstance(self.path, Path) and self.path.is_dir():
            raise InputError(f"`{self.path}` is a folder: name the folder that is made of it, `output`")
        self.output = place(output) if output is not None else Path(folder, "quantized.onnx")
        self._is_kept = output is not None

    def _input(self, given, folder):
        if isinstance(given, (str, os.PathLike)):
            return place(given)
        if hasattr(given, "model_proto"):
            given = given.model_proto
        if hasattr(given, "SerializeToString"):
            self._proto = type(given)
            given = _serialized(given)
        if not isinstance(given, (bytes, bytearray, memoryview)):
            raise InputError(
                f"a model is a path, bytes or an onnx.ModelProto, found {type(given).__module__}.{type(given).__qualname__}"
            )
        path = Path(folder, "model.onnx")
        path.write_bytes(given)
        return path

    def result(self):
        """The quantized model: as the float one was given, and bytes instead of a path where no output is named."""
        if self.is_path and self._is_kept:
            return self.output
        if Path(f"{self.output}.data").exists():
            raise InputError(
                "the quantized model has its weights in a file of their own: name an `output`, and give the model as a path"
            )
        data = self.output.read_bytes()
        return self._proto.FromString(data) if self._proto else data

    @property
    def kept(self):
        """Where the quantized model lies, if it stays."""
        return self.output if self._is_kept else None


def _serialized(proto):
    try:
        return proto.SerializeToString()
    except Exception as error:  # Of protobuf, whose implementations have their own.
        problem = "the model cannot be serialized; one of more than 2 GB is saved with external data, and its path given"
        raise InputError(f"{problem}: {error}") from error
