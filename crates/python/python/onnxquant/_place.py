"""Where the package runs: how its command is started again, and where this Python has ONNX Runtime."""

from __future__ import annotations

import os
import sys


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
