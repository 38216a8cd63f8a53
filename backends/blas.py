"""Which processor NumPy's BLAS computes for, where that can be told, and whether it is this one."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

from gpunn.backends.diagnosis import Rung

VARIABLE = "OPENBLAS_CORETYPE"
WIDE = ("skylakex", "cooperlake", "sapphirerapids")
"""OpenBLAS's names, in lower case, of processors with AVX-512; for all others it uses less."""
QUESTIONS = tuple(
    f"{prefix}openblas_get_corename{suffix}" for prefix in ("scipy_", "") for suffix in ("64_", "")
)
MAPS, PROCESSOR = Path("/proc/self/maps"), Path("/proc/cpuinfo")


def core_name() -> str:
    """The processor that NumPy's OpenBLAS has chosen its products for; empty if that is unknown."""
    for library in _libraries():
        try:
            loaded = ctypes.CDLL(library)
        except OSError:
            continue
        for question in QUESTIONS:
            if hasattr(loaded, question):
                ask = getattr(loaded, question)
                ask.restype = ctypes.c_char_p
                return str(ask().decode())
    return ""


def matrix_products() -> Rung | None:
    """Whether NumPy's BLAS uses the processor's longest vectors; None where that is unknown."""
    core, flags = core_name(), _flags()
    if not core or not flags:
        return None
    if "avx512f" not in flags or core.lower() in WIDE:
        return Rung("matrix products", True, f"OpenBLAS for {core}")
    given = os.environ.get(VARIABLE)
    why = f"{VARIABLE}={given} is set" if given else "that is what OpenBLAS takes it for"
    mend = f"unset {VARIABLE}, or set it to SkylakeX" if given else f"set {VARIABLE}=SkylakeX"
    return Rung(
        "matrix products",
        False,
        f"OpenBLAS for {core}, and this processor has AVX-512; {why}",
        f"{mend}, before Python starts",
    )


def _libraries() -> list[str]:
    """The BLAS libraries that this process has loaded, NumPy's own first."""
    try:
        lines = MAPS.read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    paths = {line.split(maxsplit=5)[-1] for line in lines if "blas" in line}
    return sorted((path for path in paths if ".so" in path), key=lambda path: "numpy" not in path)


def _flags() -> set[str]:
    """What the processor can do, in Linux's words; empty elsewhere."""
    try:
        lines = PROCESSOR.read_text(encoding="utf-8").splitlines()
    except OSError:
        return set()
    return set(" ".join(line for line in lines if line.startswith("flags")).split())
