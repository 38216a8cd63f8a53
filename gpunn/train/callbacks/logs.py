"""Callbacks that write the numbers of each epoch: CSV, TensorBoard, MLflow, Weights & Biases."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from time import time
from typing import IO, Any

import numpy as np

from gpunn.errors import MissingExtraError, OutputError
from gpunn.ops.elementwise import opened
from gpunn.train.callbacks.base import Callback
from gpunn.train.curves import History
from gpunn.train.training import Training


class CSVLog(Callback):
    """A callback that writes the numbers of each epoch to a CSV file when the epoch ends.

    A resumed fit writes the whole file again. In a group of workers the first one writes.

    Args:
        path: the file; an existing one is replaced.

    Raises:
        OutputError: the file cannot be written. The error comes before training, or after an
            epoch if the disk is full.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    def on_fit_start(self, trainer: Training) -> None:
        """Create the file."""
        if trainer.group.rank == 0:
            with self._open("w"):
                pass

    def on_epoch_end(self, trainer: Training, epoch: int, history: History) -> str | None:
        """Write a row."""
        import csv

        if trainer.group.rank:
            return None
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
                f"got {self.path} for the log, which cannot be written ({error.strerror}); "
                "expected a writable folder on a disk with room: make room, or choose another file"
            ) from error

    def restore(
        self, trainer: Training, arrays: dict[str, np.ndarray[Any, Any]], state: dict[str, Any]
    ) -> None:
        """Write the epochs so far again. The file may have an epoch that the checkpoint lacks."""
        self.on_fit_start(trainer)
        for epoch, past in _pasts(trainer.history):
            self.on_epoch_end(trainer, epoch, past)


