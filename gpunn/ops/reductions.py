"""Sums, means and maxima over axes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from gpunn.autograd import op
from gpunn.autograd.engine import Backward
from gpunn.backends import Backend, Elementwise, RowKernel, computed
from gpunn.backends.kernel import shares
from gpunn.errors import DTypeError, ShapeError
from gpunn.typing import Array, Shape

NONFINITE = Elementwise(
    "nonfinite",
    "x -> sum count",
    numpy=lambda x, count: np.add(count, x.size - np.count_nonzero(np.isfinite(x)), out=count),
    cuda="count = x - x == T(0) ? T(0) : T(1);",
)


def all_finite(b: Backend, x: Array) -> bool:
    """Return whether an array of floats has neither NaN nor infinity.

    One kernel counts and one number is read. CuPy's `isfinite(x).all()` would allocate a mask of
    the size of x and compile for seconds at its first call.
    """
    return not b.download(b.launch(NONFINITE, x))


def total(b: Backend, x: Array) -> Array:
    """Return the sum of all elements as a 0-d array on the device; integers sum as in NumPy."""
    if x.dtype in ("float32", "float64"):
        return b.xp.sum(x, out=b.empty((), x.dtype))
    if x.dtype == "float16":  # a sum in float32 is rounded only once
        return b.cast(b.xp.asarray(b.xp.sum(x, dtype="float32")), x.dtype)
    return b.xp.asarray(b.xp.sum(x))


TABLE_ROWS = 65_536  # one table of constants serves all batches of up to so many rows
_ONES = np.ones(TABLE_ROWS, np.float32)


def ones_row(count: int) -> Array:
    """Return a row of float32 ones. BLAS adds up columns with it faster than NumPy's sum does."""
    return _ONES[:count] if count <= TABLE_ROWS else np.ones(count, np.float32)


def _column_sums(x: Array, out: Array, columns: int, rows: int) -> None:
    if x.dtype == np.float32 and out.flags.c_contiguous:  # BLAS is faster than NumPy's sum
        np.dot(ones_row(rows), x, out=out)
    elif x.dtype == out.dtype and x.dtype.itemsize == 2:
        out[...] = np.add.reduce(x, axis=0, dtype=np.float32)
    else:
        np.add.reduce(x, axis=0, dtype=out.dtype, out=out)


_CUDA = Path(__file__).parent / "cuda" / "column_sums.cu"
COLUMN_SUMS = RowKernel("column_sums", _column_sums, _CUDA, by_columns=True)
COLUMN_SUMS_WIDE = RowKernel(
    "column_sums_wide", _column_sums, _CUDA, dtypes=("float16", "bfloat16"), by_columns=True
)


def column_sums(b: Backend, x: Array, out: Array | None = None) -> Array:
    """Return the sums of the columns, (N, H) -> (H,).

    float16 and bfloat16 are added up in float32 and rounded once, or not at all if `out` is
    float32.

    Raises:
        DTypeError: `out` has neither the dtype of x nor, for a 16-bit type, float32.
    """
    if out is None:
        out = b.empty(x.shape[1:], x.dtype)
    kernel = COLUMN_SUMS
    if out.dtype != x.dtype:
        kernel = COLUMN_SUMS_WIDE
        if x.dtype.name not in kernel.dtypes or out.dtype != "float32":
            raise DTypeError(
                f"got column sums of {x.dtype} into {out.dtype}; expected {x.dtype}, or float32 "
                "for a 16-bit type: convert it with astype"
            )
    x = b.xp.ascontiguousarray(x)
    in_shares(b, kernel, x, (x,), (out,))
    return out


