"""A native build of the kernels as the playground has them, which a real Trainer then runs on.

The texts are the same, a * b + c rounds twice, no instruction is beyond the processor's base, and
exponentials are zig's, as in its WebAssembly. Therefore losses must have the bits of the browser.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import re
import shutil
import subprocess
import sys
from contextlib import contextmanager

import gpunn as gn
from gpunn.backends.cpu.compiled import Compiler, Native
from gpunn.backends.cpu.compiled.compiler import FLAGS
from gpunn.storage.cache import cache_folder

ZIG = (sys.executable, "-m", "ziglang", "cc")
CALLS = "expf tanhf log1pf expm1f erff erfcf logf sqrtf"


class Portable(Compiler):
    """The C++ compiler of this machine, with the flags and the mathematics of the playground."""

    vector_math = True  # every kernel is compiled, even where NumPy's exponentials are faster

    def build(self, text, name):
        flags = [*(flag for flag in FLAGS if flag != "-shared"), "-fPIC", "-Dthread_local="]
        key = hashlib.sha256("\0".join((text, *flags, *self.command)).encode()).hexdigest()[:24]
        library = cache_folder() / "portable" / f"{name}-{key}.so"
        if not library.exists():
            library.parent.mkdir(parents=True, exist_ok=True)
            source, made = library.with_suffix(".cpp"), library.with_suffix(f".{os.getpid()}.o")
            source.write_text(text, encoding="utf-8")
            subprocess.run([*self.command, *flags, "-w", "-c", source, "-o", made], check=True)
            linked = library.with_suffix(f".{os.getpid()}")
            link = ["ld", "-shared", "-Bsymbolic", "--exclude-libs", "ALL", "--gc-sections"]
            archives = ["--start-group", *mathematics(), "--end-group"]
            subprocess.run([*link, made, *archives, "-o", linked], check=True)
            linked.replace(library)
        run = ctypes.CDLL(str(library)).run
        run.argtypes, run.restype = [ctypes.c_char_p], None
        return run


@functools.cache
def mathematics() -> tuple[str, ...]:
    """The archives that zig links for exponentials, for code at any address."""
    folder = cache_folder() / "portable"
    folder.mkdir(parents=True, exist_ok=True)
    calls = " + ".join(f"{name}(x)" for name in CALLS.split())
    program = (
        f"#include <math.h>\nint main(int n, char**) {{ float x = n; return (int)({calls}); }}"
    )
    (folder / "mathematics.cpp").write_text(program, encoding="utf-8")
    target = ("-target", f"{os.uname().machine}-linux-musl", "-fPIC", "-pie")
    command = [*ZIG, *target, "mathematics.cpp", "-o", "mathematics"]
    shown = {**os.environ, "ZIG_VERBOSE_LINK": "1"}
    done = subprocess.run(
        command, cwd=folder, env=shown, capture_output=True, text=True, check=True
    )
    found = re.findall(r"\S+/lib(?:zigc|c|compiler_rt)\.a", done.stderr)
    assert found, done.stderr
    return tuple(dict.fromkeys(found))


def why_not() -> str:
    """Why there is no such build on this machine; empty if there is one."""
    if not sys.platform.startswith("linux"):
        return "the native build of the playground's kernels is for Linux"
    missing = [name for name in ("g++", "ld") if shutil.which(name) is None]
    if missing:
        return f"{' and '.join(missing)} not installed"
    done = subprocess.run([*ZIG, "--version"], capture_output=True, check=False)
    return "" if done.returncode == 0 else "ziglang is not installed"


@functools.cache
def native() -> Native:
    return Native(Portable(("g++",), "g++ with zig's mathematics"))


@contextmanager
def on_portable_kernels():
    """Let everything inside the block run on the playground's kernels, built natively."""
    b = gn.backend("cpu")
    with b.numpy_alone():
        b._native = native()
        yield
