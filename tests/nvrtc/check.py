"""Compile every kernel of gpunn with NVRTC, with no GPU and no driver.

    pip install ".[nvrtc]"
    python -m tests.nvrtc.check

From exactly the text that CuPy would generate, float32 on contiguous arrays is compiled for every
architecture; the other dtypes and strided 2-D arrays for a few of them (`FEW_ARCHS`), which keeps
the check within minutes. A row kernel is compiled for the dtypes that it declares, on every
architecture; bfloat16 where ml_dtypes is installed. Exits with 1 if a kernel is refused.
"""

from __future__ import annotations

import importlib.util
import multiprocessing
import os
import sys
import time
import warnings
from collections.abc import Iterator
from typing import NamedTuple

from tests.nvrtc.cupy_source import (
    Arg,
    CompileError,
    cubin,
    elementwise_source,
    supported_archs,
    versions,
)

ARCHS = (70, 75, 80, 86, 89, 90, 100, 120)
FEW_ARCHS = (75, 90, 120)
DTYPES = ("float32", "float64", "float16", "bfloat16")
BROKEN = ("T x", "T y", "T z = x;\ny = z + nosuch", "gpunn_broken", "")


class Case(NamedTuple):
    """One text to compile for some architectures; or why there is no text."""

    kernel: str
    variant: str
    source: str
    archs: tuple[int, ...]
    error: str = ""


class Outcome(NamedTuple):
    """What became of a case."""

    kernel: str
    compiled: int
    failures: tuple[str, ...]
    seconds: float


def cases() -> Iterator[Case]:
    """Every kernel in every variant."""
    import gpunn.train  # noqa: F401 - declares its kernels, and so do all the modules below it
    from gpunn.backends.kernel import KERNELS, Elementwise

    known = supported_archs()
    every = tuple(a for a in ARCHS if a in known)
    few = tuple(a for a in FEW_ARCHS if a in known)
    dtypes = DTYPES if importlib.util.find_spec("ml_dtypes") else DTYPES[:-1]
    for kernel in KERNELS.values():
        if not isinstance(kernel, Elementwise):
            for dtype in kernel.dtypes:
                yield _case(kernel.name, dtype, every, lambda k=kernel, d=dtype: k.source(d))
            continue
        for dtype in dtypes:
            for layout, ndim in (("contiguous", 1), ("strided 2-d", 2)):
                archs = every if (dtype, ndim) == ("float32", 1) else few
                text = lambda k=kernel, d=dtype, n=ndim: _elementwise(k, d, n)  # noqa: E731
                yield _case(kernel.name, f"{dtype}, {layout}", archs, text)


def compile_case(case: Case) -> Outcome:
    """Compile one text for its architectures; runs in a worker."""
    start = time.perf_counter()
    failures = [f"{case.kernel} [{case.variant}]: {case.error}"] if case.error else []
    compiled = 0
    for arch in () if case.error else case.archs:
        try:
            cubin(case.source, arch, f"{case.kernel}.cu", ("--std=c++17",))
            compiled += 1
        except CompileError as error:
            failures.append(f"{case.kernel} [{case.variant}] sm_{arch}:\n{error}")
    return Outcome(case.kernel, compiled, tuple(failures), time.perf_counter() - start)


def check_refusal() -> str:
    """Nothing if a broken body is refused by its line; else what is wrong with this check."""
    source = elementwise_source(BROKEN, [Arg("float32"), Arg("float32")], ndim=1)
    wanted = next(n for n, line in enumerate(source.split("\n"), 1) if "nosuch" in line)
    try:
        cubin(source, 90, "gpunn_broken.cu")
    except CompileError as error:
        named = f"({wanted})" in str(error) and "nosuch" in str(error)
        return "" if named else f"the message does not name line {wanted}:\n{error}"
    return "a broken body went through: the check is worthless"


def main() -> int:
    """Check, print a line for each kernel, and return the exit status."""
    warnings.simplefilter("ignore")
    start = time.perf_counter()
    if wrong := check_refusal():
        print(wrong)
        return 1
    todo = list(cases())
    archs = sorted({arch for case in todo for arch in case.archs})
    print(f"{versions()}: {len(todo)} texts for {', '.join(f'sm_{a}' for a in archs)}")
    with multiprocessing.get_context("spawn").Pool(os.cpu_count()) as pool:
        outcomes = pool.map(compile_case, todo, chunksize=4)
    failed = compiled = 0
    for kernel in dict.fromkeys(case.kernel for case in todo):
        mine = [o for o in outcomes if o.kernel == kernel]
        failures = [message for o in mine for message in o.failures]
        done, seconds = sum(o.compiled for o in mine), sum(o.seconds for o in mine)
        compiled, failed = compiled + done, failed + len(failures)
        verdict = f"{len(failures)} FAILED" if failures else "ok"
        print(f"{kernel:36s} {done:3d} compiled  {seconds:5.1f} s  {verdict}")
        if failures:
            print("\n".join(failures[:3]))
    seconds = time.perf_counter() - start
    print(f"{compiled} programs compiled, {failed} failed, in {seconds:.0f} s")
    return 1 if failed or not compiled else 0


def _case(kernel: str, variant: str, archs: tuple[int, ...], text) -> Case:
    try:
        return Case(kernel, variant, text(), archs)
    except Exception as error:  # what CuPy or the library refuses is a finding, not a crash
        return Case(kernel, variant, "", archs, f"{type(error).__name__}: {error}")


def _elementwise(kernel, dtype: str, ndim: int) -> str:
    """The text for one dtype; inputs of a fixed type that are not raw arrive as scalars."""
    args = []
    for param in (*kernel.inputs, *kernel.outputs):
        letter = len(param.type) == 1
        scalar = not letter and not param.raw and param in kernel.inputs
        layout = (1, True) if param.raw else (ndim, ndim == 1)
        args.append(Arg(None) if scalar else Arg(dtype if letter else param.type, *layout))
    texts = (
        kernel.cuda_in_params(),
        kernel.cuda_out_params(),
        kernel.cuda,
        f"gpunn_{kernel.name}",
        kernel.preamble,
    )
    return elementwise_source(texts, args, ndim)


if __name__ == "__main__":
    sys.exit(main())
