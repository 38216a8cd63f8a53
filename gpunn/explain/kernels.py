"""The CUDA text of gpunn's kernels, as CuPy compiles it. No GPU is needed to read it."""

from __future__ import annotations

import re

import numpy as np

from gpunn.arguments import lookup
from gpunn.backends.cuda.launcher import PACKED
from gpunn.backends.cuda.source import PACK_BYTES, Argument, elementwise_source
from gpunn.backends.dtypes import float_dtype
from gpunn.backends.kernel import KERNELS, Elementwise, Param
from gpunn.typing import DType


def kernel(name: str, dtype: DType = "float32") -> str:
    """Return the CUDA text of a kernel for contiguous arrays of a dtype.

    Every activation has five kernels: for "relu" these are "relu", "relu_bias" and
    "relu_bias_dropout" forward, and "relu_grad" and "relu_grad_dropout" backward. The gradient of a
    bias is "column_sums".

    Args:
        name: the name of the kernel; an unknown name lists them all.
        dtype: the dtype of the arrays. float16 and bfloat16 are computed in float32.

    Returns:
        The text that `cupy.RawKernel` gets. The lines between `#line 1 "<name>.body"` and the next
        `#line` are the formula, as the operation declares it.

    Raises:
        UnknownNameError: there is no such kernel.

    Example:
        >>> text = kernel("sigmoid_grad")
        >>> print(text.split('"sigmoid_grad.body"')[1].split("#line")[0].strip())
        gx = gy * y * (T(1) - y);
    """
    found = lookup("kernel", name, KERNELS)
    kind = float_dtype(dtype)
    if not isinstance(found, Elementwise):
        return found.source(kind.name)
    arguments = tuple(
        _argument(found, param, kind.name, k < len(found.inputs))
        for k, param in enumerate((*found.inputs, *found.outputs))
    )
    widest = max([_size_bytes(a.dtype) for a in arguments if a.layout in PACKED], default=4)
    return elementwise_source(found, arguments, max(1, PACK_BYTES // widest), wide=False)


def _argument(found: Elementwise, param: Param, dtype: str, is_input: bool) -> Argument:
    """Return how an argument is passed in a network: arrays in full, a bias once for each row."""
    stored = dtype if param.type == "T" else param.type
    if param.role == "raw":
        return Argument("raw", stored)
    once = is_input and re.search(rf"\b{param.name}\b", found.once)
    if param.role in ("sum", "one") or once:
        return Argument("one", stored)
    if is_input and (param.type != "T" or _is_option(found, param)):
        return Argument("value", param.type)
    return Argument("row" if param.name == "bias" else "each", stored)


def _is_option(found: Elementwise, param: Param) -> bool:
    return re.search(rf"\bT {param.name}\b", found.signature) is not None


def _size_bytes(dtype: str) -> int:
    return 2 if dtype == "bfloat16" else np.dtype(dtype).itemsize
