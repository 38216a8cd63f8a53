"""The classes that scores stand for. A score that is not a number stands for none."""

from __future__ import annotations

import numpy as np

from gpunn.backends import backend_of
from gpunn.errors import DataError, ShapeError
from gpunn.ops.reductions import all_true
from gpunn.typing import Array


def largest(scores: Array) -> Array:
    """Return the class with the highest of (N, C) scores: (N,) integers.

    Raises:
        ShapeError: the scores are not (N, C) with at least two classes.
        DataError: the highest score of an example is NaN or infinite.
    """
    if scores.ndim != 2 or scores.shape[1] < 2:
        raise ShapeError(
            f"got outputs of shape {scores.shape} to classify; expected (N, C) scores of C >= "
            "2 classes: pass (N, D) examples; for a single output use Trainer.classify, or a "
            "threshold on predict(x)"
        )
    _check_numbers(scores, scores.max(axis=1))  # the maximum of a row with NaN is NaN
    return scores.argmax(axis=1)


def shares(scores: Array) -> Array:
    """Return the softmax of (N, C) scores: (N, C) probabilities in float64."""
    xp = backend_of(scores).xp
    powers = xp.exp(xp.subtract(scores, scores.max(axis=1, keepdims=True), dtype=np.float64))
    found: Array = powers / powers.sum(axis=1, keepdims=True)
    return found


def above(scores: Array, limit: float) -> Array:
    """Return whether each of (N, ...) scores is above a limit: (N, ...) booleans.

    Raises:
        DataError: a score is NaN or infinite.
    """
    _check_numbers(scores, scores)
    return scores > limit


def _check_numbers(scores: Array, deciding: Array) -> None:
    """Check that the scores that decide, (N,) or (N, ...), are finite."""
    b = backend_of(deciding)
    right = b.xp.isfinite(deciding)
    if all_true(b, right):
        return
    row = int((~b.download(right)).reshape(len(right), -1).any(axis=1).argmax())
    found = np.array2string(b.download(scores[row]), threshold=6)
    raise DataError(
        f"got the scores {found} for the example in row {row}; expected finite scores to choose "
        "a class by: look for NaN, infinity and very large numbers in the example, and in the "
        "model's parameters"
    )
