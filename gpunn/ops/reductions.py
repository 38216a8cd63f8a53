"""Sums, means and maxima over axes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gpunn.arguments import flag
from gpunn.autograd import op, target
from gpunn.autograd.engine import Backward, Need
from gpunn.backends import Backend, Elementwise, RowKernel, computed, scratch_like, widened
from gpunn.backends.kernel import shares
from gpunn.errors import DataError, DTypeError, ShapeError
from gpunn.typing import Array, DType, Shape

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


FALSE = Elementwise(
    "false",
    "bool flag -> sum float64 count",
    numpy=lambda flag, count: np.add(count, np.size(flag) - np.count_nonzero(flag), out=count),
    cuda="count = flag ? 0.0 : 1.0;",
)


def all_true(b: Backend, flags: Array) -> bool:
    """Return whether all elements of an array of booleans are True.

    CuPy's `flags.all()` would compile for seconds at its first call.
    """
    return bool(flags.all()) if b.on_host else not b.download(b.launch(FALSE, flags))


def _total(x: Array, total: Array) -> None:
    flat = np.ascontiguousarray(x).reshape(-1)  # NumPy adds up neighbours pairwise
    np.add(total, np.add.reduce(flat, dtype=total.dtype), out=total)


TOTAL = Elementwise("total", "x -> sum total", _total, "total = x;", chunkable=False)


def total(b: Backend, x: Array) -> Array:
    """Return the sum of all elements as a 0-d array on the device; integers sum as in NumPy."""
    if x.dtype.kind in "iub":
        return b.xp.asarray(b.xp.sum(x))
    out = b.empty((), computed(x.dtype))
    b.launch(TOTAL, x, out=out)
    return b.cast(out, x.dtype)


TABLE_ROWS = 65_536  # one table of constants serves all batches of up to so many rows
BLOCK = 16  # rows: one after another they cost 15 roundings, no more than the bound 4 log2(16)
_ONES = np.ones(BLOCK, np.float32)


def add_rows(x: Array, out: Array) -> Array:
    """Write the sums of the columns of a host array (N, H), and return them.

    Sums in float32 are products with ones of 16 rows at a time, then of 16 such sums. So the
    error grows with log N, and BLAS is faster than NumPy's sum. Sums in float64 are added row
    after row, as NumPy and scikit-learn do.
    """
    if out.dtype == np.float64:
        return np.add.reduce(x, axis=0, dtype=out.dtype, out=out)
    x = widened(x, np.float32)
    while len(x) > BLOCK:
        count, left = divmod(len(x), BLOCK)
        parts = scratch_like(x[: count + (left > 0)])
        blocks = x[: count * BLOCK].reshape(count, BLOCK, -1)
        np.matmul(_ONES, blocks, out=parts[:count])
        if left:
            np.dot(_ONES[:left], x[-left:], out=parts[-1])
        x = parts
    if out.dtype == np.float32 and out.flags.c_contiguous:
        return np.dot(_ONES[: len(x)], x, out=out)
    out[...] = np.dot(_ONES[: len(x)], x)
    return out


def _column_sums(x: Array, out: Array, columns: int, rows: int) -> None:
    add_rows(x, out)


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


def sums_for(
    b: Backend, needs: Sequence[Need], shapes: Sequence[Shape], dtype: DType
) -> list[Array]:
    """Return arrays for sums that are gradients of parameters: their own buffers if wide enough.

    Args:
        b: the backend.
        needs: what the backward pass needs, for each parameter.
        shapes: the shapes of the parameters.
        dtype: the dtype of the operation. The sums are in the dtype that its kernels compute in.
    """
    found, wide = [], computed(dtype)
    for need, shape in zip(needs, shapes, strict=True):
        own = target(need)
        found.append(own if own is not None and own.dtype == wide else b.empty(shape, wide))
    return found


def as_gradients(
    b: Backend, needs: Sequence[Need], sums: Sequence[Array], dtype: DType
) -> list[Array]:
    """Return the sums; for a parameter without a gradient buffer, in the operation's dtype."""
    pairs = zip(sums, needs, strict=True)
    return [s if target(need) is not None else b.cast(s, dtype) for s, need in pairs]


