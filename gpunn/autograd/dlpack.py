"""Tensors that share their memory with arrays of other libraries."""

from __future__ import annotations

from typing import Any

from gpunn.autograd.tensor import Tensor
from gpunn.backends import backend
from gpunn.backends.dtypes import FLOATS
from gpunn.errors import ArgumentError, DeviceMismatchError, DTypeError, GpunnError

HOST, CUDA = (1, 3), 2  # kDLCPU, kDLCUDAHost; kDLCUDA


def from_dlpack(x: Any, requires_grad: bool = False) -> Tensor:
    """A tensor over the memory of another library's array; nothing is copied.

    What is written through one of the two shows in the other. The tensor lives where `x` does.

    Args:
        x: an array with the DLPack protocol: NumPy's, CuPy's, PyTorch's, JAX's, or a tensor.
        requires_grad: whether gradients should arrive at the tensor.

    Raises:
        ArgumentError: no such array, or one that its library does not share.
        DTypeError: elements that are neither floats nor integers, or a gradient for integers.
        DeviceMismatchError: memory that is neither the host's nor a CUDA device's.
        DeviceUnavailableError: a CUDA device that cannot be used here.
        GradientError: a tensor of gpunn's that requires a gradient.

    Reference:
        https://data-apis.org/array-api/latest/design_topics/data_interchange.html

    Example:
        >>> import numpy as np
        >>> x = np.zeros(2)
        >>> shared = from_dlpack(x)
        >>> x[0] = 5
        >>> shared
        tensor([5., 0.], dtype=float64, device=cpu)
    """
    if not (hasattr(x, "__dlpack__") and hasattr(x, "__dlpack_device__")):
        raise ArgumentError(
            f"got a {type(x).__name__}, which has no __dlpack__; expected an array of NumPy, CuPy, "
            "PyTorch or JAX: copy other data with gpunn.tensor"
        )
    kind, index = x.__dlpack_device__()
    if kind not in (*HOST, CUDA):
        raise DeviceMismatchError(
            f"got a {type(x).__name__} on a device of DLPack's kind {int(kind)}; expected the host "
            "or a CUDA device: move it to one first"
        )
    there = backend(f"cuda:{index}" if kind == CUDA else "cpu")
    try:
        with there.current():
            array = there.xp.from_dlpack(x)
    except (BufferError, RuntimeError) as error:
        if isinstance(error, GpunnError):
            raise
        raise ArgumentError(
            f"got a {type(x).__name__} that cannot be shared ({error}); expected numbers that "
            "NumPy knows, outside any graph: convert or detach it, or copy it with gpunn.tensor"
        ) from error
    if array.dtype.kind not in "iub" and array.dtype.name not in FLOATS:
        raise DTypeError(
            f"got elements of {array.dtype}; expected integers or {', '.join(FLOATS)}: convert them"
        )
    if requires_grad and array.dtype.kind != "f":
        raise DTypeError(f"got requires_grad=True for {array.dtype}; expected floats: convert them")
    return Tensor(array, requires_grad, backend=there)
