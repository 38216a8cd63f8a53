"""Compiled kernels on the CPU: CUDA bodies that a C++ compiler compiles for one thread."""

from gpunn.backends.cpu.compiled.compiler import Compiler, find_compiler
from gpunn.backends.cpu.compiled.kernels import Call, Native

__all__ = ["Call", "Compiler", "Native", "find_compiler"]