def _row_sums(x: Array, out: Array, columns: int, rows: int) -> None:
    np.add.reduce(x, axis=1, dtype=out.dtype, out=out)


ROW_SUMS = RowKernel("row_sums", _row_sums, _CUDA.with_name("row_sums.cu"))


def summed(b: Backend, x: Array, axes: Shape, *, keepdims: bool = False) -> Array:
    """Return the sum over some axes in the dtype that kernels compute in; see `computed`.

    Integers and booleans are added up as in NumPy.

    Args:
        b: the backend of the array.
        x: any array.
        axes: the numbers of the axes, none negative and none twice.
        keepdims: whether the axes stay, with the size 1.

    Numerics:
        The error is at most 2 eps log2(n) sum |x|, in float32 for float16 and bfloat16.
    """
    if x.dtype.kind in "iub":
        return b.xp.asarray(b.xp.sum(x, axis=axes, keepdims=keepdims))
    kind = computed(x.dtype)
    others = [a for a in range(x.ndim) if a not in axes]
    shape = tuple(1 if a in axes else n for a, n in enumerate(x.shape) if keepdims or a in others)
    rows = math.prod(x.shape[a] for a in axes)
    columns = math.prod(x.shape[a] for a in others)
    if not rows or not columns:
        return b.zeros(shape, kind)
    out = b.empty((columns,), kind)
    if others and min(others) >= len(axes) and not (b.synchronous and kind == np.float64):
        column_sums(b, x.reshape(rows, columns), out)
    else:  # NumPy adds up float64 pairwise only along the last axis
        x = b.xp.ascontiguousarray(b.xp.transpose(x, (*others, *sorted(axes))))
        b.launch_matrix(ROW_SUMS, (columns, rows), x.dtype, x.reshape(columns, rows), out)
    return out.reshape(shape)


def axes_of(name: str, x: Array, axis: Any) -> Shape:
    """Return the numbers of the axes that a caller names, none of them negative.

    Args:
        name: the operation, for messages.
        x: an array, or another object with a shape.
        axis: an integer, a sequence of integers, or None for all axes. Negative numbers count from
            the end.

    Raises:
        ShapeError: an axis is not an integer, is outside the array, or is named twice.
    """
    ndim = len(x.shape)
    if axis is None:
        return tuple(range(ndim))
    named = tuple(axis) if isinstance(axis, tuple | list) else (axis,)
    whole = [isinstance(a, int | np.integer) and not isinstance(a, bool) for a in named]
    if not all(whole) or not all(-ndim <= a < ndim for a in named):
        raise ShapeError(
            f"got axis={axis!r} in {name} for an array of shape {tuple(x.shape)}; expected "
            f"integers from {-ndim} to {ndim - 1}"
            if ndim
            else f"got axis={axis!r} in {name} for a single number; expected an array with axes"
        )
    found = tuple(int(a) % ndim for a in named)
    if len(set(found)) < len(found):
        raise ShapeError(
            f"got axis={axis!r} in {name} for an array of shape {tuple(x.shape)}; expected each "
            f"of {ndim} axes once: leave out the repetition"
        )
    return found


def _spread(b: Backend, g: Array, shape: Shape, axes: Shape, keepdims: bool) -> Array:
    """Return a view of the reduced gradient in the shape before the reduction."""
    if not keepdims:
        g = g.reshape(tuple(1 if a in axes else n for a, n in enumerate(shape)))
    return b.xp.broadcast_to(g, shape)


