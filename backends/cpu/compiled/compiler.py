"""The C++ compiler of this machine, and the cache of what it has compiled."""

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
from typing import Any

from gpunn.backends.cpu.processor import processor_lines
from gpunn.storage.cache import cache_folder

FLAGS = (
    "-std=c++17",
    "-O3",
    "-shared",
    "-fno-math-errno",
    "-fno-trapping-math",
    "-ffp-contract=off",  # a * b + c rounds twice, as in NumPy
)
ARM = platform.machine().lower() in ("arm64", "aarch64")
THIS_PROCESSOR = "-mcpu=native" if ARM else "-march=native"
VECTOR_MATH = ("-DVECTOR_MATH", "-lmvec", "-lm")
SYSTEMS = {
    "linux": (".so", ("g++", "clang++", "c++"), ("-fPIC",)),
    "darwin": (".dylib", ("clang++", "c++", "g++"), ("-fPIC",)),
    "win32": (".dll", ("g++",), ()),
}
"""The suffix of libraries, the compilers that a system may have, and flags that only it needs."""
SWITCH = "GPUNN_COMPILED"
TIMEOUT_S = 120  # seconds for one call of the compiler; the first call of zig is slow


@dataclass(frozen=True)
class Compiler:
    """A C++ compiler, or the reason why there is none.

    Attributes:
        command: the command that calls it; empty if there is no compiler.
        why: the version of the compiler, or the reason why there is none.
    """

    command: tuple[str, ...]
    why: str

    @functools.cached_property
    def vector_math(self) -> bool:
        """Whether a loop can compute several exponentials at a time, with GCC and GNU's libmvec."""
        name = _version(self.command).partition(" ")[0]
        gnu, _, release = _libc().partition(" ")
        numbers = tuple(int(n) for n in release.split(".")[:2] if n.isdigit())
        known = gnu == "glibc" and numbers >= (2, 35)  # the first with all functions of host.h
        return known and platform.machine() == "x86_64" and name.startswith(("g++", "c++"))

    def build(self, text: str, name: str) -> Callable[[bytes], None]:
        """Compile a text, unless it is in the cache, and return its function `run`.

        Args:
            text: the C++ source.
            name: the start of the library's file name in the cache.

        Raises:
            OSError: the compiler refused the text, or the library cannot be written or loaded.
        """
        suffix, _, own = SYSTEMS[sys.platform]
        flags = (*FLAGS, THIS_PROCESSOR, *own, *(VECTOR_MATH if self.vector_math else ()))
        parts = (text, *self.command, *flags, _version(self.command), _processor())
        key = hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]
        library = cache_folder() / f"{name}-{key}{suffix}"
        kept = library.exists()
        if not kept:
            self._compile(text, library, flags)
        try:
            run = ctypes.CDLL(str(library)).run
        except (OSError, AttributeError):
            if not kept:
                raise
            self._compile(text, library, flags)  # the file in the cache is damaged
            run = ctypes.CDLL(str(library)).run
        run.argtypes, run.restype = [ctypes.c_char_p], None
        return run

    def _compile(self, text: str, library: Path, flags: tuple[str, ...]) -> None:
        library.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=library.parent) as place:
            source, made = Path(place) / "kernel.cpp", Path(place) / library.name
            source.write_text(text, encoding="utf-8")
            done = _run((*self.command, str(source), *flags, "-o", str(made)))
            if done.returncode:
                raise OSError(f"{' '.join(self.command)} refused {library.stem}: {done.stderr}")
            try:
                made.replace(library)  # atomic, because another process may load it meanwhile
            except PermissionError:  # another process of Windows has loaded the same library
                if not library.exists():
                    raise


@functools.cache
def find_compiler() -> Compiler:
    """Find a C++ compiler: $CXX, the system's, or that of the package `ziglang`."""
    if os.environ.get(SWITCH, "auto") == "0":
        return Compiler((), f"switched off by {SWITCH}=0")
    if sys.platform not in SYSTEMS:
        known = ", ".join(SYSTEMS)
        return Compiler((), f"compiled kernels are for {known}, and this is {sys.platform}")
    for name in filter(None, (os.environ.get("CXX"), *SYSTEMS[sys.platform][1])):
        found = shutil.which(name)
        if found and _version((found,)):
            return Compiler((found,), _version((found,)))
    command = (sys.executable, "-m", "ziglang", "c++")
    if importlib.util.find_spec("ziglang") and _version(command):
        return Compiler(command, _version(command))
    return Compiler((), 'no C++ compiler: install g++, or pip install "gpunn[compiled]"')


def address(value: Callable[[bytes], None] | bytes) -> int:
    """Return the address of a compiled function, or of the content of bytes."""
    found: Any = ctypes.cast(value, ctypes.c_void_p).value  # type: ignore[arg-type]
    return int(found)


def start_of(array: Any) -> int:
    """Return the address of an array. This is faster than `array.__array_interface__`."""
    try:
        whole = array if array.flags.c_contiguous else array.T
        return ctypes.addressof(ctypes.c_char.from_buffer(whole))
    except (BufferError, TypeError, ValueError):  # the array is read-only, strided or empty
        found: int = array.__array_interface__["data"][0]
        return found


@functools.lru_cache(maxsize=16)
def _version(command: Sequence[str]) -> str:
    """Return the first line of a compiler's version text; empty if it cannot be run."""
    try:
        done = _run((*command, "--version"))
    except OSError:
        return ""
    return "" if done.returncode else done.stdout.partition("\n")[0]


def _run(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """Call a compiler.

    Raises:
        OSError: the compiler cannot be run, or does not finish in time.
    """
    try:
        return subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise OSError(f"{' '.join(command)} took more than {TIMEOUT_S} s") from error


def _libc() -> str:
    """Return the name and version of the C library; empty if they are unknown."""
    try:
        return os.confstr("CS_GNU_LIBC_VERSION") or ""
    except (AttributeError, ValueError, OSError):
        return ""


@functools.cache
def _processor() -> str:
    """Return the description of the processor, which decides the instructions it can run."""
    lines = processor_lines("model name", "flags", "Features", "CPU part")
    return "".join(sorted(set(lines))) or platform.machine()
