"""The elementwise losses of numbers and signs: predictions and targets of the same shape."""

from __future__ import annotations

import numpy as np

from gpunn.backends import scratch_like
from gpunn.ops.domains import COUNTS, SIGNS
from gpunn.ops.elementwise import Option
from gpunn.ops.elementwise_losses import ElementwiseLoss
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
