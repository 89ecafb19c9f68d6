#!/usr/bin/env python3
"""Writes the operator tests of the `onnx` package as models with recorded inputs and outputs.

    python tests/python/onnx_node_tests.py OUT_DIR [--newest OPSET]

Each becomes OUT_DIR/<test>/model.onnx with test_data_set_0/{input,output}_N.pb. Tests whose model imports
an opset above --newest (default 25) are left out.
"""
import argparse
import collections
import pathlib

import onnx
from onnx import numpy_helper
from onnx.backend.test.case.node import collect_testcases


def encoded(value):
    if isinstance(value, onnx.TensorProto):
        return value.SerializeToString()
    if isinstance(value, (list, tuple)):
        return numpy_helper.from_list(list(value)).SerializeToString()
    return numpy_helper.from_array(value).SerializeToString()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--newest", type=int, default=25)
    arguments = parser.parse_args()
    counts, skipped = collections.Counter(), 0
    for case in collect_testcases(None):
        opset = next((entry.version for entry in case.model.opset_import if entry.domain in ("", "ai.onnx")), 0)
        if opset > arguments.newest:
            skipped += 1
            continue
        folder = arguments.out / case.name
        data = folder / "test_data_set_0"
        try:
            inputs, outputs = ([encoded(value) for value in values] for values in case.data_sets[0])
        except Exception:  # optional values without a tensor form
            skipped += 1
            continue
        data.mkdir(parents=True, exist_ok=True)
        for kind, values in (("input", inputs), ("output", outputs)):
            for index, value in enumerate(values):
                (data / f"{kind}_{index}.pb").write_bytes(value)
        onnx.save(case.model, folder / "model.onnx")
        counts[opset] += 1
    print(f"{counts.total()} written, {skipped} left out; by opset: {dict(sorted(counts.items()))}")


if __name__ == "__main__":
    main()
