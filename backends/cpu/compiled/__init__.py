"""Kernels on the CPU as machine code: their CUDA bodies, compiled for one thread."""

from gpunn.backends.cpu.compiled.compiler import Compiler, find_compiler
from gpunn.backends.cpu.compiled.kernels import Call, Native

__all__ = ["Call", "Compiler", "Native", "find_compiler"]
