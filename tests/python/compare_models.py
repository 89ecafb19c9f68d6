"""Checks with the `onnx` package that two folders hold the same models.

    python tests/python/compare_models.py A_DIR B_DIR

Every model of A must be in B, parse to an equal message (unknown fields compared as well)
and get the same verdict from `onnx.checker.check_model`. Equal bytes are counted, not
required. Prints each difference, then one line of figures; exit status 1 if there was a difference.
"""

import sys
from collections import Counter
from pathlib import Path

import onnx


def verdict(path):
    """What the checker says, without the path, which differs between the folders."""
    try:
        onnx.checker.check_model(str(path))
    except Exception as error:
        return f"{type(error).__name__}: {error}".replace(str(path.parent), "")
    return "accepted"


def parse(path):
    model = onnx.ModelProto()
    model.ParseFromString(path.read_bytes())
    return model


def differences(a, b):
    """What is different between two model files, in words."""
    if not b.is_file():
        return ["is missing"]
    found = []
    if parse(a) != parse(b):
        found.append("has other content")
    verdicts = verdict(a), verdict(b)
    if verdicts[0] != verdicts[1]:
        found.append(f"has another verdict: {verdicts[0]} / {verdicts[1]}")
    return found


def main():
    folders = Path(sys.argv[1]), Path(sys.argv[2])
    count = Counter()
    for a in sorted(folders[0].glob("*.onnx")):
        b = folders[1] / a.name
        found = differences(a, b)
        for difference in found:
            print(f"{a.name} {difference}")
        count["models"] += 1
        count["different"] += bool(found)
        count["equal bytes"] += b.is_file() and a.read_bytes() == b.read_bytes()
        count["accepted by the checker"] += verdict(a) == "accepted"
    keys = ["models", "different", "equal bytes", "accepted by the checker"]
    print(", ".join(f"{count[key]} {key}" for key in keys))
    return 1 if count["different"] or not count["models"] else 0


if __name__ == "__main__":
    sys.exit(main())
