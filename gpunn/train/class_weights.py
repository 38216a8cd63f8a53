"""Weights of examples that follow from their classes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np

from gpunn.backends import backend_of
from gpunn.data.batchfeed import BatchSource
from gpunn.data.rows import RowTable
from gpunn.errors import ArgumentError
from gpunn.nn import Module
from gpunn.ops.elementwise import opened, trait
from gpunn.ops.elementwise_losses import decision
from gpunn.ops.weights import written
from gpunn.train.inputs import number_of_outputs
from gpunn.typing import Array

BALANCED = "balanced"
FORMS = f'"{BALANCED}", a dict of labels and weights, or one weight for each class'


class Weighing(Protocol):
    """A trainer, which may allow weights of its own."""

    model: Module
    loss: Callable[..., Any]

    def weights_of(self, x: Array, weights: Any) -> Array:
        """Check the weights of examples, and convert them."""


def weights_of_fit(
    trainer: Weighing, tables: tuple[Any, ...], sample_weight: Any, class_weight: Any
) -> Array | None:
    """Return the weights of the examples of a fit, on their device; None if it has none.

    Args:
        trainer: the trainer.
        tables: the examples and their targets, checked.
        sample_weight: a weight for each example, or None.
        class_weight: weights of classes that multiply them; see `weights_of_classes`.
    """
    weights = None if sample_weight is None else trainer.weights_of(tables[0], sample_weight)
    if class_weight is None:
        return weights
    each = weights_of_classes(trainer.model, trainer.loss, tables, class_weight)
    found = trainer.weights_of(tables[0], each)
    if weights is not None:
        found = backend_of(found).xp.multiply(weights, found)
    return found


def weights_of_classes(
    model: Module, loss: Callable[..., Any], tables: tuple[Any, ...], given: Any
) -> np.ndarray[Any, Any]:
    """Return the weight of each example by its class.

    Args:
        model: the model, whose outputs are the classes.
        loss: its loss.
        tables: the examples and their targets, checked. A row of probabilities gets the mean of
            the weights of its classes.
        given: a dict of labels and weights, which are 1 for labels that are not in it; (C,)
            weights; or "balanced" for n / (k n_c), with the number n of examples, the number k of
            classes among them, and the examples n_c of the class, as in scikit-learn.

    Returns:
        (N,) float64 weights, on the host.

    Raises:
        ArgumentError: the loss has no classes, the weights are not such numbers or of another
            number of classes, or the data cannot be counted before the fit.
    """
    x, how = tables[0], decision(loss)
    if isinstance(x, RowTable | BatchSource):
        raise ArgumentError(
            "got class_weight for rows on disk or batches; expected arrays: pass "
            'loss=gn.ops.get_loss("softmax_cross_entropy", weight=[...])'
        )
    if how is None:
        raise ArgumentError(
            "got class_weight for a loss without classes; expected one such as "
            "softmax_cross_entropy: pass sample_weight, a weight for each example"
        )
    y = np.asarray(backend_of(tables[1]).download(tables[1]))
    if how == "argmax":
        labels: tuple[int, ...] = tuple(range(number_of_outputs(model, loss, x)))
    else:
        low, high = labels = trait(loss, "labels", (0, 1))
        if y.size != len(y):
            raise ArgumentError(
                f"got class_weight for targets of shape {y.shape}; expected one target for each "
                "example: pass pos_weight to the loss"
            )
        up = (y.reshape(-1).astype(np.float64) - low) / (high - low)
        y = np.stack([1 - up, up], axis=1)
    ignored = opened(loss)[1].get("ignore_index")
    counted = np.full(len(y), True) if ignored is None or y.ndim > 1 else y != ignored
    if y.ndim == 1:
        counts = np.bincount(y[counted], minlength=len(labels)).astype(np.float64)
    else:
        counts = y.sum(axis=0, dtype=np.float64)
    weights = _each(given, labels, counts)
    found: np.ndarray[Any, Any]
    if y.ndim > 1:
        found = y @ weights
        return found
    found = np.ones(len(y))
    found[counted] = weights[y[counted]]
    return found


def _each(
    given: Any, labels: tuple[int, ...], counts: np.ndarray[Any, Any]
) -> np.ndarray[Any, Any]:
    """Return the weight of each class."""
    if isinstance(given, str):
        if given != BALANCED:
            raise ArgumentError(f"got class_weight={given!r}; expected {FORMS}")
        present = counts > 0
        balanced = counts.sum() / (np.count_nonzero(present) * np.where(present, counts, 1))
        return np.where(present, balanced, 1.0)
    if isinstance(given, Mapping):
        unknown = [key for key in given if isinstance(key, bool) or key not in labels]
        if unknown:
            raise ArgumentError(
                f"got class_weight with the label {unknown[0]!r}; expected labels from "
                f"{labels[0]} to {labels[-1]}: number the classes as in y"
            )
        given = [given.get(label, 1.0) for label in labels]
    numbers = np.asarray(written("fit", "class_weight", given), np.float64)
    if numbers.shape != (len(labels),):
        raise ArgumentError(
            f"got class_weight of shape {numbers.shape} for {len(labels)} classes; expected {FORMS}"
        )
    if not numbers[counts > 0].any():
        raise ArgumentError("got a class_weight of 0 for all classes; expected one above 0")
    return numbers
