"""How far a fit has come, and everything that the rest of it depends on, as arrays and JSON."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import numpy as np

from gpunn.backends import RandomStream, backend_of
from gpunn.errors import ModelFileError
from gpunn.train.callbacks import Callback
from gpunn.train.resume import State, Tensors
from gpunn.typing import Array

if TYPE_CHECKING:
    from gpunn.train.trainer import Trainer


@dataclass
class Progress:
    """How far a fit has come.

    Attributes:
        fit: which fit of its trainer, counted from 1.
        start: steps that the trainer had taken before it.
        epochs: whole epochs that are done.
        batches: steps of the epoch that is under way.
        total: their part of the epoch's mean loss.
        data: what the data were; another run must have the same to go on.
    """

    fit: int
    start: int
    epochs: int = 0
    batches: int = 0
    total: float = 0.0
    data: str = ""


def describe_data(x: Array, y: Array, batch_size: int) -> str:
    """Shapes, dtypes and a checksum of the data of a fit, and its batch size."""
    parts = [f"batch_size {batch_size}"]
    for name, array in (("x", x), ("y", y)):
        host = backend_of(array).download(array)
        checksum = zlib.crc32(host.tobytes())
        parts.append(f"{name} {host.shape} {host.dtype} {checksum:08x}")
    return ", ".join(parts)


def collect(
    trainer: Trainer, progress: Progress, callbacks: Sequence[Callback]
) -> tuple[Tensors, State]:
    """The whole state of a fit between two steps."""
    optimizer = trainer.optimizer.state_dict()
    tensors = {f"model.{name}": value for name, value in trainer.model.state_dict().items()}
    tensors |= {f"optimizer.{name}": value for name, value in optimizer.items()}
    states = []
    for number, callback in enumerate(callbacks):
        arrays, numbers = callback.state()
        tensors |= {f"callback.{number}.{name}": value for name, value in arrays.items()}
        states.append(numbers)
    scale = trainer.precision.loss_scale
    if scale is not None:
        tensors |= {f"loss_scale.{name}": value for name, value in scale.state_dict().items()}
    state = {
        "progress": asdict(progress),
        "epoch": trainer.epoch,
        "steps": trainer.steps,
        "base_lr": trainer.base_lr,
        "seed": trainer.seed,
        "optimizer": type(trainer.optimizer).__name__,
        "precision": trainer.precision.name,
        "streams": [asdict(stream) for stream in trainer.model.streams()],
        "curves": trainer.history.curves,
        "stopped": trainer.history.stopped,
        "callbacks": states,
    }
    return {name: np.asarray(value, order="C") for name, value in tensors.items()}, state


def restore(
    trainer: Trainer,
    tensors: Tensors,
    state: State,
    callbacks: Sequence[Callback] | None,
    data: str,
) -> Progress:
    """Put a state back.

    Args:
        trainer: whose state it becomes.
        tensors: the arrays that `collect` gave.
        state: the rest of it.
        callbacks: of the fit that is to go on; None for a fit that was over before.
        data: describes the data of that fit.

    Returns:
        How far the fit had come.

    Raises:
        ModelFileError: the state is another run's. Nothing is set then, but for a fault that only
            shows in the middle of setting it.
    """
    mine = {
        "optimizer": type(trainer.optimizer).__name__,
        "precision": trainer.precision.name,
        "seed": trainer.seed,
    }
    if callbacks is not None:
        mine |= {"data": data, "callbacks": len(callbacks)}
    try:
        progress = Progress(**state["progress"])
        theirs = {
            **{name: state[name] for name in ("optimizer", "precision", "seed")},
            "data": progress.data,
            "callbacks": len(state["callbacks"]),
        }
        for name, value in mine.items():
            if theirs[name] != value:
                raise ModelFileError(
                    f"got a checkpoint of a run with {name} {theirs[name]!r}; expected "
                    f"{value!r}, as in this run: choose another folder for it"
                )
        parts = _by_prefix(tensors)
        trainer.model.load_state_dict(parts.get("model", {}))
        trainer.optimizer.load_state_dict(parts.get("optimizer", {}))
        streams = [RandomStream(**numbers) for numbers in state["streams"]]
        for stream, saved in zip(trainer.model.streams(), streams, strict=True):
            vars(stream).update(asdict(saved))
        if trainer.precision.loss_scale is not None:
            trainer.precision.loss_scale.load_state_dict(parts["loss_scale"])
        trainer.epoch, trainer.steps = int(state["epoch"]), int(state["steps"])
        trainer.base_lr = float(state["base_lr"])
        if callbacks is None:
            return progress
        trainer.history.curves = {k: list(map(float, v)) for k, v in state["curves"].items()}
        trainer.history.stopped = str(state["stopped"])
        for number, (callback, numbers) in enumerate(
            zip(callbacks, state["callbacks"], strict=True)
        ):
            callback.restore(trainer, parts.get(f"callback.{number}", {}), numbers)
    except (KeyError, TypeError, ValueError) as error:
        if isinstance(error, ModelFileError):
            raise
        raise ModelFileError(
            f"got a checkpoint that does not fit this run ({type(error).__name__}: {error}); "
            "expected one of the same model, optimizer and callbacks: choose another folder"
        ) from error
    return progress


def _by_prefix(tensors: Tensors) -> dict[str, Tensors]:
    """Tensors by what they belong to: "model", "optimizer", "loss_scale", "callback.0" ..."""
    parts: dict[str, Tensors] = {}
    for name, value in tensors.items():
        owner, _, rest = name.partition(".")
        if owner == "callback":
            number, _, rest = rest.partition(".")
            owner = f"{owner}.{number}"
        parts.setdefault(owner, {})[rest] = value
    return parts
