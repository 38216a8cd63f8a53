"""Operations that move elements without changing them, and the bounds-checked gather of rows."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np

from gpunn.autograd import op
from gpunn.autograd.engine import Backward
from gpunn.autograd.op import Op
from gpunn.backends import Backend, Elementwise
from gpunn.errors import ArgumentError, DataError, ShapeError
from gpunn.typing import Array, Shape


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


def _gather_body(table: Array, index: Array, rows: int, width: int, fill: float, y: Array) -> None:
    if index.size and not (int(index.min()) >= 0 and int(index.max()) < rows):
        raise DataError(
            f"got row numbers from {index.min()} to {index.max()}; expected 0 to {rows - 1}"
        )
    np.take(table, index, axis=0, out=y, mode="clip")


GATHER_ROWS = Elementwise(
    "gather_rows",
    "raw T table, raw int64 index, int64 rows, int64 width, T fill -> y",
    numpy=_gather_body,
    cuda=(
        "const long long row = index[i / width]; "
        "y = (row >= 0 && row < rows) ? table[row * width + i % width] : fill;"
    ),
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
        DataError: on the CPU, a number outside [0, R). A GPU, which cannot raise inside a kernel,
            writes NaN (-1 for integers) there, which the loss reports.
    """
    shape: Shape = (*index.shape, *table.shape[1:])
    y = b.empty(shape, table.dtype) if out is None else out
    width = int(np.prod(table.shape[1:], dtype=np.int64))
    fill = float("nan") if np.dtype(table.dtype).kind == "f" else -1
    b.launch(GATHER_ROWS, table, index, table.shape[0], width, fill, out=y)
    return y
