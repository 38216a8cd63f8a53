"""Operations that move elements without computing, and the gather of rows with checked bounds."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from gpunn.autograd import Tensor, op
from gpunn.autograd.engine import Backward
from gpunn.autograd.op import Op
from gpunn.backends import Backend, RowKernel, backend_of, computed
from gpunn.errors import ArgumentError, DataError, DTypeError, ShapeError
from gpunn.typing import Array, DType


@op
def reshape(b: Backend, x: Array, shape: Any) -> tuple[Array, Backward]:
    """Return the same elements in another shape; one size may be -1, to be computed.

    Gradient:
        gy in the old shape.
    """
    try:
        y = x.reshape(shape)
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

    Gradient:
        gy in the dtype of x. Integers and booleans pass no gradient.
    """
    kind = np.dtype(dtype)
    y = b.cast(x, kind)
    if kind.kind in "iub":
        return y, lambda gy, needs: (None, None)
    return y, lambda gy, needs: (b.cast(gy, x.dtype), None)


@op
def transpose(b: Backend, x: Array, axes: Any = None) -> tuple[Array, Backward]:
    """Return x with its axes in another order; in reversed order for None.

    Gradient:
        gy with the axes in the old order.
    """
    if axes is not None:
        if sorted(a % max(x.ndim, 1) for a in axes) != list(range(x.ndim)):
            raise ShapeError(
                f"got axes {tuple(axes)}; expected each of {x.ndim} axes once: name all of them"
            )
        axes = tuple(a % x.ndim for a in axes)
    back = None if axes is None else tuple(int(a) for a in np.argsort(axes))
    return b.xp.transpose(x, axes), lambda gy, needs: (b.xp.transpose(gy, back), None)


def _concatenate(b: Backend, *xs: Array, axis: int = -1) -> tuple[Array, Backward]:
    """Join tensors along an axis.

    Args:
        xs: arrays whose shapes agree except along `axis`.
        axis: the axis.

    Gradient:
        Each input gets its part of gy.
    """
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


def _gather_body(
    x: Array,
    x_units: int,
    y: Array,
    y_units: int,
    index: Array,
    table_rows: int,
    tick: Array,
    ahead: int,
    x_out: Array,
    y_out: Array,
) -> None:
    first = (int(tick) + ahead) * len(x_out)
    index = index[first : first + len(x_out)]
    if index.size:  # argmin, item and take run in C alone, which matters for small batches
        low, high = index.item(index.argmin()), index.item(index.argmax())
        if low < 0 or high >= table_rows:
            raise DataError(
                f"got row numbers from {low} to {high}; expected 0 to {table_rows - 1}: check the "
                "indices"
            )
    x.take(index, 0, x_out, "clip")
    if y_units:
        y.take(index, 0, y_out, "clip")


GATHER_ROWS = RowKernel(
    "gather_rows",
    numpy=_gather_body,
    cuda_file=Path(__file__).parent / "cuda" / "gather_rows.cu",
    threads=128,
    dtypes=("uint8", "uint16", "uint32", "uint64"),
)


def gather_rows(b: Backend, table: Array, index: Array, out: Array | None = None) -> Array:
    """Return rows of a table by their numbers: y[n] = table[index[n]].

    Args:
        b: the backend of both arrays.
        table: (R, ...) of any dtype, contiguous.
        index: (N,) int64.
        out: (N, ...) of the table's dtype; None for a new array.

    Returns:
        (N, ...).

    Raises:
        DataError: on the CPU, a number is outside [0, R). Kernels on a GPU and in a compiled
            recording cannot raise: they write NaN (-1 for integers) to that row, and the loss
            reports it.
    """
    gather = RowGather(b, (table,))
    return gather(index, b.zero(), 0, len(index), None if out is None else (out,))[0]


class RowGather:
    """A gather of rows from one or two tables by their numbers, in one launch.

    Args:
        b: the backend of the tables.
        tables: one or two arrays (R, ...) of any dtype, contiguous.
    """

    def __init__(self, b: Backend, tables: tuple[Array, ...]) -> None:
        self.backend, self.tables = b, tables
        sizes = [t.dtype.itemsize * math.prod(t.shape[1:]) for t in tables]
        places = [*sizes, *map(_start, tables)]
        self._unit = next(u for u in (8, 4, 2, 1) if not any(place % u for place in places))
        self._units = np.dtype(f"uint{8 * self._unit}")
        self._given: list[Any] = []
        for table, size in zip(tables, sizes, strict=True):
            self._given += [_as_units(table, self._units), size // self._unit]
        if len(tables) == 1:
            self._given += [self._given[0], 0]

    def __call__(
        self,
        index: Array,
        tick: Array,
        ahead: int,
        rows: int,
        out: tuple[Array, ...] | None = None,
    ) -> tuple[Array, ...]:
        """Return the rows with the numbers `index[(tick + ahead) * rows + n]`, n in range(rows).

        Args:
            index: int64 row numbers.
            tick: a 0-d int64 array on the device.
            ahead: the number to add to `tick`.
            rows: the number of rows to gather.
            out: (rows, ...) arrays, one for each table; None for new ones.
        """
        b = self.backend
        if out is None:
            out = tuple(b.empty((rows, *t.shape[1:]), t.dtype) for t in self.tables)
        where = (index, np.int64(len(self.tables[0])), tick, ahead)
        units = [_as_units(array, self._units) for array in out]
        ends = (units[0], units[-1])
        b.launch_rows(GATHER_ROWS, rows, self._units, *self._given, *where, *ends)
        return out


def _as_units(array: Array, dtype: DType) -> Array:
    """Return a device array as rows of copy units for the kernel; a host array as it is."""
    return array if isinstance(array, np.ndarray) else array.reshape(len(array), -1).view(dtype)


def _start(array: Array) -> int:
    """Return the address of a device array, which limits the copy unit; 0 on the host."""
    return 0 if isinstance(array, np.ndarray) else int(array.data.ptr)


def _scatter_body(
    gy: Array, index: Array, gx: Array, rest: Array, table_rows: int, columns: int, rows: int
) -> None:
    whole = np.add(gx, rest, dtype=np.float64)
    np.add.at(whole, index, gy.astype(np.float64))
    gx[...] = whole
    np.subtract(whole, gx, out=rest, casting="same_kind")


SCATTER_ROWS = RowKernel(
    "scatter_rows",
    numpy=_scatter_body,
    cuda_file=Path(__file__).parent / "cuda" / "scatter_rows.cu",
    by_columns=True,
)


def _taken(b: Backend, x: Array, numbers: Array, axes: int) -> tuple[Array, Callable[..., Array]]:
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
    y, back = _taken(b, x, _row_numbers(b, x, (index,)), 1)
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
        if not (part is None or part is Ellipsis or isinstance(part, int | np.integer | slice)):
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
        y, back = _taken(b, x, _row_numbers(b, x, own), len(own))
    elif all(isinstance(a, np.ndarray) for a in arrays):
        try:
            # the mask is read on the host, so a recording cannot repeat this work
            known = [backend_of(p).download(p) if hasattr(p, "dtype") else p for p in parts]
            numbers = np.arange(x.size).reshape(x.shape)[tuple(known)]
        except IndexError as error:
            raise DataError(f"got an index outside an array of shape {x.shape}: {error}") from error
        y, back = _taken(b, x, b.upload(np.asarray(numbers)), x.ndim)
    else:
        raise ArgumentError(
            f"got an index on {b.device} with a mask, or with an array beside slices; expected "
            "only arrays of integers: pass the index as a NumPy array"
        )
    return y, lambda gy, needs: (back(gy), None)
