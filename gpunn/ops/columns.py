"""Operations on the columns of a table: levels as 0 and 1, smooth clipping, waves of numbers."""

from __future__ import annotations

from math import pi
from pathlib import Path
from typing import Any

import numpy as np

from gpunn.autograd import op
from gpunn.autograd.engine import Backward
from gpunn.backends import Backend, Elementwise, RowKernel, computed, scratch_like, widened
from gpunn.errors import ShapeError
from gpunn.ops.elementwise import check_floats
from gpunn.ops.reductions import add_rows, as_gradients, sums_for
from gpunn.typing import Array

_CUDA = Path(__file__).parent / "cuda"


def _level_columns(
    x: Array,
    column: Array,
    high: Array,
    low: Array,
    y: Array,
    width: int,
    numbers: int,
    columns: int,
    rows: int,
) -> None:
    picked = np.take(x, column, 1)
    y[:, :numbers] = x[:, :numbers]
    np.subtract(picked == high, picked == low, out=y[:, numbers:], dtype=y.dtype)


LEVEL_COLUMNS = RowKernel("level_columns", _level_columns, _CUDA / "columns.cu")


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
    x = b.xp.ascontiguousarray(x)
    y = b.empty((x.shape[0], numbers + len(column)), x.dtype)
    b.launch_matrix(LEVEL_COLUMNS, y.shape, x.dtype, x, column, high, low, y, x.shape[1], numbers)

    def backward(gy: Array, needs: Any) -> tuple[Array | None, ...]:
        gx = b.zeros(x.shape, x.dtype)
        b.copy_to(gx[:, :numbers], gy[:, :numbers])
        return gx, None, None, None, None

    return y, backward


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


def _angles(x: Array, frequency: Array, phase: Array) -> tuple[Array, Array, Array]:
    """Return x by columns (n, N, 1), the turns of a unit (n, 1, F), and the angles (n, N, F)."""
    kind = computed(x.dtype)
    columns = np.ascontiguousarray(widened(x[:, : len(frequency)], kind).T)[:, :, None]
    turns = np.multiply(frequency, 2 * pi, dtype=kind)[:, None, :]
    angle = scratch_like(np.broadcast_to(turns, (*columns.shape[:2], turns.shape[2])))
    np.multiply(columns, turns, out=angle)
    return columns, turns, np.add(angle, phase[:, None, :], out=angle)


def _waves(
    x: Array,
    frequency: Array,
    phase: Array,
    weight: Array,
    bias: Array,
    y: Array,
    width: int,
    count: int,
    outputs: int,
    columns: int,
    rows: int,
) -> None:
    angle = _angles(x, frequency, phase)[2]
    cosines = np.cos(angle, out=angle)
    if rows == 1:  # a product with one row would add up in another order
        cosines = np.repeat(cosines, 2, axis=1)
    sums = np.matmul(cosines, widened(weight, angle.dtype))[:, :rows]  # (n, N, K)
    np.add(sums, bias[:, None, :], out=sums)
    y[:, :width] = x
    for first, own in zip(range(width, columns, outputs), sums, strict=True):
        y[:, first : first + outputs] = own


def _angle_grad(angle: Array, gy: Array, weight: Array, columns: int) -> tuple[Array, Array]:
    """Return the gradients of the sums (n, N, K) and of the angles (n, N, F)."""
    kind = angle.dtype
    parts = gy[:, columns:].reshape(len(gy), len(angle), weight.shape[2])
    ge = np.ascontiguousarray(np.transpose(parts, (1, 0, 2)), kind)
    back = np.transpose(widened(weight, kind), (0, 2, 1))
    ga = np.matmul(ge, back, out=scratch_like(angle))
    np.multiply(ga, np.sin(angle, out=scratch_like(angle)), out=ga)
    return ge, np.negative(ga, out=ga)


def _waves_grad(
    gy: Array,
    x: Array,
    frequency: Array,
    phase: Array,
    weight: Array,
    gx: Array,
    embedded: int,
    count: int,
    outputs: int,
    columns: int,
    rows: int,
) -> None:
    _, turns, angle = _angles(x, frequency, phase)
    _, ga = _angle_grad(angle, gy, weight, columns)
    gx[...] = gy[:, :columns]
    gx[:, :embedded] += np.matmul(ga, np.transpose(turns, (0, 2, 1)))[:, :, 0].T


def _waves_grad_parameters(
    gy: Array,
    x: Array,
    frequency: Array,
    phase: Array,
    weight: Array,
    gfrequency: Array,
    gphase: Array,
    gweight: Array,
    gbias: Array,
    outputs: int,
    width: int,
    examples: int,
    columns: int,
    rows: int,
) -> None:
    by_columns, _, angle = _angles(x, frequency, phase)
    ge, ga = _angle_grad(angle, gy, weight, width)
    cosines = np.cos(angle, out=angle)
    np.matmul(np.transpose(cosines, (0, 2, 1)), ge, out=gweight)
    np.multiply(ga, by_columns, out=cosines)
    for sums, of in ((gphase, ga), (gfrequency, cosines), (gbias, ge)):
        for j in range(rows):
            add_rows(of[j], sums[j])
    np.multiply(gfrequency, 2 * pi, out=gfrequency)


WAVES = RowKernel("waves", _waves, _CUDA / "waves.cu")
WAVES_GRAD = RowKernel("waves_grad", _waves_grad, _CUDA / "waves.cu")
WAVES_GRAD_PARAMETERS = RowKernel(
    "waves_grad_parameters", _waves_grad_parameters, _CUDA / "waves.cu"
)


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
    given = tuple(map(b.xp.ascontiguousarray, (x, frequency, phase, weight, bias)))
    x, rows, width = given[0], x.shape[0], x.shape[1]
    y = b.empty((rows, width + n * outputs), x.dtype)
    b.launch_matrix(WAVES, y.shape, x.dtype, *given, y, width, count, outputs)

    def backward(gy: Array, needs: Any) -> tuple[Array | None, ...]:
        kept, gx = (b.xp.ascontiguousarray(gy), *given[:4]), None
        if needs[0]:
            gx = b.empty_like(x)
            b.launch_matrix(WAVES_GRAD, x.shape, x.dtype, *kept, gx, n, count, outputs)
        sums = sums_for(b, needs[1:], [each.shape for each in given[1:]], x.dtype)
        if any(needs[1:]):
            sizes = (outputs, width, rows, count, n)
            b.launch_rows(WAVES_GRAD_PARAMETERS, n * (outputs + 1), x.dtype, *kept, *sums, *sizes)
        return gx, *as_gradients(b, needs[1:], sums, x.dtype)

    return y, backward
