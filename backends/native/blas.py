"""What NumPy's BLAS says of itself."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

import numpy.linalg  # noqa: F401  loads BLAS

PREFIXES, SUFFIXES = ("scipy_openblas", "openblas"), ("64_", "_64", "")


def blas_threads() -> int:
    """How many threads a matrix product may take: OpenBLAS's answer, else the processors."""
    for library in _libraries():
        for prefix in PREFIXES:
            for suffix in SUFFIXES:
                count = getattr(library, f"{prefix}_get_num_threads{suffix}", None)
                if count is not None:
                    return int(count())
    return len(os.sched_getaffinity(0))


def _libraries() -> list[ctypes.CDLL]:
    """The OpenBLAS that this process has loaded, NumPy's first."""
    maps = Path("/proc/self/maps").read_text(encoding="utf-8").splitlines()
    paths = {line.split(maxsplit=5)[-1] for line in maps if "openblas" in line}
    return [ctypes.CDLL(path) for path in sorted(paths, key=lambda path: "numpy" not in path)]
