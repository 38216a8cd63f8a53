"""The elementwise losses. Each takes predictions and targets of the same shape."""

from __future__ import annotations

from typing import Any

import numpy as np

from gpunn.backends import computed, scratch_like, widened
from gpunn.ops.elementwise import Option
from gpunn.ops.elementwise_losses import (
    COUNTS,
    PROBABILITIES,
    SIGNS,
    ZERO_TO_ONE,
    ElementwiseLoss,
)
from gpunn.typing import Array


def _square(p: Array, t: Array, loss: Array) -> None:
    np.subtract(p, t, out=loss)
    np.multiply(loss, loss, out=loss)


def _half_square(p: Array, t: Array, loss: Array) -> None:
    np.subtract(p, t, out=loss)
    np.multiply(loss, np.multiply(loss, 0.5, out=scratch_like(loss)), out=loss)


def _twice_difference(p: Array, t: Array, gp: Array) -> None:
    np.subtract(p, t, out=gp)
    np.add(gp, gp, out=gp)


squared_error = ElementwiseLoss(
    "squared_error",
    """Squared error without 1/2, (p - t)**2, as in lectures 001 and 002.

    Args:
        p: predictions.
        t: targets of the same shape, or (N,) for predictions (N, 1).
        reduction: "mean" over all elements, "sum" or "none".

    Gradient:
        gp = 2 (p - t).
    """,
    numpy=_square,
    cuda="l = (p - t) * (p - t);",
    grad_numpy=_twice_difference,
    grad_cuda="gp = T(2) * (p - t);",
)

half_squared_error = ElementwiseLoss(
    "half_squared_error",
    """Squared error with 1/2, (p - t)**2 / 2, as in lectures 000 and 003 and in scikit-learn.

    Args:
        p: predictions.
        t: targets of the same shape, or (N,) for predictions (N, 1).
        reduction: "mean" over all elements, "sum" or "none".

    Gradient:
        gp = p - t.
    """,
    numpy=_half_square,
    cuda="l = T(0.5) * (p - t) * (p - t);",
    grad_numpy=lambda p, t, gp: np.subtract(p, t, out=gp),
    grad_cuda="gp = (p - t);",
)


def _logit_loss(p: Array, t: Array, loss: Array) -> None:
    size = np.abs(p, out=scratch_like(p))
    np.log1p(np.exp(np.negative(size, out=loss), out=loss), out=loss)
    wrong = np.abs(np.subtract(np.greater(p, 0), t, out=scratch_like(p)))
    np.add(loss, np.where(wrong == 0, 0, np.multiply(size, wrong, out=size)), out=loss)


def _logit_slope(p: Array, t: Array, gp: Array) -> None:
    positive = np.greater_equal(p, 0)
    small = np.exp(np.negative(np.abs(p, out=gp), out=gp), out=scratch_like(p))
    share = np.where(positive, 1, small)  # of s(p) = share / (1 + small)
    rest = np.where(positive, small, 1)  # of s(-p)
    np.subtract((1 - t) * share, t * rest, out=gp)
    np.divide(gp, np.add(small, 1, out=small), out=gp)


binary_cross_entropy_with_logits = ElementwiseLoss(
    "binary_cross_entropy_with_logits",
    """Binary cross-entropy of logits, -[t log s(p) + (1 - t) log(1 - s(p))], s the sigmoid.

    Args:
        p: logits.
        t: targets in [0, 1] of the same shape, or (N,) for logits (N, 1).
        reduction: "mean" over all elements, "sum" or "none".

    Gradient:
        gp = s(p) - t.

    Numerics:
        Computed as |p| (1 - t if p > 0 else t) + log1p(exp(-|p|)), whose terms do not cancel, and
        gp = (1 - t) s(p) - t s(-p), which has all digits of a small 1 - s(p). gp cancels only for
        t strictly between 0 and 1, where s(p) is close to t.

    Reference:
        Lectures 002 and 003.
    """,
    decides="sign",
    numpy=_logit_loss,
    cuda=(
        "const T size = abs(p), small = exp(-size), wrong = p > T(0) ? T(1) - t : t; "
        "l = (wrong == T(0) ? T(0) : size * wrong) + log1p(small);"
    ),
    grad_numpy=_logit_slope,
    grad_cuda=(
        "gp = (p < T(0) ? (T(1) - t) * small - t : (T(1) - t) - t * small) / (T(1) + small);"
    ),
    targets=ZERO_TO_ONE,
)


def _smallest(dtype: Any) -> float:
    return float(np.finfo(dtype).eps) / 2


