"""The functions of `onnxruntime.quantization`, with its arguments, done by onnxquant.

    from onnxquant.compat import CalibrationDataReader, QuantFormat, QuantType, quantize_static

Arguments mean what they mean there. What onnxquant has no counterpart for is an `InputError` that says so, and says what to
use instead. Models need no preprocessing. The functions return onnxquant's `Result`.
"""

from __future__ import annotations

import abc
import enum
import logging
import os
from typing import Any, Optional, Sequence

from ._errors import InputError
from ._quantize import quantize as _quantize
from ._result import Result

_LOG = logging.getLogger("onnxquant")

__all__ = [
    "CalibrationDataReader",
    "CalibrationMethod",
    "DynamicQuantConfig",
    "QuantFormat",
    "QuantType",
    "StaticQuantConfig",
    "quant_pre_process",
    "quantize",
    "quantize_dynamic",
    "quantize_static",
]


class QuantType(enum.Enum):
    """Types of codes."""

    QInt8 = 0
    QUInt8 = 1
    QFLOAT8E4M3FN = 2
    QInt16 = 3
    QUInt16 = 4
    QInt4 = 5
    QUInt4 = 6

    def __str__(self):
        return self.name

    @staticmethod
    def from_string(name):
        """The type of this name."""
        try:
            return QuantType[name]
        except KeyError:
            raise ValueError(f"there is no type `{name}`") from None


class QuantFormat(enum.Enum):
    """Forms of the written file."""

    QOperator = 0
    QDQ = 1

    def __str__(self):
        return self.name

    @staticmethod
    def from_string(name):
        """The form of this name."""
        try:
            return QuantFormat[name]
        except KeyError:
            raise ValueError(f"there is no format `{name}`") from None


class CalibrationMethod(enum.Enum):
    """Ways to find ranges of activations."""

    MinMax = 0
    Entropy = 1
    Percentile = 2
    Distribution = 3


class CalibrationDataReader(metaclass=abc.ABCMeta):
    """Gives samples one by one."""

    @classmethod
    def __subclasshook__(cls, subclass):
        return callable(getattr(subclass, "get_next", None)) or NotImplemented

    @abc.abstractmethod
    def get_next(self) -> Optional[dict]:
        """The arrays of the next sample by input name; `None` behind the last one."""
        raise NotImplementedError

    def __iter__(self):
        return self

    def __next__(self):
        sample = self.get_next()
        if sample is None:
            raise StopIteration
        return sample

    def __len__(self):
        raise NotImplementedError

    def set_range(self, start_index: int, end_index: int):
        """Restricts the reader to some of its samples."""
        raise NotImplementedError


def quantize_static(
    model_input: Any,
    model_output: Any,
    calibration_data_reader: Any = None,
    quant_format: Any = QuantFormat.QDQ,
    op_types_to_quantize: Optional[Sequence[str]] = None,
    per_channel: bool = False,
    reduce_range: bool = False,
    activation_type: Any = QuantType.QInt8,
    weight_type: Any = QuantType.QInt8,
    nodes_to_quantize: Optional[Sequence[str]] = None,
    nodes_to_exclude: Optional[Sequence[str]] = None,
    use_external_data_format: bool = False,
    calibrate_method: Any = CalibrationMethod.MinMax,
    calibration_providers: Optional[Sequence[Any]] = None,
    extra_options: Optional[dict] = None,
    calibration_cache_path: Any = None,
) -> Result:
    """Weights and activations on codes, the scales of activations found on samples."""
    if calibration_data_reader is None:
        raise InputError("`calibration_data_reader` is needed: ranges alone, from a cache, are not enough for onnxquant")
    if _name(quant_format) != "QDQ":
        raise InputError(
            f"`quant_format` {_name(quant_format)} has no counterpart: onnxquant writes QDQ, of which ONNX Runtime makes the "
            "same operators when it loads the file"
        )
    providers = [one if isinstance(one, str) else one[0] for one in calibration_providers or []]
    if any(one != "CPUExecutionProvider" for one in providers):
        raise InputError("`calibration_providers` has no counterpart: samples run on the CPU; leave it out")
    options = _Options(extra_options)
    settings = {
        **_activations(_name(activation_type), options),
        **_weights(_name(weight_type), options, is_static=True),
        "range": _range(_name(calibrate_method), options),
        "calibration_cache": calibration_cache_path,
    }
    options.check()
    return _run(
        model_input, model_output, settings, (op_types_to_quantize, nodes_to_quantize, nodes_to_exclude),
        per_channel, reduce_range, use_external_data_format, calibration_data_reader,
    )


