"""Losses. Every one takes predictions and targets and says what one individual loss is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from gpunn.autograd import op
from gpunn.autograd.engine import Backward
from gpunn.backends import Backend, RowKernel
from gpunn.errors import DataError, DTypeError, ShapeError
from gpunn.ops.loss import (
    LOSSES,
    PROBABILITIES,
    SIGNS,
    ZERO_TO_ONE,
    ElementwiseLoss,
    Reduction,
    as_prediction,
    loss_dtype,
    no_target_gradient,
)
from gpunn.typing import Array

# elementwise losses ------------------------------------------------------------------------


def _square(p: Array, t: Array, loss: Array) -> None:
    np.subtract(p, t, out=loss)
    np.multiply(loss, loss, out=loss)


def _half_square(p: Array, t: Array, loss: Array) -> None:
    _square(p, t, loss)
    np.multiply(loss, 0.5, out=loss)


def _twice_difference(p: Array, t: Array, gp: Array) -> None:
    np.subtract(p, t, out=gp)
    np.multiply(gp, 2, out=gp)


squared_error = ElementwiseLoss(
    "squared_error",
    """Squared error, (p - t)**2, without 1/2: lectures 001 and 002.

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
    """Squared error with 1/2, (p - t)**2 / 2: lectures 000 and 003, and scikit-learn's.

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
    np.abs(p, out=loss)
    np.negative(loss, out=loss)
    np.exp(loss, out=loss)
    np.log1p(loss, out=loss)
    np.add(loss, np.maximum(p, 0), out=loss)
    np.subtract(loss, p * t, out=loss)


def _logit_slope(p: Array, t: Array, gp: Array) -> None:
    np.negative(p, out=gp)
    with np.errstate(over="ignore"):  # exp overflows to inf, whose reciprocal is the right 0
        np.exp(gp, out=gp)
    np.add(gp, 1, out=gp)
    np.reciprocal(gp, out=gp)
    np.subtract(gp, t, out=gp)


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
        max(p, 0) - p t + log1p(exp(-|p|)): finite for every logit.

    Reference:
        Lectures 002 and 003.
    """,
    numpy=_logit_loss,
    cuda="l = (p > T(0) ? p : T(0)) - p * t + log1p(exp(-abs(p)));",
    grad_numpy=_logit_slope,
    grad_cuda="gp = (T(1) / (T(1) + exp(-p)) - t);",
    targets=ZERO_TO_ONE,
)


def _smallest(dtype: Any) -> float:
    return float(np.finfo(dtype).eps) / 2


def _probability_loss(p: Array, t: Array, loss: Array) -> None:
    q = np.clip(p, _smallest(p.dtype), 1 - _smallest(p.dtype))
    np.log(q, out=loss)
    np.multiply(loss, t, out=loss)
    np.add(loss, (1 - t) * np.log1p(-q), out=loss)
    np.negative(loss, out=loss)