def _clipped(p: Array) -> Array:
    """Return probabilities away from 0 and 1, in the dtype that kernels compute in."""
    smallest = _smallest(p.dtype)
    return np.clip(widened(p, computed(p.dtype)), smallest, 1 - smallest)


def _probability_loss(p: Array, t: Array, loss: Array) -> None:
    q, t = _clipped(p), widened(t, loss.dtype)
    np.log(q, out=loss)
    np.multiply(loss, t, out=loss)
    np.add(loss, (1 - t) * np.log1p(-q), out=loss)
    np.negative(loss, out=loss)


def _probability_slope(p: Array, t: Array, gp: Array) -> None:
    q = _clipped(p)
    t = widened(t, q.dtype)
    np.divide(q * (1 - t) - t * (1 - q), q * (1 - q), out=gp, casting="same_kind")


_CLIP = (
    "const T tiny = sizeof(S) == 8 ? T(1.1102230246251565e-16) : "
    "sizeof(S) == 4 ? T(5.9604644775390625e-08) : T(4.8828125e-04); "
    "const T q = p < tiny ? tiny : p > T(T(1) - tiny) ? T(T(1) - tiny) : p; "
)

binary_cross_entropy = ElementwiseLoss(
    "binary_cross_entropy",
    """Binary cross-entropy of probabilities, -[t log p + (1 - t) log(1 - p)].

    Prefer `binary_cross_entropy_with_logits`, which is exact where a sigmoid saturates.

    Args:
        p: probabilities in [0, 1].
        t: targets in [0, 1] of the same shape, or (N,) for probabilities (N, 1).
        reduction: "mean" over all elements, "sum" or "none".

    Gradient:
        gp = (p - t) / (p (1 - p)).

    Numerics:
        p is clipped to stay half a machine epsilon of its dtype away from 0 and 1. gp cancels for
        t strictly between 0 and 1 where p is close to t.
    """,
    decides="half",
    numpy=_probability_loss,
    cuda=_CLIP + "l = -(t * log(q) + (T(1) - t) * log1p(-q));",
    grad_numpy=_probability_slope,
    grad_cuda="gp = (q * (T(1) - t) - t * (T(1) - q)) / (q * (T(1) - q));",
    targets=ZERO_TO_ONE,
    predictions=PROBABILITIES,
    widens=False,
)


def _perceptron_slope(p: Array, t: Array, gp: Array) -> None:
    np.less(p * t, 0, out=gp)
    np.multiply(gp, -t, out=gp)


perceptron = ElementwiseLoss(
    "perceptron",
    """Perceptron loss, max(0, -p t), for targets -1 and +1.

    Args:
        p: scores.
        t: targets, -1 or +1, of the same shape, or (N,) for scores (N, 1).
        reduction: "mean" over all elements, "sum" or "none".

    Gradient:
        gp = -t where p t < 0, else 0.

    Reference:
        Lecture 004.
    """,
    decides="sign",
    numpy=lambda p, t, loss: np.maximum(p * -t, 0, out=loss),
    cuda="l = p * t >= T(0) ? T(0) : T(-(p * t));",  # NaN stays NaN
    grad_numpy=_perceptron_slope,
    grad_cuda="gp = p * t < T(0) ? T(-t) : T(0);",
    targets=SIGNS,
)


def _hinge_slope(p: Array, t: Array, gp: Array) -> None:
    np.less(p * t, 1, out=gp)
    np.multiply(gp, -t, out=gp)


hinge = ElementwiseLoss(
    "hinge",
    """Hinge loss of two classes, max(0, 1 - p t), for targets -1 and +1.

    Args:
        p: scores.
        t: targets, -1 or +1, of the same shape, or (N,) for scores (N, 1).
        reduction: "mean" over all elements, "sum" or "none".

    Gradient:
        gp = -t where p t < 1, else 0.

    Reference:
        Cortes and Vapnik (1995).
    """,
    decides="sign",
    numpy=lambda p, t, loss: np.maximum(1 - p * t, 0, out=loss),
    cuda="l = p * t >= T(1) ? T(0) : T(T(1) - p * t);",  # NaN stays NaN
    grad_numpy=_hinge_slope,
    grad_cuda="gp = p * t < T(1) ? T(-t) : T(0);",
    targets=SIGNS,
)


def _distance(p: Array, t: Array, loss: Array) -> None:
    np.subtract(p, t, out=loss)
    np.abs(loss, out=loss)


def _direction(p: Array, t: Array, gp: Array) -> None:
    np.subtract(p, t, out=gp)
    np.sign(gp, out=gp)