def quantize_dynamic(
    model_input: Any,
    model_output: Any,
    op_types_to_quantize: Optional[Sequence[str]] = None,
    per_channel: bool = False,
    reduce_range: bool = False,
    weight_type: Any = QuantType.QInt8,
    nodes_to_quantize: Optional[Sequence[str]] = None,
    nodes_to_exclude: Optional[Sequence[str]] = None,
    use_external_data_format: bool = False,
    extra_options: Optional[dict] = None,
) -> Result:
    """Weights on codes, and activations on scales that are found while the model runs."""
    options = _Options(extra_options)
    settings = {**_weights(_name(weight_type), options, is_static=False), "scheme": "w8a8-dynamic", "weights_only": True}
    if settings.get("bits") == 4:
        raise InputError("`weight_type` of 4 bits has no counterpart here: use `onnxquant.quantize` with `scheme=\"w4\"`")
    options.check()
    return _run(
        model_input, model_output, settings, (op_types_to_quantize, nodes_to_quantize, nodes_to_exclude),
        per_channel, reduce_range, use_external_data_format, None,
    )


class StaticQuantConfig:
    """Arguments of `quantize_static` without the models."""

    def __init__(self, calibration_data_reader, **arguments):
        self._arguments = {"calibration_data_reader": calibration_data_reader, **arguments}


class DynamicQuantConfig:
    """Arguments of `quantize_dynamic` without the models."""

    def __init__(self, **arguments):
        self._arguments = arguments


def quantize(model_input: Any, model_output: Any, quant_config: Any) -> Result:
    """`quantize_static` or `quantize_dynamic`, as the configuration says."""
    if isinstance(quant_config, StaticQuantConfig):
        return quantize_static(model_input, model_output, **quant_config._arguments)
    if isinstance(quant_config, DynamicQuantConfig):
        return quantize_dynamic(model_input, model_output, **quant_config._arguments)
    raise InputError(f"`quant_config` is a StaticQuantConfig or a DynamicQuantConfig, found {type(quant_config).__name__}")


def quant_pre_process(input_model: Any, output_model_path: Any = None, **_options: Any) -> None:
    """Copies the model: onnxquant prepares models itself, when it quantizes them."""
    if output_model_path is None:
        raise InputError("`output_model_path` is needed")
    if hasattr(input_model, "SerializeToString"):
        with open(output_model_path, "wb") as file:
            file.write(input_model.SerializeToString())
        return
    import onnx

    onnx.save(onnx.load(os.fspath(input_model)), os.fspath(output_model_path))


# Those that say what onnxquant does anyway, with the values that do.
_AS_IT_IS = {
    "ActivationRestrictedAsymmetric": (False,),
    "AddQDQPairToWeight": (False,),
    "CalibMaxIntermediateOutputs": None,
    "CalibStridedMinMax": None,
    "DedicatedQDQPair": (False,),
    "EnableSubgraph": None,
    "ForceQuantizeNoInputCheck": (False,),
    "MatMulConstBOnly": (True,),
    "OpTypesToExcludeOutputQuantization": ([], None),
    "QDQDisableWeightAdjustForInt32Bias": (False,),
    "QDQKeepRemovableActivations": (False,),
    "QDQOpTypePerChannelSupportToAxis": ({}, None),
    "SmoothQuant": (False,),
    "SmoothQuantAlpha": None,
    "SmoothQuantFolding": None,
    "TensorQuantOverrides": ({}, None),
    "UseQDQContribOps": (False,),
    "MinimumRealRange": (None,),
    "extra.Sigmoid.nnapi": (False,),
    "ActivationSymmetric": (False,),
    "CalibTensorRangeSymmetric": (False,),
}

# What to use instead of some of the others.
_INSTEAD = {
    "MatMulConstBOnly": "onnxquant quantizes products with constant weights alone",
    "SmoothQuant": "onnxquant moves scales from activations to weights by itself where that helps",
    "TensorQuantOverrides": "`exclude` of `onnxquant.quantize` keeps layers in float",
    "UseQDQContribOps": "with `ort_min` of `onnxquant.quantize` operators are chosen",
}


