"""The training of an estimator that goes on: in `partial_fit`, after a warm start, from a file."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import asdict
from types import SimpleNamespace
from typing import Any

from gpunn.backends import RandomStream
from gpunn.fingerprint import Identity
from gpunn.sklearn.arithmetic import SummedStep
from gpunn.train import Position, Trainer
from gpunn.train.inputs import training_weights
from gpunn.typing import Array

UPDATE = (
    *("solver", "optimizer", "learning_rate", "learning_rate_init", "power_t"),
    *("momentum", "nesterovs_momentum", "beta_1", "beta_2", "epsilon"),
)
"""The parameters that an optimizer is made with. As in scikit-learn, `partial_fit` keeps them."""

NEUTRAL = (
    *("max_iter", "max_fun", "batch_size", "hidden_layer_sizes", "random_state", "warm_start"),
    *("keep_optimizer", "device", "verbose", "progress_bar", "callbacks", "checkpoint"),
    "transform_layer",
)
"""Parameters that decide no numbers of a fit, or that `SummedTrainer.settings` adds by itself."""


class Update(SimpleNamespace):
    """The parameters that an optimizer was made with, as attributes."""

    @classmethod
    def of(cls, found: Any) -> Update:
        """Return the present parameters of an estimator."""
        return cls(**{name: deepcopy(getattr(found, name)) for name in UPDATE})

    def is_like(self, other: Update) -> bool:
        """Return whether both make the same optimizer."""
        mine, theirs = (Identity(vars(each)).settings for each in (self, other))
        return mine == theirs


class SummedTrainer(Trainer):
    """A trainer that divides gradients by the batch size as late as scikit-learn does.

    Attributes:
        update: the parameters that the optimizer was made with.
        parameters: the parameters of the estimator at the present fit.
    """

    step_class = SummedStep
    update: Update
    parameters: dict[str, Any]

    def weights_of(self, x: Array, weights: Any) -> Array:
        """Convert the weights of examples. Negative ones are allowed, as in scikit-learn."""
        return training_weights(x, weights, signed=True)

    def settings(self) -> dict[str, Any]:
        """Return the parameters of the estimator that decide the numbers of the fit."""
        given = self.parameters
        sizes, chosen = given["hidden_layer_sizes"], given["random_state"]
        settings = {name: value for name, value in given.items() if name not in NEUTRAL}
        settings["hidden_layer_sizes"] = (
            list(sizes) if hasattr(sizes, "__iter__") else [sizes]
        )  # 8, [8] and (8,) are the same
        if self.fits > 1:
            settings["keep_optimizer"] = given["keep_optimizer"]
        if chosen is None or isinstance(chosen, int) or self.fits == 1:
            settings["random_state"] = chosen  # earlier fits have advanced a generator
        return settings


def state_of(trainer: SummedTrainer) -> dict[str, Any]:
    """Return everything that a later fit goes on from, as plain arrays, numbers and text."""
    optimizer, scale = trainer.optimizer, trainer.precision.loss_scale
    options = {k: v for k, v in vars(optimizer).items() if type(v) in (bool, int, float)}
    return {
        "update": dict(vars(trainer.update)),
        "optimizer": optimizer.state_dict(),
        "options": {name: value for name, value in options.items() if name != "_lr"},
        "position": asdict(trainer.position),
        "seed": trainer.seed,
        "streams": [asdict(stream) for stream in trainer.model.streams()],
        "loss_scale": None if scale is None else scale.state_dict(),
        "beginning": dict(trainer.beginning),
        "told": [[fits, dict(changes)] for fits, changes in trainer.told],
    }


def go_on(trainer: SummedTrainer, state: dict[str, Any], *, same: bool) -> None:
    """Let a new trainer go on from a state, after `prepare`.

    Args:
        trainer: the trainer.
        state: what `state_of` returned. Files of older releases have only the optimizer's.
        same: whether the optimizer has the parameters that the state's optimizer had. If not, only
            the moments and the count of steps are taken over.
    """
    there, rate = state["optimizer"], trainer.optimizer.lr
    if same or trainer.optimizer.arrays().keys() == there.keys():
        trainer.optimizer.load_state_dict(there)
    if same:
        for name, value in state.get("options", {}).items():
            setattr(trainer.optimizer, name, value)
    else:
        trainer.optimizer.lr = rate
    streams, known = trainer.model.streams(), state.get("streams", [])
    if len(streams) == len(known):
        for stream, saved in zip(streams, known, strict=True):
            vars(stream).update(asdict(RandomStream.of(saved)))
    scale = trainer.precision.loss_scale
    if scale is not None and state.get("loss_scale") is not None:
        scale.load_state_dict(state["loss_scale"])
    trainer.position = Position(**state.get("position", {}))


def remember(trainer: SummedTrainer, state: dict[str, Any]) -> None:
    """Let a trainer count the fits of a run, whose checkpoints it goes on writing."""
    trainer.position.fits = state.get("position", {}).get("fits", 0)
    trainer.beginning = dict(state.get("beginning", {}))
    trainer.told = [(fits, dict(changes)) for fits, changes in state.get("told", [])]
