#!/usr/bin/env python3
"""Compares models before and after a change of opset, in ONNX Runtime and in the ONNX checker.

    python tests/python/check_opset.py BEFORE_DIR AFTER_DIR [--inputs DIR] [--samples N]

Every AFTER_DIR/**/*.onnx is compared with the file of the same relative path in BEFORE_DIR. Inputs are, in
this order: `test_data_set_*/input_*.pb` beside the model before; DIR/<name of the model's folder>/*.npz
(at most N); numbers drawn by the declared shapes. Each model runs with graph optimizations off and on.
Outputs must agree with the model before, or with `output_*.pb` where there are any. The model after must
pass the checker with shape inference wherever the model before does.

Prints a line for each model that is not fine, then counts; exits with 1 when any differs.
"""
import argparse
import collections
import pathlib
import sys

import numpy as np
import onnx
import onnxruntime as ort
from onnx import numpy_helper

RTOL, ATOL = 1e-4, 1e-5
LEVELS = (ort.GraphOptimizationLevel.ORT_DISABLE_ALL, ort.GraphOptimizationLevel.ORT_ENABLE_ALL)
DTYPES = {
    "tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(double)": np.float64,
    "tensor(int64)": np.int64, "tensor(int32)": np.int32, "tensor(int16)": np.int16, "tensor(int8)": np.int8,
    "tensor(uint64)": np.uint64, "tensor(uint32)": np.uint32, "tensor(uint16)": np.uint16,
    "tensor(uint8)": np.uint8, "tensor(bool)": np.bool_,
}  # fmt: skip


def session(path, level):
    options = ort.SessionOptions()
    options.graph_optimization_level = level
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def read_pb(path):
    """The value of a recorded input or output: a tensor, or else a list of tensors."""
    data = path.read_bytes()
    try:
        return numpy_helper.to_array(onnx.TensorProto.FromString(data))
    except Exception:
        try:
            return numpy_helper.to_list(onnx.SequenceProto.FromString(data))
        except Exception:
            return numpy_helper.to_optional(onnx.OptionalProto.FromString(data))


def numbered(folder, kind):
    files = sorted(folder.glob(f"{kind}_*.pb"), key=lambda path: int(path.stem.split("_")[1]))
    return [read_pb(path) for path in files]


def drawn(inputs):
    """One set of inputs by the declared types and shapes; an open dimension gets the length 2."""
    rng = np.random.default_rng(0)
    feed = {}
    for value in inputs:
        shape = [dim if isinstance(dim, int) and dim > 0 else 2 for dim in value.shape]
        dtype = DTYPES[value.type]
        if np.issubdtype(dtype, np.floating):
            feed[value.name] = rng.normal(size=shape).astype(dtype)
        else:
            feed[value.name] = rng.integers(0, 2, size=shape).astype(dtype)
    return feed


def samples(path, runner, arguments):
    """Pairs of inputs and recorded outputs (None where there are none)."""
    names = [value.name for value in runner.get_inputs()]
    recorded = sorted(path.parent.glob("test_data_set_*"))
    if recorded:
        for folder in recorded:
            yield dict(zip(names, numbered(folder, "input"))), numbered(folder, "output")
        return
    folder = arguments.inputs and arguments.inputs / path.parent.name
    if folder and folder.is_dir():
        for file in sorted(folder.glob("*.npz"))[: arguments.samples]:
            with np.load(file) as data:
                yield {name: data[name] for name in names if name in data}, None
        return
    yield drawn(runner.get_inputs()), None


def difference(found, expected):
    """A text when two values differ by more than the tolerance, else None."""
    if isinstance(expected, (list, tuple)):
        if len(found) != len(expected):
            return f"{len(found)} values instead of {len(expected)}"
        return next((text for text in map(difference, found, expected) if text), None)
    if expected is None or found is None:
        return None if found is expected else "only one of the two is empty"
    found, expected = np.asarray(found), np.asarray(expected)
    if found.dtype != expected.dtype or found.shape != expected.shape:
        return f"{found.dtype}{list(found.shape)} instead of {expected.dtype}{list(expected.shape)}"
    if not np.issubdtype(found.dtype, np.floating):
        return None if np.array_equal(found, expected) else "other values"
    tolerance = 1e-2 if found.dtype == np.float16 else RTOL
    if np.allclose(found, expected, rtol=tolerance, atol=max(ATOL, tolerance / 10), equal_nan=True):
        return None
    return f"differs by up to {np.nanmax(np.abs(found.astype(np.float64) - expected)):.3g}"


def passes_checker(path):
    try:
        onnx.checker.check_model(str(path), full_check=True)
        return None
    except Exception as error:
        return str(error).strip().splitlines()[0]


def compare(before, after, arguments):
    """(kind, detail): kind is `equal`, `recorded` (as recorded; before does not run or differs), or what went wrong."""
    problem = passes_checker(after)
    if problem and not passes_checker(before):
        return "checker", problem
    kind = "equal"
    for level in LEVELS:
        try:
            new = session(after, level)
        except Exception as error:
            try:
                session(before, level)
            except Exception as reason:
                return "neither loads", str(reason).splitlines()[0]
            return "does not load", str(error).splitlines()[0]
        try:
            old = session(before, level)
        except Exception:
            old, kind = None, "recorded"
        for feed, outputs in samples(before, new, arguments):
            expected = outputs
            if old is not None:
                try:
                    expected = old.run(None, {value.name: feed[value.name] for value in old.get_inputs() if value.name in feed})
                except Exception as error:
                    return "before does not run", str(error).splitlines()[0]
            elif not outputs:
                return "before does not load", ""
            try:
                found = new.run(None, feed)
            except Exception as error:
                return "does not run", str(error).splitlines()[0]
            text = difference(found, expected)
            if text and outputs and difference(found, outputs) is None:
                kind = "recorded"  # the runtime's kernel for the old opset is at fault
            elif text:
                return "differs", f"{level.name}: {text}"
    return kind, ""


FINE = ("equal", "recorded", "neither loads", "before does not load", "before does not run")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before", type=pathlib.Path)
    parser.add_argument("after", type=pathlib.Path)
    parser.add_argument("--inputs", type=pathlib.Path)
    parser.add_argument("--samples", type=int, default=3)
    arguments = parser.parse_args()
    counts = collections.Counter()
    for after in sorted(arguments.after.rglob("*.onnx")):
        name = after.relative_to(arguments.after)
        kind, detail = compare(arguments.before / name, after, arguments)
        counts[kind] += 1
        if kind not in ("equal", "recorded"):
            print(f"{kind}: {name}: {detail[:300]}")
    print(", ".join(f"{count} {kind}" for kind, count in counts.most_common()) or "no models")
    sys.exit(0 if set(counts) <= set(FINE) else 1)


if __name__ == "__main__":
    main()
