"""DLPack: tensors that share their memory with arrays of other libraries."""

from __future__ import annotations

from typing import Any

from gpunn.autograd.tensor import Tensor
from gpunn.backends import backend
from gpunn.backends.dtypes import FLOATS, differentiable
from gpunn.errors import ArgumentError, DeviceMismatchError, DTypeError, GpunnError

HOST, CUDA = (1, 3), 2  # kDLCPU, kDLCUDAHost; kDLCUDA


def from_dlpack(x: Any, requires_grad: bool = False) -> Tensor:
    """Make a tensor over the memory of another library's array. Nothing is copied.

    A change of one of the two also changes the other. The tensor is on the device of `x`.

    Args:
        x: an array with the DLPack protocol, of NumPy, CuPy, PyTorch or JAX, or a tensor.
        requires_grad: whether backward passes compute a gradient for the tensor.

    Raises:
        ArgumentError: `x` has no DLPack protocol, or its library refuses to share it.
        DTypeError: the elements are neither floats nor integers, or integers require a gradient.
        DeviceMismatchError: the memory belongs neither to the host nor to a CUDA device.
        DeviceUnavailableError: the CUDA device cannot be used.
        GradientError: `x` is a tensor of gpunn that requires a gradient.

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
            f"got a {type(x).__name__} that cannot be shared ({error}); expected a dtype that "
            "NumPy has, and no gradient: convert or detach it, or copy it with gpunn.tensor"
        ) from error
    if array.dtype.kind not in "iub" and array.dtype.name not in FLOATS:
        raise DTypeError(
            f"got elements of {array.dtype}; expected integers or {', '.join(FLOATS)}: convert them"
        )
    requires_grad = requires_grad and differentiable(array.dtype)
    return Tensor(array, requires_grad, backend=there)
