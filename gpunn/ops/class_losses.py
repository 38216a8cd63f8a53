"""Losses of rows of scores, and the count of correct predictions. Each row has one loss."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from math import inf
from pathlib import Path
from typing import Any

import numpy as np

from gpunn.autograd.engine import Backward
from gpunn.backends import Backend, RowKernel, computed, scratch_like
from gpunn.errors import DataError, DTypeError, ShapeError
from gpunn.ops.elementwise import Option
from gpunn.ops.elementwise_losses import (
    Loss,
    Reduction,
    as_prediction,
    must_check,
    no_target_gradient,
)
from gpunn.ops.reductions import TABLE_ROWS, ones_row
from gpunn.typing import Array


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
    if must_check(b):  # on a GPU the kernel writes NaN instead, which costs no wait
        _check_range(name, labels, scores.shape[1])


def _check_range(name: str, labels: Array, classes: int) -> None:
    if not labels.size or (labels.min() >= 0 and labels.max() < classes):
        return
    row = int(np.argmax((labels < 0) | (labels >= classes)))
    raise DataError(
        f"got label {int(labels[row])} in row {row} in {name}; expected 0 to {classes - 1}: "
        "widen the last layer or correct the labels"
    )


def _row_loss(
    b: Backend,
    kernel: RowKernel,
    scores: Array,
    labels: Array,
    how: Reduction,
    *numbers: float,
) -> tuple[Array, Array, Array]:
    """Return the row losses, their reduced sum and their gradients, computed in one launch."""
    labels = b.xp.ascontiguousarray(b.cast(labels, np.int64))
    kind = computed(scores.dtype)
    losses, gradients = b.empty(scores.shape[:1], kind), b.empty(scores.shape, scores.dtype)
    total = b.empty((), kind)
    arrays = (b.xp.ascontiguousarray(scores), labels, losses, gradients, total)
    numbers = (*numbers, float(how.divisor), how.scale)
    b.launch_matrix(kernel, scores.shape, scores.dtype, *arrays, *numbers)
    return losses, total, gradients


def _finish(loss: Array, gradients: Array, total: Array, divisor: float, scale: float) -> None:
    """Scale the gradients and write the reduced sum of the losses."""
    if scale != 1:
        np.multiply(gradients, scale, out=gradients)
    total.fill(np.add.reduce(loss) / divisor)


FEW_CLASSES = 128  # up to this number, NumPy reduces a (C, N) matrix faster than an (N, C) one


def _or_nan(body: Callable[..., None]) -> Callable[..., None]:
    """Return a NumPy body that writes NaN, as the CUDA kernel does, if a label is outside [0, C).

    An operation checks its labels before the body runs. A replayed recording does not.
    """

    def checked(scores: Array, labels: Array, *rest: Any) -> None:
        try:
            body(scores, labels, *rest)
        except IndexError:
            for output in rest[:3]:
                output.fill(np.nan)

    return checked


@lru_cache(maxsize=16)
def _places(classes: int, step: int) -> Array:
    """Return where the row of each label starts in a (C, N) matrix.

    A label outside [0, C) leads outside the matrix or outside this array: NumPy raises IndexError.
    """
    return np.concatenate([np.arange(classes) * step, np.full(classes, classes * step)])


_NUMBERS = np.arange(TABLE_ROWS)


def _numbers(count: int) -> Array:
    return _NUMBERS[:count] if count <= TABLE_ROWS else np.arange(count)


def _softmax_rows(
    z: Array,
    labels: Array,
    loss: Array,
    gz: Array,
    total: Array,
    divisor: float,
    scale: float,
    classes: int,
    count: int,
) -> None:
    right: Any  # the positions of the p_t in `flat`
    if classes > FEW_CLASSES:
        flat = p = gz.T  # (C, N)
        right = _places(classes, 1)[labels], _numbers(count)
    else:
        flat = scratch_like(gz).reshape(-1)
        p = flat.reshape(classes, count)
        right = _places(classes, count)[labels] + _numbers(count)
    np.copyto(p, z.T)
    np.subtract(p, np.maximum.reduce(p, axis=0), out=p)
    np.negative(flat[right], out=loss)
    np.exp(p, out=p)
    sums = np.dot(ones_row(classes), p)
    np.divide(p, sums, out=p, casting="same_kind")
    np.add(loss, np.log(sums, out=sums), out=loss)
    flat[right] -= 1
    np.multiply(p.T, scale, out=gz)
    total.fill(np.add.reduce(loss) / divisor)


_CUDA = Path(__file__).parent / "cuda"
SOFTMAX_CROSS_ENTROPY = RowKernel(
    "softmax_cross_entropy",
    numpy=_or_nan(_softmax_rows),
    cuda_file=_CUDA / "softmax_cross_entropy.cu",
    ticket=True,
)


class ClassLoss(Loss):
    """A loss of a row of scores and the number of the right class, or its one-hot row."""

    decides = "argmax"


def _softmax_cross_entropy(
    b: Backend, z: Array, t: Array, *, reduction: str = "mean"
) -> tuple[Array, Backward]:
    """The cross-entropy of logits, -log p_t with p = softmax(z); one loss for each row.

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
        The log-sum-exp subtracts the row's maximum first, so it is finite for finite logits.

    Reference:
        Lectures 000, 001 and 003. (Lecture 000 prints log(e^f1, e^f2, e^f3), without the sum.)
    """
    if t.ndim == 2:
        how = Reduction.of(reduction, len(z), z.dtype)
        losses, gz = _soft_targets(b, b.cast(z, computed(z.dtype)), t)
        total = b.xp.asarray(b.xp.divide(b.xp.sum(losses), how.divisor))
        gz = b.cast(b.xp.multiply(gz, how.scale), z.dtype)
    else:
        _check_labels(b, "softmax_cross_entropy", z, t)
        how = Reduction.of(reduction, len(z), z.dtype)
        losses, total, gz = _row_loss(b, SOFTMAX_CROSS_ENTROPY, z, t, how)

    def backward(gl: Array, needs: Any) -> tuple[Any, ...]:
        no_target_gradient("softmax_cross_entropy", needs)
        return how.gradient(b, gl, gz), None

    return how.of_losses(losses, total), backward


def _soft_targets(b: Backend, z: Array, t: Array) -> tuple[Array, Array]:
    """Return row losses and gradients for targets that are rows of probabilities."""
    t = as_prediction(b, "softmax_cross_entropy", z, t)
    xp = b.xp
    shifted = xp.subtract(z, xp.max(z, axis=1, keepdims=True))
    p = xp.exp(shifted)
    sums = xp.sum(p, axis=1, keepdims=True)
    mass = xp.sum(t, axis=1, keepdims=True)
    given = xp.sum(xp.multiply(t, shifted), axis=1)
    losses = xp.subtract(xp.multiply(mass[:, 0], xp.log(sums[:, 0])), given)
    return losses, xp.subtract(xp.multiply(xp.divide(p, sums), mass), t)


def _hinge_rows(
    s: Array,
    labels: Array,
    loss: Array,
    gs: Array,
    total: Array,
    margin: float,
    divisor: float,
    scale: float,
    classes: int,
    count: int,
) -> None:
    right = _numbers(count), _places(classes, 1)[labels]
    np.subtract(s, s[right][:, None], out=gs)
    np.add(gs, margin, out=gs)
    gs[right] = 0
    np.maximum(gs, 0, out=gs)
    loss[...] = np.sum(gs, axis=1, dtype=computed(gs.dtype))
    np.not_equal(gs, 0, out=gs)
    gs[right] = -np.sum(gs, axis=1, dtype=computed(gs.dtype))
    _finish(loss, gs, total, divisor, scale)


MULTICLASS_HINGE = RowKernel(
    "multiclass_hinge",
    numpy=_or_nan(_hinge_rows),
    cuda_file=_CUDA / "multiclass_hinge.cu",
    ticket=True,
)


softmax_cross_entropy = ClassLoss(_softmax_cross_entropy, "softmax_cross_entropy")


def _multiclass_hinge(
    b: Backend, s: Array, t: Array, *, margin: float = 1.0, reduction: str = "mean"
) -> tuple[Array, Backward]:
    """The multiclass SVM hinge loss, sum over j != t of max(0, s_j - s_t + margin), for each row.

    Args:
        s: (N, C) scores.
        t: (N,) integer labels 0 .. C - 1.
        margin: the lead that the right score should have over every other.
        reduction: "mean" over the N rows, "sum" or "none".

    Raises:
        ShapeError, DTypeError, DataError: as for `softmax_cross_entropy`.

    Gradient:
        gs_j = 1 where a wrong class violates the margin, gs_t = -(number of such classes). At the
        kink the gradient is 0.

    Reference:
        Weston and Watkins (1999); lecture 001. (The slide prints a plus for the minus.)
    """
    _check_labels(b, "multiclass_hinge", s, t)
    how = Reduction.of(reduction, len(s), s.dtype)
    losses, total, gs = _row_loss(b, MULTICLASS_HINGE, s, t, how, float(margin))

    def backward(gl: Array, needs: Any) -> tuple[Any, ...]:
        no_target_gradient("multiclass_hinge", needs)
        return how.gradient(b, gl, gs), None

    return how.of_losses(losses, total), backward


multiclass_hinge = ClassLoss(_multiclass_hinge, "multiclass_hinge")
multiclass_hinge.limits = {"margin": Option(1.0, low=-inf)}


def _correct(scores: Array, labels: Array, hits: Array, classes: int, rows: int) -> None:
    hits += np.count_nonzero(scores.argmax(axis=1) == labels)


CORRECT = RowKernel("correct", _correct, _CUDA / "correct.cu")


def correct(
    b: Backend, scores: Array, targets: Array, how: str, hits: Array | None = None
) -> Array:
    """Count the examples that are classified correctly.

    An example with several yes-or-no outputs counts as the fraction of them that is correct.

    Args:
        b: the backend of both arrays.
        scores: (N, C) for "argmax"; (N,) or (N, 1) for "sign" and "half".
        targets: (N,) integers, or one-hot rows, for "argmax". For the others, targets above 1/2
            are the positive class.
        how: the decision rule, as `decision` returns it.
        hits: a 0-d array to which the number is added: int64 for "argmax", else float64. None for
            a new array.

    Returns:
        A 0-d array on the device; `hits` where it was given.

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
        labels = xp.ascontiguousarray(b.cast(labels, np.int64))
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
