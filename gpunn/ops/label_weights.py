"""Kernels of losses of rows whose labels have weights, or do not count."""

from __future__ import annotations

from typing import Any

import numpy as np

from gpunn.backends import Backend, Elementwise
from gpunn.ops.weights import ignored_label, weights_for
from gpunn.typing import Array


def _label_masses(
    label: Array,
    weight: Array,
    step: int,
    classes: int,
    ignored: float,
    mass: Array,
    known: Array,
    whole: Array,
) -> None:
    skipped = np.equal(label, ignored)
    np.copyto(known, np.where(skipped, 0, label))
    inside = (label >= 0) & (label < classes) & ~skipped
    flat = weight.reshape(-1)
    np.copyto(mass, np.where(inside, flat[np.where(inside, label, 0) * step], np.nan))
    np.copyto(mass, 0, where=skipped)
    whole += np.add.reduce(mass)


LABEL_MASSES = Elementwise(
    "label_masses",
    "int64 label, raw weight, int64 step, int64 classes, float64 ignored "
    "-> mass, int64 known, sum whole",
    numpy=_label_masses,
    cuda=(
        "const bool skipped = (double)label == ignored; known = skipped ? 0 : label; "
        "mass = skipped ? T(0) : label < 0 || label >= classes ? T(log(T(-1))) "
        ": T(weight[label * step]); "
        "whole = mass;"
    ),
)
"""What each label counts, NaN if it is out of range; 0 for labels to ignore; and the sum."""


def _focused(
    nll: Array, mass: Array, gamma: float, loss: Array, factor: Array, total: Array
) -> None:
    if not gamma:
        np.multiply(nll, mass, out=loss)
        np.copyto(factor, mass)
    else:
        with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
            p = np.exp(-nll)
            rest = -np.expm1(-nll)  # 1 - p
            np.multiply(np.power(rest, gamma) * nll, mass, out=loss)
            both = np.where(p == 0, 0, gamma * p * nll) + rest
            slope = np.where(rest == 0, 0, np.power(rest, gamma - 1) * both)
        np.multiply(slope, mass, out=factor)
    for output in (loss, factor):
        np.copyto(output, 0, where=mass == 0)
    total += np.add.reduce(loss)


FOCUSED = Elementwise(
    "focused",
    "nll, mass, T gamma -> loss, factor, sum total",
    numpy=_focused,
    cuda=(
        "const T p = exp(-nll), rest = -expm1(-nll); "
        "loss = mass == T(0) ? T(0) : mass * (gamma == T(0) ? nll : pow(rest, gamma) * nll); "
        "factor = mass == T(0) ? T(0) : gamma == T(0) ? mass : rest == T(0) ? T(0) : "
        "mass * pow(rest, gamma - T(1)) * ((p == T(0) ? T(0) : gamma * p * nll) + rest); "
        "total = loss;"
    ),
)
"""Row losses times their weights and (1 - p) ** gamma, and the factors of their gradients."""


def _smoothed(
    label: Array,
    column: Array,
    weight: Array,
    smoothing: float,
    classes: float,
    ignored: float,
    q: Array,
) -> None:
    np.multiply(np.equal(label, column), 1 - smoothing, out=q)
    np.add(q, smoothing / classes, out=q)
    np.multiply(q, weight, out=q)
    skipped = np.equal(label, ignored)
    np.copyto(q, np.nan, where=((label < 0) | (label >= classes)) & ~skipped)
    np.copyto(q, 0, where=skipped)


SMOOTHED = Elementwise(
    "smoothed",
    "int64 label, int64 column, weight, T smoothing, float64 classes, float64 ignored -> q",
    numpy=_smoothed,
    cuda=(
        "q = (double)label == ignored ? T(0) : label < 0 || label >= classes ? T(log(T(-1))) : "
        "weight * ((label == column ? T(1) - smoothing : T(0)) + smoothing / T(classes));"
    ),
)
"""Targets in rows: labels that are smoothed, times the weights of the classes."""


def label_masses(
    b: Backend, name: str, t: Array, weight: Any, ignore_index: Any, classes: int, kind: Any
) -> Any:
    """Return what labels count in a mean.

    Args:
        b: the backend.
        name: the loss, for messages.
        t: (N,) labels.
        weight: the weights of the classes; None for 1.
        ignore_index: the label that does not count; None for no such label.
        classes: the number of classes.
        kind: the dtype of the result.

    Returns:
        (N,) what each label counts, (N,) the labels with 0 for those to ignore, and the sum, 0-d.

    Raises:
        ShapeError, ArgumentError: see `weights_for`.
    """
    each = weights_for(b, name, "weight", weight, (classes,), kind)
    numbers = (int(each.size > 1), classes, ignored_label(name, ignore_index))
    out = (b.empty(t.shape, kind), b.empty(t.shape, np.int64), b.empty((), kind))
    return b.launch(LABEL_MASSES, b.cast(t, np.int64), each, *numbers, out=out)
