"""Questions to NumPy's BLAS: the processor that it computes for, and its number of threads."""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from gpunn.backends.cpu.processor import processor_flags
from gpunn.backends.diagnosis import Rung

VARIABLE = "OPENBLAS_CORETYPE"
WIDE = ("skylakex", "cooperlake", "sapphirerapids")
"""OpenBLAS's names, in lower case, of the processors for which it uses AVX-512."""
NAMES = tuple(
    f"{prefix}openblas_{{}}{suffix}" for prefix in ("scipy_", "") for suffix in ("64_", "")
)
"""The possible names of OpenBLAS's functions. They depend on how OpenBLAS was built."""
MAPS = Path("/proc/self/maps")


def core_name() -> str:
    """Return the processor that NumPy's OpenBLAS computes for; empty if that is unknown."""
    found = _ask("get_corename", ctypes.c_char_p)
    return "" if found is None else str(found.decode())


def thread_count() -> int:
    """Return the number of threads of a matrix product.

    OpenBLAS is asked; without an answer it is the number of processors that we may use.
    """
    found = _ask("get_num_threads", ctypes.c_int)
    return int(found) if found else available_processors()


_single: ContextVar[bool] = ContextVar("gpunn_single_threaded", default=False)
_lock = threading.Lock()
_blocks: list[int] = []  # for each block of `one_thread` that is open: OpenBLAS's number before it


def is_single_threaded() -> bool:
    """Return whether a block of `one_thread` is open here."""
    return _single.get()


@contextmanager
def one_thread() -> Iterator[None]:
    """Let every matrix product use one thread inside the block, if OpenBLAS can be told so.

    OpenBLAS has one number for the whole process. It is set back when the last block ends.
    """
    with _lock:
        before = _ask("get_num_threads", ctypes.c_int) or 0
        _blocks.append(before)
        if before > 1:
            _ask("set_num_threads", None, 1)
    token = _single.set(True)
    try:
        yield
    finally:
        _single.reset(token)
        with _lock:
            most = max(_blocks)
            _blocks.pop()
            if not _blocks and most > 1:
                _ask("set_num_threads", None, most)


def available_processors() -> int:
    """Return the number of processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def matrix_products() -> Rung | None:
    """Check that NumPy's BLAS uses the processor's longest vectors; None if that is unknown."""
    core, flags = core_name(), processor_flags()
    if not core or not flags:
        return None
    if "avx512f" not in flags or core.lower() in WIDE:
        return Rung("matrix products", True, f"OpenBLAS for {core}")
    given = os.environ.get(VARIABLE)
    why = f"{VARIABLE}={given} is set" if given else "OpenBLAS does not recognise it"
    mend = f"unset {VARIABLE}, or set it to SkylakeX" if given else f"set {VARIABLE}=SkylakeX"
    return Rung(
        "matrix products",
        False,
        f"OpenBLAS for {core}, and this processor has AVX-512; {why}",
        f"{mend}, before Python starts",
    )


def _ask(question: str, answer: type | None, *given: int) -> Any:
    """Call a function of the OpenBLAS of this process; None if there is no such function."""
    for library in _libraries():
        try:
            loaded = ctypes.CDLL(library)
        except OSError:
            continue
        for name in NAMES:
            ask = getattr(loaded, name.format(question), None)
            if ask is not None:
                ask.restype = answer
                return ask(*given)
    return None


def _libraries() -> list[str]:
    """Return the BLAS libraries that this process has loaded, NumPy's own first."""
    try:
        lines = MAPS.read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    paths = {line.split(maxsplit=5)[-1] for line in lines if "blas" in line}
    return sorted((path for path in paths if ".so" in path), key=lambda path: "numpy" not in path)
