"""What can happen between epochs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np

from gpunn.arguments import check_kind, count, in_range
from gpunn.errors import ArgumentError, ModelFileError, OutputError
from gpunn.storage.state import check_state
from gpunn.storage.untrusted.bounded_json import shown
from gpunn.train.training import History, Training


class Callback:
    """Called by `Trainer.fit`; a subclass defines what it needs."""

    def on_fit_start(self, trainer: Training) -> None:
        """Before the first epoch."""

    def on_epoch_end(self, trainer: Training, epoch: int, history: History) -> str | None:
        """After epoch `epoch`, counted from 1. A returned sentence stops the fit with it."""
        return None

    def state(self) -> tuple[dict[str, np.ndarray[Any, Any]], dict[str, Any]]:
        """What a checkpoint keeps of this callback: arrays by name, and JSON values."""
        return {}, {}

    def restore(
        self, trainer: Training, arrays: dict[str, np.ndarray[Any, Any]], state: dict[str, Any]
    ) -> None:
        """Go on where `state` was taken; called in place of `on_fit_start`.

        The trainer's history holds the epochs so far.
        """

    def on_fit_end(self, trainer: Training, history: History) -> None:
        """After the last epoch, however the fit ended short of an exception."""


class EarlyStopping(Callback):
    """Stop when a curve has not improved for `patience` epochs, and put the best weights back.

    Args:
        monitor: the curve: "val_loss", "val_accuracy" or "loss".
        patience: epochs without improvement, at least 1.
        min_delta: an improvement is larger than this, at least 0.

    Raises:
        ArgumentError: patience below 1, or a curve that the fit does not record.
    """

    def __init__(
        self, monitor: str = "val_loss", patience: int = 5, min_delta: float = 0.0
    ) -> None:
        self.monitor, self.min_delta = monitor, min_delta
        self.patience = count("patience", patience)
        self._sign = 1.0 if monitor.endswith("accuracy") else -1.0

    def on_fit_start(self, trainer: Training) -> None:
        """Forget earlier fits."""
        self.best, self.best_epoch = -np.inf, 0
        self._weights: dict[str, np.ndarray[Any, Any]] = {}

    def on_epoch_end(self, trainer: Training, epoch: int, history: History) -> str | None:
        """Keep the best weights; say when patience is over."""
        if self.monitor not in history:
            raise ArgumentError(
                f"got monitor={self.monitor!r}; expected one of {sorted(history.curves)}: pass "
                "validation data to fit for the val_ curves"
            )
        score = self._sign * history[self.monitor][-1]
        if score > self.best + self.min_delta:
            self.best, self.best_epoch = score, epoch
            self._weights = trainer.model.state_dict()
        if epoch - self.best_epoch >= self.patience:
            return (
                f"{self.monitor} has not improved for {self.patience} epochs; the weights of "
                f"epoch {self.best_epoch} are back"
            )
        return None

    def state(self) -> tuple[dict[str, np.ndarray[Any, Any]], dict[str, Any]]:
        """The best weights, their score and their epoch."""
        best = None if np.isinf(self.best) else float(self.best)
        return dict(self._weights), {"best": best, "best_epoch": self.best_epoch}

    def restore(
        self, trainer: Training, arrays: dict[str, np.ndarray[Any, Any]], state: dict[str, Any]
    ) -> None:
        """Remember the best weights so far.

        Raises:
            ModelFileError: they are another model's, or their epoch is none of the fit.
            ArgumentError: their score is no number.
        """
        best, best_epoch = state["best"], state["best_epoch"]
        if type(best_epoch) is not int or not 0 <= best_epoch <= trainer.history.epochs:
            raise ModelFileError(
                f"got a best epoch {shown(best_epoch)} after {trainer.history.epochs}; expected "
                "one of them: choose another folder"
            )
        if arrays:  # none before the first epoch
            check_state(arrays, dict(trainer.model.state()), what="best weights", exact=True)
        self.best = -np.inf if best is None else in_range("best", best, -np.inf)
        self.best_epoch, self._weights = best_epoch, dict(arrays)

    def on_fit_end(self, trainer: Training, history: History) -> None:
        """Put the best weights back."""
        if self._weights:
            trainer.model.load_state_dict(self._weights)


class CSVLog(Callback):
    """Write the numbers of every epoch to a CSV file as soon as it ends.

    Args:
        path: the file; an existing one is replaced.

    Raises:
        OutputError: it cannot be written; raised before training, or after the epoch for which
            the disk has no room. A resumed fit writes the log anew.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    def on_fit_start(self, trainer: Training) -> None:
        """Make the file."""
        with self._open("w"):
            pass

    def on_epoch_end(self, trainer: Training, epoch: int, history: History) -> str | None:
        """Add a row."""
        import csv

        numbers = {"epoch": epoch, **history.last()}
        with self._open("a") as file:
            writer = csv.DictWriter(file, list(numbers))
            if epoch == 1:
                writer.writeheader()
            writer.writerow(numbers)
        return None

    @contextmanager
    def _open(self, mode: str) -> Iterator[IO[str]]:
        try:
            with self.path.open(mode, newline="", encoding="utf-8") as file:
                yield file
        except OSError as error:
            raise OutputError(
                f"got {self.path} for the log, and it cannot be written ({error.strerror}); "
                "expected a folder that can be written and has room: make room, or choose another"
            ) from error

    def restore(
        self, trainer: Training, arrays: dict[str, np.ndarray[Any, Any]], state: dict[str, Any]
    ) -> None:
        """Write the epochs so far anew: the file may hold one that the checkpoint does not."""
        self.on_fit_start(trainer)
        curves, past = trainer.history.curves, History()
        for epoch in range(trainer.history.epochs):
            past.append({name: values[epoch] for name, values in curves.items()})
            self.on_epoch_end(trainer, epoch + 1, past)


def check_callbacks(callbacks: Sequence[Callback]) -> list[Callback]:
    """The callbacks of a fit as a list.

    Raises:
        ArgumentError: no list, or something in it that is no callback.
    """
    if not isinstance(callbacks, list | tuple):
        raise ArgumentError(
            f"got callbacks as a {type(callbacks).__name__}; expected a list: pass [callback]"
        )
    for number, callback in enumerate(callbacks):
        check_kind(f"callbacks[{number}]", callback, Callback, "one such as EarlyStopping()")
    return list(callbacks)
