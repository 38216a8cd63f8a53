"""The network of a table, and the training of one member.

The recipe is that of RealMLP-TD (Holzmüller, Grinsztajn, Steinwart 2024, arXiv 2407.04491), with
fewer epochs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Any

import numpy as np

from gpunn.nn import (
    Dropout,
    Linear,
    Module,
    OneHot,
    ParametricActivation,
    PeriodicEmbedding,
    RobustScale,
    Scale,
    Sequential,
)
from gpunn.ops import get_loss
from gpunn.optim import AdamW
from gpunn.tables.clock import Clock
from gpunn.train import History, KeepBest, Metric, Trainer
from gpunn.typing import DeviceLike

SMALL = 1000  # examples; fewer get smaller batches, so that an epoch has enough steps

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Recipe:
    """The choices of a network and its training.

    Attributes:
        hidden: the widths of the hidden layers.
        epochs: the number of epochs of a member.
        batch_size: the examples of a step; None for 64 up to 1,000 examples, and for 256 above.
        lr: the largest learning rate; None for 0.04 for classes and 0.2 for numbers.
        dropout: the dropout rate behind every hidden layer.
        decay: the weight decay.
        smoothing: the part of the targets of classes that is spread over all classes.
    """

    hidden: tuple[int, ...] = (256, 256, 256)
    epochs: int = 64
    batch_size: int | None = None
    lr: float | None = None
    dropout: float = 0.15
    decay: float = 0.02
    smoothing: float = 0.1


def preprocessing(levels: Sequence[int], codes: Array) -> Sequential:
    """Build the layers that convert codes to features.

    Args:
        levels: 0 for each column of numbers, and the number of levels of each category.
        codes: (N, D) codes of the training data.
    """
    first = OneHot(levels)
    return Sequential(first, RobustScale.fit(first.predict(codes)))


def network(
    recipe: Recipe, width: int, numbers: int, outputs: int, *, classes: bool, seed: int
) -> Sequential:
    """Build a member, without the preprocessing.

    Args:
        recipe: the choices.
        width: the number of features.
        numbers: how many of them, the first ones, are numbers.
        outputs: the number of outputs.
        classes: whether the outputs are scores of classes.
        seed: the seed of the weights.
    """
    layers: list[Module] = []
    if numbers:
        layers.append(_paced(PeriodicEmbedding(numbers, seed=seed), 0.1))
        width += 3 * numbers
    layers.append(_paced(Scale(width), 6.0))
    for place, units in enumerate(recipe.hidden, start=1):
        layers += [
            _linear(width, units, seed + place),
            _paced(ParametricActivation(units, "selu" if classes else "mish"), 0.1),
            Dropout(recipe.dropout),
        ]
        width = units
    layers.append(_linear(width, outputs, seed + len(recipe.hidden) + 1))
    return Sequential(*layers)


def _paced(layer: Module, factor: float) -> Module:
    """Let a layer learn and shrink at another pace."""
    for parameter in layer.parameters():
        parameter.lr_factor = parameter.decay_factor = factor
    return layer


def _linear(width: int, units: int, seed: int) -> Linear:
    """Build a layer that learns as in the neural tangent parametrisation.

    Its weights are 1 / sqrt(width) times normal numbers. So they learn at this rate, too, and
    shrink as all others.
    """
    layer = Linear(width, units, init="lecun_normal", seed=seed)
    layer.weight.lr_factor, layer.weight.decay_factor = 1 / sqrt(width), sqrt(width)
    assert layer.bias is not None
    layer.bias.lr_factor, layer.bias.decay_factor = 0.1, 0.0
    return layer


def train(
    member: Module,
    recipe: Recipe,
    x: Array,
    t: Array,
    held_out: tuple[Array, Array],
    *,
    classes: bool,
    seed: int,
    weights: tuple[Array, Array] | None = None,
    device: DeviceLike = None,
    clock: Clock | None = None,
) -> History:
    """Train a member, and leave it with the weights of its best epoch.

    Args:
        member: the network.
        recipe: the choices.
        x: (N, D) features.
        t: (N,) class numbers, or (N, 1) scaled numbers.
        held_out: features and targets that choose the epoch.
        classes: whether the targets are classes.
        seed: the seed of the order and of dropout.
        weights: (N,) weights of the examples, and those of the held-out ones; or None.
        device: the device to train on.
        clock: what ends the fit early, or None.
    """
    if classes:
        loss = get_loss("softmax_cross_entropy", label_smoothing=recipe.smoothing)
        rate = 0.04
    else:
        loss, rate = get_loss("squared_error"), 0.2
    rate = rate if recipe.lr is None else recipe.lr
    batch = recipe.batch_size or (64 if len(x) <= SMALL else 256)
    own, monitor, metrics = None, "val_accuracy" if classes else "val_loss", []
    if weights is not None:
        own, others = weights
        metrics = [_weighted(others, classes)]
        monitor = f"val_{metrics[0].name}"
    trainer = Trainer(
        member,
        loss,
        AdamW(lr=rate, beta2=0.95, weight_decay=recipe.decay),
        schedule="coslog",
        seed=seed,
        device=device,
        metrics=metrics,
    )
    best = KeepBest(monitor)
    return trainer.fit(
        x,
        t,
        epochs=recipe.epochs,
        batch_size=batch,
        validation=held_out,
        sample_weight=own,
        callbacks=[best] if clock is None else [best, clock],
        progress=False,
    )


def _weighted(weights: Array, classes: bool) -> Metric:
    """Return the accuracy, or the mean squared error, with weights of the examples."""
    if classes:
        return Metric(lambda t, p: np.average(t == p, weights=weights), "weighted_accuracy")
    return Metric(
        lambda t, p: np.average((t - p) ** 2, weights=weights), "weighted_error", "outputs"
    )