class _Options:
    """`extra_options`, and which of them were used."""

    def __init__(self, given):
        self._left = dict(given or {})

    def take(self, name, default):
        """An option with a counterpart."""
        return self._left.pop(name, default)

    def check(self):
        """Refuses what was not taken, unless it asks for nothing."""
        for name, value in self._left.items():
            usual = _AS_IT_IS.get(name, ())
            if usual is not None and value not in usual:
                hint = f": {_INSTEAD[name]}" if name in _INSTEAD else ""
                raise InputError(f"`extra_options` `{name}` = {value!r} has no counterpart in onnxquant{hint}")


def _name(value):
    """The name of a member of an enumeration, of this module or of onnxruntime."""
    return value.name if isinstance(value, enum.Enum) else str(value)


def _activations(name, options):
    types = {"QUInt8": ("u8", 8), "QInt8": ("s8", 8), "QUInt16": ("u8", 16), "QInt16": ("s8", 16)}
    if name not in types:
        raise InputError(f"`activation_type` {name} has no counterpart: onnxquant has {', '.join(types)}")
    sign, bits = types[name]
    is_symmetric = options.take("ActivationSymmetric", False) or options.take("CalibTensorRangeSymmetric", False)
    if is_symmetric and sign == "u8":
        raise InputError("`extra_options` `ActivationSymmetric` has a counterpart with `activation_type` QInt8 alone")
    # Those of 16 bits, and zero points of 0, are for compilers.
    target = "qdq-strict" if bits == 16 or is_symmetric else None
    return {"activation_type": sign, "activation_bits": bits if bits == 16 else None, "target": target, "scheme": "w8a8"}


def _weights(name, options, is_static):
    types = {"QInt8": 8, "QUInt8": 8, "QInt4": 4, "QUInt4": 4}
    if name not in types:
        raise InputError(f"`weight_type` {name} has no counterpart: onnxquant has {', '.join(types)}")
    if not options.take("WeightSymmetric", True):
        raise InputError(
            "`extra_options` `WeightSymmetric` = False has no counterpart in onnxquant: beside integer activations weights "
            "have zero points of 0, which is as exact where they are fitted"
        )
    if name.startswith("QUInt"):
        _LOG.warning("`weight_type` %s: codes of weights have a sign, and zero points of 0", name)
    if not is_static:
        return {"bits": types[name]} if types[name] != 8 else {}
    return {"scheme": "w4a8"} if types[name] == 4 else {}


def _range(method, options):
    if method == "MinMax":
        moves = options.take("CalibMovingAverage", False)
        options.take("CalibMovingAverageConstant", None)
        return "moving-average" if moves else "min-max"
    if method == "Entropy":
        return "entropy"
    if method == "Percentile":
        return f"percentile:{options.take('CalibPercentile', 99.999)}"
    raise InputError(f"`calibrate_method` {method} has no counterpart: use MinMax, Entropy or Percentile")


def _run(model, output, settings, selection, per_channel, reduce_range, external_data, reader):
    if not external_data:
        external_data = None
    settings = {
        **settings,
        "granularity": "channel" if per_channel else "tensor",
        "reduce_range": True if reduce_range else None,
        "external_data": external_data,
    }
    settings.update(_selected(model, selection))
    is_path = isinstance(model, (str, os.PathLike))
    model = os.fspath(model) if is_path else model
    return _quantize(model, output, calibration=reader, progress=False, **settings)


def _selected(model, selection):
    """Globs of layers for operators and names."""
    operators, names, excluded = selection
    chosen = {}
    if operators:
        from ._commands import inspect

        layers = inspect(model).layers
        names_of = [layer.label for layer in layers if layer.op_type in operators and (not names or layer.label in names)]
        if not names_of:
            found = ", ".join(sorted({layer.op_type for layer in layers}))
            raise InputError(
                f"`op_types_to_quantize` {list(operators)} names no layer that holds weights ({found}): operators between "
                "layers follow these, and have no switch of their own"
            )
        chosen["include"] = [_glob(name) for name in names_of]
        if "Gather" not in operators:
            chosen["embeddings"] = "off"
    elif names:
        chosen["include"] = [_glob(name) for name in names]
    if excluded:
        chosen["exclude"] = [_glob(name) for name in excluded]
    return chosen


def _glob(name):
    """The glob that matches this name alone."""
    return "".join(f"[{char}]" if char in "*?[]{}" else char for char in name)
