"""The state of a training as arrays and JSON. It is all that the rest of a fit depends on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from gpunn.arguments import in_range
from gpunn.backends import RandomStream
from gpunn.errors import ModelFileError
from gpunn.log import logger
from gpunn.storage.state import check_state
from gpunn.storage.untrusted.bounded_json import shortened, shown
from gpunn.train.callbacks import Callback
from gpunn.train.checkpoints import State, Tensors
from gpunn.train.identity import Run, check, keepers, refuse, told
from gpunn.train.training import Position, Training


def collect(trainer: Training, run: Run, callbacks: Sequence[Callback]) -> tuple[Tensors, State]:
    """Collect the whole state of a fit between two steps.

    Args:
        trainer: the training.
        run: the identity of the run.
        callbacks: the callbacks of the fit. Those without a state are left out.

    Returns:
        The arrays by name, and the other values as JSON.
    """
    at = trainer.position
    optimizer = trainer.optimizer.state_dict()
    tensors = {f"model.{name}": value for name, value in trainer.model.state_dict().items()}
    tensors |= {f"optimizer.{name}": value for name, value in optimizer.items()}
    states = []
    for number, callback in enumerate(keepers(callbacks)):
        arrays, numbers = callback.state()
        tensors |= {f"callback.{number}.{name}": value for name, value in arrays.items()}
        states.append(numbers)
    scale = trainer.precision.loss_scale
    if scale is not None:
        tensors |= {f"loss_scale.{name}": value for name, value in scale.state_dict().items()}
    state = {
        "progress": {
            "fit": at.fits,
            "start": at.start,
            "epochs": at.epochs,
            "batches": at.batches,
            "total": at.loss_sum,
            "data": run.data,
        },
        "epoch": at.epoch,
        "steps": at.steps,
        "base_lr": trainer.base_lr,
        "seed": trainer.seed,
        "optimizer": type(trainer.optimizer).__name__,
        "precision": trainer.precision.name,
        "streams": [asdict(stream) for stream in trainer.model.streams()],
        "curves": trainer.history.curves,
        "stopped": trainer.history.stopped,
        "callbacks": states,
        "settings": trainer.told,
        "given": run.given,
    }
    return {name: np.asarray(value, order="C") for name, value in tensors.items()}, state


@dataclass
class Saved:
    """The JSON part of a checkpoint, after all its values were checked.

    Attributes:
        numbers: the values that `collect` stored.
        position: the position of the training.
        data: the description of the fit's data.
        streams: the random streams of the model.
    """

    numbers: State
    position: Position
    data: str
    streams: list[RandomStream]

    @classmethod
    def of(cls, state: Any) -> Saved:
        """Check the JSON part of a checkpoint.

        Raises:
            ModelFileError: the state does not have the form that `collect` gives it.
        """
        try:
            streams = list(map(RandomStream.of, state["streams"]))
            saved = cls(state, *_position(state), streams)
            saved._check()
        except (KeyError, TypeError, ValueError) as error:
            words = shortened(error)
            raise ModelFileError(
                f"got a checkpoint whose state is not a fit's ({type(error).__name__}: {words}); "
                "expected what a fit wrote: delete the file to go on from the one before"
            ) from error
        return saved

    def _check(self) -> None:
        numbers, at = self.numbers, self.position
        _count("seed", numbers["seed"])
        if at.steps < at.start + at.batches:
            raise ValueError(f"{at.steps} steps are fewer than this fit has taken")
        in_range("base_lr", numbers["base_lr"], 0.0)
        kinds: dict[str, type[Any]] = dict.fromkeys(("optimizer", "precision", "stopped"), str)
        kinds |= {"streams": list, "callbacks": list, "curves": dict}
        for name, kind in kinds.items():
            if not isinstance(numbers[name], kind):
                raise TypeError(f"{name} is {shown(numbers[name])}, not a {kind.__name__}")
        for name, curve in numbers["curves"].items():
            if not isinstance(curve, list) or len(curve) != at.epochs:
                raise ValueError(f"the curve {shown(name)} does not have {at.epochs} numbers")
            if not all(type(value) in (int, float) for value in curve):
                raise TypeError(f"the curve {shown(name)} has values that are not numbers")
        if not all(isinstance(each, dict) for each in numbers["callbacks"]):
            raise TypeError("the states of the callbacks are not dicts")
        if "settings" in numbers:
            _check_settings(numbers["settings"], numbers["given"])


def _position(state: Any) -> tuple[Position, str]:
    """Read the position and the description of the data, and check every count."""
    progress = state["progress"]
    if not isinstance(progress, dict) or not progress.keys() <= set(_NAMES) | {"data"}:
        raise TypeError(f"the progress is {shown(progress)}")
    at = Position(epoch=state["epoch"], steps=state["steps"])
    for name, field in _NAMES.items():
        if name in progress or name in ("fit", "start"):
            setattr(at, field, progress[name])
    for field in ("fits", "epoch", "steps", "start", "epochs", "batches"):
        _count(field, getattr(at, field))
    data = progress.get("data", "")
    if type(at.loss_sum) not in (int, float) or not isinstance(data, str):
        raise TypeError(f"the progress is {shown(progress)}")
    return at, data


def _check_settings(settings: Any, given: Any) -> None:
    """Check the identity of a run. Files of older releases have none."""
    if not isinstance(settings, list) or not isinstance(given, dict):
        raise TypeError("the settings are not a list, or what was given is not a dict")
    for entry in settings:
        if not isinstance(entry, list) or len(entry) != 2 or not isinstance(entry[1], dict):
            raise TypeError(f"{shown(entry)} is not the settings of a fit")
        _count("fit", entry[0])
    texts = [text for _, changes in settings for text in changes.values() if text is not None]
    if not all(isinstance(text, str) for text in (*texts, *given.values())):
        raise TypeError("a setting is not text")


_NAMES = {
    "fit": "fits",
    "start": "start",
    "epochs": "epochs",
    "batches": "batches",
    "total": "loss_sum",
}
"""The fields of a `Position` by their names in the "progress" of a file."""


def _count(name: str, value: object) -> None:
    if type(value) is not int or not 0 <= value < 2**64:
        raise ValueError(f"{name} is {shown(value)}, not a count")


def restore(
    trainer: Training,
    tensors: Tensors,
    saved: Saved,
    callbacks: Sequence[Callback] | None,
) -> None:
    """Restore the state of a training, after `check_run`.

    Args:
        trainer: the training.
        tensors: the arrays of the checkpoint.
        saved: the other values of the checkpoint.
        callbacks: the callbacks of the fit; None for a fit that was over at the checkpoint.

    Raises:
        ModelFileError: the state belongs to another run. Nothing is changed then, unless only a
            callback finds the fault.
    """
    parts, numbers = _by_prefix(tensors), saved.numbers
    _check_arrays(trainer, parts)
    try:
        trainer.optimizer.load_state_dict(parts.get("optimizer", {}))
        trainer.model.load_state_dict(parts.get("model", {}))
        for stream, there in zip(trainer.model.streams(), saved.streams, strict=True):
            for name, value in asdict(there).items():
                setattr(stream, name, value)
        if trainer.precision.loss_scale is not None:
            trainer.precision.loss_scale.load_state_dict(parts["loss_scale"])
        trainer.base_lr = float(numbers["base_lr"])
        if callbacks is None:
            later = told(numbers.get("settings", []), trainer.position.fits + 1)
            begun = float(later.get("optimizer.lr", trainer.base_lr))
            trainer.base_lr = in_range("lr", begun, 0.0)  # the rate that the next fit began with
            trainer.position.epoch, trainer.position.steps = (
                saved.position.epoch,
                saved.position.steps,
            )
            return
        trainer.position = replace(saved.position)
        trainer.history.curves = {k: list(map(float, v)) for k, v in numbers["curves"].items()}
        trainer.history.stopped = numbers["stopped"]
        kept = _kept(saved, callbacks)
        for callback in callbacks:
            number = next((n for n, each in enumerate(kept) if each is callback), -1)
            state = numbers["callbacks"][number] if number >= 0 else {}
            callback.restore(trainer, parts.get(f"callback.{number}", {}), state)
    except (LookupError, TypeError, ValueError, ArithmeticError, AttributeError) as error:
        if isinstance(error, ModelFileError):
            raise
        words = shortened(error)
        raise ModelFileError(
            f"got a checkpoint that does not fit this run ({type(error).__name__}: {words}); "
            "expected one of the same model, optimizer and callbacks: choose another folder"
        ) from error


def _kept(saved: Saved, callbacks: Sequence[Callback]) -> Sequence[Callback]:
    """Return the callbacks whose states are in a file. Older releases stored one for each."""
    return keepers(callbacks) if "settings" in saved.numbers else callbacks


def check_run(
    trainer: Training, saved: Saved, callbacks: Sequence[Callback] | None, run: Run
) -> None:
    """Check that a state belongs to a run with the same settings.

    Args:
        trainer: the training.
        saved: the values of the checkpoint.
        callbacks: the callbacks of the fit; None for a fit that was over at the checkpoint.
        run: the identity of this run.

    Raises:
        ModelFileError: it belongs to another run. The message names the first setting that differs.
    """
    numbers = saved.numbers
    if "settings" in numbers:
        given = None if callbacks is None else numbers["given"]
        check(run, trainer.position.fits, numbers["settings"], given)
    else:
        logger.warning(
            "the checkpoint is of an older release, which did not store all settings of a run: "
            "gpunn cannot check that they are those of this run"
        )
    mine: dict[str, Any] = {"random streams": len(trainer.model.streams())}
    theirs: dict[str, Any] = {"random streams": len(saved.streams)}
    if "settings" not in numbers:
        mine |= {"optimizer": type(trainer.optimizer).__name__}
        mine |= {"precision": trainer.precision.name, "seed": trainer.seed}
        theirs |= {name: numbers[name] for name in ("optimizer", "precision", "seed")}
    if callbacks is not None:
        mine |= {"data": run.data, "callbacks": len(_kept(saved, callbacks))}
        theirs |= {"data": saved.data, "callbacks": len(numbers["callbacks"])}
    for name, value in mine.items():
        if theirs[name] != value:
            refuse(name, repr(theirs[name]), repr(value))


def _check_arrays(trainer: Training, parts: dict[str, Tensors]) -> None:
    """Check that the names, shapes and dtypes of the arrays are those of this run."""
    wanted: dict[str, dict[str, Any]] = {
        "model": dict(trainer.model.state()),
        "optimizer": trainer.optimizer.arrays(),
    }
    scale = trainer.precision.loss_scale
    if scale is not None:
        wanted["loss_scale"] = {"scale": scale.scale, "good": scale.good}
    for owner in wanted.keys() | {name for name in parts if not name.startswith("callback.")}:
        what = f"a checkpoint's {owner}"
        check_state(parts.get(owner, {}), wanted.get(owner, {}), what=what, exact=True)


def _by_prefix(tensors: Tensors) -> dict[str, Tensors]:
    """Group tensors by the first part of their names: "model", "optimizer", "callback.0" ..."""
    parts: dict[str, Tensors] = {}
    for name, value in tensors.items():
        owner, _, rest = name.partition(".")
        if owner == "callback":
            number, _, rest = rest.partition(".")
            owner = f"{owner}.{number}"
        parts.setdefault(owner, {})[rest] = value
    return parts
