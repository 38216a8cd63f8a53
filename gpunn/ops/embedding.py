"""Rows of a weight by whole numbers."""

from __future__ import annotations

from typing import Any

import numpy as np

from gpunn.arguments import count
from gpunn.autograd.engine import Backward
from gpunn.autograd.op import Op
from gpunn.backends import Backend, Elementwise
from gpunn.errors import ArgumentError, DataError, DTypeError, ShapeError
from gpunn.ops.shaping import taken
from gpunn.typing import Array, DType

UNKNOWN = -1


def _code_rows(x: Array, count: float, row: Array) -> None:
    known = (x >= 0) & (x < count) & (np.floor(x) == x)
    np.copyto(row, UNKNOWN)
    np.copyto(row, x, casting="unsafe", where=known)


CODE_ROWS = Elementwise(
    "code_rows",
    "x, T count -> int64 row",
    numpy=_code_rows,
    cuda="row = x >= T(0) && x < count && floor(x) == x ? (long long)x : -1LL;",
)


def _check_known(codes: Array, rows: Array, count: int) -> tuple[()]:
    wrong = codes[rows == UNKNOWN]
    if wrong.size:
        raise DataError(
            f"got the code {wrong[0]} in embedding; expected whole numbers from 0 to {count - 1}: "
            "number the categories from 0, or raise num_embeddings"
        )
    return ()


def told_apart(dtype: DType) -> int:
    """Return how many whole numbers, counted from 0, a float dtype can tell apart."""
    return {"float16": 2**11, "bfloat16": 2**8, "float32": 2**24}.get(np.dtype(dtype).name, 2**53)


def row_number(padding_idx: object, rows: int) -> int | None:
    """Return the number of a row, counted from the start; None for None.

    Raises:
        ArgumentError: there is no such row.
    """
    if padding_idx is None:
        return None
    found = count("padding_idx", padding_idx, -rows)
    if found >= rows:
        raise ArgumentError(
            f"got padding_idx={padding_idx}; expected a code from {-rows} to {rows - 1}, or None"
        )
    return found % rows


class Embedding(Op):
    """An operation whose first argument, the codes, may have any dtype."""

    any_float = (0,)


def _embedding(
    b: Backend, codes: Array, weight: Array, *, padding_idx: int | None = None
) -> tuple[Array, Backward]:
    """Return rows of the weight by their numbers, y[n] = weight[codes[n]].

    Unlike in `take`, the numbers may be floats, and negative ones do not count from the end.

    Args:
        codes: whole numbers from 0 to R - 1, of any shape; integers or floats.
        weight: (R, D).
        padding_idx: a row that gets no gradient, from -R to R - 1; None for no such row.

    Returns:
        (..., D), the shape of the codes followed by D.

    Raises:
        DataError: on the CPU, a code is not such a number. On a GPU that row is NaN, which the loss
            reports.
        DTypeError: the codes are booleans, or floats that cannot tell R numbers apart: float16
            does so up to 2,048 and bfloat16 up to 256.
        ShapeError: the weight is not (R, D).
        ArgumentError: `padding_idx` is no row.

    Gradient:
        gweight[r] = sum of gy[n] over all n with codes[n] = r, in the order of n.
    """
    if weight.ndim != 2:
        raise ShapeError(f"got a weight of shape {weight.shape} in embedding; expected (R, D)")
    size, columns = weight.shape
    if codes.dtype.kind == "b" or (codes.dtype.kind not in "iu" and size > told_apart(codes.dtype)):
        raise DTypeError(
            f"got codes of {codes.dtype} for {size} rows in embedding; expected integers, or a "
            "float dtype that tells as many numbers apart: use float32, or pass integers"
        )
    whole = codes.dtype.kind in "iu"
    rows = b.launch(CODE_ROWS, b.cast(codes, np.float64) if whole else codes, float(size))
    if b.synchronous:
        b.host(_check_known, codes, rows, size)  # a recording checks again at every repetition
    y, back = taken(b, weight, rows, 1)
    padding = row_number(padding_idx, size)

    def backward(gy: Array, needs: Any) -> tuple[None, Array | None]:
        if not needs[1]:
            return None, None
        gweight = back(gy)
        if padding is not None:
            b.copy_to(gweight[padding], b.zeros((columns,), weight.dtype))
        return None, gweight

    return y, backward


embedding = Embedding(_embedding, "embedding")
