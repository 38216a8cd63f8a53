"""Compile C++ text with g++ into a library that is kept for the next run."""

from __future__ import annotations

import ctypes
import functools
import getpass
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

FLAGS = (
    "-std=c++17",
    "-O2",
    "-fPIC",
    "-shared",
    "-ffp-contract=off",  # a * b + c rounds twice, as in NumPy
    "-fno-strict-aliasing",
    "-Wno-unknown-pragmas",
)
HERE = Path(__file__).parent
ARITHMETIC = {
    "exact": (),
    "fma": ("-ffp-contract=fast", "-mfma"),  # a * b + c rounds once, as NVRTC has it
    "ftz": ("-DFLUSH_TO_ZERO",),  # numbers below 2**-126 count as 0, as CuPy has it
}
ARITHMETIC["card"] = ARITHMETIC["fma"] + ARITHMETIC["ftz"]
_chosen = ["exact"]


def why_no(name: str) -> str:
    """Why this processor cannot compute so; empty if it can."""
    flags = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    return "" if name == "exact" or " fma " in flags else "it needs an x86 processor with FMA"


@contextmanager
def arithmetic(name: str) -> Iterator[None]:
    """Compile kernels with a GPU's arithmetic inside a `with` block: see `ARITHMETIC`."""
    _chosen.append(name)
    try:
        yield
    finally:
        _chosen.pop()


def flags() -> tuple[str, ...]:
    """The flags of the compiler now."""
    return FLAGS + ARITHMETIC[_chosen[-1]]


def flushes() -> bool:
    """Whether numbers below 2**-126 count as 0 now."""
    return "-DFLUSH_TO_ZERO" in flags()


class HostCompileError(Exception):
    """g++ refused the kernel; the text is its message."""


def why_unavailable() -> str:
    """Why kernels cannot be run on this machine's CPU; empty when they can."""
    if not sys.platform.startswith("linux"):
        return f"the stand-in for CUDA needs Linux, and this is {sys.platform}"
    if shutil.which(_cxx()) is None:
        return f"the stand-in for CUDA needs a C++ compiler: {_cxx()} is not installed"
    return ""


def build(source: str, stem: str) -> ctypes.PyDLL:
    """The library of a source, compiled unless this user has compiled the same text before."""
    key = hashlib.sha256("\0".join((source, headers(), _cxx(), *flags())).encode()).hexdigest()[:24]
    library = _folder() / f"{re.sub(r'[^A-Za-z0-9_]', '_', stem)}-{key}.so"
    if not library.exists():
        places = ["-I", str(_common(flags())), "-I", str(HERE)]
        _compile([*flags(), *places, "-x", "c++", "-"], library, source)
    return ctypes.PyDLL(str(library))  # keeps the interpreter's lock: kernels have static state


@functools.cache
def _common(flags: tuple[str, ...]) -> Path:
    """A folder with the compiled `common.h`, which takes g++ most of the time of a small text."""
    key = hashlib.sha256("\0".join((headers(), _cxx(), *flags)).encode()).hexdigest()[:24]
    folder = _folder() / f"common-{key}"
    folder.mkdir(exist_ok=True)
    if not (folder / "common.h.gch").exists():
        _compile([*flags, "-x", "c++-header", str(HERE / "common.h")], folder / "common.h.gch")
    return folder


def _compile(arguments: list[str], result: Path, source: str | None = None) -> None:
    """Run the compiler. The result appears in one piece: others may look at the same moment."""
    own = result.with_suffix(f".{os.getpid()}.tmp")
    command = [_cxx(), *arguments, "-o", str(own)]
    done = subprocess.run(command, input=source, capture_output=True, text=True, check=False)
    if done.returncode:
        raise HostCompileError(done.stderr)
    own.replace(result)


@functools.cache
def headers() -> str:
    """The text of the headers that a source may include."""
    return "".join(path.read_text(encoding="utf-8") for path in sorted(HERE.glob("*.h")))


def _cxx() -> str:
    return os.environ.get("CXX", "g++")


@functools.cache
def _folder() -> Path:
    folder = Path(tempfile.gettempdir()) / f"gpunn-standin-{getpass.getuser()}"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder
