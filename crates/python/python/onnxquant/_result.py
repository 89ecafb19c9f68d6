"""What a run gives."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Dict, List, Optional

from ._errors import Missed


class Record(Mapping):
    """An object of a report. What it holds are attributes, and entries as of a dict."""

    def __init__(self, data):
        self._data = data

    def __getitem__(self, name):
        return _wrapped(self._data[name], self._kind(name))

    def __iter__(self):
        return iter(self._data)

    def __len__(self):
        return len(self._data)

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        if name in self._data:
            return self[name]
        # What a report leaves out, where there is nothing to say.
        if any(name in getattr(kind, "__annotations__", {}) for kind in type(self).__mro__):
            return [] if name in self._LISTS else None
        from difflib import get_close_matches

        near = get_close_matches(name, self._data, n=1)
        raise AttributeError(f"a {type(self).__name__} has no `{name}`" + (f"; `{near[0]}` is near" if near else ""))

    def __dir__(self):
        return sorted({*super().__dir__(), *self._data})

    def __repr__(self):
        parts = ", ".join(f"{name}={_short(value)}" for name, value in self._data.items())
        return f"{type(self).__name__}({parts})"

    def to_dict(self) -> Dict[str, Any]:
        """All of it as plain dicts and lists."""
        return self._data

    _KINDS: Dict[str, type] = {}
    _LISTS = frozenset()

    def _kind(self, name):
        return self._KINDS.get(name, Record)


def _wrapped(value, kind):
    if isinstance(value, dict):
        return kind(value)
    if isinstance(value, list):
        return [_wrapped(one, kind) for one in value]
    return value


def _short(value):
    if isinstance(value, dict):
        return "{...}" if value else "{}"
    if isinstance(value, list):
        return f"[{len(value)} of them]"
    return repr(value)


class Layer(Record):
    """A quantized layer."""

    label: str
    op_type: str
    weight_shape: List[int]
    parameters: int
    bits: int
    bytes: int
    activations: str
    float_because: Optional[str]
    method: Any
    error: Optional[float]
    validation_error: Optional[float]
    certificate: Record


class SkippedLayer(Record):
    """A layer that stays in float."""

    label: str
    op_type: str
    reason: Any


class Accuracy(Record):
    """How exact the outputs are on samples that were held out.

    `sqnr_db` and `loss` are those of the worst output; `expected_db` is the SQNR to expect on new data.
    """

    sqnr_db: Optional[float]
    worst_sample_db: Optional[float]
    loss: float
    least_exact: Optional[str]
    expected_db: Optional[float]
    runtime: Optional[str]
    outputs: List[Record]


class Report(Record):
    """All that a run did, as the command's `--report` writes it."""

    version: str
    settings: Record
    warnings: List[str]
    layers: List[Layer]
    skipped: List[SkippedLayer]
    float_weights: List[Record]
    embeddings: List[Record]
    recurrent: List[Record]
    integers: Optional[Record]
    exact_on: List[str]
    expected_speed: Optional[Record]
    opset: int
    held_out: Optional[Accuracy]
    measured: Optional[Accuracy]
    not_run: Optional[Record]
    verified: Optional[Record]
    bytes_before: int
    bytes_after: int

    _KINDS = {"layers": Layer, "skipped": SkippedLayer, "held_out": Accuracy, "measured": Accuracy}
    _LISTS = frozenset({"warnings", "float_weights", "embeddings", "recurrent"})


@dataclass(frozen=True)
class Result:
    """A quantized model, and what was done."""

    #: As the float model was given: its path, `bytes` or `onnx.ModelProto`; `bytes` for a path without an output.
    model: Any = field(repr=False)
    #: Where it lies; `None` where no output was named.
    path: Optional[Path]
    #: Everything about every layer.
    report: Report = field(repr=False)
    #: What was asked for and missed, in words; `None` where nothing was.
    missed: Optional[str]
    #: How long it took.
    seconds: float
    #: What the command prints.
    summary: str = field(repr=False)

    def __str__(self):
        return self.summary

    @property
    def accuracy(self) -> Optional[Accuracy]:
        """How exact the outputs are: as ONNX Runtime computes them or, where it is not there, as simulated.

        `None` where that was not measured.
        """
        found = [self.report.measured, self.report.held_out]
        return next((one for one in found if one is not None and "loss" in one), None)

    @property
    def size(self) -> int:
        """Bytes of the model, external data included."""
        return self.report.bytes_after

    @property
    def size_before(self) -> int:
        """Bytes of the float model."""
        return self.report.bytes_before

    def check(self) -> Result:
        """Raises `Missed` where something that was asked for was missed; else gives the result itself."""
        if self.missed is not None:
            raise Missed(f"{self.missed}; the model was written")
        return self
