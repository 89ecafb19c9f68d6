"""What a run tells on its way: progress, warnings, failures."""

from __future__ import annotations

import logging
import sys

from . import _errors, _native, _place
from ._candidate import Candidate

_LOG = logging.getLogger("onnxquant")

# What is counted in each phase.
_PHASES = {
    "read": ("reading samples", "samples"),
    "calibrate": ("calibrating", "samples"),
    "quantize": ("quantizing", "layers"),
    "compare": ("comparing", "samples"),
    "write": ("writing", "files"),
}


class Listener:
    """Hands progress on and logs warnings.

    `progress` is a callable of phase, done and total, `True` for a bar of tqdm, `False` for nothing; with `None` there is a
    bar where tqdm is installed and the standard error is a terminal. `metric` says how good a model is. `store` keeps what
    is done in place of a folder.
    """

    def __init__(self, progress=None, metric=None, store=None):
        self._bar = None
        self._metric = metric
        self.store = store
        self._progress = self._of(progress)

    def _of(self, progress):
        if progress is False or (progress is None and not _is_watched()):
            return lambda phase, done, total: None
        return progress if callable(progress) else self._show

    def progress(self, phase, done, total):
        """Is told how far a phase is; `total` is `None` where nobody knows."""
        self._progress(phase, done, total)

    def warn(self, text):
        """Is told what is not as usual."""
        _LOG.warning("%s", text)

    def metric(self, path):
        """Is asked how good the model in a file is."""
        with Candidate(path) as candidate:
            return float(self._metric(candidate))

    @staticmethod
    def error(kind, message):
        """The exception for a failure."""
        return _errors.of(kind, message)

    def run(self, arguments):
        """Runs the command; returns its JSON and what was missed."""
        try:
            has_metric, has_store = self._metric is not None, self.store is not None
            return _native.run(arguments, _place.program(), _place.packages(), self, has_metric, has_store)
        finally:
            self.close()

    def close(self):
        """Takes the bar away."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def _show(self, phase, done, total):
        words, unit = _PHASES[phase]
        if self._bar is None or self._bar.desc != words:
            self.close()
            from tqdm.auto import tqdm

            self._bar = tqdm(desc=words, unit=f" {unit}", total=total, leave=False)
            self._bar.desc = words
        self._bar.update(done - self._bar.n)


def _is_watched():
    """Whether there is tqdm and somebody who sees its bar."""
    from importlib.util import find_spec

    is_notebook = "ipykernel" in sys.modules
    is_terminal = sys.stderr is not None and sys.stderr.isatty()
    return (is_notebook or is_terminal) and find_spec("tqdm") is not None
