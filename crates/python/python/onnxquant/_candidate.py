"""A model that a metric is asked about."""

from __future__ import annotations

import os


class Candidate(os.PathLike):
    """The file of a model, and ONNX Runtime's session of it.

    It is a path for whatever reads models. What a session has, `run` above all, it has too: the session is made when it is
    asked for that.
    """

    def __init__(self, path):
        self.path = os.fspath(path)
        self._session = None

    def __fspath__(self):
        return self.path

    def __str__(self):
        return self.path

    def __getattr__(self, name):
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self.session, name)

    def __enter__(self):
        return self

    def __exit__(self, *_raised):
        self._session = None

    @property
    def session(self):
        """The session, on the processor, with default options."""
        if self._session is None:
            import onnxruntime

            self._session = onnxruntime.InferenceSession(self.path, providers=["CPUExecutionProvider"])
        return self._session
