"""Operations that move elements without changing them, and the bounds-checked gather of rows."""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from gpunn.autograd import op
from gpunn.autograd.engine import Backward
from gpunn.autograd.op import Op
from gpunn.backends import Backend, RowKernel
from gpunn.errors import ArgumentError, DataError, ShapeError
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


@op
def getitem(b: Backend, x: Array, index: Any) -> tuple[Array, Backward]:
    """A part of x by integers, slices, None and Ellipsis.

    Gradient:
        gy in that part, 0 elsewhere.

    Raises:
        ArgumentError: an index array; on a GPU one that is out of range would wrap in silence.
    """
    parts = index if isinstance(index, tuple) else (index,)
    for part in parts:
        if not (part is None or part is Ellipsis or isinstance(part, int | slice)):
            raise ArgumentError(
                f"got an index of type {type(part).__name__}; expected integers and slices: use "
                "gpunn.ops.gather_rows for an array of row numbers"
            )

    def backward(gy: Array, needs: Any) -> tuple[Array, None]:
        gx = b.zeros(x.shape, x.dtype)
        gx[index] = gy
        return gx, None

    return b.xp.asarray(x[index]), backward


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
