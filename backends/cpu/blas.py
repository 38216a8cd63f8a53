"""What NumPy's BLAS says of itself: which processor it computes for, with how many threads."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path
from typing import Any

from gpunn.backends.cpu.processor import processor_flags
from gpunn.backends.diagnosis import Rung

VARIABLE = "OPENBLAS_CORETYPE"
WIDE = ("skylakex", "cooperlake", "sapphirerapids")
"""OpenBLAS's names, in lower case, of processors with AVX-512; for all others it uses less."""
NAMES = tuple(
    f"{prefix}openblas_{{}}{suffix}" for prefix in ("scipy_", "") for suffix in ("64_", "")
)
"""What OpenBLAS's functions are called, by how it was built."""
MAPS = Path("/proc/self/maps")


def core_name() -> str:
    """The processor that NumPy's OpenBLAS has chosen its products for; empty if that is unknown."""
    found = _ask("get_corename", ctypes.c_char_p)
    return "" if found is None else str(found.decode())


def thread_count() -> int:
    """How many threads a product may take now: OpenBLAS's word, else the processors we may use."""
    found = _ask("get_num_threads", ctypes.c_int)
    return int(found) if found else available_processors()


def available_processors() -> int:
    """How many processors this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def matrix_products() -> Rung | None:
    """Whether NumPy's BLAS uses the processor's longest vectors; None where that is unknown."""
    core, flags = core_name(), processor_flags()
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


def _ask(question: str, answer: type) -> Any:
    """What the OpenBLAS of this process answers; None without one."""
    for library in _libraries():
        try:
            loaded = ctypes.CDLL(library)
        except OSError:
            continue
        for name in NAMES:
            ask = getattr(loaded, name.format(question), None)
            if ask is not None:
                ask.restype = answer
                return ask()
    return None


def _libraries() -> list[str]:
    """The BLAS libraries that this process has loaded, NumPy's own first."""
    try:
        lines = MAPS.read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    paths = {line.split(maxsplit=5)[-1] for line in lines if "blas" in line}
    return sorted((path for path in paths if ".so" in path), key=lambda path: "numpy" not in path)
