"""Operations on the columns of a table: levels as 0 and 1, smooth clipping, waves of numbers."""

from __future__ import annotations

from math import pi
from typing import Any

import numpy as np

from gpunn.autograd import op
from gpunn.autograd.engine import Backward
from gpunn.backends import Backend, Elementwise, scratch_like
from gpunn.errors import ShapeError
from gpunn.ops.elementwise import check_floats
from gpunn.ops.reductions import summed
from gpunn.typing import Array


@op
def level_columns(
    b: Backend, x: Array, column: Array, high: Array, low: Array, numbers: int
) -> tuple[Array, Backward]:
    """Return numbers as they are, and codes of levels as columns of 0 and 1.

    The first columns are y[:, :numbers] = x[:, :numbers]. Each further column k is 1 where
    x[:, column[k]] is high[k], -1 where it is low[k], and else 0.

    Args:
        x: (N, D) floats.
        column: (K,) int64 numbers of columns.
        high: (K,) floats.
        low: (K,) floats.
        numbers: the number of columns that are numbers, the first ones.

    Returns:
        (N, numbers + K).

    Gradient:
        gy for the columns of numbers, 0 for the codes.
    """
    xp = b.xp
    picked = xp.take(x, column, 1)
    marks = (b.cast(xp.equal(picked, each), x.dtype) for each in (high, low))
    levels = xp.subtract(*marks)

    def backward(gy: Array, needs: Any) -> tuple[Array | None, ...]:
        gx = b.zeros(x.shape, x.dtype)
        b.copy_to(gx[:, :numbers], gy[:, :numbers])
        return gx, None, None, None, None

    return xp.concatenate([x[:, :numbers], levels], axis=1), backward


def _smooth_clip(x: Array, limit: float, y: Array) -> None:
    root = np.divide(x, limit, out=scratch_like(x))
    np.hypot(root, 1, out=root)
    np.divide(x, root, out=y)
    np.copyto(y, np.sign(x) * limit, where=np.isinf(x))


def _smooth_clip_grad(gy: Array, x: Array, limit: float, gx: Array) -> None:
    root = np.divide(x, limit, out=scratch_like(x))
    np.hypot(root, 1, out=root)
    np.divide(gy, root, out=gx)
    np.divide(gx, root, out=gx)
    np.divide(gx, root, out=gx)


SMOOTH_CLIP = Elementwise(
    "smooth_clip",
    "x, T limit -> y",
    numpy=_smooth_clip,
    cuda="const T root = hypot(x / limit, T(1)); y = x - x == T(0) ? T(x / root) : "
    "(x > T(0) ? limit : x < T(0) ? T(-limit) : x);",
)
SMOOTH_CLIP_GRAD = Elementwise(
    "smooth_clip_grad",
    "gy, x, T limit -> gx",
    numpy=_smooth_clip_grad,
    cuda="const T root = hypot(x / limit, T(1)); gx = gy / root / root / root;",
)


@op
def smooth_clip(b: Backend, x: Array, *, limit: float = 3.0) -> tuple[Array, Backward]:
    """Return y = x / sqrt(1 + (x / limit)**2), which is close to x near 0 and stays in the limit.

    Args:
        x: (...) floats.
        limit: above 0; |y| < limit.

    Gradient:
        gx = gy / (1 + (x / limit)**2)**1.5.

    Reference:
        Holzmüller et al. (2024), arXiv 2407.04491.
    """
    check_floats("smooth_clip", x)

    def backward(gy: Array, needs: Any) -> tuple[Array]:
        return (b.launch(SMOOTH_CLIP_GRAD, gy, x, limit),)

    return b.launch(SMOOTH_CLIP, x, limit), backward


@op
def waves(
    b: Backend, x: Array, frequency: Array, phase: Array, weight: Array, bias: Array
) -> tuple[Array, Backward]:
    """Return x, and for each of its first n columns K sums of waves of that column.

    e_jk = sum_f weight_jfk cos(2 pi frequency_jf x_j + phase_jf) + bias_jk.

    Args:
        x: (N, D) floats.
        frequency: (n, F), with n <= D.
        phase: (n, F).
        weight: (n, F, K).
        bias: (n, K).

    Returns:
        (N, D + n K): x, then the K sums of the first column, and so on.

    Raises:
        ShapeError: shapes that do not fit.

    Gradient:
        With c the cosines and s_njf = -sin(2 pi ... + phase_jf) sum_k weight_jfk ge_njk:
        gweight = sum_n c ge, gbias = sum_n ge, gphase = sum_n s, gfrequency = 2 pi sum_n x s, and
        gx = gy's first D columns, plus 2 pi sum_f frequency s for the first n.

    Reference:
        Gorishniy et al. (2022), arXiv 2203.05556; Holzmüller et al. (2024), arXiv 2407.04491.
    """
    check_floats("waves", x)
    n, count = frequency.shape
    outputs = weight.shape[-1]
    fits = x.ndim == 2 and n <= x.shape[1] and phase.shape == frequency.shape
    if not fits or weight.shape != (n, count, outputs) or bias.shape != (n, outputs):
        raise ShapeError(
            f"got x {x.shape}, frequency {frequency.shape}, phase {phase.shape}, weight "
            f"{weight.shape} and bias {bias.shape}; expected (N, D), (n, F), (n, F), (n, F, K) and "
            "(n, K) with n <= D"
        )
    xp, rows, width = b.xp, x.shape[0], x.shape[1]
    columns = xp.ascontiguousarray(x[:, :n].T)[:, :, None]  # (n, N, 1)
    turns = xp.multiply(frequency, 2 * pi)[:, None, :]
    angle = xp.add(xp.multiply(columns, turns), phase[:, None, :])  # (n, N, F)
    cosines = xp.cos(angle)
    sums = xp.add(xp.matmul(cosines, weight), bias[:, None, :])  # (n, N, K)
    flat = xp.ascontiguousarray(xp.transpose(sums, (1, 0, 2))).reshape(rows, n * outputs)

    def backward(gy: Array, needs: Any) -> tuple[Array | None, ...]:
        parts = gy[:, width:].reshape(rows, n, outputs)
        ge = xp.ascontiguousarray(xp.transpose(parts, (1, 0, 2)))  # (n, N, K)
        gweight = xp.matmul(xp.transpose(cosines, (0, 2, 1)), ge)
        gc = xp.matmul(ge, xp.transpose(weight, (0, 2, 1)))
        s = xp.negative(xp.multiply(xp.sin(angle), gc))
        gphase = b.cast(summed(b, s, (1,)), x.dtype)
        along = xp.multiply(summed(b, xp.multiply(s, columns), (1,)), 2 * pi)
        gx = None
        if needs[0]:
            own = xp.matmul(s, xp.transpose(turns, (0, 2, 1)))[:, :, 0]  # (n, N)
            gx = b.empty(x.shape, x.dtype)
            b.copy_to(gx, gy[:, :width])
            b.add_to(gx[:, :n], own.T)
        gbias = b.cast(summed(b, ge, (1,)), x.dtype)
        return gx, b.cast(along, x.dtype), gphase, gweight, gbias

    return xp.concatenate([x, flat], axis=1), backward
