"""The optimizer of scikit-learn's estimator, from that of gpunn's training and back."""

from __future__ import annotations

from operator import is_
from typing import Any

import numpy as np
from sklearn.neural_network._stochastic_optimizers import AdamOptimizer, SGDOptimizer

from gpunn.sklearn.continuing import UPDATE, SummedTrainer

SLOTS = {
    SGDOptimizer: {"velocities": "velocity"},
    AdamOptimizer: {"ms": "mean", "vs": "squares"},
}
"""The attributes with the moments, and the names of gpunn's arrays, by scikit-learn's classes."""

MADE_WITH = {
    SGDOptimizer: {
        "learning_rate_init": "learning_rate_init",
        "learning_rate": "lr_schedule",
        "power_t": "power_t",
        "momentum": "momentum",
        "nesterovs_momentum": "nesterov",
    },
    AdamOptimizer: {
        "learning_rate_init": "learning_rate_init",
        "beta_1": "beta_1",
        "beta_2": "beta_2",
        "epsilon": "epsilon",
    },
}
"""The attributes with the parameters that an optimizer was made with."""

SOLVERS = {"sgd": SGDOptimizer, "adam": AdamOptimizer}


class Moments:
    """The moments that scikit-learn's optimizer had after a training of gpunn's.

    Args:
        optimizer: scikit-learn's optimizer.
    """

    def __init__(self, optimizer: Any) -> None:
        self.optimizer, self.lists = optimizer, _lists(optimizer)

    def are_of(self, optimizer: Any) -> bool:
        """Return whether an optimizer still has them. A step of scikit-learn's makes new lists."""
        return optimizer is self.optimizer and all(map(is_, _lists(optimizer), self.lists))


def _lists(optimizer: Any) -> list[Any]:
    return [getattr(optimizer, name) for name in SLOTS[type(optimizer)]]


def made_with(found: Any, optimizer: Any) -> dict[str, Any]:
    """Return the parameters that an estimator's optimizer was made with, as for `Update`."""
    known, kind = MADE_WITH[type(optimizer)], type(optimizer)
    return {
        **{name: getattr(found, name, None) for name in UPDATE},
        **{name: getattr(optimizer, attribute) for name, attribute in known.items()},
        "solver": next(name for name, each in SOLVERS.items() if each is kind),
        "optimizer": None,
    }


def load(trainer: SummedTrainer, optimizer: Any) -> None:
    """Let a new trainer go on with the moments and the rate of scikit-learn's optimizer."""
    ours = trainer.optimizer
    for theirs, views in _views(trainer, type(optimizer)).items():
        for view, moment in zip(views, getattr(optimizer, theirs), strict=True):
            view[...] = moment
    if isinstance(optimizer, AdamOptimizer):
        ours.device_step.fill(optimizer.t)
    else:
        ours.lr = trainer.base_lr = float(optimizer.learning_rate)


def as_optimizer(trainer: SummedTrainer, last: Any) -> Any:
    """Make scikit-learn's optimizer with the moments and the rate of a trainer.

    Args:
        trainer: the trainer.
        last: the optimizer whose training went on, which is changed; or None.
    """
    made = trainer.update
    kind = SOLVERS[made.solver]
    optimizer = last
    if optimizer is None:
        given = {own: getattr(made, name) for name, own in MADE_WITH[kind].items()}
        optimizer = kind([], **given)
    for name, views in _views(trainer, kind).items():
        setattr(optimizer, name, [view.copy() for view in views])
    if kind is AdamOptimizer:
        optimizer.t = t = int(trainer.optimizer.device_step)
        rate = optimizer.learning_rate_init * np.sqrt(1 - optimizer.beta_2**t)
        optimizer.learning_rate = rate / (1 - optimizer.beta_1**t)
    else:
        optimizer.learning_rate = trainer.base_lr
    return optimizer


def _views(trainer: SummedTrainer, kind: type) -> dict[str, list[np.ndarray]]:
    """Return the moments of each weight and then of each bias, by scikit-learn's names."""
    arrays, flat = trainer.optimizer.arrays(), trainer.optimizer.bound
    return {
        theirs: [arrays[ours][flat.parts[each]].reshape(each.shape) for each in flat.tensors]
        for theirs, ours in SLOTS[kind].items()
    }