@op
def sum_(
    b: Backend, x: Array, *, axis: int | Shape | None = None, keepdims: bool = False
) -> tuple[Array, Backward]:
    """Return the sum over all axes, or over `axis`.

    Args:
        x: any array.
        axis: an axis, or several; None for all.
        keepdims: whether the axes stay, with the size 1.

    Raises:
        ShapeError: an axis is outside the array, or is named twice.
        ArgumentError: `keepdims` is neither True nor False.

    Gradient:
        gy, broadcast over the axes that were summed.

    Numerics:
        The error is at most 2 eps log2(n) sum |x|. float16 and bfloat16 are added up in float32
        and rounded once.
    """
    axes, keepdims = axes_of("sum", x, axis), flag("keepdims", keepdims)
    if len(axes) == x.ndim:
        y = total(b, x).reshape((1,) * x.ndim if keepdims else ())
    else:
        y = summed(b, x, axes, keepdims=keepdims)
        y = y if x.dtype.kind in "iub" else b.cast(y, x.dtype)
    return y, lambda gy, needs: (_spread(b, gy, x.shape, axes, keepdims),)


@op
def mean(
    b: Backend, x: Array, *, axis: int | Shape | None = None, keepdims: bool = False
) -> tuple[Array, Backward]:
    """Return the mean over all axes, or over `axis`.

    Args:
        x: an array of floats; or of integers, whose mean is float64.
        axis: an axis, or several; None for all.
        keepdims: whether the axes stay, with the size 1.

    Raises:
        ShapeError: an axis is outside the array, or is named twice.
        DataError: there is nothing to average.
        ArgumentError: `keepdims` is neither True nor False.

    Gradient:
        gy / count, broadcast over the axes that were averaged.

    Numerics:
        As for `sum`; float16 and bfloat16 are rounded once, after the division.
    """
    axes, keepdims = axes_of("mean", x, axis), flag("keepdims", keepdims)
    count = math.prod(x.shape[a] for a in axes)
    _check_something("mean", x, count)
    if x.dtype.kind in "iub":
        y = b.xp.asarray(b.xp.mean(x, axis=axes, keepdims=keepdims))
        return y, lambda gy, needs: (None,)
    whole = b.xp.divide(summed(b, x, axes, keepdims=keepdims), count)
    share = 1 / count

    def backward(gy: Array, needs: Any) -> tuple[Array]:
        return (_spread(b, b.xp.multiply(gy, share), x.shape, axes, keepdims),)

    return b.cast(b.xp.asarray(whole), x.dtype), backward


def _check_something(name: str, x: Array, count: int) -> None:
    if not count:
        raise DataError(
            f"got an array of shape {tuple(x.shape)} in {name}; expected at least one element "
            "along the axes: check how the data were selected"
        )


@op
def max_(
    b: Backend, x: Array, *, axis: int | Shape | None = None, keepdims: bool = False
) -> tuple[Array, Backward]:
    """Return the maximum over all axes, or over `axis`.

    Args:
        x: any array.
        axis: an axis, or several; None for all.
        keepdims: whether the axes stay, with the size 1.

    Raises:
        ShapeError: an axis is outside the array, or is named twice.
        DataError: there is no element along the axes.
        ArgumentError: `keepdims` is neither True nor False.

    Gradient:
        gy at the maximum, 0 elsewhere; equal maxima share gy equally.
    """
    axes, keepdims = axes_of("max", x, axis), flag("keepdims", keepdims)
    _check_something("max", x, math.prod(x.shape[a] for a in axes))
    top = b.xp.max(x, axis=axes, keepdims=True)
    y = top if keepdims else b.xp.asarray(b.xp.max(x, axis=axes))

    def backward(gy: Array, needs: Any) -> tuple[Array]:
        kind = computed(x.dtype)
        hit = b.xp.equal(x, top)
        hits = summed(b, b.cast(hit, kind), axes, keepdims=True)
        share = b.xp.divide(gy.reshape(top.shape), hits)
        nothing = b.xp.divide(b.xp.subtract(hits, hits), hits)  # 0, or NaN for a maximum of NaN
        return (b.cast(b.xp.where(hit, share, nothing), x.dtype),)

    return y, backward


# sums over the steps of training -----------------------------------------------------------------

ACCUMULATE = Elementwise(
    "accumulate",
    "T loss, float64 weight -> float64 total",
    numpy=lambda loss, weight, total: np.add(total, float(loss) * weight, out=total),
    cuda="total = total + (double)loss * weight;",
)
