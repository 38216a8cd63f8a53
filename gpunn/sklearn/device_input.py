"""Checks and conversions of arrays that are not NumPy's.

gpunn computes with CuPy arrays directly, and returns CuPy arrays. Arrays of other libraries of the
array API (PyTorch, array_api_strict) are converted to NumPy. With scikit-learn's
`array_api_dispatch` on, results are converted back to the library.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn import get_config
from sklearn.utils._array_api import device, get_namespace

from gpunn.backends import Backend, backend, backend_of
from gpunn.errors import DTypeError
from gpunn.ops.reductions import all_finite, all_true
from gpunn.sparse import is_sparse, sparse_rows
from gpunn.typing import Array, DType

CUDA = 2  # DLPack's number for CUDA devices


def on_device(data: Any) -> bool:
    """Return whether `data` is an array of a device other than the CPU."""
    if isinstance(data, np.ndarray) or is_sparse(data) or not hasattr(data, "dtype"):
        return False
    try:
        return not backend_of(data).on_host
    except DTypeError:
        return False


def namespace_of(data: Any) -> Any:
    """Return the array library that results must be converted to; None if there is none.

    There is none for NumPy and CuPy arrays, for other data, and without `array_api_dispatch`.
    """
    if not get_config()["array_api_dispatch"] or isinstance(data, np.ndarray) or on_device(data):
        return None
    xp, is_array = get_namespace(data)
    return xp if is_array else None


def on_host(data: Any) -> Any:
    """Convert an array of a GPU or of another array library to NumPy.

    NumPy arrays, frames, lists and sparse matrices are returned as they are.
    """
    if on_device(data):
        return backend_of(data).download(data)
    known = isinstance(data, np.ndarray | np.generic)
    if not known and (hasattr(data, "__array_namespace__") or namespace_of(data) is not None):
        return _to_host(data)
    return data


def _to_host(data: Any) -> np.ndarray:
    """Convert another library's array to NumPy. CuPy reads it if it is on a GPU."""
    if not hasattr(data, "__dlpack__"):
        return np.asarray(data)
    if data.__dlpack_device__()[0] != CUDA:
        return np.from_dlpack(data)
    b = backend("cuda")
    return b.download(b.xp.from_dlpack(data))


def placeholder(x: Array) -> np.ndarray:
    """Return zeros with the shape and dtype of a device array. They share one number in memory.

    scikit-learn checks this array instead: its number of features, length and names.
    """
    return np.broadcast_to(np.zeros((), x.dtype), x.shape)


def checked(x: Array) -> Array:
    """Check that a device array is finite, and convert it to float64 unless it is float32.

    Raises:
        ValueError: the array contains NaN or infinity.
    """
    b = backend_of(x)
    with b.current():
        if x.dtype not in (np.float32, np.float64):
            x = x.astype(np.float64)
        if not all_finite(b, x):
            if not all_true(b, x == x):
                raise ValueError("Input X contains NaN.")
            raise ValueError(
                f"Input X contains infinity or a value too large for dtype('{x.dtype}')."
            )
    return x


def narrowed(x: Any, dtype: DType) -> Any:
    """Convert checked examples, an array or a sparse matrix, to the dtype of a network.

    Raises:
        ValueError: the dtype does not hold a number.
    """
    if x.dtype.itemsize <= np.dtype(dtype).itemsize:
        return x
    with np.errstate(over="ignore"):
        x = x.astype(dtype)
    numbers = x.data if is_sparse(x) else x
    if not all_finite(backend_of(numbers), numbers):
        raise ValueError(f"Input X contains infinity or a value too large for dtype('{dtype}').")
    return x


def like_input(values: Array, x: Any) -> Any:
    """Convert numbers to the device and the array library of the examples.

    Text stays in NumPy arrays, because other libraries have no text.
    """
    if not isinstance(values, np.ndarray) or values.dtype.kind not in "fiub":
        return values
    if on_device(x):
        return backend_of(x).upload(values)
    xp = namespace_of(x)
    return values if xp is None else xp.asarray(values, device=device(x))


def wide(b: Backend, values: Any) -> Array:
    """Move numbers to a device, as float64 unless they are integers.

    Sparse rows stay sparse on the CPU and become dense on a GPU.
    """
    if is_sparse(values):
        values = sparse_rows(values, np.float64)
        return values if b.on_host else b.upload(values.toarray())
    values = values if on_device(values) else b.upload(np.asarray(values))
    return values if values.dtype.kind in "iu" else values.astype(np.float64, copy=False)
