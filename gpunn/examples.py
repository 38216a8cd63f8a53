"""Conversion of examples and targets to arrays, the same for models, trainers and data sets."""

from __future__ import annotations

from typing import Any

import numpy as np

from gpunn.autograd import Tensor
from gpunn.backends import as_array, backend_of
from gpunn.errors import DataError, DTypeError, ShapeError
from gpunn.frames import from_frame
from gpunn.sparse import is_sparse

BATCH_ROWS = 4096
"""The number of examples that are read, predicted or evaluated at a time.

Matrix products of another size may round differently. A file and an array must be divided in the
same way to give the same results.
"""


def rows_of(x: Any, name: str) -> Any:
    """Convert data to an array or a sparse matrix with one row per example.

    Args:
        x: a tensor, an array of NumPy or CuPy, a frame or column of pandas or Polars, a sparse
            matrix of SciPy, or nested sequences of numbers. An array is not copied.
        name: the name of the data in messages.

    Raises:
        ShapeError: `x` is a single number.
        DTypeError, DataError: `x` or one of its columns does not contain numbers.
    """
    if not is_sparse(x):
        x = as_array(x.data if isinstance(x, Tensor) else from_frame(x, name))
    if x.dtype.kind not in "fiub":
        raise DTypeError(
            f"got {name} of dtype {x.dtype}; expected numbers: encode text as integers first"
        )
    if not x.ndim:
        raise ShapeError(
            f"got a single number as {name}; expected (N, ...): pass one row per example"
        )
    return x


def edges(rows: int, pieces: int) -> list[int]:
    """Return where each piece of some rows starts, and the number of rows: pieces + 1 numbers."""
    return [piece * rows // pieces for piece in range(pieces + 1)]


def column_scales(x: Any) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Compute the mean and the standard deviation of each column.

    Args:
        x: (N, D) finite numbers; see `rows_of`. Sparse matrices are refused.

    Returns:
        (D,) float64 means and deviations. The deviation of a constant column is 1.

    Raises:
        ShapeError: `x` is not (N, D).
        DataError: `x` has no rows, contains NaN or infinity, or is a sparse matrix.
    """
    x = _finite_columns(x)
    # The range shows a constant column. Its standard deviation may round to 1e-17 instead of 0.
    constant = x.max(axis=0) == x.min(axis=0)
    deviation = np.where(constant, 1.0, x.std(axis=0, dtype=np.float64))
    return x.mean(axis=0, dtype=np.float64), deviation


def _finite_columns(x: Any) -> np.ndarray[Any, Any]:
    """Return examples as (N, D) finite numbers on the host."""
    x = rows_of(x, "x")
    if is_sparse(x):
        raise DataError(
            "got sparse x to standardize; expected dense rows, because zeros would become other "
            "numbers: use x.toarray()"
        )
    x = backend_of(x).download(x)
    if x.ndim != 2:
        raise ShapeError(f"got x of shape {x.shape}; expected (N, D): use x.reshape(len(x), -1)")
    if not x.size or not np.isfinite(x).all():
        raise DataError(
            f"got x of shape {x.shape} that is empty, or contains NaN or infinity; expected finite "
            "numbers: look for missing values in the data"
        )
    found: np.ndarray[Any, Any] = x
    return found


def column_quartiles(x: Any) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Compute the median of each column, and the inverse of the distance of its quartiles.

    Args:
        x: (N, D) finite numbers, as for `column_scales`.

    Returns:
        (D,) float64 medians and scales. The scale is 1 / (q75 - q25); if that distance is 0,
        2 / (max - min); and 0 for a constant column.

    Raises:
        ShapeError, DataError: as for `column_scales`.
    """
    x = _finite_columns(x)
    low, middle, high = np.quantile(x.astype(np.float64), [0.25, 0.5, 0.75], axis=0)
    width = np.where(high > low, high - low, (x.max(axis=0) - x.min(axis=0)) / 2.0)
    return middle, np.divide(1.0, width, out=np.zeros_like(middle), where=width > 0)
