"""CuPy arrays as input: checked where they are, in scikit-learn's words."""

from __future__ import annotations

from typing import Any

import numpy as np

from gpunn.backends import backend_of
from gpunn.errors import DTypeError
from gpunn.sparse import is_sparse
from gpunn.typing import Array


def on_device(data: Any) -> bool:
    """Whether `data` is an array of a device other than the CPU."""
    if isinstance(data, np.ndarray) or is_sparse(data) or not hasattr(data, "dtype"):
        return False
    try:
        return not backend_of(data).synchronous
    except DTypeError:
        return False


def on_host(data: Any) -> Any:
    """A host copy of a device array, or of an array of a library that gpunn does not compute with.

    NumPy arrays, frames, lists and sparse matrices stay what they are.
    """
    if on_device(data):
        return backend_of(data).download(data)
    if hasattr(data, "__array_namespace__") and not isinstance(data, np.ndarray | np.generic):
        return np.from_dlpack(data) if hasattr(data, "__dlpack__") else np.asarray(data)
    return data


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
        if not bool(b.xp.isfinite(x).all()):
            if bool(b.xp.isnan(x).any()):
                raise ValueError("Input X contains NaN.")
            raise ValueError(
                f"Input X contains infinity or a value too large for dtype('{x.dtype}')."
            )
    return x


def like_input(values: np.ndarray, x: Array) -> Array:
    """Host numbers where the examples are; text stays on the host, since no GPU has any."""
    if not on_device(x) or values.dtype.kind not in "fiub":
        return values
    return backend_of(x).upload(values)