def in_shares(
    b: Backend, kernel: RowKernel, x: Array, given: tuple[Array, ...], sums: tuple[Array, ...]
) -> None:
    """Launch a kernel that sums columns. On a GPU, split the rows of a tall, narrow matrix.

    Args:
        b: the backend.
        kernel: the kernel, called with the given arrays, the sums, and the sizes of x.
        x: (N, H).
        given: the arrays that the kernel reads.
        sums: the (H,) arrays that it writes.
    """
    rows, columns = x.shape
    count = 1 if b.synchronous else shares(x.dtype.itemsize, rows, columns)
    if count == 1 or any(out.dtype != computed(x.dtype) for out in sums):
        b.launch_matrix(kernel, x.shape, x.dtype, *given, *sums)
        return
    parts = [b.empty((count, columns), out.dtype) for out in sums]
    blocks, threads = kernel.geometry(x.dtype.itemsize, rows, columns)
    arguments = (*given, *parts, columns, rows)
    b.launch_rows(kernel, blocks * count, x.dtype, *arguments, threads=threads)
    for part, out in zip(parts, sums, strict=True):
        b.launch_matrix(COLUMN_SUMS, part.shape, part.dtype, part, out)


def _check_axis(x: Array, axis: int | Shape | None) -> None:
    axes = (axis,) if isinstance(axis, int) else axis or ()
    if any(not -x.ndim <= a < x.ndim for a in axes):
        raise ShapeError(
            f"got axis={axis} for an array of shape {x.shape}; expected {-x.ndim} to {x.ndim - 1}"
        )


def _spread(b: Backend, g: Array, shape: Shape, axis: Any, keepdims: bool) -> Array:
    """Return a view of the reduced gradient in the shape before the reduction."""
    if axis is not None and not keepdims:
        g = b.xp.expand_dims(g, axis)
    return b.xp.broadcast_to(g, shape)


@op
def sum_(
    b: Backend, x: Array, *, axis: int | Shape | None = None, keepdims: bool = False
) -> tuple[Array, Backward]:
    """Return the sum over all axes, or over `axis`.

    Gradient:
        gy, broadcast over the axes that were summed.
    """
    _check_axis(x, axis)
    y = total(b, x) if axis is None and not keepdims else b.xp.sum(x, axis=axis, keepdims=keepdims)
    return y, lambda gy, needs: (_spread(b, gy, x.shape, axis, keepdims),)


@op
def mean(
    b: Backend, x: Array, *, axis: int | Shape | None = None, keepdims: bool = False
) -> tuple[Array, Backward]:
    """Return the mean over all axes, or over `axis`.

    Gradient:
        gy / count, broadcast over the axes that were averaged.
    """
    _check_axis(x, axis)
    y = b.xp.asarray(b.xp.mean(x, axis=axis, keepdims=keepdims))
    share = y.size / max(x.size, 1)
    return y, lambda gy, needs: (_spread(b, b.xp.multiply(gy, share), x.shape, axis, keepdims),)


@op
def max_(
    b: Backend, x: Array, *, axis: int | Shape | None = None, keepdims: bool = False
) -> tuple[Array, Backward]:
    """Return the maximum over all axes, or over `axis`.

    Gradient:
        gy at the maximum, 0 elsewhere; equal maxima share gy equally.
    """
    _check_axis(x, axis)
    top = b.xp.max(x, axis=axis, keepdims=True)
    y = top if keepdims else b.xp.asarray(b.xp.max(x, axis=axis))

    def backward(gy: Array, needs: Any) -> tuple[Array]:
        hit = b.cast(b.xp.equal(x, top), x.dtype)
        share = b.xp.divide(hit, b.xp.sum(hit, axis=axis, keepdims=True))
        return (b.xp.multiply(_spread(b, gy, x.shape, axis, keepdims), share),)

    return y, backward


# sums over the steps of training -----------------------------------------------------------------

ACCUMULATE = Elementwise(
    "accumulate",
    "T loss, float64 weight -> float64 total",
    numpy=lambda loss, weight, total: np.add(total, loss * weight, out=total),
    cuda="total = total + (double)loss * weight;",
)
WITH_PENALTY = Elementwise(
    "with_penalty",
    "loss, penalty -> value",
    numpy=lambda loss, penalty, value: np.add(loss, penalty, out=value),
    cuda="value = loss + penalty;",
)
