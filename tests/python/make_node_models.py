"""Writes every model of the ONNX backend tests to a folder, as `NNNN_name.onnx`.

    python tests/python/make_node_models.py FOLDER

These are the models of the node tests, built from the cases in the `onnx` package, and
then the model files that the package ships. The order, and so the numbers, are those of
the sorted names.
"""

import sys
from pathlib import Path

import onnx
from onnx.backend.test.case.node import collect_testcases


def node_models():
    """Name and encoded model of every node test, in order of the names."""
    cases = sorted(collect_testcases(), key=lambda case: case.name)
    return [(case.name, case.model.SerializeToString()) for case in cases if case.model is not None]


def shipped_models():
    """Name and content of every model file in the package, in order of the paths."""
    data = Path(onnx.__file__).parent / "backend" / "test" / "data"
    paths = sorted(data.rglob("*.onnx"))
    return [("_".join(path.relative_to(data).with_suffix("").parts), path.read_bytes()) for path in paths]


def main():
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    nodes, shipped = node_models(), shipped_models()
    for number, (name, content) in enumerate(nodes + shipped):
        (folder / f"{number:04}_{name}.onnx").write_bytes(content)
    print(f"{len(nodes)} node test models and {len(shipped)} shipped models in {folder}")


if __name__ == "__main__":
    main()
