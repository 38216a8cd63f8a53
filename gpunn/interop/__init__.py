"""Exchange models with other libraries: PyTorch's names and layouts, and ONNX.

`gpunn.from_dlpack` and `Tensor.__dlpack__` share arrays without a copy.
"""

from gpunn.interop.onnx import to_onnx
from gpunn.interop.onnx_import import from_onnx
from gpunn.interop.pytorch import (
    load_torch,
    load_torch_state_dict,
    save_torch,
    to_torch_state_dict,
)
from gpunn.interop.pytorch_modules import from_torch
from gpunn.interop.source import round_to_int8, to_source

__all__ = [
    "from_onnx",
    "from_torch",
    "load_torch",
    "load_torch_state_dict",
    "round_to_int8",
    "save_torch",
    "to_onnx",
    "to_source",
    "to_torch_state_dict",
]
