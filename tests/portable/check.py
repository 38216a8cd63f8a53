"""Compile the kernels of the CPU for other systems, and run them on an emulated processor.

    pip install ziglang
    apt-get install qemu-user
    python -m tests.portable.check

The text of every kernel is compiled with zig for Windows, macOS and Linux. On Linux it is also run,
with the same arguments: on this machine's kind of processor, and as aarch64 by qemu. All results
must have the same bits. Exits with 1 if a system's compiler refuses a kernel, or a bit differs.
"""

from __future__ import annotations

import os
import re
import shutil
import struct
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import gpunn.sklearn  # noqa: F401  it declares its kernels, and so do all the modules below it
from gpunn.backends.cpu.compiled import Compiler, Native
from gpunn.backends.cpu.compiled.compiler import FLAGS, start_of
from gpunn.backends.cpu.compiled.kernels import SERIAL
from gpunn.backends.cpu.compiled.text import chain_text, fork_text, program_text
from gpunn.backends.kernel import KERNELS, Elementwise
from gpunn.backends.random import Draw
from gpunn.optim.rule import RULES
from tests.ops.test_kernels import arguments
from tests.rowcases import ARGUMENTS
from tests.rowcases import Draw as Drawn

COMPILED_ONLY = ("x86_64-windows-gnu", "aarch64-macos")
KINDS = (("", False, False), ("coupled", True, False))
"""The forms of an update rule that are compiled, of twelve that differ by the same few words."""
HERE_AND_THERE = ("x86_64-linux-musl", "aarch64-linux-musl")
DRIVER = r"""
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
typedef void (*Run)(const Slot*);
static const Run runs[] = { RUNS };
static long long number() { long long n; if (fread(&n, 8, 1, stdin) != 1) exit(2); return n; }
int main() {
  for (long long cases = number(); cases; --cases) {
    const Run run = runs[number()];
    const long long count = number();
    Slot* slots = (Slot*)calloc(count + 1, sizeof(Slot));
    long long* sizes = (long long*)calloc(count + 1, 8);
    for (long long k = 0; k < count; ++k) {
      sizes[k] = number();
      if (sizes[k] < 0) { slots[k].i = number(); continue; }
      slots[k].p = (void*)(((size_t)malloc(sizes[k] + 64) + 63) / 64 * 64);
      if (sizes[k] && fread(slots[k].p, 1, sizes[k], stdin) != (size_t)sizes[k]) exit(2);
    }
    run(slots);
    for (long long k = 0; k < count; ++k)
      if (sizes[k] > 0) fwrite(slots[k].p, 1, sizes[k], stdout);
  }
}
"""


class Case(NamedTuple):
    """A call of a kernel: its text, its slots, and the content of the arrays that they point to."""

    kernel: str
    text: str
    slots: bytes
    arrays: dict[int, bytes]


class Collector(Compiler):
    """A compiler that only remembers what it should compile."""

    vector_math = False

    def build(self, text: str, name: str) -> Any:
        """Return a stand-in for the function, which has the text."""

        def run(slots: bytes) -> None:
            raise AssertionError("a kernel is only collected here")

        run.text = text
        return run


def collected() -> list[Case]:
    """Return a case for every kernel that a processor may run."""
    native = Native(Collector(("zig",), "zig"))
    native._slow = re.compile(SERIAL)
    found: list[Case] = []

    def add(kernel: str, call: Any, values: list[Any]) -> None:
        if call is not None:
            kept = {start_of(v): v.tobytes() for v in values if isinstance(v, np.ndarray)}
            kept.setdefault(start_of(native._ticket), native._ticket.tobytes())
            found.append(Case(kernel, call.run.text, call.args[0], kept))

    rules = {k for rule in RULES.values() for kind, k in rule.kernels.items() if kind not in KINDS}
    for name, kernel in sorted(KERNELS.items()):
        if kernel in rules:
            continue
        if isinstance(kernel, Elementwise):
            inputs, outputs = arguments(kernel, "float32")
            call = native.elementwise(kernel, inputs, outputs)
            add(name, call, [*inputs, *outputs])
        elif name in ARGUMENTS:
            args = [*ARGUMENTS[name](Drawn("float32", 7, 12)), 12, 7]
            add(name, native.rows(kernel, args), args)
    rng = np.random.default_rng(0)
    a, b, out = (rng.standard_normal(s).astype(np.float32) for s in ((9, 33), (33, 20), (9, 20)))
    add("product", native.product(a, b, out), [a, b, out])
    words = np.zeros(13, np.uint64)
    add("words", native.words(Draw((7, 8), 9, 0), words), [words])
    return found


