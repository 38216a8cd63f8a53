"""Operations that move elements without computing."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np

from gpunn.autograd import Tensor, op
from gpunn.autograd.engine import Backward
from gpunn.autograd.op import Op
from gpunn.backends import Backend, backend_of, computed
from gpunn.backends.dtypes import real_dtype
from gpunn.errors import ArgumentError, DataError, DTypeError, ShapeError
from gpunn.ops.gather import SCATTER_ROWS, gather_rows
from gpunn.ops.reductions import axes_of
from gpunn.typing import Array


@op
def reshape(b: Backend, x: Array, shape: Any) -> tuple[Array, Backward]:
    """Return the same elements in another shape; one size may be -1, to be computed.

    Args:
        x: any array.
        shape: an integer or a sequence of integers.

    Raises:
        ShapeError: a size is not an integer or is below -1, or the numbers of elements differ.

    Gradient:
        gy in the old shape.
    """
    sizes = tuple(shape) if isinstance(shape, tuple | list) else (shape,)
    whole = [isinstance(n, int | np.integer) and not isinstance(n, bool) for n in sizes]
    if not all(whole) or min(sizes, default=0) < -1:
        raise ShapeError(
            f"got reshape of {x.shape} to {shape}; expected integers of at least 0, or -1 for one "
            "size that is to be computed"
        )
    try:
        y = x.reshape(sizes)
    except ValueError as error:
        raise ShapeError(
            f"got reshape of {x.shape} to {shape}; expected the same number of elements, {x.size}"
        ) from error
    return y, lambda gy, needs: (gy.reshape(x.shape), None)


@op
def astype(b: Backend, x: Array, dtype: Any) -> tuple[Array, Backward]:
    """Return the same numbers in another dtype.

    Args:
        x: any array.
        dtype: float16, bfloat16, float32 or float64; or an integer or boolean dtype.

    Raises:
        DTypeError: `dtype` is another one.
        DataError: on the CPU, an integer dtype does not have one of the numbers: it is too large,
            negative, NaN or infinite. A GPU does not check this, as it would have to wait.

    Gradient:
        gy in the dtype of x. Integers and booleans pass no gradient.

    Numerics:
        A fraction is cut off for an integer dtype. A float dtype rounds, also an integer with more
        digits than it has; a number beyond its range becomes infinite.
    """
    kind = real_dtype(dtype)
    _check_whole(b, x, kind)
    y = b.cast(x, kind)
    if kind.kind in "iub":
        return y, lambda gy, needs: (None, None)
    return y, lambda gy, needs: (b.cast(gy, x.dtype), None)


def _check_whole(b: Backend, x: Array, kind: np.dtype[Any]) -> None:
    if kind.kind not in "iu" or not b.synchronous or not x.size or x.dtype == kind:
        return
    limits = np.iinfo(kind)
    low, high = b.xp.min(x).item(), b.xp.max(x).item()
    if not (limits.min - 1 < low and high < limits.max + 1):  # NaN is neither
        raise DataError(
            f"got numbers from {low} to {high} for {kind}; expected {limits.min} to {limits.max}: "
            "choose another dtype, or replace the numbers"
        )


@op
def transpose(b: Backend, x: Array, axes: Any = None) -> tuple[Array, Backward]:
    """Return x with its axes in another order; in reversed order for None.

    Args:
        x: any array.
        axes: the number of every axis, once; negative numbers count from the end.

    Raises:
        ShapeError: an axis is missing, named twice or outside the array.

    Gradient:
        gy with the axes in the old order.
    """
    if axes is not None:
        given = axes[0] if len(axes) == 1 and isinstance(axes[0], tuple | list) else axes
        axes = axes_of("transpose", x, tuple(given))
        if len(axes) != x.ndim:
            raise ShapeError(
                f"got axes {tuple(given)}; expected each of {x.ndim} axes once: name all of them"
            )
    back = None if axes is None else tuple(int(a) for a in np.argsort(axes))
    return b.xp.transpose(x, axes), lambda gy, needs: (b.xp.transpose(gy, back), None)


def _concatenate(b: Backend, *xs: Array, axis: int = -1) -> tuple[Array, Backward]:
    """Join tensors along an axis.

    Args:
        xs: arrays of one dtype, whose shapes agree except along `axis`.
        axis: the axis.

    Raises:
        ShapeError: the shapes do not fit, or there is no such axis.
        DTypeError: an input is no array, or the dtypes differ.

    Gradient:
        Each input gets its part of gy.
    """
    dtypes = [getattr(x, "dtype", type(x).__name__) for x in xs]
    if any(dtype != xs[0].dtype for dtype in dtypes):
        raise DTypeError(
            f"got {', '.join(map(str, dtypes))} to concatenate; expected arrays of one dtype: use "
            "astype"
        )
    (axis,) = axes_of("concatenate", xs[0], (axis,))
    try:
        y = b.xp.concatenate(xs, axis=axis)
    except ValueError as error:
        raise ShapeError(
            f"got shapes {', '.join(str(x.shape) for x in xs)} to concatenate along axis {axis}; "
            "expected the same shape except along that axis: reshape one of them"
        ) from error
    edges = np.cumsum([0, *(x.shape[axis] for x in xs)]).tolist()

    def backward(gy: Array, needs: Any) -> tuple[Array, ...]:
        gy = b.xp.moveaxis(gy, axis, 0)
        return tuple(b.xp.moveaxis(gy[i:j], 0, axis) for i, j in pairwise(edges))

    return y, backward


concatenate = Op(_concatenate, "concatenate")


def taken(b: Backend, x: Array, numbers: Array, axes: int) -> tuple[Array, Callable[..., Array]]:
    """Return parts of x by number, counted over its first axes, and the backward function."""
    rest = x.shape[axes:]
    count = math.prod(x.shape[:axes])
    table = b.xp.ascontiguousarray(x).reshape(count, math.prod(rest))
    index = b.xp.ascontiguousarray(b.cast(numbers, np.int64)).reshape(-1)
    shape = (*numbers.shape, *rest)
    if index.size and not count:
        raise DataError(
            f"got an index into an array of shape {x.shape}; expected an array with rows: pass an "
            "empty index for an empty array"
        )
    filled = index.size and table.shape[1]
    y = gather_rows(b, table, index).reshape(shape) if filled else b.empty(shape, x.dtype)

    def backward(gy: Array) -> Array:
        if not gy.size:
            return b.zeros(x.shape, x.dtype)
        gx, rest = (b.zeros(table.shape, computed(x.dtype)) for _ in range(2))
        shape = (len(index), table.shape[1])
        parts = b.xp.ascontiguousarray(gy).reshape(shape)
        b.launch_matrix(SCATTER_ROWS, shape, x.dtype, parts, index, gx, rest, count)
        return b.cast(b.xp.add(gx, rest), x.dtype).reshape(x.shape)

    return y, backward


@op
def take(b: Backend, x: Array, index: Array) -> tuple[Array, Backward]:
    """Return rows of x by their numbers, y[n] = x[index[n]]. `x[index]` of a tensor does the same.

    Args:
        x: (R, ...).
        index: integers of any shape, from -R to R - 1; negative numbers count from the end.

    Returns:
        An array with the shape of `index`, followed by the shape of a row.

    Raises:
        DataError: on the CPU, a number is out of range. On a GPU that row is NaN.
        DTypeError: the numbers are not integers.

    Gradient:
        gx[r] = sum of gy[n] over all n with index[n] = r, in the order of n.
    """
    y, back = taken(b, x, _row_numbers(b, x, (index,)), 1)
    return y, lambda gy, needs: (back(gy), None)


def _row_numbers(b: Backend, x: Array, index: tuple[Array, ...]) -> Array:
    """Return the numbers of parts of x, from one array of integers for each of its first axes."""
    if len(index) > x.ndim:
        raise ShapeError(
            f"got {len(index)} indices for an array of shape {x.shape}; expected at most "
            f"{x.ndim}: leave some out"
        )
    numbers, known = 0, True
    for part, size in zip(index, x.shape, strict=False):
        if np.dtype(part.dtype).kind not in "iu":
            raise DTypeError(
                f"got an index of dtype {part.dtype}; expected integers: use astype('int64')"
            )
        if part.dtype == np.uint64:  # as int64, the largest numbers would count from the end
            part = b.xp.minimum(part, np.uint64(np.iinfo(np.int64).max))
        at = b.cast(part, np.int64)
        at = b.xp.where(b.xp.less(at, 0), b.xp.add(at, size), at)
        inside = b.xp.logical_and(b.xp.greater_equal(at, 0), b.xp.less(at, size))
        numbers = b.xp.add(b.xp.multiply(numbers, size), at)
        known = b.xp.logical_and(known, inside)
    return b.xp.where(known, numbers, -1)


@op
def getitem(b: Backend, x: Array, index: Any) -> tuple[Array, Backward]:
    """Return a part of x, indexed as in NumPy: integers, slices, None, Ellipsis, arrays, masks.

    Args:
        x: any array.
        index: the index between the brackets. Arrays of integers may be on the host or on the
            device of x. Masks, and arrays combined with slices, must be on the host.

    Raises:
        ArgumentError: a mask is on a GPU, or an array on a GPU is combined with slices.
        DataError: on the CPU, a number is out of range. On a GPU that part is NaN.

    Gradient:
        gy in that part, 0 elsewhere. An element that was taken several times gets the sum.
    """
    parts = index if isinstance(index, tuple) else (index,)
    parts = tuple(part.data if isinstance(part, Tensor) else part for part in parts)
    parts = tuple(np.asarray(p, None if p else int) if isinstance(p, list) else p for p in parts)
    arrays = [part for part in parts if hasattr(part, "dtype") and part.ndim]
    if arrays:
        return _indexed(b, x, parts, arrays)
    for part in parts:
        kinds = int | np.integer | slice
        if isinstance(part, bool) or not (
            part is None or part is Ellipsis or isinstance(part, kinds)
        ):
            raise ArgumentError(
                f"got an index of type {type(part).__name__}; expected integers, slices, arrays of "
                "integers or masks: use numpy.asarray"
            )

    if not any(part is Ellipsis for part in parts):
        parts = (*parts, Ellipsis)  # with it NumPy returns a view even of one element

    def backward(gy: Array, needs: Any) -> tuple[Array, None]:
        gx = b.zeros(x.shape, x.dtype)
        b.copy_to(gx[parts], gy)
        return gx, None

    return x[parts], backward


def _indexed(
    b: Backend, x: Array, parts: tuple[Any, ...], arrays: list[Array]
) -> tuple[Array, Backward]:
    """Return a part of x by an index with arrays in it."""
    integers = len(arrays) == len(parts) and all(a.dtype.kind in "iu" for a in arrays)
    if integers:
        own = tuple(a if backend_of(a) is b else b.upload(a) for a in arrays)
        y, back = taken(b, x, _row_numbers(b, x, own), len(own))
    elif all(isinstance(a, np.ndarray) for a in arrays):
        try:
            # the mask is read on the host, so a recording cannot repeat this work
            known = [backend_of(p).download(p) if hasattr(p, "dtype") else p for p in parts]
            numbers = np.arange(x.size).reshape(x.shape)[tuple(known)]
        except IndexError as error:
            raise DataError(f"got an index outside an array of shape {x.shape}: {error}") from error
        y, back = taken(b, x, b.upload(np.asarray(numbers)), x.ndim)
    else:
        raise ArgumentError(
            f"got an index on {b.device} with a mask, or with an array beside slices; expected "
            "only arrays of integers: pass the index as a NumPy array"
        )
    return y, lambda gy, needs: (back(gy), None)
