"""Where things are: paths and addresses that users give, the command itself, and ONNX Runtime in this Python."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path


def place(given):
    """A path as it is given; an address such as `s3://bucket/model.onnx` stays a text, for paths join its slashes."""
    text = os.fsdecode(given)
    return text if re.match(r"[A-Za-z0-9+.-]{2,}://", text) else Path(given)


def program():
    """What starts the command in a process of its own; nothing where Python is part of another program."""
    main = os.path.join(os.path.dirname(os.path.abspath(__file__)), "__main__.py")
    return [sys.executable, main] if sys.executable else []


def packages():
    """The folder in which this Python has ONNX Runtime, if it does. Nothing is imported for that."""
    from importlib.util import find_spec

    try:
        found = find_spec("onnxruntime")
    except (ImportError, ValueError):
        found = None
    places = list(found.submodule_search_locations or []) if found else []
    return [os.path.dirname(os.path.abspath(place)) for place in places]
