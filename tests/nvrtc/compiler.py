"""NVRTC through CuPy, with CuPy's own options, and with no GPU and no driver.

Uses private names of CuPy; the version is pinned in the extra `nvrtc`.
"""

from __future__ import annotations

import cupy
from cupy._core import core
from cupy.cuda import compiler
from cupy_backends.cuda.libs import nvrtc

CompileError = compiler.CompileException


def supported_archs() -> set[int]:
    """The sm numbers that this NVRTC can compile for."""
    return set(nvrtc.getSupportedArchs())


def versions() -> str:
    """Of what the check was made with."""
    return f"CuPy {cupy.__version__}, NVRTC {'.'.join(map(str, nvrtc.getVersion()))}"


def cubin(source: str, arch: int, name: str) -> bytes:
    """The program for sm_<arch>, compiled as CuPy compiles the text of a RawKernel.

    Raises:
        CompileError: the source is broken; the text is NVRTC's log.
    """
    return _compiled(source, f"sm_{arch}", name, "cubin")


def ptx(source: str, arch: int, name: str) -> bytes:
    """The same before it is translated for a processor.

    Raises:
        CompileError: the source is broken; the text is NVRTC's log.
    """
    return _compiled(source, f"compute_{arch}", name, "ptx")


def _compiled(source: str, arch: str, name: str, method: str) -> bytes:
    flags = core.assemble_cupy_compiler_options(("--std=c++17",))
    flags += ("-ftz=true", f"-arch={arch}", "--device-as-default-execution-space")
    program = compiler._NVRTCProgram(source, name, method=method)
    compiled: bytes = program.compile(flags)[0]
    return compiled
