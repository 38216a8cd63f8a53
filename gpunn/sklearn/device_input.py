"""Arrays that are not NumPy's: checked where they are, and answered where they are.

CuPy's are computed with. Those of other libraries of the array API (PyTorch's, array_api_strict's)
are computed with as NumPy's, and come out again where scikit-learn's `array_api_dispatch` is on.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn import get_config
from sklearn.utils._array_api import device, get_namespace

from gpunn.backends import backend, backend_of
from gpunn.errors import DTypeError
from gpunn.ops.reductions import all_finite
from gpunn.sparse import is_sparse
from gpunn.typing import Array

CUDA = 2  # the kind of device in DLPack


def on_device(data: Any) -> bool:
    """Whether `data` is an array of a device other than the CPU."""
    if isinstance(data, np.ndarray) or is_sparse(data) or not hasattr(data, "dtype"):
        return False
    try:
        return not backend_of(data).on_host
    except DTypeError:
        return False


def namespace_of(data: Any) -> Any:
    """The library of an array that gpunn does not compute with, where outputs should be of it.

    None for NumPy's and CuPy's, for what is no array, and without `array_api_dispatch`.
    """
    if not get_config()["array_api_dispatch"] or isinstance(data, np.ndarray) or on_device(data):
        return None
    xp, is_array = get_namespace(data)
    return xp if is_array else None


def on_host(data: Any) -> Any:
    """A host copy of a device array, or of an array of a library that gpunn does not compute with.

    NumPy arrays, frames, lists and sparse matrices stay what they are.
    """
    if on_device(data):
        return backend_of(data).download(data)
    known = isinstance(data, np.ndarray | np.generic)
    if not known and (hasattr(data, "__array_namespace__") or namespace_of(data) is not None):
        return _to_host(data)
    return data


def _to_host(data: Any) -> np.ndarray:
    """A host array of another library's array; one on a GPU is read by CuPy, NumPy refuses it."""
    if not hasattr(data, "__dlpack__"):
        return np.asarray(data)
    if data.__dlpack_device__()[0] != CUDA:
        return np.from_dlpack(data)
    b = backend("cuda")
    return b.download(b.xp.from_dlpack(data))


def placeholder(x: Array) -> np.ndarray:
    """Zeros of the shape and dtype of a device array, of which none takes memory.

    scikit-learn checks them in its place: number of features, lengths, names.
    """
    return np.broadcast_to(np.zeros((), x.dtype), x.shape)


def checked(x: Array) -> Array:
    """A device array of floats.

    Raises:
        ValueError: it is complex, or has a NaN or an infinity.
    """
    b = backend_of(x)
    with b.current():
        if x.dtype not in (np.float32, np.float64):
            x = x.astype(np.float64)
        if not all_finite(b, x):
            if bool(b.xp.isnan(x).any()):
                raise ValueError("Input X contains NaN.")
            raise ValueError(
                f"Input X contains infinity or a value too large for dtype('{x.dtype}')."
            )
    return x


def like_input(values: Array, x: Any) -> Any:
    """Numbers where the examples are, of their library; text stays NumPy's, as no other has any."""
    if not isinstance(values, np.ndarray) or values.dtype.kind not in "fiub":
        return values
    if on_device(x):
        return backend_of(x).upload(values)
    xp = namespace_of(x)
    return values if xp is None else xp.asarray(values, device=device(x))