def program(cases: list[Case]) -> tuple[str, dict[str, int]]:
    """Return one program of all texts, and the number of each text."""
    texts = dict.fromkeys([*(case.text for case in cases), chain_text(), fork_text()])
    numbers = {text: number for number, text in enumerate(texts)}
    return program_text(tuple(texts), DRIVER), numbers


def request(cases: list[Case], numbers: dict[str, int]) -> bytes:
    """Return what the program reads."""
    parts = [struct.pack("=q", len(cases))]
    for case in cases:
        words = struct.unpack(f"={len(case.slots) // 8}q", case.slots)
        parts.append(struct.pack("=2q", numbers[case.text], len(words)))
        for word in words:
            content = case.arrays.get(word)
            if content is None:
                parts.append(struct.pack("=2q", -1, word))
            else:
                parts.append(struct.pack("=q", len(content)) + content)
    return b"".join(parts)


def compiled(source: Path, target: str, place: Path) -> Path:
    """Compile a program for a target.

    Raises:
        SystemExit: the compiler refused it.
    """
    made = place / target
    flags = [flag for flag in FLAGS if flag not in ("-shared", "-O3")] + ["-O1"]
    zig, parts = [sys.executable, "-m", "ziglang"], made.with_suffix(".o")
    compiling = [*zig, "c++", "-target", target, *flags, "-c", str(source), "-o", str(parts)]
    linking = [*zig, "cc", "-target", target, str(parts), "-o", str(made)]  # c++ builds a library
    begun = time.perf_counter()
    for command in (compiling, linking):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            sys.exit(f"{target}: refused\n{done.stderr[:4000]}")
    print(f"{target}: compiled in {time.perf_counter() - begun:.0f} s", flush=True)
    return made


def main() -> None:
    """Compile everything for every system, and compare what can be run here."""
    cases = collected()
    whole, numbers = program(cases)
    print(f"{len(cases)} calls of {len(numbers)} texts")
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        source = place / "kernels.cpp"
        source.write_text(whole, encoding="utf-8")
        targets = (*HERE_AND_THERE, *COMPILED_ONLY)
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            here, there, *_ = pool.map(lambda target: compiled(source, target, place), targets)
        emulator = shutil.which("qemu-aarch64") or shutil.which("qemu-aarch64-static")
        if emulator is None:
            sys.exit("qemu-aarch64 is not installed: apt-get install qemu-user")
        asked = request(cases, numbers)
        ours = subprocess.run([here], input=asked, capture_output=True, check=True).stdout
        theirs = subprocess.run([emulator, there], input=asked, capture_output=True, check=True)
    if not compare(cases, ours, theirs.stdout):
        sys.exit(1)


def compare(cases: list[Case], ours: bytes, theirs: bytes) -> bool:
    """Print the kernels whose results differ, and return whether there is none."""
    at, wrong = 0, []
    for case in cases:
        words = struct.unpack(f"={len(case.slots) // 8}q", case.slots)
        size = sum(len(case.arrays.get(word, b"")) for word in words)
        if ours[at : at + size] != theirs[at : at + size]:
            wrong.append(case.kernel)
        at += size
    ran = sum(ours[k] != 0 for k in range(0, len(ours), 97))
    assert at == len(ours) == len(theirs), (at, len(ours), len(theirs))
    assert ran, "no kernel wrote anything"
    print(f"{len(cases) - len(wrong)} of {len(cases)} kernels have the same bits on aarch64")
    if wrong:
        print("other bits:", ", ".join(wrong))
    return not wrong


if __name__ == "__main__":
    main()
