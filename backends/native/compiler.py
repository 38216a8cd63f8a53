"""A C++ compiler, where there is one, and what it has compiled before."""

from __future__ import annotations

import ctypes
import functools
import hashlib
import importlib.util
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

FLAGS = (
    "-std=c++17",
    "-O3",
    "-march=native",
    "-fPIC",
    "-shared",
    "-fno-math-errno",
    "-fno-trapping-math",
    "-ffp-contract=off",  # a * b + c rounds twice, as in NumPy
)
SWITCH = "GPUNN_COMPILED"


@dataclass(frozen=True)
class Compiler:
    """A compiler that can be called, or why there is none.

    Attributes:
        command: how it is called; empty when there is none.
        why: what was found, or what is missing.
    """

    command: tuple[str, ...]
    why: str

    def build(self, text: str, name: str) -> Callable[[bytes], None]:
        """The function `run` of a text, compiled unless it was before.

        Raises:
            OSError: the compiler refused it, or the library cannot be written or loaded.
        """
        parts = (text, *self.command, *FLAGS, _version(self.command), _processor())
        key = hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]
        library = folder() / f"{name}-{key}.so"
        if not library.exists():
            self._compile(text, library)
        run = ctypes.CDLL(str(library)).run
        run.argtypes, run.restype = [ctypes.c_char_p], None
        return run

    def _compile(self, text: str, library: Path) -> None:
        library.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=library.parent) as place:
            source, made = Path(place) / "kernel.cpp", Path(place) / "kernel.so"
            source.write_text(text, encoding="utf-8")
            done = subprocess.run(
                (*self.command, *FLAGS, str(source), "-o", str(made)),
                capture_output=True,
                text=True,
                check=False,
            )
            if done.returncode:
                raise OSError(f"{' '.join(self.command)} refused {library.stem}: {done.stderr}")
            made.replace(library)  # in one piece: another process may look at the same moment


@functools.cache
def find_compiler() -> Compiler:
    """The compiler of this process: $CXX, the system's, or that of the package `ziglang`."""
    if os.environ.get(SWITCH, "auto") == "0":
        return Compiler((), f"switched off by {SWITCH}=0")
    if not sys.platform.startswith("linux"):
        return Compiler((), f"compiled kernels are for Linux, and this is {sys.platform}")
    for name in filter(None, (os.environ.get("CXX"), "g++", "clang++", "c++")):
        found = shutil.which(name)
        if found:
            return Compiler((found,), _version((found,)))
    if importlib.util.find_spec("ziglang"):
        command = (sys.executable, "-m", "ziglang", "c++")
        return Compiler(command, _version(command))
    return Compiler((), 'no C++ compiler: install g++, or pip install "gpunn[compiled]"')


def folder() -> Path:
    """Where compiled kernels are kept."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "gpunn"


@functools.cache
def _version(command: Sequence[str]) -> str:
    done = subprocess.run((*command, "--version"), capture_output=True, text=True, check=False)
    return done.stdout.partition("\n")[0]


@functools.cache
def _processor() -> str:
    """What decides which instructions may be used."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.machine()
    wanted = ("model name", "flags", "Features", "CPU part")
    return "".join(sorted({line for line in lines if line.startswith(wanted)}))
