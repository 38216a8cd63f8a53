"""What may be passed as examples or targets: one answer for models, trainers and data sets."""

from __future__ import annotations

from typing import Any

import numpy as np

from gpunn.autograd import Tensor
from gpunn.backends import as_array, backend_of
from gpunn.errors import DataError, DTypeError, ShapeError
from gpunn.frames import from_frame
from gpunn.sparse import is_sparse

BATCH_ROWS = 4096
"""Examples that are read, predicted or evaluated at a time.

Products of other sizes may round differently, so a file and an array must be cut alike.
"""


def rows_of(x: Any, name: str) -> Any:
    """An array or a sparse matrix with a row for each example.

    Args:
        x: a tensor, an array of NumPy or CuPy, a frame or column of pandas or Polars, a sparse
            matrix of SciPy's, or nested sequences of numbers. Nothing is copied where it is an
            array already.
        name: what messages call it.

    Raises:
        ShapeError: a single number.
        DTypeError, DataError: it, or a column of it, does not hold numbers.
    """
    if not is_sparse(x):
        x = as_array(x.data if isinstance(x, Tensor) else from_frame(x, name))
    if x.dtype.kind not in "fiub":
        raise DTypeError(
            f"got {name} of dtype {x.dtype}; expected numbers: encode text as integers first"
        )
    if not x.ndim:
        raise ShapeError(f"got a single number as {name}; expected (N, ...), a row an example")
    return x


def column_scales(x: Any) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Mean and standard deviation of each column, (D,) float64; 1 for a column that is constant.

    Args:
        x: (N, D) finite numbers; see `rows_of`. Sparse matrices are refused.

    Raises:
        ShapeError: not (N, D).
        DataError: no rows, NaN or infinity, or a sparse matrix.
    """
    x = rows_of(x, "x")
    if is_sparse(x):
        raise DataError("got sparse x to standardize; expected dense rows: zeros would be lost")
    x = backend_of(x).download(x)
    if x.ndim != 2:
        raise ShapeError(f"got x of shape {x.shape}; expected (N, D): use x.reshape(len(x), -1)")
    if not x.size or not np.isfinite(x).all():
        raise DataError(
            f"got x of shape {x.shape} that is empty, or holds NaN or infinity; expected finite "
            "numbers: look for gaps in the data"
        )
    # A constant column is found by its range: its standard deviation may round to 1e-17.
    constant = x.max(axis=0) == x.min(axis=0)
    deviation = np.where(constant, 1.0, x.std(axis=0, dtype=np.float64))
    return x.mean(axis=0, dtype=np.float64), deviation
