"""Keywords and the options of the command: one table, that of the command."""

from __future__ import annotations

import enum
import json
import os
from functools import lru_cache

from ._errors import InputError
from . import _native

# Options that are arguments of their own here, or are about a terminal. Lines of `--log` are what `progress` and the module
# `logging` get here, and of a dry run there is no result.
_ELSEWHERE = {"anonymize", "calib", "data", "dry-run", "json", "log", "passes", "quiet"}


@lru_cache(maxsize=None)
def table(subcommand=None):
    """The settings of a command by keyword, in the order of its help."""
    options = json.loads(_native.option_table(subcommand))
    return {option["name"].replace("-", "_"): option for option in options if option["name"] not in _ELSEWHERE}


def arguments(settings, subcommand=None):
    """The options of the command for these keywords."""
    known = table(subcommand)
    for name in settings:
        if name not in known:
            raise InputError(_unknown(name, known))
    return [word for name, value in settings.items() for word in _words(known[name], value)]


def _unknown(name, known):
    from difflib import get_close_matches

    near = get_close_matches(name, known, n=1)
    hint = f"; `{near[0]}` is near" if near else ""
    return f"there is no setting `{name}`{hint}: they are {', '.join(known)}"


def _words(option, value):
    flag = f"--{option['name']}"
    if value is None:
        return []
    if not option["takes_value"]:
        if not isinstance(value, bool):
            raise InputError(f"`{option['name'].replace('-', '_')}` is on or off: expected True or False, found {value!r}")
        return [flag] if value else []
    if option["repeats"]:
        return [f"{flag}={_text(one)}" for one in _several(value)]
    return [f"{flag}={_text(value, option['value_name'])}"]


def _several(value):
    if isinstance(value, dict):
        return [f"{name}={length}" for name, length in value.items()]
    return [value] if isinstance(value, (str, os.PathLike)) else list(value)


def _text(value, value_name=""):
    """A value as it is typed."""
    if isinstance(value, enum.Enum):
        return _text(value.value, value_name)
    if value is False:
        return "off"
    if isinstance(value, os.PathLike):
        return os.fsdecode(value)
    if isinstance(value, (tuple, list)):
        # Height and width stand around a cross, everything else around commas.
        return ("x" if value_name == "SIZE" else ",").join(_text(part) for part in value)
    return str(value)
