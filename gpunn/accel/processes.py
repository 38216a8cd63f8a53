"""Worker processes of joblib and multiprocessing, which do as their parent does.

A forked process has its parent's classes. All others are sent their `Process` object by pickle,
and a mark on this object calls `turn_on` where it is loaded.
"""

from __future__ import annotations

import sys
from multiprocessing.process import BaseProcess
from typing import Any

from gpunn.accel import report, switch

_start = BaseProcess.start


class Mark:
    """An object that becomes a call of `turn_on` where it is unpickled."""

    def __reduce__(self) -> tuple[Any, tuple[bool]]:
        return turn_on, (report.is_verbose(),)


def start(self: Any) -> None:
    """Start the process, with a mark on it."""
    self._gpunn_accel = Mark()
    try:
        _start(self)
    finally:
        del self._gpunn_accel


def turn_on(verbose: bool) -> None:
    """Replace scikit-learn's methods in this process, and mark those that it starts from now on.

    Args:
        verbose: whether to print to stderr what runs where.
    """
    report.speak(verbose)
    switch.turn_on()
    if BaseProcess.start is not start:
        BaseProcess.start = start  # type: ignore[method-assign]
        _stop_idle_workers()


def turn_off() -> None:
    """Restore scikit-learn's methods, and mark no further processes."""
    switch.turn_off()
    report.speak(False)
    if BaseProcess.start is start:
        BaseProcess.start = _start  # type: ignore[method-assign]
        _stop_idle_workers()


def _stop_idle_workers() -> None:
    """Let joblib's next parallel loop start new workers in place of those that it keeps."""
    loky = sys.modules.get("joblib.externals.loky.reusable_executor")
    executor = getattr(loky, "_executor", None)
    if executor is not None:
        executor.shutdown(wait=True)