def _probability_slope(p: Array, t: Array, gp: Array) -> None:
    q = np.clip(p, _smallest(p.dtype), 1 - _smallest(p.dtype))
    np.divide(q - t, q * (1 - q), out=gp)


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
        p is kept half a machine epsilon away from 0 and 1.
    """,
    numpy=_probability_loss,
    cuda=_CLIP + "l = -(t * log(q) + (T(1) - t) * log1p(-q));",
    grad_numpy=_probability_slope,
    grad_cuda="gp = (q - t) / (q * (T(1) - q));",
    targets=ZERO_TO_ONE,
    predictions=PROBABILITIES,
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
    numpy=lambda p, t, loss: np.maximum(p * -t, 0, out=loss),
    cuda="l = p * t < T(0) ? T(-(p * t)) : T(0);",
    grad_numpy=_perceptron_slope,
    grad_cuda="gp = p * t < T(0) ? T(-t) : T(0);",
    targets=SIGNS,
)

# row losses --------------------------------------------------------------------------------


def _check_labels(b: Backend, name: str, scores: Array, labels: Array) -> None:
    if scores.ndim != 2 or labels.shape != scores.shape[:1]:
        raise ShapeError(
            f"got scores of shape {scores.shape} and labels of shape {labels.shape} in {name}; "
            f"expected (N, C) and (N,): {scores.shape[0]} labels, or one-hot rows"
        )
    if np.dtype(labels.dtype).kind not in "iu":
        raise DTypeError(
            f"got labels of dtype {labels.dtype} in {name}; expected integers 0 .. C - 1: use "
            "astype('int64'), or one-hot rows"
        )
    if b.synchronous and labels.size:  # elsewhere the kernel answers with NaN, unread until asked
        low, high = int(labels.min()), int(labels.max())
        if low < 0 or high >= scores.shape[1]:
            row = int(np.argmax((labels < 0) | (labels >= scores.shape[1])))
            raise DataError(
                f"got label {int(labels[row])} in row {row} in {name}; expected 0 to "
                f"{scores.shape[1] - 1}: widen the last layer or mend the labels"
            )


def _softmax_rows(
    z: Array,
    labels: Array,
    loss: Array,
    gz: Array,
    total: Array,
    classes: int,
    count: float,
    scale: float,
) -> None:
    rows = np.arange(len(z))
    np.subtract(z, np.max(z, axis=1, keepdims=True), out=gz)
    np.negative(gz[rows, labels], out=loss)
    np.exp(gz, out=gz)
    sums = np.sum(gz, axis=1, keepdims=True)
    np.add(loss, np.log(sums[:, 0]), out=loss)
    np.divide(gz, sums, out=gz)
    gz[rows, labels] -= 1
    if scale != 1:
        np.multiply(gz, scale, out=gz)
    np.sum(loss, out=total)
    total /= count


SOFTMAX_CROSS_ENTROPY = RowKernel(
    "softmax_cross_entropy",
    numpy=_softmax_rows,
    cuda_file=Path(__file__).parent / "cuda" / "softmax_cross_entropy.cu",
    ticket=True,
)


@op
def softmax_cross_entropy(
    b: Backend, z: Array, t: Array, *, reduction: str = "mean"
) -> tuple[Array, Backward]:
    """Softmax and cross-entropy of logits, -log p_t with p = softmax(z); a row loss.

    Args:
        z: (N, C) logits.
        t: (N,) integer labels 0 .. C - 1, or (N, C) one-hot rows or probabilities.
        reduction: "mean" over the N rows, "sum" or "none".

    Raises:
        ShapeError: shapes that do not fit.
        DTypeError: labels that are not integers.
        DataError: on the CPU, a label out of range. On a GPU that row's loss is NaN.

    Gradient:
        gz = p - onehot(t). It is computed together with the loss and kept.

    Numerics:
        log-sum-exp with the row's maximum taken off: finite for every finite logit.

    Reference:
        Lectures 000, 001 and 003. (Lecture 000 prints log(e^f1, e^f2, e^f3), without the sum.)
    """
    kind = loss_dtype(z.dtype)
    if t.ndim == 2:
        how = Reduction.of(reduction, len(z), z.dtype)
        losses, gz = _soft_targets(b, z.astype(kind, copy=False), t)
        total = _reduced(b, losses, how)
        gz *= how.scale
        gz = gz.astype(z.dtype, copy=False)
    else:
        _check_labels(b, "softmax_cross_entropy", z, t)
        how = Reduction.of(reduction, len(z), z.dtype)
        losses, gz, total = b.empty(z.shape[:1], kind), b.empty(z.shape, z.dtype), b.empty((), kind)
        labels = b.xp.ascontiguousarray(t if t.dtype == np.int64 else t.astype(np.int64))
        args = (b.xp.ascontiguousarray(z), labels, losses, gz, total, z.shape[1])
        numbers = (float(how.divisor), how.scale)
        b.launch_rows(SOFTMAX_CROSS_ENTROPY, z.shape[0], z.dtype, *args, *numbers)

    def backward(gl: Array, needs: Any) -> tuple[Any, ...]:
        no_target_gradient("softmax_cross_entropy", needs)
        return how.gradient(b, gl, gz), None

    return how.of_losses(losses, total), backward


def _reduced(b: Backend, losses: Array, how: Reduction) -> Array:
    """The sum of row losses over the count, a 0-d array."""
    return b.xp.asarray(b.xp.sum(losses, dtype=loss_dtype(losses.dtype)) / how.divisor)


def _soft_targets(b: Backend, z: Array, t: Array) -> tuple[Array, Array]:
    """Row losses and gradients for targets that are rows of probabilities."""
    t = as_prediction(b, "softmax_cross_entropy", z, t)
    xp = b.xp
    shifted = z - xp.max(z, axis=1, keepdims=True)
    p = xp.exp(shifted)
    sums = xp.sum(p, axis=1, keepdims=True)
    mass = xp.sum(t, axis=1, keepdims=True)
    losses = mass[:, 0] * xp.log(sums[:, 0]) - xp.sum(t * shifted, axis=1)
    return losses, p / sums * mass - t


@op
def multiclass_hinge(
    b: Backend, s: Array, t: Array, *, margin: float = 1.0, reduction: str = "mean"
) -> tuple[Array, Backward]:
    """Multiclass SVM hinge, sum over j != t of max(0, s_j - s_t + margin); a row loss.

    Args:
        s: (N, C) scores.
        t: (N,) integer labels 0 .. C - 1.
        margin: by how much the right score should lead.
        reduction: "mean" over the N rows, "sum" or "none".

    Raises:
        ShapeError, DTypeError, DataError: as `softmax_cross_entropy`.

    Gradient:
        gs_j = 1 where a wrong class violates the margin, gs_t = -(number of such classes); 0 at
        the kink.

    Reference:
        Weston and Watkins (1999); lecture 001. (Its slide prints a plus for the minus.)
    """
    _check_labels(b, "multiclass_hinge", s, t)
    xp = b.xp
    right = t[:, None] == xp.arange(s.shape[1])
    own = xp.sum(s * right, axis=1, keepdims=True)
    margins = (s - own + margin) * ~right
    losses = xp.sum(xp.maximum(margins, 0), axis=1)
    if not b.synchronous:  # a label out of range has no column of its own
        losses = xp.where(xp.any(right, axis=1), losses, float("nan")).astype(s.dtype)
    how = Reduction.of(reduction, len(s), s.dtype)

    def backward(gl: Array, needs: Any) -> tuple[Any, ...]:
        no_target_gradient("multiclass_hinge", needs)
        over = (margins > 0).astype(s.dtype)
        gs = (over - right * xp.sum(over, axis=1, keepdims=True)) * how.scale
        return how.gradient(b, gl, gs), None

    return how.of_losses(losses, _reduced(b, losses, how)), backward


LOSSES["softmax_cross_entropy"] = softmax_cross_entropy
LOSSES["multiclass_hinge"] = multiclass_hinge
