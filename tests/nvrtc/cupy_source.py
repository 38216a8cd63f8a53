"""The text that CuPy would hand to NVRTC, and its compilation, with no GPU and no driver.

Uses private names of CuPy; the version is pinned in the extra `nvrtc`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cupy
import numpy as np
from cupy._core import _carray, _kernel, _scalar, core
from cupy.cuda import compiler
from cupy_backends.cuda.libs import nvrtc

CompileError = compiler.CompileException
ARRAY, INDEXER, SCALAR = 1, 2, 3  # cupy._core._kernel._ArgKind


@dataclass(frozen=True)
class Arg:
    """How an argument of an elementwise kernel arrives; dtype None for a Python scalar."""

    dtype: str | None
    ndim: int = 1
    contiguous: bool = True


def supported_archs() -> set[int]:
    """The sm numbers that this NVRTC can compile for."""
    return set(nvrtc.getSupportedArchs())


def versions() -> str:
    """Of what the check was made with."""
    return f"CuPy {cupy.__version__}, NVRTC {'.'.join(map(str, nvrtc.getVersion()))}"


def elementwise_source(texts: tuple[str, ...], args: list[Arg], ndim: int) -> str:
    """The text of `cupy.ElementwiseKernel(*texts)` for arguments of these kinds."""
    *head, preamble = texts
    kernel = cupy.ElementwiseKernel(*head, preamble=preamble)
    dtypes = tuple(None if a.dtype is None else as_dtype(a.dtype) for a in args)
    ins, outs, letters = kernel._decide_params_type(dtypes[: kernel.nin], dtypes[kernel.nin :])
    infos = [_info(a, decided) for a, decided in zip(args, ins + outs, strict=True)]
    infos.append(_kernel._ArgInfo(INDEXER, _carray.Indexer, None, ndim, True, True))
    text: str = _kernel._get_elementwise_kernel_code(
        tuple(infos),
        letters,
        kernel.params,
        kernel.operation,
        kernel.name,
        kernel.preamble,
        **kernel.kwargs,
    )
    return "".join(f"#include <{name}>\n" for name in core._cupy_header_list) + text


def cubin(source: str, arch: int, name: str, options: tuple[str, ...] = ()) -> bytes:
    """The program for sm_<arch>, compiled with CuPy's own options.

    Raises:
        CompileError: the source is broken; the text is NVRTC's log.
    """
    flags = core.assemble_cupy_compiler_options(options)
    flags += ("-ftz=true", f"-arch=sm_{arch}", "--device-as-default-execution-space")
    program = compiler._NVRTCProgram(source, name, method="cubin")
    compiled: bytes = program.compile(flags)[0]
    return compiled


def as_dtype(name: str) -> np.dtype[Any]:
    """The dtype of a name, bfloat16 included."""
    if name == "bfloat16":
        import ml_dtypes

        return np.dtype(ml_dtypes.bfloat16)
    return np.dtype(name)


def _info(arg: Arg, decided: Any) -> Any:
    if arg.dtype is None:
        return _kernel._ArgInfo(SCALAR, _scalar.CScalar, np.dtype(decided), 0, True, True)
    dtype = as_dtype(arg.dtype)
    return _kernel._ArgInfo(ARRAY, cupy.ndarray, dtype, arg.ndim, arg.contiguous, True)