absolute_error = ElementwiseLoss(
    "absolute_error",
    """Absolute error, |p - t|; the best constant prediction is the median.

    Args:
        p: predictions.
        t: targets of the same shape, or (N,) for predictions (N, 1).
        reduction: "mean" over all elements, "sum" or "none".

    Gradient:
        gp = sign(p - t), which is 0 at p = t.
    """,
    numpy=_distance,
    cuda="l = abs(p - t);",
    grad_numpy=_direction,
    grad_cuda="gp = p > t ? T(1) : p < t ? T(-1) : T(0);",
)


def _huber(p: Array, t: Array, delta: float, loss: Array) -> None:
    distance = np.abs(p - t)
    near = np.minimum(distance, delta)
    np.multiply(near, distance - 0.5 * near, out=loss)


def _huber_slope(p: Array, t: Array, delta: float, gp: Array) -> None:
    np.subtract(p, t, out=gp)
    np.clip(gp, -delta, delta, out=gp)


huber = ElementwiseLoss(
    "huber",
    """Huber's loss: (p - t)**2 / 2 up to a distance of delta, delta (|p - t| - delta / 2) beyond.

    Args:
        p: predictions.
        t: targets of the same shape, or (N,) for predictions (N, 1).
        reduction: "mean" over all elements, "sum" or "none".
        delta: the distance at which the square ends, above 0.

    Gradient:
        gp = p - t, limited to [-delta, delta].

    Reference:
        Huber (1964).
    """,
    numpy=_huber,
    cuda=(
        "const T distance = abs(p - t), near = distance < delta ? distance : delta; "
        "l = near * (distance - T(0.5) * near);"
    ),
    grad_numpy=_huber_slope,
    grad_cuda="gp = p - t > delta ? delta : p - t < -delta ? T(-delta) : T(p - t);",
    options={"delta": Option(1.0)},
)


def _quantile(p: Array, t: Array, quantile: float, loss: Array) -> None:
    np.subtract(t, p, out=loss)
    np.maximum(loss * quantile, loss * (quantile - 1), out=loss)


def _quantile_slope(p: Array, t: Array, quantile: float, gp: Array) -> None:
    np.multiply(np.where(p < t, -quantile, 1 - quantile), p != t, out=gp, casting="same_kind")


quantile_error = ElementwiseLoss(
    "quantile_error",
    """Pinball loss, q (t - p) where p < t, else (1 - q) (p - t), to predict a quantile.

    Args:
        p: predictions.
        t: targets of the same shape, or (N,) for predictions (N, 1).
        reduction: "mean" over all elements, "sum" or "none".
        quantile: q, 0 < q < 1; at 0.5 the loss is half the absolute error.

    Gradient:
        gp = -q where p < t, 1 - q where p > t, 0 at p = t.

    Reference:
        Koenker and Bassett (1978).
    """,
    numpy=_quantile,
    cuda="l = p < t ? T(quantile) * (t - p) : T(1.0 - quantile) * (p - t);",
    grad_numpy=_quantile_slope,
    grad_cuda="gp = p < t ? T(-quantile) : p > t ? T(1.0 - quantile) : T(0);",
    options={"quantile": Option(0.5, 0.0, 1.0, "float64")},
)


_RATE_END = 1000.0  # exp(p) is infinite beyond, and t * p must not be, too


def _poisson(p: Array, t: Array, loss: Array) -> None:
    from scipy.special import xlogy

    np.exp(p, out=loss)
    np.subtract(loss, t * np.minimum(p, _RATE_END), out=loss)
    np.add(loss, xlogy(t, t) - t, out=loss)


def _poisson_slope(p: Array, t: Array, gp: Array) -> None:
    np.exp(p, out=gp)
    np.subtract(gp, t, out=gp)


poisson_error = ElementwiseLoss(
    "poisson_error",
    """Half the Poisson deviance, exp(p) - t p + t log t - t, for counts t and log rates p.

    Args:
        p: logarithms of the predicted rates.
        t: counts, at least 0, of the same shape, or (N,) for predictions (N, 1).
        reduction: "mean" over all elements, "sum" or "none".

    Gradient:
        gp = exp(p) - t.

    Numerics:
        The terms cancel where exp(p) is close to t: an error is a few machine epsilons of
        exp(p) + t |p| + t |log t| + t for the loss, and of exp(p) + t for gp.
    """,
    numpy=_poisson,
    cuda=(
        f"l = exp(p) - t * (p > T({_RATE_END}) ? T({_RATE_END}) : p) "
        "+ (t > T(0) ? T(t * log(t) - t) : T(0));"
    ),
    grad_numpy=_poisson_slope,
    grad_cuda="gp = exp(p) - t;",
    targets=COUNTS,
)
