"""A recipe: all that a published run of a network on MNIST was given, as data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

import gpunn as gn
from gpunn import nn, optim
from gpunn.backends.random import Draw, normal, uniform
from gpunn.optim.schedules import Linear, Schedule
from gpunn.sklearn import arithmetic
from gpunn.typing import Array, Shape


class ByEpoch(Schedule):
    """A number that changes after each epoch.

    Args:
        of_epoch: the number of an epoch, counted from 1.
        steps: the steps of an epoch.
    """

    def __init__(self, of_epoch: Callable[[int], float], steps: int) -> None:
        self.of_epoch, self.steps = of_epoch, steps

    def factor(self, step: int, total: int) -> float:
        """Return the number of the epoch that a step is in."""
        return self.of_epoch(step // self.steps + 1)


class ByStep(Schedule):
    """A number that changes at each step, counted from 0."""

    def __init__(self, of_step: Callable[[int], float]) -> None:
        self.of_step = of_step

    def factor(self, step: int, total: int) -> float:
        """Return the number of a step."""
        return self.of_step(step)


@dataclass(frozen=True)
class Uniform:
    """First weights that are uniform between -bound and bound."""

    bound: float

    def __call__(self, shape: Shape, draw: Draw) -> np.ndarray[Any, Any]:
        """Return weights of a shape."""
        return self.bound * (2.0 * uniform(shape, *draw.key, draw.call) - 1.0)


@dataclass(frozen=True)
class Normal:
    """First weights that are normal with a standard deviation."""

    deviation: float

    def __call__(self, shape: Shape, draw: Draw) -> np.ndarray[Any, Any]:
        """Return weights of a shape."""
        return self.deviation * normal(shape, *draw.key, draw.call)


def without_momentum(steps: int) -> float:
    """Return 0."""
    return 0.0


@dataclass(frozen=True)
class Recipe:
    """A published run.

    Attributes:
        published: the published test error in percent.
        source: where it was published, with its settings.
        sizes: the units of each layer, from the pixels to the classes.
        activation: the activation of the hidden layers.
        output: the activation of the last layer.
        loss: the name of the loss.
        feedback: the size of the fixed random weights of feedback alignment, as a multiple of that
            of the first weights; 0 for backpropagation.
        initial: the first weights of each layer: a name, or a function of shape and draw.
        dropout: the rate before each layer; 0 for none.
        batch_size: the examples of a step.
        epochs: the epochs of the run.
        lr: the base learning rate.
        schedule: makes the schedule of its factor from the steps of an epoch; None for a constant.
        momentum: makes the momentum, a number or a schedule, from the steps of an epoch.
        velocity_has_rate: whether the velocity contains the rate: v = momentum v - lr g; p += v.
        max_norms: the largest norm of the weights into a unit, for each layer; () for no limit.
        l1, l2: the strengths of penalties on the weights.
        optimizer: the name of another optimizer than descent with momentum.
        averages: numbers of networks, drawn by dropout, whose mean predicts the test data as well.
        deviations: what differs from the published run, one sentence each.
        dtype: the dtype of the weights and of everything that is computed.
        estimator: the parameters of scikit-learn's MLPClassifier for the same run, if it has one.
    """

    published: float
    source: str
    sizes: tuple[int, ...]
    batch_size: int
    epochs: int
    lr: float
    activation: str = "relu"
    output: str = "identity"
    loss: str = "softmax_cross_entropy"
    feedback: float = 0.0
    initial: tuple[Any, ...] = ()
    dropout: tuple[float, ...] = ()
    schedule: Callable[[int], Schedule] | None = None
    momentum: Callable[[int], float | Schedule] = without_momentum
    velocity_has_rate: bool = False
    max_norms: tuple[float, ...] = ()
    l1: float = 0.0
    l2: float = 0.0
    optimizer: str = ""
    averages: tuple[int, ...] = ()
    deviations: tuple[str, ...] = ()
    dtype: str = "float32"
    estimator: dict[str, Any] = field(default_factory=dict)

    def within(self, epochs: int) -> Recipe:
        """Return the recipe for another budget, in which the rate falls to 0 along a line."""
        sentence = (
            f"{epochs:,} of {self.epochs:,} epochs, in which the learning rate falls from its "
            "first value to 0 along a line."
        )
        return replace(
            self,
            epochs=epochs,
            schedule=lambda steps: Linear(),
            deviations=(*self.deviations, sentence),
        )

    def targets(self, classes: Array) -> Array:
        """Return what the loss compares outputs with: classes, or a 1 at the place of each."""
        if self.loss == "softmax_cross_entropy":
            return classes
        return np.eye(self.sizes[-1], dtype=self.dtype)[classes]

    def network(self, seed: int, device: str = "cpu") -> nn.Sequential:
        """Return the network with its first weights."""
        layers: list[Any] = []
        last = len(self.sizes) - 2
        for k, (inputs, outputs) in enumerate(zip(self.sizes, self.sizes[1:], strict=False)):
            if self.dropout and self.dropout[k]:
                layers.append(nn.Dropout(self.dropout[k]))
            activation = self.output if k == last else self.activation
            options = {"init": self.initial[k]} if self.initial else {}
            options.update(seed=1000 * seed + k, dtype=self.dtype, device=device)
            kind = nn.FeedbackLinear if self.feedback and k else nn.Linear
            layers.append(kind(inputs, outputs, activation, **options))
            if isinstance(layers[-1], nn.FeedbackLinear):
                layers[-1].feedback.data *= self.feedback
        return nn.Sequential(*layers)

    def trainer(self, steps: int, seed: int, device: str = "cpu", **options: Any) -> gn.Trainer:
        """Return the trainer of a seed.

        Args:
            steps: the steps of an epoch.
            seed: the seed of the weights, the order and the masks.
            device: the device to train on.
            options: more options of the trainer.
        """
        schedule = "constant" if self.schedule is None else self.schedule(steps)
        return gn.Trainer(
            self.network(seed, device),
            self.loss,
            optimizer=self._optimizer(steps),
            schedule=schedule,
            regularizer=self._regularizer(),
            seed=seed,
            **options,
        )

    def _optimizer(self, steps: int) -> optim.Optimizer:
        if self.optimizer:
            return optim.get_optimizer(self.optimizer, lr=self.lr)
        if self.velocity_has_rate:
            return arithmetic.SGD(lr=self.lr, momentum=self.momentum(steps))
        return optim.SGD(lr=self.lr, momentum=self.momentum(steps))

    def _regularizer(self) -> optim.Regularizer | None:
        parts: list[optim.Regularizer] = []
        parts += [optim.L2(self.l2)] if self.l2 else []
        parts += [optim.L1(self.l1)] if self.l1 else []
        parts += [optim.MaxNorm(self.max_norms)] if self.max_norms else []
        return optim.Regularizers(*parts) if parts else None
