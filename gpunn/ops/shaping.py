"""Operations that move elements without changing them, and the bounds-checked gather of rows."""

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
from gpunn.backends import Backend, RowKernel, backend_of
from gpunn.errors import ArgumentError, DataError, DTypeError, ShapeError
from gpunn.typing import Array, DType


@op
def reshape(b: Backend, x: Array, shape: Any) -> tuple[Array, Backward]:
    """The same elements in another shape; -1 stands for what is left.

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
    """The same numbers in another dtype.

    Args:
        x: any array.
        dtype: float16, bfloat16, float32 or float64; or an integer dtype, which ends the graph.

    Gradient:
        gy in the dtype of x; none through integers.
    """
    kind = np.dtype(dtype)
    y = b.cast(x, kind)
    if kind.kind in "iub":
        return y, lambda gy, needs: (None, None)
    return y, lambda gy, needs: (b.cast(gy, x.dtype), None)


@op
def transpose(b: Backend, x: Array, axes: Any = None) -> tuple[Array, Backward]:
    """The axes in another order; reversed for None.

    Gradient:
        gy with the axes put back.
    """
    if axes is not None:
        if sorted(a % max(x.ndim, 1) for a in axes) != list(range(x.ndim)):
            raise ShapeError(f"got axes {tuple(axes)}; expected each of {x.ndim} axes once")
        axes = tuple(a % x.ndim for a in axes)
    back = None if axes is None else tuple(int(a) for a in np.argsort(axes))
    return b.xp.transpose(x, axes), lambda gy, needs: (b.xp.transpose(gy, back), None)


def _concatenate(b: Backend, *xs: Array, axis: int = -1) -> tuple[Array, Backward]:
    """Several tensors one after another along an axis.

    Args:
        xs: arrays whose shapes agree but for `axis`.
        axis: the axis.

    Gradient:
        Each gets its part of gy.
    """
    try:
        y = b.xp.concatenate(xs, axis=axis)
    except ValueError as error:
        raise ShapeError(
            f"got shapes {', '.join(str(x.shape) for x in xs)} to concatenate along axis {axis}; "
            "expected the same shape but for that axis"
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
    if index.size:  # the methods that are C from end to end: 0.8 us a batch of 32 rows, not 3.6
        low, high = index.item(index.argmin()), index.item(index.argmax())
        if low < 0 or high >= table_rows:
            raise DataError(f"got row numbers from {low} to {high}; expected 0 to {table_rows - 1}")
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
    """Rows of a table by their numbers: y[n] = table[index[n]].

    Args:
        b: the backend of both arrays.
        table: (R, ...) of any dtype, contiguous.
        index: (N,) int64.
        out: (N, ...) of the table's dtype; new when None.

    Returns:
        (N, ...).

    Raises:
        DataError: on the CPU, a number outside [0, R). A GPU and a compiled recording, which
            cannot raise inside a kernel, write NaN (-1 for integers) there, which the loss reports.
    """
    gather = RowGather(b, (table,))
    return gather(index, b.zero(), 0, len(index), None if out is None else (out,))[0]


class RowGather:
    """Gathers rows of one or two tables by their numbers, in one launch.

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
        """Rows number `index[(tick + ahead) * rows + n]` for n in range(rows).

        Args:
            index: int64 row numbers.
            tick: 0-d int64 of the device.
            ahead: added to it.
            rows: how many.
            out: (rows, ...) arrays, one for each table; new when None.
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
    """A device array as the kernel copies it, in units; a host array as NumPy copies it."""
    return array if isinstance(array, np.ndarray) else array.reshape(len(array), -1).view(dtype)


def _start(array: Array) -> int:
    """The address of a device array, of which a kernel reads whole units only; 0 on the host."""
    return 0 if isinstance(array, np.ndarray) else int(array.data.ptr)


def _scatter_body(
    gy: Array, index: Array, gx: Array, table_rows: int, columns: int, rows: int
) -> None:
    np.add.at(gx, index, gy)


SCATTER_ROWS = RowKernel(
    "scatter_rows",
    numpy=_scatter_body,
    cuda_file=Path(__file__).parent / "cuda" / "scatter_rows.cu",
    by_columns=True,
)


def _taken(b: Backend, x: Array, numbers: Array, axes: int) -> tuple[Array, Callable[..., Array]]:
    """Parts of x by number, counted over its first axes; and how a gradient goes back."""
    rest = x.shape[axes:]
    count = math.prod(x.shape[:axes])
    table = b.xp.ascontiguousarray(x).reshape(count, math.prod(rest))
    index = b.xp.ascontiguousarray(b.cast(numbers, np.int64)).reshape(-1)
    shape = (*numbers.shape, *rest)
    if index.size and not count:
        raise DataError(f"got an index into an array of shape {x.shape}, which has no rows")
    filled = index.size and table.shape[1]
    y = gather_rows(b, table, index).reshape(shape) if filled else b.empty(shape, x.dtype)

    def backward(gy: Array) -> Array:
        gx = b.zeros(table.shape, x.dtype)
        if gy.size:
            shape = (len(index), table.shape[1])
            parts = b.xp.ascontiguousarray(gy).reshape(shape)
            b.launch_matrix(SCATTER_ROWS, shape, x.dtype, parts, index, gx, count)
        return gx.reshape(x.shape)

    return y, backward


@op
def take(b: Backend, x: Array, index: Array) -> tuple[Array, Backward]:
    """Rows of x by their numbers, y[n] = x[index[n]]; `x[index]` of a tensor is this.

    Args:
        x: (R, ...).
        index: integers of any shape, from -R to R - 1; below 0 they count from the end.

    Returns:
        The shape of `index`, then that of a row.

    Raises:
        DataError: on the CPU, a number out of range. On a GPU that row is NaN.
        DTypeError: numbers that are not integers.

    Gradient:
        gx[r] = sum of gy[n] over all n with index[n] = r, in the order of n.
    """
    y, back = _taken(b, x, _row_numbers(b, x, (index,)), 1)
    return y, lambda gy, needs: (back(gy), None)


def _row_numbers(b: Backend, x: Array, index: tuple[Array, ...]) -> Array:
    """Numbers of parts of x, from one array of integers for each of its first axes."""
    if len(index) > x.ndim:
        raise ShapeError(f"got {len(index)} indices for an array of shape {x.shape}")
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
    """A part of x, as NumPy indexes: integers, slices, None, Ellipsis, arrays, masks.

    Args:
        x: any array.
        index: what stands between the brackets. Arrays of integers may be of the host or of x's
            device; masks, and arrays beside slices, are of the host.

    Raises:
        ArgumentError: a mask of a GPU, or an array of one beside slices.
        DataError: on the CPU, a number out of range. On a GPU that part is NaN.

    Gradient:
        gy in that part, 0 elsewhere; what comes more than once gets the sum.
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
        parts = (*parts, Ellipsis)  # NumPy then gives a view, also of one element

    def backward(gy: Array, needs: Any) -> tuple[Array, None]:
        gx = b.zeros(x.shape, x.dtype)
        b.copy_to(gx[parts], gy)
        return gx, None

    return x[parts], backward


def _indexed(
    b: Backend, x: Array, parts: tuple[Any, ...], arrays: list[Array]
) -> tuple[Array, Backward]:
    """A part of x by an index with arrays in it."""
    integers = len(arrays) == len(parts) and all(a.dtype.kind in "iu" for a in arrays)
    if integers:
        own = tuple(a if backend_of(a) is b else b.upload(a) for a in arrays)
        y, back = _taken(b, x, _row_numbers(b, x, own), len(own))
    elif all(isinstance(a, np.ndarray) for a in arrays):
        try:
            # a mask is read: work that does this is not repeated
            known = [backend_of(p).download(p) if hasattr(p, "dtype") else p for p in parts]
            numbers = np.arange(x.size).reshape(x.shape)[tuple(known)]
        except IndexError as error:
            raise DataError(f"got an index outside an array of shape {x.shape}: {error}") from error
        y, back = _taken(b, x, b.upload(np.asarray(numbers)), x.ndim)
    else:
        raise ArgumentError(
            f"got an index with a mask of {b.device}, or with an array of it beside slices; "
            "expected arrays of integers alone: pass the index as a NumPy array"
        )
    return y, lambda gy, needs: (back(gy), None)
