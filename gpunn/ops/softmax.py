"""The softmax of rows, and its logarithm."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from gpunn.autograd import op
from gpunn.autograd.engine import Backward
from gpunn.backends import Backend, RowKernel, computed, scratch_like, widened
from gpunn.errors import ShapeError
from gpunn.ops.elementwise import ACTIVATIONS, check_floats
from gpunn.ops.exact import exp_of_difference
from gpunn.typing import Array


def _softmax(x: Array, y: Array, columns: int, rows: int) -> None:
    x = widened(x, computed(x.dtype))
    powers = y if y.dtype == x.dtype else scratch_like(x)
    exp_of_difference(x, np.maximum.reduce(x, axis=-1, keepdims=True), powers)
    np.divide(powers, np.add.reduce(powers, axis=-1, keepdims=True), out=y, casting="same_kind")


def _softmax_grad(gy: Array, y: Array, gx: Array, columns: int, rows: int) -> None:
    kind = computed(y.dtype)
    gy, y = widened(gy, kind), widened(y, kind)
    work = np.multiply(gy, y, out=scratch_like(y))
    along = np.add.reduce(work, axis=-1, keepdims=True)
    np.subtract(gy, along, out=work)
    np.multiply(work, y, out=gx, casting="same_kind")


_CUDA = Path(__file__).parent / "cuda" / "softmax.cu"
SOFTMAX = RowKernel("softmax", _softmax, _CUDA)
SOFTMAX_GRAD = RowKernel("softmax_grad", _softmax_grad, _CUDA)


def _check_rows(name: str, x: Array) -> None:
    if not x.shape or not x.shape[-1]:
        raise ShapeError(
            f"got x of shape {x.shape} in {name}; expected (..., C) with at least one column: "
            "pass rows of scores"
        )
    check_floats(name, x)


@op
def softmax(b: Backend, x: Array) -> tuple[Array, Backward]:
    """Return the softmax over the last axis, y_k = exp(x_k) / sum_j exp(x_j).

    It is not elementwise. To train a classifier, use `softmax_cross_entropy` on the logits. To
    predict a class, the argmax of the logits is enough (lecture 001).

    Args:
        x: (..., C) floats.

    Raises:
        ShapeError: x is a single number, or has no columns.
        DTypeError: x does not hold floats.

    Gradient:
        gx = y * (gy - sum_k gy_k y_k).

    Numerics:
        The row's maximum is subtracted first, so no exponential overflows. The rounding error of
        this difference is corrected, so a small y has all its digits, too. The gradient's error
        is a few machine epsilons of y times the largest gy of the row.
    """
    _check_rows("softmax", x)
    y = b.empty_like(x)
    b.launch_matrix(SOFTMAX, x.shape, x.dtype, b.xp.ascontiguousarray(x), y)

    def backward(gy: Array, needs: Any) -> tuple[Array]:
        gx = b.empty_like(y)
        b.launch_matrix(SOFTMAX_GRAD, y.shape, y.dtype, b.xp.ascontiguousarray(gy), y, gx)
        return (gx,)

    return y, backward


ACTIVATIONS["softmax"] = softmax


def _log_softmax(x: Array, y: Array, columns: int, rows: int) -> None:
    x = widened(x, computed(x.dtype))
    top = np.maximum.reduce(x, axis=-1, keepdims=True)
    with np.errstate(invalid="ignore"):
        below = np.subtract(x, top, out=scratch_like(x))
    # Without one of the largest, whose power is 1, the sum has the digits of 1 - max softmax(x).
    hits = np.equal(below, 0, out=scratch_like(x, np.bool_))
    others = exp_of_difference(x, top, scratch_like(x))
    np.copyto(others, 0, where=hits)
    rest = np.add.reduce(others, axis=-1, keepdims=True)
    np.add(rest, np.add.reduce(hits, axis=-1, keepdims=True, dtype=x.dtype) - 1, out=rest)
    np.subtract(below, np.log1p(rest, out=rest), out=y, casting="same_kind")


def _log_softmax_grad(gy: Array, y: Array, gx: Array, columns: int, rows: int) -> None:
    kind = computed(y.dtype)
    gy, y = widened(gy, kind), widened(y, kind)
    along = np.add.reduce(gy, axis=-1, keepdims=True)
    work = np.multiply(np.exp(y, out=scratch_like(y)), along, out=scratch_like(y))
    np.subtract(gy, work, out=gx, casting="same_kind")


LOG_SOFTMAX = RowKernel("log_softmax", _log_softmax, _CUDA)
LOG_SOFTMAX_GRAD = RowKernel("log_softmax_grad", _log_softmax_grad, _CUDA)


@op
def log_softmax(b: Backend, x: Array) -> tuple[Array, Backward]:
    """Return the logarithm of the softmax over the last axis, y_k = x_k - log sum_j exp(x_j).

    It is not elementwise. Use it for networks whose outputs are logarithms of probabilities, as
    `kullback_leibler` takes them. To train a classifier, use `softmax_cross_entropy` on the logits.

    Args:
        x: (..., C) floats.

    Raises:
        ShapeError: x is a single number, or has no columns.
        DTypeError: x does not hold floats.

    Gradient:
        gx = gy - exp(y) * sum_k gy_k.

    Numerics:
        Computed as (x_k - max x) - log1p(the rest of the sum), whose terms do not cancel: no
        exponential overflows, and a y close to 0 has all its digits. An error of the gradient is a
        few machine epsilons of the sum of all |gy|.
    """
    _check_rows("log_softmax", x)
    y = b.empty_like(x)
    b.launch_matrix(LOG_SOFTMAX, x.shape, x.dtype, b.xp.ascontiguousarray(x), y)

    def backward(gy: Array, needs: Any) -> tuple[Array]:
        gx = b.empty_like(y)
        b.launch_matrix(LOG_SOFTMAX_GRAD, y.shape, y.dtype, b.xp.ascontiguousarray(gy), y, gx)
        return (gx,)

    return y, backward


ACTIVATIONS["log_softmax"] = log_softmax
