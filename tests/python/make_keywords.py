"""Writes the types of the settings of `onnxquant.quantize`, from the options of the command.

    python tests/python/make_keywords.py           write crates/python/python/onnxquant/_keywords.py
    python tests/python/make_keywords.py --check   fail where it differs

It needs a Python that has the package `onnxquant` of this version.
"""

import pathlib
import sys
import textwrap

from onnxquant import _settings

FILE = pathlib.Path(__file__).resolve().parents[2] / "crates/python/python/onnxquant/_keywords.py"

HEAD = '''"""The settings of `onnxquant.quantize`, for editors and type checkers.

Written by `tests/python/make_keywords.py` from the options of the command.
"""

from __future__ import annotations

from os import PathLike
from typing import Literal, Sequence, Tuple, TypedDict, Union

Path = Union[str, "PathLike[str]"]


class Settings(TypedDict, total=False):
    """Options of the command; all are optional."""
'''

# Values that are no words, by what the help calls them.
TYPES = {
    "N": "int",
    "MIB": "int",
    "X": "float",
    "DB": "float",
    "BITS": "Union[int, float, str]",
    "MB": "float",
    "PATH": "Path",
    "FILE": "Path",
    "DIR": "Path",
    "SIZE": "Union[int, str, Tuple[int, int]]",
    "A,B,C": "Union[float, str, Sequence[float]]",
}


def kind(option):
    """The type of an option's value."""
    if not option["takes_value"]:
        return "bool"
    if option["repeats"]:
        return "Union[str, Sequence[str]]"
    if option["values"]:
        words = [f'"{value}"' for value in option["values"]]
        numbers = [value for value in option["values"] if value.isdigit()]
        off = ["False"] if "off" in option["values"] else []
        return f"Literal[{', '.join(words + numbers + off)}]"
    return TYPES.get(option["value_name"], "str")


def field(name, option):
    """Lines of one setting."""
    comment = textwrap.wrap(option["help"], 116, initial_indent="    #: ", subsequent_indent="    #: ")
    return "\n".join(["", *comment, f"    {name}: {kind(option)}"])


def main():
    text = HEAD + "\n".join(field(name, option) for name, option in _settings.table().items()) + "\n"
    if "--check" not in sys.argv:
        FILE.write_text(text, encoding="utf-8")
    elif FILE.read_text(encoding="utf-8") != text:
        sys.exit(f"`{FILE}` is not that of the command: run `python {__file__}` with the Python that has the package")


if __name__ == "__main__":
    main()
