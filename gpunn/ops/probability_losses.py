"""The elementwise losses of probabilities: binary cross-entropies, Kullback-Leibler divergence."""

from __future__ import annotations

from typing import Any

import numpy as np

from gpunn.backends import computed, scratch_like, widened
from gpunn.ops.domains import NO_LOGARITHMS, PROBABILITIES, ZERO_TO_ONE
from gpunn.ops.elementwise import Option
from gpunn.ops.elementwise_losses import ElementwiseLoss
from gpunn.typing import Array


def _times(array: Array, weight: Array) -> None:
    """Multiply by weights in place, unless they are the number 1."""
    if weight.ndim or weight != 1:
        np.multiply(array, weight, out=array)


def _logit_loss(p: Array, t: Array, weight: Array, pos_weight: Array, loss: Array) -> None:
    size: Array = np.abs(p, out=scratch_like(p))
    np.log1p(np.exp(np.negative(size, out=loss), out=loss), out=loss)
    if pos_weight.ndim or pos_weight != 1:
        up = np.multiply(t, pos_weight, out=scratch_like(p))
        down = np.subtract(1, t, out=scratch_like(p))
        np.multiply(loss, np.add(down, up, out=scratch_like(p)), out=loss)
        wrong: Array = np.where(p > 0, down, up)
    else:
        wrong = np.abs(np.subtract(np.greater(p, 0), t, out=scratch_like(p)))
    np.add(loss, np.where(wrong == 0, 0, np.multiply(size, wrong, out=size)), out=loss)
    _times(loss, weight)


def _logit_slope(p: Array, t: Array, weight: Array, pos_weight: Array, gp: Array) -> None:
    positive = np.greater_equal(p, 0)
    small = np.exp(np.negative(np.abs(p, out=gp), out=gp), out=scratch_like(p))
    share = np.where(positive, 1, small)  # of s(p) = share / (1 + small)
    rest = np.where(positive, small, 1)  # of s(-p)
    np.subtract((1 - t) * share, t * pos_weight * rest, out=gp)
    np.divide(gp, np.add(small, 1, out=small), out=gp)
    _times(gp, weight)


binary_cross_entropy_with_logits = ElementwiseLoss(
    "binary_cross_entropy_with_logits",
    """Binary cross-entropy of logits, -w [c t log s(p) + (1 - t) log(1 - s(p))], s the sigmoid.

    Args:
        p: logits.
        t: targets in [0, 1] of the same shape, or (N,) for logits (N, 1).
        reduction: "mean" over all elements, "sum" or "none".
        weight: w, numbers of at least 0 that broadcast to the logits; None for 1. They do not
            divide the mean.
        pos_weight: c, the weight of positive targets, a number or one for each column; None for 1.

    Gradient:
        gp = w [(1 - t) s(p) - c t s(-p)], which is s(p) - t without weights.

    Numerics:
        Computed as |p| (1 - t if p > 0 else c t) + (1 - t + c t) log1p(exp(-|p|)), whose terms do
        not cancel. gp has all digits of a small 1 - s(p), and cancels only for t strictly between
        0 and 1, where s(p) is close to t.

    Reference:
        Lectures 002 and 003; the weights are those of PyTorch's `BCEWithLogitsLoss`.
    """,
    decides="sign",
    numpy=_logit_loss,
    cuda=(
        "const T size = abs(p), small = exp(-size), up = pos_weight * t, down = T(1) - t; "
        "const T wrong = p > T(0) ? down : up; "
        "l = ((wrong == T(0) ? T(0) : size * wrong) + (down + up) * log1p(small)) * weight;"
    ),
    grad_numpy=_logit_slope,
    grad_cuda=(
        "gp = (p < T(0) ? down * small - up : down - up * small) / (T(1) + small) * weight;"
    ),
    targets=ZERO_TO_ONE,
    weights=("weight", "pos_weight"),
)


def _smallest(dtype: Any) -> float:
    return float(np.finfo(dtype).eps) / 2


def _clipped(p: Array) -> Array:
    """Return probabilities away from 0 and 1, in the dtype that kernels compute in."""
    smallest = _smallest(p.dtype)
    return np.clip(widened(p, computed(p.dtype)), smallest, 1 - smallest)


