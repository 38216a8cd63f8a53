"""What may be passed as examples or targets: one answer for models, trainers and data sets."""

from __future__ import annotations

from typing import Any

from gpunn.autograd import Tensor
from gpunn.backends import as_array
from gpunn.errors import DTypeError, ShapeError
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