class TensorBoard(Callback):
    """A callback that writes the numbers of each epoch to a folder that TensorBoard shows.

    The curves with validation data are grouped with the others, as "loss/train" and "loss/val". A
    resumed fit writes another file to the folder, which replaces the epochs after its checkpoint.

    Args:
        folder: the folder, one for each run.

    Raises:
        MissingExtraError: the package `tensorboard` is not installed.
        OutputError: the folder cannot be written to.
    """

    def __init__(self, folder: str | Path) -> None:
        _find("tensorboard", "tensorboard", "train.TensorBoard")
        self.folder = Path(folder)
        self._writer: Any = None

    def __getstate__(self) -> dict[str, Any]:
        """Return the attributes without the open file."""
        return {"folder": self.folder, "_writer": None}

    def on_fit_start(self, trainer: Training) -> None:
        """Open a file in the folder."""
        self._begin(trainer, 1)

    def restore(
        self, trainer: Training, arrays: dict[str, np.ndarray[Any, Any]], state: dict[str, Any]
    ) -> None:
        """Open another file, which begins behind the epochs so far."""
        self._begin(trainer, trainer.history.epochs + 1)

    def _begin(self, trainer: Training, epoch: int) -> None:
        if trainer.group.rank:
            return
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        self._close()
        try:
            self._writer = EventFileWriter(str(self.folder))
        except OSError as error:
            raise OutputError(
                f"got {self.folder} for TensorBoard, which cannot be written to "
                f"({error.strerror}); expected a writable folder: choose another one"
            ) from error
        start = SessionLog(status=SessionLog.START)
        self._writer.add_event(Event(wall_time=time(), step=epoch, session_log=start))

    def on_epoch_end(self, trainer: Training, epoch: int, history: History) -> str | None:
        """Write the numbers."""
        if self._writer is not None:
            from tensorboard.compat.proto.event_pb2 import Event
            from tensorboard.compat.proto.summary_pb2 import Summary

            values = [
                Summary.Value(tag=_tag(name, history), simple_value=value)
                for name, value in history.last().items()
            ]
            event = Event(wall_time=time(), step=epoch, summary=Summary(value=values))
            self._writer.add_event(event)
            self._writer.flush()
        return None

    def on_fit_end(self, trainer: Training, history: History) -> None:
        """Close the file."""
        self._close()

    def _close(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None


def _tag(name: str, history: History) -> str:
    if name.startswith("val_"):
        return f"{name.removeprefix('val_')}/val"
    return f"{name}/train" if f"val_{name}" in history else name


class MLflow(Callback):
    """A callback that logs the numbers of each epoch to a run of MLflow.

    It logs to the active run, or starts one and ends it with the fit.

    Args:
        parameters: whether the optimizer, the loss, the rate and the seed are logged as parameters.
        options: arguments of `mlflow.start_run`, such as `run_name="first"`.

    Raises:
        MissingExtraError: the package `mlflow` is not installed.
    """

    def __init__(self, parameters: bool = True, **options: Any) -> None:
        _find("mlflow", "mlflow", "train.MLflow")
        self.parameters, self.options = parameters, options
        self._own = False

    def on_fit_start(self, trainer: Training) -> None:
        """Start a run if none is active, and log the parameters."""
        if trainer.group.rank:
            return
        import mlflow

        if mlflow.active_run() is None:
            mlflow.start_run(**self.options)
            self._own = True
        if self.parameters:
            mlflow.log_params(_parameters(trainer))

    def restore(
        self, trainer: Training, arrays: dict[str, np.ndarray[Any, Any]], state: dict[str, Any]
    ) -> None:
        """Start a run if none is active, and log the epochs so far."""
        self.on_fit_start(trainer)
        for epoch, past in _pasts(trainer.history):
            self.on_epoch_end(trainer, epoch, past)

    def on_epoch_end(self, trainer: Training, epoch: int, history: History) -> str | None:
        """Log the numbers."""
        if not trainer.group.rank:
            import mlflow

            mlflow.log_metrics(history.last(), step=epoch)
        return None

    def on_fit_end(self, trainer: Training, history: History) -> None:
        """End the run if this callback started it."""
        if self._own:
            import mlflow

            mlflow.end_run()
            self._own = False


class WandB(Callback):
    """A callback that logs the numbers of each epoch to a run of Weights & Biases.

    It logs to the active run, or starts one and ends it with the fit.

    Args:
        options: arguments of `wandb.init`, such as `project="digits"` or `mode="offline"`.

    Raises:
        MissingExtraError: the package `wandb` is not installed.
    """

    def __init__(self, **options: Any) -> None:
        _find("wandb", "wandb", "train.WandB")
        self.options = options
        self._own = False

    def on_fit_start(self, trainer: Training) -> None:
        """Start a run if none is active, and set its configuration."""
        if trainer.group.rank:
            return
        import wandb

        if wandb.run is None:
            wandb.init(**self.options)
            self._own = True
        config: Any = wandb.config
        config.update(_parameters(trainer), allow_val_change=True)

    def restore(
        self, trainer: Training, arrays: dict[str, np.ndarray[Any, Any]], state: dict[str, Any]
    ) -> None:
        """Start a run if none is active, and log the epochs so far."""
        self.on_fit_start(trainer)
        for epoch, past in _pasts(trainer.history):
            self.on_epoch_end(trainer, epoch, past)

    def on_epoch_end(self, trainer: Training, epoch: int, history: History) -> str | None:
        """Log the numbers."""
        if not trainer.group.rank:
            import wandb

            wandb.log(history.last(), step=epoch)
        return None

    def on_fit_end(self, trainer: Training, history: History) -> None:
        """End the run if this callback started it."""
        if self._own:
            import wandb

            wandb.finish()
            self._own = False


def _find(package: str, extra: str, purpose: str) -> None:
    """Check that a package is installed, without importing it.

    Raises:
        MissingExtraError: it is not.
    """
    if find_spec(package) is None:
        raise MissingExtraError(package, extra, purpose)


def _parameters(trainer: Training) -> dict[str, Any]:
    """Return what a log shows beside the curves."""
    return {
        "optimizer": type(trainer.optimizer).__name__,
        "lr": trainer.base_lr,
        "loss": getattr(opened(trainer.loss)[0], "name", str(trainer.loss)),
        "schedule": type(trainer.schedule).__name__,
        "seed": trainer.seed,
        "parameters": sum(p.size for p in trainer.model.parameters()),
        "device": str(trainer.model.device),
        "gpunn": sys.modules["gpunn"].__version__,
    }


def _pasts(history: History) -> Iterator[tuple[int, History]]:
    """Yield the epochs of a history, each with a history that ends there."""
    past = History()
    for epoch in range(history.epochs):
        past.append({name: values[epoch] for name, values in history.curves.items()})
        yield epoch + 1, past