def _probability_loss(p: Array, t: Array, weight: Array, loss: Array) -> None:
    q, t = _clipped(p), widened(t, loss.dtype)
    np.log(q, out=loss)
    np.multiply(loss, t, out=loss)
    np.add(loss, (1 - t) * np.log1p(-q), out=loss)
    np.negative(loss, out=loss)
    _times(loss, weight)


def _probability_slope(p: Array, t: Array, weight: Array, gp: Array) -> None:
    q = _clipped(p)
    t = widened(t, q.dtype)
    slope = np.divide(q * (1 - t) - t * (1 - q), q * (1 - q))
    np.multiply(slope, weight, out=gp, casting="same_kind")


_CLIP = (
    "const T tiny = sizeof(S) == 8 ? T(1.1102230246251565e-16) : "
    "sizeof(S) == 4 ? T(5.9604644775390625e-08) : T(4.8828125e-04); "
    "const T q = p < tiny ? tiny : p > T(T(1) - tiny) ? T(T(1) - tiny) : p; "
)

binary_cross_entropy = ElementwiseLoss(
    "binary_cross_entropy",
    """Binary cross-entropy of probabilities, -w [t log p + (1 - t) log(1 - p)].

    Prefer `binary_cross_entropy_with_logits`, which is exact where a sigmoid saturates.

    Args:
        p: probabilities in [0, 1].
        t: targets in [0, 1] of the same shape, or (N,) for probabilities (N, 1).
        reduction: "mean" over all elements, "sum" or "none".
        weight: w, numbers of at least 0 that broadcast to the probabilities; None for 1. They do
            not divide the mean.

    Gradient:
        gp = w (p - t) / (p (1 - p)).

    Numerics:
        p is clipped to stay half a machine epsilon of its dtype away from 0 and 1. gp cancels for
        t strictly between 0 and 1 where p is close to t.
    """,
    decides="half",
    numpy=_probability_loss,
    cuda=_CLIP + "l = -(t * log(q) + (T(1) - t) * log1p(-q)) * weight;",
    grad_numpy=_probability_slope,
    grad_cuda="gp = (q * (T(1) - t) - t * (T(1) - q)) / (q * (T(1) - q)) * weight;",
    targets=ZERO_TO_ONE,
    predictions=PROBABILITIES,
    weights=("weight",),
    widens=False,
)


def _divergence(p: Array, t: Array, log_target: bool, loss: Array) -> None:
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        if log_target:
            power, logarithm = np.exp(t, out=scratch_like(p)), t
        else:
            power, logarithm = t, np.log(t, out=scratch_like(p))
        np.multiply(np.subtract(logarithm, p, out=loss), power, out=loss)
    np.copyto(loss, 0, where=power == 0)


def _divergence_slope(p: Array, t: Array, log_target: bool, gp: Array) -> None:
    np.negative(np.exp(t, out=gp) if log_target else t, out=gp)


kullback_leibler = ElementwiseLoss(
    "kullback_leibler",
    """Kullback-Leibler divergence, t (log t - p), for logarithms p of predicted probabilities.

    End the network in "log_softmax". The divergence of a row is the sum of its elements, and
    `reduction="batchmean"` is the mean of rows.

    Args:
        p: logarithms of probabilities.
        t: probabilities of the same shape, or (N,) for predictions (N, 1).
        reduction: "mean" over all elements, "batchmean" over rows, "sum" or "none".
        log_target: whether t are logarithms, too: the loss is exp(t) (t - p).

    Gradient:
        gp = -t, or -exp(t).

    Numerics:
        A target of probability 0 has the loss 0, whatever p is. The terms cancel where p is close
        to log t: an error is a few machine epsilons of t (|log t| + |p|), and with `log_target` of
        exp(t) (1 + |t|) (|t| + |p|).

    Reference:
        Kullback and Leibler (1951); PyTorch's `KLDivLoss`.
    """,
    numpy=_divergence,
    cuda=(
        "const T power = log_target ? exp(t) : t; "
        "l = power == T(0) ? T(0) : T(power * ((log_target ? t : log(t)) - p));"
    ),
    grad_numpy=_divergence_slope,
    grad_cuda="gp = -power;",
    targets=NO_LOGARITHMS,
    options={"log_target": Option(False, type="bool")},
)
