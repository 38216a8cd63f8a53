"""Accuracy: which class do scores mean, and how often is it the right one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from gpunn import ops
from gpunn.backends import Backend, RowKernel
from gpunn.errors import DTypeError
from gpunn.typing import Array

DECISIONS: dict[Any, str] = {
    ops.softmax_cross_entropy: "argmax",
    ops.multiclass_hinge: "argmax",
    ops.binary_cross_entropy_with_logits: "sign",
    ops.perceptron: "sign",
    ops.hinge: "sign",
    ops.binary_cross_entropy: "half",
}
"""How the outputs that a loss is made for become classes; a loss for regression has none."""


def decision(loss: Callable[..., Any]) -> str | None:
    """How outputs trained with `loss` become classes: "argmax", "sign", "half" or None."""
    return DECISIONS.get(loss)


def classes(scores: Array, loss: Callable[..., Any]) -> Array:
    """The classes that (N, ...) outputs mean under a loss; the outputs themselves under others."""
    how = decision(loss)
    if how is None:
        return scores
    if how == "argmax":
        return scores.argmax(axis=-1)
    if scores.ndim == 2 and scores.shape[1] == 1:
        scores = scores[:, 0]
    positive = (scores > (0.5 if how == "half" else 0)).astype("int64")
    return 2 * positive - 1 if loss in (ops.perceptron, ops.hinge) else positive


def _correct(scores: Array, labels: Array, hits: Array, classes: int, rows: int) -> None:
    hits += np.count_nonzero(scores.argmax(axis=1) == labels)


CORRECT = RowKernel("correct", _correct, Path(ops.__file__).parent / "cuda" / "correct.cu")


def correct(
    b: Backend, scores: Array, targets: Array, how: str, hits: Array | None = None
) -> Array:
    """How many of N examples are classified right, a 0-d array of the device.

    An example with several yes-or-no outputs counts by the share of them that is right.

    Args:
        b: the backend of both arrays.
        scores: (N, C) for "argmax"; (N,) or (N, 1) for "sign" and "half".
        targets: (N,) integers, or one-hot rows for "argmax"; for the others anything above the
            middle (0 where targets are -1 and +1, else 1/2) is the positive class.
        how: see `decision`.
        hits: a 0-d array to add the number to, which is then the result: int64 for "argmax", of
            which a batch takes one launch; else float64. None for an array of its own.

    Raises:
        DTypeError: `hits` is of another dtype.
    """
    wanted = np.dtype(np.int64 if how == "argmax" else np.float64)
    if hits is not None and hits.dtype != wanted:
        raise DTypeError(f"got hits of {hits.dtype} for {how!r}; expected {wanted}: use b.zeros")
    xp = b.xp
    if how == "argmax":
        labels = targets if targets.ndim == 1 else targets.argmax(axis=1)
        hits = b.zeros((), np.int64) if hits is None else hits
        labels = xp.ascontiguousarray(labels.astype(np.int64, copy=False))
        scores = xp.ascontiguousarray(scores)
        b.launch_matrix(CORRECT, scores.shape, scores.dtype, scores, labels, hits)
        return hits
    positive = scores.reshape(len(scores), -1) > (0 if how == "sign" else 0.5)
    right = positive == (targets.reshape(len(targets), -1) > 0.5)
    share = xp.asarray(right.mean(axis=1).sum())
    if hits is None:
        return share
    hits += share
    return hits
