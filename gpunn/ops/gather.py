"""The gather of rows with checked bounds, and its inverse, which adds rows up."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from gpunn.backends import Backend, RowKernel
from gpunn.errors import DataError
from gpunn.typing import Array, DType


def _gather_body(
    x: Array,
    x_units: int,
    y: Array,
    y_units: int,
    index: Array,
    index_size: int,
    table_rows: int,
    tick: Array,
    ahead: int,
    x_out: Array,
    y_out: Array,
) -> None:
    first = (int(tick) + ahead) * len(x_out)
    index = index[first : first + len(x_out)]
    if len(index) < len(x_out):
        raise DataError(
            f"got {index_size} row numbers; expected at least {first + len(x_out)}: pass one for "
            "each row that is gathered"
        )
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
        DataError: on the CPU, a number is outside [0, R), or there are too few. Kernels on a GPU
            and in a compiled recording cannot raise: they write NaN (-1 for integers) to that row,
            and the loss reports it.
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
        rows_of_table = np.int64(len(self.tables[0]))
        where = (index, np.int64(len(index)), rows_of_table, tick, ahead)
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
