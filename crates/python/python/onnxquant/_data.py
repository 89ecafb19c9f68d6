"""Samples as they are given become files that the command reads.

| given | a sample is |
|---|---|
| a path or address | as the command has it: a folder or file of .npz, .npy, pictures, texts |
| an array or tensor | a row of it, for a model with one input |
| a `CalibrationDataReader` (it has `get_next`) | what `get_next` returns, until it is `None` |
| any other iterable: lists, generators, loaders, data sets | an item: a dict by input name, a tuple in the order of the inputs, or an array for the only input |

Of dicts entries that are no input are left out, and of tuples what follows the inputs: labels, mostly. Tensors may be those
of any library. An array that lacks the batch axis gets it, and a batch is cut up where the model takes a fixed number of
rows. Every sample is written to a file of its own at once: none has to stay in memory.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from . import _native
from ._errors import InputError
from ._place import place

_LOG = logging.getLogger("onnxquant")


class _Input:
    """An input of the model."""

    def __init__(self, name, element, dims, optional):
        self.name, self.element, self.dims, self.optional = name, element, dims, optional


def spooled(data, model, folder, listener, most=None):
    """A path with the samples that `data` gives for the model in a file; what is no path is written into `folder`."""
    if isinstance(data, (str, os.PathLike)):
        return place(data)
    inputs = [_Input(*found) for found in _native.inputs(os.fspath(model), listener)]
    samples = _samples(data, inputs)
    total = _length(data, most)
    target = Path(folder, "samples")
    target.mkdir()
    count = 0
    for sample in samples:
        if most is not None and count >= int(most):
            break
        for part in _parts(sample, inputs):
            _write(target / f"sample-{count:08}.npz", part)
            count += 1
        listener.progress("read", count, total)
    if not count:
        raise InputError("`calibration` gives no samples; a generator that was read before gives none")
    return target


def _length(data, most):
    try:
        length = len(data)
    except (TypeError, NotImplementedError):
        return most
    return length if most is None else min(length, int(most))


def _samples(data, inputs):
    """Dicts of arrays by input name."""
    if isinstance(data, Mapping):
        raise InputError("`calibration` is a dict, which is one sample: give a list of them, or another iterable")
    return (_named(item, at, inputs) for at, item in enumerate(_items(data)))


def _items(data):
    if callable(getattr(data, "get_next", None)):
        return _of_reader(data)
    if isinstance(data, Iterable):
        return iter(data)
    if hasattr(data, "__getitem__") and hasattr(data, "__len__"):
        return (data[at] for at in range(len(data)))
    raise InputError(
        f"`calibration` is a path or something to iterate over, found {type(data).__module__}.{type(data).__qualname__}"
    )


def _of_reader(reader):
    yield from iter(reader.get_next, None)
    # Others may want to read it again.
    rewind = getattr(reader, "rewind", None)
    if callable(rewind):
        try:
            rewind()
        except NotImplementedError:
            _LOG.debug("the reader does not rewind")


def _named(item, at, inputs):
    needed = [spec for spec in inputs if not spec.optional]
    if isinstance(item, (tuple, list)) and item and isinstance(item[0], Mapping):
        item = item[0]
    if isinstance(item, Mapping):
        found = {spec.name: item[spec.name] for spec in inputs if spec.name in item}
        if not found:
            names = ", ".join(f"`{name}`" for name in item)
            raise InputError(f"sample {at} holds {names or 'nothing'}, none of which is an input of the model{_of(inputs)}")
    elif isinstance(item, (tuple, list)) and any(hasattr(value, "shape") for value in item):
        if len(item) < len(needed):
            raise InputError(f"sample {at} has {len(item)} arrays, the model {len(needed)} inputs{_of(needed)}")
        found = {spec.name: value for spec, value in zip(needed, item)}
    elif len(needed) == 1:
        found = {needed[0].name: item}
    else:
        kind = type(item).__qualname__
        raise InputError(f"sample {at} is a {kind}, expected a dict or a tuple with the inputs of the model{_of(needed)}")
    return {spec.name: _array(found[spec.name], at, spec) for spec in inputs if spec.name in found}


def _of(inputs):
    return f" ({', '.join(f'`{spec.name}`' for spec in inputs)})"


def _array(value, at, spec):
    import numpy as np

    if hasattr(value, "detach"):  # torch
        value = value.detach().cpu()
        value = value.float() if str(value.dtype) == "torch.bfloat16" else value
    if not isinstance(value, np.ndarray) and callable(getattr(value, "numpy", None)):
        value = value.numpy()
    if not hasattr(value, "__array__") and hasattr(value, "__dlpack__"):
        value = np.from_dlpack(value)
    is_plain = not hasattr(value, "__array__")
    try:
        found = np.asarray(value, dtype=_dtype(spec, value) if is_plain else None)
    except (TypeError, ValueError, OverflowError) as error:
        raise InputError(f"`{spec.name}` of sample {at} is no array: {error}") from error
    if found.dtype.kind not in "biuf":
        raise InputError(f"`{spec.name}` of sample {at} holds {found.dtype}, expected {spec.element}")
    if spec.dims is not None and found.ndim + 1 == len(spec.dims):
        found = found[None]
    return found


def _dtype(spec, value):
    """The type of numbers that have none: the input's where that loses nothing."""
    import numpy as np

    is_integer = spec.element.startswith(("int", "uint"))
    has_fractions = np.asarray(value).dtype.kind not in "biu"
    return None if is_integer and has_fractions else spec.element


def _parts(sample, inputs):
    """The sample itself or, where the model takes a fixed number of rows, as many as it is a multiple of."""
    lengths = {spec.name: spec.dims[0] if spec.dims else None for spec in inputs}
    times = {
        array.shape[0] / lengths[name] if lengths[name] and array.ndim else 0 for name, array in sample.items()
    }
    count = times.pop() if len(times) == 1 else 0
    if count <= 1 or count != int(count):
        return [sample]
    rows = {name: array.shape[0] // int(count) for name, array in sample.items()}
    return [
        {name: array[at * rows[name] : (at + 1) * rows[name]] for name, array in sample.items()}
        for at in range(int(count))
    ]


def _write(path, arrays):
    """As numpy's `savez`, which cannot have an array called `file`."""
    import zipfile

    from numpy.lib import format as npy

    with zipfile.ZipFile(path, "w") as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as entry:
                npy.write_array(entry, array, allow_pickle=False)
