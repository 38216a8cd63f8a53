"""The time that a fit has."""

from __future__ import annotations

import time
from threading import Event

from gpunn.arguments import in_range
from gpunn.train import Callback, History
from gpunn.train.training import Training


class Clock(Callback):
    """A callback that ends fits when the time is over, or when `stop` was called.

    Args:
        limit: the seconds from now; None for no limit.

    Raises:
        ArgumentError: the limit is not above 0.
    """

    def __init__(self, limit: float | None = None) -> None:
        self.limit = None if limit is None else in_range("time_limit_s", limit, 1e-3)
        self._begun, self._stopped = time.monotonic(), Event()

    def left(self) -> float:
        """Return the seconds that are left; infinity without a limit."""
        if self.limit is None:
            return float("inf")
        return self.limit - (time.monotonic() - self._begun)

    def stop(self) -> None:
        """End all fits after their present epoch."""
        self._stopped.set()

    def on_epoch_end(self, trainer: Training, epoch: int, history: History) -> str | None:
        """Stop the fit if the time is over."""
        if self._stopped.is_set():
            return "it was interrupted"
        return None if self.left() > 0 else f"the time limit of {self.limit:g} s is over"
