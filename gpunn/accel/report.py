"""Messages about what runs where, and why."""

from __future__ import annotations

import logging
from typing import Any

from gpunn.log import logger as parent

logger = parent.getChild("accel")
_printed = logging.StreamHandler()
_printed.setFormatter(logging.Formatter("gpunn.accel: %(message)s"))
_told: set[str] = set()


def speak(verbose: bool) -> None:
    """Print all messages to stderr, or only pass them to handlers that the user has."""
    logger.removeHandler(_printed)
    logger.setLevel(logging.INFO if verbose else logging.NOTSET)
    logger.propagate = not verbose
    if verbose:
        logger.addHandler(_printed)


def is_verbose() -> bool:
    """Return whether messages are printed to stderr."""
    return _printed in logger.handlers


def ran(estimator: Any, what: str, reason: str | None) -> None:
    """Tell that a method ran on gpunn, or the reason why it ran on scikit-learn.

    Fits are told each time. Predictions, of which there may be many, are told once per class and
    reason.
    """
    if not logger.isEnabledFor(logging.INFO):
        return
    where = "gpunn, on the CPU in float64" if reason is None else f"scikit-learn: {reason}"
    words = f"{type(estimator).__name__}: {what} on {where}"
    if what == "prediction":
        if words in _told:
            return
        _told.add(words)
    logger.info(words)
