"""Automatic differentiation: operations on arrays are recorded as a graph and walked backward."""

from gpunn.autograd.dlpack import from_dlpack
from gpunn.autograd.engine import (
    Sink,
    is_recording,
    is_used_once,
    no_grad,
    product_of,
    recorded,
    target,
)
from gpunn.autograd.gradcheck import gradcheck
from gpunn.autograd.op import OPS, Op, op
from gpunn.autograd.tensor import Tensor, tensor

__all__ = [
    "OPS",
    "Op",
    "Sink",
    "Tensor",
    "from_dlpack",
    "gradcheck",
    "is_recording",
    "is_used_once",
    "no_grad",
    "op",
    "product_of",
    "recorded",
    "target",
    "tensor",
]
