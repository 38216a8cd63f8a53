"""Root mean square normalisation."""

from __future__ import annotations

from math import sqrt
from pathlib import Path
from typing import Any

import numpy as np

from gpunn.arguments import in_range
from gpunn.autograd import op
from gpunn.autograd.engine import Backward
from gpunn.backends import Backend, RowKernel, computed, scratch_like, widened
from gpunn.ops.normalize import check_columns, round_to, scratch_of
from gpunn.ops.reductions import add_rows, as_gradients, in_shares, sums_for
from gpunn.typing import Array, DType

_CUDA = Path(__file__).parent / "cuda" / "rms_norm.cu"
ROOM = 4.0  # 4 / v is no subnormal number for any finite v


def _rms_norm(
    x: Array,
    gamma: Array,
    y: Array,
    factor: Array,
    inverse: Array,
    root: float,
    least: float,
    columns: int,
    rows: int,
) -> None:
    work, x = scratch_of(y, factor), widened(x, factor.dtype)
    np.maximum.reduce(np.abs(x, out=work), axis=1, out=factor, initial=least)
    np.divide(ROOM, factor, out=factor)
    np.multiply(x, factor[:, None], out=work)
    np.add.reduce(np.multiply(work, work, out=scratch_like(work)), axis=1, out=inverse)
    floor = np.multiply(factor, root)
    np.add(np.divide(inverse, columns, out=inverse), np.multiply(floor, floor), out=inverse)
    np.reciprocal(np.sqrt(inverse, out=inverse), out=inverse)
    np.multiply(work, inverse[:, None], out=work)
    np.multiply(work, gamma, out=work)
    round_to(work, y)


def _normal(x: Array, factor: Array, inverse: Array) -> Array:
    normal = scratch_like(x, factor.dtype)
    np.multiply(widened(x, factor.dtype), factor[:, None], out=normal)
    return np.multiply(normal, inverse[:, None], out=normal)


def _rms_norm_grad(
    gy: Array,
    x: Array,
    gamma: Array,
    factor: Array,
    inverse: Array,
    gx: Array,
    columns: int,
    rows: int,
) -> None:
    work, normal = scratch_of(gx, factor), _normal(x, factor, inverse)
    np.multiply(gy, gamma, out=work, dtype=factor.dtype)
    along = np.add.reduce(np.multiply(work, normal, out=scratch_like(work)), axis=1) / columns
    np.subtract(work, np.multiply(normal, along[:, None], out=normal), out=work)
    np.multiply(work, inverse[:, None], out=work)
    np.multiply(work, factor[:, None], out=work)
    round_to(work, gx)


def _rms_norm_grad_columns(
    gy: Array,
    x: Array,
    factor: Array,
    inverse: Array,
    ggamma: Array,
    columns: int,
    rows: int,
) -> None:
    normal = _normal(x, factor, inverse)
    add_rows(np.multiply(normal, gy, out=normal), ggamma)


RMS_NORM = RowKernel("rms_norm", _rms_norm, _CUDA)
RMS_NORM_GRAD = RowKernel("rms_norm_grad", _rms_norm_grad, _CUDA)
RMS_NORM_GRAD_COLUMNS = RowKernel(
    "rms_norm_grad_columns", _rms_norm_grad_columns, _CUDA, by_columns=True
)


def default_eps(dtype: DType) -> float:
    """Return PyTorch's default: the machine epsilon of the dtype that kernels compute in."""
    return float(np.finfo(computed(dtype)).eps)


@op
def rms_norm(
    b: Backend, x: Array, gamma: Array, *, eps: float | None = None
) -> tuple[Array, Backward]:
    """Divide every row by the root of its mean square, y = x / sqrt(mean(x**2) + eps) * gamma.

    Unlike `layer_norm`, it leaves the mean of a row in it.

    Args:
        x: (N, D).
        gamma: (D,).
        eps: added to the mean square, at least 0; for None, the machine epsilon of the dtype that
            is computed in, 1.2e-7 for float16, bfloat16 and float32.

    Raises:
        ShapeError: x is not (N, D), or gamma is not (D,).
        DTypeError: gamma has another dtype than x.
        ArgumentError: eps is below 0.

    Gradient:
        gx = (gn - normal mean(gn normal)) / root with gn = gy gamma, the root of the mean square
        and normal = x / root. Kept for the backward pass: x, and two numbers for each row.

    Numerics:
        float16 and bfloat16 are computed in float32 and rounded once. A row is scaled by its
        largest number first, so no square overflows or vanishes. The error is a few ulp. A row of
        zeros with eps=0 gives NaN. The gradient's error is a few epsilons of the largest gn / root.

    Reference:
        Zhang and Sennrich (2019), arXiv 1910.07467.
    """
    check_columns("rms_norm", x, gamma)
    kind = computed(x.dtype)
    root = sqrt(default_eps(x.dtype) if eps is None else in_range("eps", eps, 0.0))
    least = max(root, 2 * float(np.finfo(kind).tiny))  # ROOM / least is finite
    x, gamma = b.xp.ascontiguousarray(x), b.xp.ascontiguousarray(gamma)
    y = b.empty_like(x)
    statistics = tuple(b.empty(x.shape[:1], kind) for _ in range(2))
    b.launch_matrix(RMS_NORM, x.shape, x.dtype, x, gamma, y, *statistics, root, least)

    def backward(gy: Array, needs: Any) -> tuple[Array | None, ...]:
        gy, gx = b.xp.ascontiguousarray(gy), None
        if needs[0]:
            gx = b.empty_like(x)
            b.launch_matrix(RMS_NORM_GRAD, x.shape, x.dtype, gy, x, gamma, *statistics, gx)
        sums = sums_for(b, needs[1:], (x.shape[1:],), x.dtype)
        if needs[1]:
            in_shares(b, RMS_NORM_GRAD_COLUMNS, x, (gy, x, *statistics), tuple(sums))
        return gx, *as_gradients(b, needs[1:], sums, x.dtype)

    return y, backward
