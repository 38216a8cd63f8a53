"""Kernels on the CPU as machine code: their CUDA bodies, compiled for one thread."""

from gpunn.backends.native.compiler import Compiler, find_compiler
from gpunn.backends.native.kernels import Call, Native

__all__ = ["Call", "Compiler", "Native", "find_compiler"]
