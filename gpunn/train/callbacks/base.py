"""The base class of callbacks, which act before a fit, after each epoch and at the end."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from gpunn.arguments import check_kind
from gpunn.errors import ArgumentError
from gpunn.train.curves import History
from gpunn.train.metric import rises
from gpunn.train.training import Training


class Callback:
    """The base class of callbacks. `Trainer.fit` calls the methods that a subclass overrides.

    A callback that overrides `state` belongs to its run: a fit with another one does not go on from
    the checkpoints. A callback without `state` counts as one that only looks at the run. It may be
    added, changed or left out.
    """

    def on_fit_start(self, trainer: Training) -> None:
        """Act before the first epoch."""

    def on_epoch_end(self, trainer: Training, epoch: int, history: History) -> str | None:
        """Act after an epoch.

        Args:
            trainer: the training.
            epoch: the number of the epoch, counted from 1.
            history: the curves so far.

        Returns:
            A sentence that says why the fit should stop, or None to go on.
        """
        return None

    def state(self) -> tuple[dict[str, np.ndarray[Any, Any]], dict[str, Any]]:
        """Return this callback's state for a checkpoint: arrays by name, and JSON values."""
        return {}, {}

    def restore(
        self, trainer: Training, arrays: dict[str, np.ndarray[Any, Any]], state: dict[str, Any]
    ) -> None:
        """Restore what `state` returned. A resumed fit calls this instead of `on_fit_start`.

        The trainer's history contains the epochs so far.
        """

    def on_fit_end(self, trainer: Training, history: History) -> None:
        """Act after the last epoch. A fit that ends with an exception does not call this."""


def score_of(monitor: str, training: Training, history: History) -> float:
    """Return the last number of a curve, with the sign with which a larger one is better.

    Raises:
        ArgumentError: the fit does not record the curve.
    """
    if monitor not in history:
        raise ArgumentError(
            f"got monitor={monitor!r}; expected one of {sorted(history.curves)}: pass validation "
            "data to fit for the val_ curves"
        )
    return (1.0 if rises(monitor, training.metrics) else -1.0) * history[monitor][-1]


def check_callbacks(callbacks: Sequence[Callback]) -> list[Callback]:
    """Check the callbacks of a fit, and return them as a list.

    Raises:
        ArgumentError: `callbacks` is not a list, or contains something that is not a callback.
    """
    if not isinstance(callbacks, list | tuple):
        raise ArgumentError(
            f"got callbacks as a {type(callbacks).__name__}; expected a list: pass [callback]"
        )
    for number, callback in enumerate(callbacks):
        check_kind(f"callbacks[{number}]", callback, Callback, "one such as EarlyStopping()")
    return list(callbacks)
