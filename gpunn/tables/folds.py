"""Folds of the rows, and what the answers on held-out rows say: temperature and intervals."""

from __future__ import annotations

from typing import Any

import numpy as np

from gpunn.backends.random import RandomStream, permutation
from gpunn.errors import DataError

FOLD_STREAM = 2**63 + 2**32  # a stream of its own, beside those of layers and of shuffling

QUANTILES = 1001

Array = np.ndarray[Any, Any]


def folds_of(y: Array, count: int, seed: int) -> Array:
    """Divide rows into folds of almost equal size, with almost equal targets.

    The rows are drawn in a random order, sorted by their target, and dealt out in turn. So every
    fold has its share of every class, or of small and large numbers.

    Args:
        y: (N,) class numbers or numbers.
        count: the number of folds.
        seed: the seed of the order.

    Returns:
        (N,) int64 numbers of folds, from 0 to count - 1.

    Raises:
        DataError: there are fewer rows than folds.
    """
    if len(y) < count:
        raise DataError(
            f"got {len(y)} rows for {count} folds; expected at least one row for each: pass "
            "fewer folds, or more rows"
        )
    order = permutation(len(y), RandomStream(seed).seed, FOLD_STREAM)
    order = order[np.argsort(y[order], kind="stable")]
    found = np.empty(len(y), np.int64)
    found[order] = np.arange(len(y)) % count
    return found


def log_loss(scores: Array, y: Array, weights: Array | None = None) -> float:
    """Return the mean of -log(softmax(scores)[y]).

    Args:
        scores: (N, C) scores.
        y: (N,) class numbers.
        weights: (N,) weights of the rows in the mean, or None.
    """
    least = scores - scores.max(axis=1, keepdims=True)
    losses = np.log(np.exp(least).sum(axis=1)) - least[np.arange(len(y)), y]
    return float(np.average(losses, weights=weights))


def temperature_of(scores: Array, y: Array, weights: Array | None = None) -> float:
    """Find the temperature that makes held-out probabilities likely.

    It minimises `log_loss(scores / temperature, y)` between 1/4 and 4, by golden section over its
    logarithm, in which the loss has one minimum (Guo et al. 2017).

    Args:
        scores: (N, C) scores of rows that were not used to train.
        y: (N,) class numbers.
        weights: (N,) weights of the rows, or None.
    """
    low, high = np.log(0.25), np.log(4.0)
    golden = (5**0.5 - 1) / 2
    scores = scores.astype(np.float64)

    def at(place: float) -> float:
        return log_loss(scores / np.exp(place), y, weights)

    left, right = high - golden * (high - low), low + golden * (high - low)
    at_left, at_right = at(left), at(right)
    for _ in range(30):
        if at_left < at_right:
            high, right, at_right = right, left, at_left
            left = high - golden * (high - low)
            at_left = at(left)
        else:
            low, left, at_left = left, right, at_right
            right = low + golden * (high - low)
            at_right = at(right)
    return float(np.exp((low + high) / 2))


def quantiles_of(numbers: Array, weights: Array | None = None) -> Array:
    """Return 1001 evenly spaced quantiles, from the smallest number to the largest.

    Args:
        numbers: (N,) numbers.
        weights: (N,) weights above 0. A number of weight w counts as w of them. None for 1.

    Returns:
        (1001,) quantiles. Without weights they are interpolated; with weights each is a number.
    """
    places = np.linspace(0, 1, QUANTILES)
    if weights is None:
        return np.quantile(numbers, places)
    return np.quantile(numbers, places, weights=weights, method="inverted_cdf")


def half_width(errors: Array, coverage: float) -> float:
    """Return the half width of intervals that contain a new target with a probability.

    Args:
        errors: (N,) errors of predictions for rows that were not used to train.
        coverage: the probability, between 0 and 1.

    Returns:
        The smallest of the sorted |errors| that at least coverage (N + 1) of N + 1 exchangeable
        errors do not exceed (conformal prediction; Vovk et al. 2005); infinity if N is too small.
    """
    sizes = np.sort(np.abs(errors))
    rank = int(np.ceil(coverage * (len(sizes) + 1)))
    return float(sizes[rank - 1]) if rank <= len(sizes) else float("inf")
