"""Callbacks that watch a curve: the best epoch, the end, and the rate."""

from __future__ import annotations

from typing import Any

import numpy as np

from gpunn.arguments import check_kind, count, in_range
from gpunn.errors import ModelFileError
from gpunn.guesses import answers
from gpunn.log import logger
from gpunn.storage.state import check_state
from gpunn.storage.untrusted.bounded_json import shown
from gpunn.train.callbacks.base import Callback, score_of
from gpunn.train.curves import History
from gpunn.train.training import Training


class KeepBest(Callback):
    """A callback that ends a fit with the weights of its best epoch, the last of equal ones.

    Args:
        monitor: the curve: "val_loss", "val_accuracy", "loss", or "val_" and the name of a metric
            of the Trainer. A larger accuracy is better, and a smaller loss; a metric says which.

    Raises:
        ArgumentError: the argument is no name, or the fit does not record the curve.
    """

    def __init__(self, monitor: str = "val_loss") -> None:
        check_kind("monitor", monitor, str, 'the name of a curve, such as "val_loss"')
        self.monitor = monitor

    def __identity__(self) -> dict[str, Any]:
        return {"monitor": self.monitor}

    def is_better(self, score: float) -> bool:
        """Return whether a score, of which larger ones are better, beats the best one so far."""
        return score >= self.best

    def on_fit_start(self, trainer: Training) -> None:
        """Forget the weights and scores of earlier fits."""
        self.best, self.best_epoch = -np.inf, 0
        self._weights: dict[str, np.ndarray[Any, Any]] = {}

    def on_epoch_end(self, trainer: Training, epoch: int, history: History) -> str | None:
        """Keep the weights if they are the best."""
        score = score_of(self.monitor, trainer, history)
        if self.is_better(score):
            self.best, self.best_epoch = score, epoch
            self._weights = trainer.model.state_dict()
        return None

    def state(self) -> tuple[dict[str, np.ndarray[Any, Any]], dict[str, Any]]:
        """Return the best weights, their score and their epoch."""
        best = None if np.isinf(self.best) else float(self.best)
        return dict(self._weights), {"best": best, "best_epoch": self.best_epoch}

    def restore(
        self, trainer: Training, arrays: dict[str, np.ndarray[Any, Any]], state: dict[str, Any]
    ) -> None:
        """Restore the best weights so far.

        Raises:
            ModelFileError: the weights do not fit the model, or their epoch is not in the fit.
            ArgumentError: their score is not a number.
        """
        best, best_epoch = state["best"], state["best_epoch"]
        if type(best_epoch) is not int or not 0 <= best_epoch <= trainer.history.epochs:
            raise ModelFileError(
                f"got a best epoch {shown(best_epoch)} after {trainer.history.epochs}; expected "
                "one of them: choose another folder"
            )
        if arrays:  # there are none before the first epoch
            check_state(arrays, dict(trainer.model.state()), what="best weights", exact=True)
        self.best = -np.inf if best is None else in_range("best", best, -np.inf)
        self.best_epoch, self._weights = best_epoch, dict(arrays)

    def on_fit_end(self, trainer: Training, history: History) -> None:
        """Restore the best weights."""
        if self._weights:
            trainer.model.load_state_dict(self._weights)


class EarlyStopping(KeepBest):
    """A callback that stops a fit when a curve has not improved for `patience` epochs.

    At the end it restores the best weights, the first of equal ones.

    Args:
        monitor: the curve; see `KeepBest`.
        patience: the epochs without improvement, at least 1.
        min_delta: an improvement must be larger than this, at least 0.

    Raises:
        ArgumentError: an argument is outside its range, or the fit does not record the curve.
    """

    @answers
    def __init__(
        self, monitor: str = "val_loss", patience: int = 5, min_delta: float = 0.0
    ) -> None:
        super().__init__(monitor)
        self.min_delta = in_range("min_delta", min_delta, 0.0)
        self.patience = count("patience", patience)

    def __identity__(self) -> dict[str, Any]:
        names = ("monitor", "patience", "min_delta")
        return {name: getattr(self, name) for name in names}

    def is_better(self, score: float) -> bool:
        """Return whether a score beats the best one so far by more than `min_delta`."""
        return score > self.best + self.min_delta

    def on_epoch_end(self, trainer: Training, epoch: int, history: History) -> str | None:
        """Keep the best weights, and stop the fit when it has not improved for long enough."""
        super().on_epoch_end(trainer, epoch, history)
        if epoch - self.best_epoch >= self.patience:
            return (
                f"{self.monitor} has not improved for {self.patience} epochs; the weights of "
                f"epoch {self.best_epoch} are restored"
            )
        return None


class ReduceOnPlateau(Callback):
    """A callback that lowers the learning rate when a curve has stopped to improve.

    It multiplies `trainer.base_lr`, and so the rate of any schedule.

    Args:
        monitor: the curve; see `KeepBest`.
        factor: the factor of the rate, 0 < factor < 1.
        patience: the epochs without improvement that it waits for. The rate falls in the next one.
        min_delta: an improvement must be larger than this, at least 0.
        min_lr: the lowest base rate, at least 0.

    Raises:
        ArgumentError: an argument is outside its range, or the fit does not record the curve.
    """

    def __init__(
        self,
        monitor: str = "val_loss",
        factor: float = 0.1,
        patience: int = 10,
        min_delta: float = 0.0,
        min_lr: float = 0.0,
    ) -> None:
        check_kind("monitor", monitor, str, 'the name of a curve, such as "val_loss"')
        self.monitor, self.factor = monitor, in_range("factor", factor, 1e-12, 1.0)
        self.patience = count("patience", patience, 0)
        self.min_delta = in_range("min_delta", min_delta, 0.0)
        self.min_lr = in_range("min_lr", min_lr, 0.0)

    def __identity__(self) -> dict[str, Any]:
        names = ("monitor", "factor", "patience", "min_delta", "min_lr")
        return {name: getattr(self, name) for name in names}

    def on_fit_start(self, trainer: Training) -> None:
        """Forget the scores of earlier fits."""
        self.best, self.waited = -np.inf, 0

    def on_epoch_end(self, trainer: Training, epoch: int, history: History) -> str | None:
        """Lower the rate if the curve has not improved for more than `patience` epochs."""
        score = score_of(self.monitor, trainer, history)
        better = score > self.best + self.min_delta
        self.best, self.waited = (score, 0) if better else (self.best, self.waited + 1)
        if self.waited > self.patience and trainer.base_lr > self.min_lr:
            trainer.base_lr = max(self.factor * trainer.base_lr, self.min_lr)
            self.waited = 0
            logger.info("learning rate %g after epoch %d", trainer.base_lr, epoch)
        return None

    def state(self) -> tuple[dict[str, np.ndarray[Any, Any]], dict[str, Any]]:
        """Return the best score, and the epochs since it."""
        return {}, {
            "best": None if np.isinf(self.best) else float(self.best),
            "waited": self.waited,
        }

    def restore(
        self, trainer: Training, arrays: dict[str, np.ndarray[Any, Any]], state: dict[str, Any]
    ) -> None:
        """Restore the best score, and the epochs since it.

        Raises:
            ArgumentError: they are not numbers.
        """
        best = state["best"]
        self.best = -np.inf if best is None else in_range("best", best, -np.inf)
        self.waited = count("waited", state["waited"], 0)
