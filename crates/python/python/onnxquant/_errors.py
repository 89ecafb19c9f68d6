"""What goes wrong."""

from __future__ import annotations


class Error(Exception):
    """Whatever goes wrong in onnxquant. The words are those of the command."""


class InputError(Error, ValueError):
    """A model, samples or settings that cannot be used."""


class InternalError(Error, RuntimeError):
    """A defect of onnxquant."""


class Missed(Error):
    """The model was written, but what was asked for was missed; raised by `Result.check` alone."""


def of(kind, message):
    """The exception for a failure of the native part."""
    return {"input": InputError, "defect": InternalError}.get(kind, Error)(message)
