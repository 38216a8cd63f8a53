"""The cross-entropy of rows of scores, with weights of classes, and the focal loss."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from gpunn.autograd.engine import Backward
from gpunn.backends import (
    Backend,
    RowKernel,
    computed,
    scratch_like,
    widened,
)
from gpunn.errors import ArgumentError, ShapeError
from gpunn.ops.class_losses import (
    CUDA,
    ClassLoss,
    check_labels,
    or_nan,
    places,
    row_loss,
    row_numbers,
)
from gpunn.ops.elementwise import Option, check_floats, chosen
from gpunn.ops.elementwise_losses import as_prediction, no_target_gradient
from gpunn.ops.exact import exp_of_difference
from gpunn.ops.label_weights import FOCUSED, SMOOTHED, label_masses
from gpunn.ops.loss_reduction import Reduction
from gpunn.ops.reductions import add_rows, summed
from gpunn.ops.weights import ignored_label, weights_for
from gpunn.typing import Array

FEW_CLASSES = 128  # up to this number, NumPy reduces a (C, N) matrix faster than an (N, C) one


def _softmax_rows(
    z: Array,
    labels: Array,
    loss: Array,
    gz: Array,
    total: Array,
    smoothing: float,
    divisor: float,
    scale: float,
    classes: int,
    count: int,
) -> None:
    right: Any  # the positions of the right classes in `flat`
    kind = computed(z.dtype)
    if classes > FEW_CLASSES:
        axis, scores = 1, widened(z, kind)
        flat = p = gz if gz.dtype == kind else scratch_like(gz, kind)
        right = row_numbers(count), places(classes, 1)[labels]
        own = scores[right]
    else:
        axis, flat = 0, scratch_like(gz, kind).reshape(-1)
        p, scores = flat.reshape(classes, count), scratch_like(gz, kind).reshape(classes, count)
        np.copyto(scores, z.T)
        right = places(classes, count)[labels] + row_numbers(count)
        own = scores.reshape(-1)[right]
    top = np.maximum.reduce(scores, axis=axis, keepdims=True)
    exp_of_difference(scores, top, p)
    lead = own - np.add.reduce(scores, axis=axis) / classes if smoothing else None
    below = np.subtract(top.reshape(-1), own, out=own)
    # The sum over the other classes is kept apart: 1 - p_t has more digits than p_t, and so has the
    # logarithm of p_t where p_t is close to 1.
    power, flat[right] = flat[right], 0
    others = np.add.reduce(p, axis=1) if axis else add_rows(p, np.empty(count, kind))
    np.add(below, np.log1p(others + (power - 1)), out=loss)
    flat[right] = -others
    np.divide(p, (others + power).reshape(top.shape), out=p)
    if lead is not None:
        np.add(loss, np.multiply(lead, smoothing, out=lead), out=loss)
        np.subtract(p, smoothing / classes, out=p)
        flat[right] += smoothing
    np.multiply(p if axis else p.T, scale, out=gz, casting="same_kind")
    total.fill(np.add.reduce(loss) / divisor)


SOFTMAX_CROSS_ENTROPY = RowKernel(
    "softmax_cross_entropy",
    numpy=or_nan(_softmax_rows),
    cuda_file=CUDA / "softmax_cross_entropy.cu",
    ticket=True,
)


def _corrected(xp: Any, p: Array, z: Array, top: Array, shifted: Array) -> Array:
    """Return exp(z - top) for the exponential p of the rounded difference."""
    part = xp.subtract(shifted, z)
    rest = xp.subtract(xp.subtract(z, xp.subtract(shifted, part)), xp.add(part, top))
    known = xp.equal(xp.subtract(rest, rest), 0)
    return xp.add(p, xp.multiply(p, xp.where(known, rest, 0)))


def _soft_targets(b: Backend, z: Array, t: Array) -> tuple[Array, Array]:
    """Return row losses and gradients for targets that are rows of probabilities."""
    t = as_prediction(b, "softmax_cross_entropy", z, t)
    xp = b.xp
    top = xp.max(z, axis=1, keepdims=True)
    shifted = xp.subtract(z, top)
    p = _corrected(xp, xp.exp(shifted), z, top, shifted)
    hits = xp.equal(shifted, 0)
    # Without one of the largest, for which p = 1, the sum has the digits of 1 - max softmax(z).
    ties = xp.subtract(xp.sum(hits, axis=1, keepdims=True, dtype=z.dtype), 1)
    rest = xp.add(summed(b, xp.where(hits, 0, p), (1,), keepdims=True), ties)
    mass = summed(b, t, (1,), keepdims=True)
    given = summed(b, xp.where(xp.equal(t, 0), 0, xp.multiply(t, shifted)), (1,))
    losses = xp.subtract(xp.multiply(mass[:, 0], xp.log1p(rest[:, 0])), given)
    others = xp.add(rest, xp.subtract(1, p))
    gz = xp.subtract(xp.multiply(p, xp.subtract(mass, t)), xp.multiply(others, t))
    return losses, xp.divide(gz, xp.add(rest, 1))


def _of_rows(
    b: Backend, z: Array, t: Array, weight: Any, smoothing: float, reduction: str
) -> tuple[Array, Backward]:
    """The cross-entropy with targets that are rows of probabilities."""
    name, kind = "softmax_cross_entropy", computed(z.dtype)
    how = Reduction.of(reduction, len(z), z.dtype)
    t = as_prediction(b, name, z, t)
    if smoothing:
        spread = b.xp.multiply(b.cast(t, kind), 1 - smoothing)
        t = b.xp.add(spread, smoothing / z.shape[-1])
    if weight is not None:
        t = b.xp.multiply(
            b.cast(t, kind), weights_for(b, name, "weight", weight, z.shape[1:], kind)
        )
    losses, gz = _soft_targets(b, b.cast(z, kind), t)
    total = b.xp.asarray(b.xp.divide(b.xp.sum(losses), how.divisor))
    gz = b.cast(b.xp.multiply(gz, how.scale), z.dtype)
    return _result(b, name, how, losses, total, gz)


def _result(
    b: Backend,
    name: str,
    how: Reduction,
    losses: Array,
    total: Array,
    gz: Array,
    factor: Array | None = None,
) -> tuple[Array, Backward]:
    """Return a loss of rows and its backward. `factor` has a factor of each row of gradients."""

    def backward(gl: Array, needs: Any) -> tuple[Any, ...]:
        no_target_gradient(name, needs)
        gl = how.share(b, gl)
        if factor is not None:
            gl = b.xp.multiply(gl, factor).reshape(-1, 1)
        return how.gradient(b, gl, gz), None

    if how.mass is not None:
        with np.errstate(invalid="ignore"):  # the mean of nothing is NaN
            total = b.xp.asarray(b.xp.divide(total, how.mass))
    return how.of_losses(losses, total), backward


def _of_labels(
    b: Backend,
    loss: ClassLoss,
    z: Array,
    t: Array,
    *,
    weight: Any,
    ignore_index: Any,
    reduction: str,
    smoothing: float = 0.0,
    gamma: float = 0.0,
) -> tuple[Array, Backward]:
    """The cross-entropy of labels, as one launch, or as several if rows have weights."""
    check_labels(b, loss.name, z, t, ignore_index)
    if weight is None and ignore_index is None and not gamma:
        how = Reduction.of(reduction, len(z), z.dtype)
        return _result(b, loss.name, how, *row_loss(b, SOFTMAX_CROSS_ENTROPY, z, t, how, smoothing))
    kind = computed(z.dtype)
    mass, known, whole = label_masses(b, loss.name, t, weight, ignore_index, z.shape[1], kind)
    how = Reduction.of(reduction, len(z), z.dtype, whole)
    if weight is not None and smoothing:
        column = b.constant(np.arange(z.shape[1]))
        each = weights_for(b, loss.name, "weight", weight, z.shape[1:], kind)
        label = b.cast(t, np.int64).reshape(-1, 1)
        numbers = (smoothing, float(z.shape[1]), ignored_label(loss.name, ignore_index))
        q = b.launch(SMOOTHED, label, column, each, *numbers, out=b.empty(z.shape, kind))
        losses, gz = _soft_targets(b, b.cast(z, kind), q)
        return _result(b, loss.name, how, losses, b.xp.sum(losses), b.cast(gz, z.dtype))
    plain = Reduction.of("sum", len(z), z.dtype)
    nll, _, gz = row_loss(b, SOFTMAX_CROSS_ENTROPY, z, known, plain, smoothing)
    losses, factor, total = b.launch(FOCUSED, nll, mass, gamma)
    return _result(b, loss.name, how, losses, total, gz, factor)


class CrossEntropy(ClassLoss):
    """A loss of rows of logits, whose classes may have weights."""

    weights = ("weight",)
    ignores = True

    def masses(self, b: Backend, t: Array, options: Mapping[str, Any]) -> Array | None:
        """Return the weights of (N,) labels, 0 for those to ignore; None for other targets."""
        weight, ignored = options.get("weight"), options.get("ignore_index")
        if t.ndim != 1 or (weight is None and ignored is None):
            return None
        each = 1 if weight is None else np.size(weight)
        classes = each if each > 1 else 2**31  # any
        mass: Array = label_masses(b, self.name, t, weight, ignored, classes, np.float64)[0]
        return mass


def _softmax_cross_entropy(
    b: Backend,
    z: Array,
    t: Array,
    *,
    weight: Any = None,
    ignore_index: int | None = None,
    label_smoothing: float = 0.0,
    reduction: str = "mean",
) -> tuple[Array, Backward]:
    """The cross-entropy of logits, -log p_t with p = softmax(z); one loss for each row.

    With options it is -sum_k w_k q_k log p_k.

    Args:
        z: (N, C) logits.
        t: (N,) integer labels 0 .. C - 1, or (N, C) one-hot rows or probabilities.
        weight: w, (C,) numbers of at least 0; None for 1. A mean over labels is then divided by
            the sum of their weights, and one over rows of probabilities by N, as in PyTorch.
        ignore_index: a label that does not count: its loss and its gradient are 0, and a mean
            leaves it out; None for no such label. A mean of nothing is NaN.
        label_smoothing: the part s of each row of targets that is spread over all classes,
            0 <= s < 1: q = (1 - s) onehot(t) + s / C.
        reduction: "mean" over the N rows, "sum" or "none".

    Raises:
        ShapeError: shapes that do not fit, or not one weight for each class.
        DTypeError: labels that are not integers.
        ArgumentError: label_smoothing, a weight or ignore_index is outside its range, or rows of
            probabilities come with an ignore_index of at least 0.
        DataError: on the CPU, a label out of range. On a GPU that row's loss is NaN.

    Gradient:
        gz = p sum_k w_k q_k - w q, which is p - q without weights. It is computed together with
        the loss and kept.

    Numerics:
        The log-sum-exp subtracts the row's maximum first, so it is finite for finite logits. A
        loss close to 0 and 1 - p_t have all their digits. With rows of probabilities as targets,
        and with weights together with label_smoothing, an error is a few machine epsilons of the
        sum of all terms' sizes: gz cancels where p is close to t.

    Reference:
        Lectures 000, 001 and 003; the options are those of PyTorch's `CrossEntropyLoss`. (Lecture
        000 prints log(e^f1, e^f2, e^f3), without the sum.)
    """
    loss = softmax_cross_entropy
    check_floats(loss.name, z)
    (smoothing,) = chosen(loss.name, loss.limits, {"label_smoothing": label_smoothing})
    if t.ndim == 2:
        if ignore_index is not None and ignored_label(loss.name, ignore_index) >= 0:
            raise ArgumentError(
                f"got ignore_index={ignore_index} in {loss.name} with rows of probabilities; "
                "expected labels: give the rows that must not count a sample_weight of 0"
            )
        return _of_rows(b, z, t, weight, float(smoothing), reduction)
    return _of_labels(
        b,
        loss,
        z,
        t,
        weight=weight,
        ignore_index=ignore_index,
        smoothing=float(smoothing),
        reduction=reduction,
    )


softmax_cross_entropy = CrossEntropy(_softmax_cross_entropy, "softmax_cross_entropy")
softmax_cross_entropy.limits = {"label_smoothing": Option(0.0, 0.0, 1.0, closed=True)}


def _focal(
    b: Backend,
    z: Array,
    t: Array,
    *,
    gamma: float = 2.0,
    weight: Any = None,
    ignore_index: int | None = None,
    reduction: str = "mean",
) -> tuple[Array, Backward]:
    """The focal loss, -w_t (1 - p_t)**gamma log p_t with p = softmax(z), for rare classes.

    Examples that the network is sure of count little. With gamma = 0 it is the cross-entropy.

    Args:
        z: (N, C) logits. For two classes, one logit s of a sigmoid is the row (0, s).
        t: (N,) integer labels 0 .. C - 1.
        gamma: how much less a sure example counts, at least 0.
        weight: w, (C,) numbers of at least 0, the alpha of the paper; None for 1. A mean is
            divided by the sum of the weights of its labels.
        ignore_index: as for `softmax_cross_entropy`.
        reduction: "mean" over the N rows, "sum" or "none".

    Raises:
        ShapeError, DTypeError, ArgumentError, DataError: as for `softmax_cross_entropy`.

    Gradient:
        gz = w_t (1 - p_t)**(gamma - 1) (1 - p_t - gamma p_t log p_t) (p - onehot(t)).

    Numerics:
        1 - p_t is computed from log p_t, so it has all its digits. The relative error is a few
        machine epsilons times 1 + gamma.

    Reference:
        Lin et al. (2017).
    """
    check_floats("focal", z)
    if t.ndim != 1:
        raise ShapeError(
            f"got targets of shape {t.shape} in focal; expected (N,) labels: use t.argmax(axis=1) "
            "for one-hot rows"
        )
    (power,) = chosen("focal", focal.limits, {"gamma": gamma})
    return _of_labels(
        b,
        focal,
        z,
        t,
        weight=weight,
        ignore_index=ignore_index,
        gamma=float(power),
        reduction=reduction,
    )


focal = CrossEntropy(_focal, "focal")
focal.limits = {"gamma": Option(2.0, closed=True)}
