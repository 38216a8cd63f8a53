"""Losses of rows of scores, and the count of correct predictions. Each row has one loss."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from math import inf
from pathlib import Path
from typing import Any

import numpy as np

from gpunn.autograd.engine import Backward
from gpunn.backends import Backend, RowKernel, backend_of, computed, scratch_like, widened
from gpunn.errors import DataError, DTypeError, ShapeError
from gpunn.ops.elementwise import Option, check_floats, chosen
from gpunn.ops.elementwise_losses import (
    Loss,
    must_check,
    no_target_gradient,
)
from gpunn.ops.exact import rest_of_difference
from gpunn.ops.loss_reduction import Reduction
from gpunn.ops.reductions import TABLE_ROWS, all_true, summed
from gpunn.typing import Array


def check_labels(
    b: Backend, name: str, scores: Array, labels: Array, ignored: int | None = None
) -> None:
    """Check scores and labels. On a GPU, the range of the labels is not checked.

    Args:
        b: the backend of both.
        name: the loss, for messages.
        scores: (N, C).
        labels: (N,) integers from 0 to C - 1.
        ignored: another label that is allowed; None for no other one.

    Raises:
        ShapeError, DTypeError, DataError: they do not fit.
    """
    if scores.ndim != 2 or labels.shape != scores.shape[:1]:
        raise ShapeError(
            f"got scores of shape {scores.shape} and labels of shape {labels.shape} in {name}; "
            f"expected (N, C) and (N,): {scores.shape[0]} labels, or one-hot rows"
        )
    check_floats(name, scores)
    if np.dtype(labels.dtype).kind not in "iu":
        raise DTypeError(
            f"got labels of dtype {labels.dtype} in {name}; expected integers 0 .. C - 1: use "
            "astype('int64'), or one-hot rows"
        )
    if must_check(b):  # on a GPU the kernel writes NaN instead, which costs no wait
        counted = labels if ignored is None else np.where(labels == ignored, 0, labels)
        _check_range(name, counted, scores.shape[1])


def _check_range(name: str, labels: Array, classes: int) -> None:
    if not labels.size or (labels.min() >= 0 and labels.max() < classes):
        return
    row = int(np.argmax((labels < 0) | (labels >= classes)))
    raise DataError(
        f"got label {int(labels[row])} in row {row} in {name}; expected 0 to {classes - 1}: "
        "widen the last layer or correct the labels"
    )


def row_loss(
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


def or_nan(body: Callable[..., None]) -> Callable[..., None]:
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
def places(classes: int, step: int) -> Array:
    """Return where the row of each label starts in a (C, N) matrix.

    A label outside [0, C) leads outside the matrix or outside this array: NumPy raises IndexError.
    """
    return np.concatenate([np.arange(classes) * step, np.full(classes, classes * step)])


_NUMBERS = np.arange(TABLE_ROWS)


def row_numbers(count: int) -> Array:
    """Return the numbers of rows, int64."""
    return _NUMBERS[:count] if count <= TABLE_ROWS else np.arange(count)


CUDA = Path(__file__).parent / "cuda"
ABOUT_ONE = 0.01  # the error of a sum of probabilities in float16


class ClassLoss(Loss):
    """A loss of a row of scores and the number of the right class, or its one-hot row."""

    decides = "argmax"

    def check_targets(self, t: Array) -> None:
        """Check that targets in rows are probabilities. On a GPU this waits for the device.

        Args:
            t: (N,) labels, which are not checked here, or (N, C) rows.

        Raises:
            DataError: a row has a number below 0, or its sum is not 1 to within 0.01.
        """
        if t.ndim != 2:
            return
        b = backend_of(t)
        positive, fits = t >= 0, abs(summed(b, t, (1,)) - 1) <= ABOUT_ONE
        if all_true(b, positive) and all_true(b, fits):
            return
        row = int((~b.download(positive).all(axis=1) | ~b.download(fits)).argmax())
        raise DataError(
            f"got row {row} of the targets in {self.name} with the sum {float(t[row].sum()):.4g} "
            f"and the smallest number {float(t[row].min()):.4g}; expected probabilities of "
            "classes, which add up to 1: use binary_cross_entropy_with_logits for several "
            "classes at once, and sample_weight for the weight of a row"
        )


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
    right = row_numbers(count), places(classes, 1)[labels]
    s = widened(s, computed(s.dtype))
    own = s[right][:, None]
    with np.errstate(invalid="ignore"):
        over = np.subtract(s, own, out=scratch_like(s))
        # Where the margin cancels the difference, its rounding error would be all that is left.
        rest = rest_of_difference(s, own, over)
        np.add(np.add(over, margin, out=over), rest, out=over)
    over[right] = 0
    np.maximum(over, 0, out=over)
    np.add.reduce(over, axis=1, out=loss)
    np.not_equal(over, 0, out=over)
    over[right] = -np.add.reduce(over, axis=1)
    np.multiply(over, scale, out=gs, casting="same_kind")
    total.fill(np.add.reduce(loss) / divisor)


MULTICLASS_HINGE = RowKernel(
    "multiclass_hinge",
    numpy=or_nan(_hinge_rows),
    cuda_file=CUDA / "multiclass_hinge.cu",
    ticket=True,
)


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
        ArgumentError: margin is not a finite number.

    Gradient:
        gs_j = 1 where a wrong class violates the margin, gs_t = -(number of such classes). At the
        kink the gradient is 0.

    Reference:
        Weston and Watkins (1999); lecture 001. (The slide prints a plus for the minus.)
    """
    check_labels(b, "multiclass_hinge", s, t)
    (margin,) = chosen("multiclass_hinge", multiclass_hinge.limits, {"margin": margin})
    how = Reduction.of(reduction, len(s), s.dtype)
    losses, total, gs = row_loss(b, MULTICLASS_HINGE, s, t, how, float(margin))

    def backward(gl: Array, needs: Any) -> tuple[Any, ...]:
        no_target_gradient("multiclass_hinge", needs)
        return how.gradient(b, gl, gs), None

    return how.of_losses(losses, total), backward


multiclass_hinge = ClassLoss(_multiclass_hinge, "multiclass_hinge")
multiclass_hinge.limits = {"margin": Option(1.0, low=-inf)}


def _correct(scores: Array, labels: Array, hits: Array, classes: int, rows: int) -> None:
    hits += np.count_nonzero(scores.argmax(axis=1) == labels)


CORRECT = RowKernel("correct", _correct, CUDA / "correct.cu")


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
