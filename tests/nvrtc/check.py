"""Compile every kernel of gpunn with NVRTC, with no GPU and no driver.

    pip install ".[nvrtc]"
    python -m tests.nvrtc.check

The text of every kernel is compiled for each generation of GPUs in float32, in packs of 16 bytes.
In other layouts (bare elements, repeated rows, float32 arrays beside narrow ones) and other dtypes
it is compiled for the oldest one, and in packs of bfloat16 also for the newest, which has other
instructions for it. Repeated rows are compiled in float32 only. Most forms of an update rule are
compiled for two architectures in float32 (`WHOLE_FORMS`). A row kernel is compiled for the dtypes
that it declares, and once more for short rows. Exits with 1 if a kernel is refused.
"""

from __future__ import annotations

import multiprocessing
import os
import re
import sys
import time
import warnings
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from gpunn.backends.cuda.source import Argument, elementwise_source
from tests.nvrtc.compiler import CompileError, cubin, supported_archs, versions

ARCHS = (70, 75, 80, 90, 100, 120)  # 86 and 89 have the instructions of 80 that bodies use
FEW_ARCHS = (75, 120)  # the oldest and the newest: a text has no parts for one architecture
WHOLE_FORMS = (("", False, False), ("decoupled", True, True))
"""The forms of an update rule that are compiled for all. Ten more differ by the same few words."""
WIDTHS = {"T": "float32", "bfloat16": "float16"}  # another dtype of the same size
DTYPES = ("float32", "float64", "float16", "bfloat16")
NARROW = ("float16", "bfloat16")


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
    from gpunn.optim.rule import RULES

    known = supported_archs()
    every = tuple(a for a in ARCHS if a in known)
    few = tuple(a for a in FEW_ARCHS if a in known)
    forms = [form for rule in RULES.values() for form in rule.kernels.items()]
    alike = {kernel for kind, kernel in forms if kind not in WHOLE_FORMS}
    for kernel in KERNELS.values():
        if not isinstance(kernel, Elementwise):
            for dtype in kernel.dtypes:
                archs = every if dtype in ("float32", "uint32") else _of_dtype(dtype, few)
                yield _case(kernel.name, dtype, archs, lambda k=kernel, d=dtype: k.source(d))
                if "hold(" in kernel.text:
                    pack = 16 // np.dtype(WIDTHS.get(dtype, dtype)).itemsize
                    text = lambda k=kernel, d=dtype, p=pack: k.source(d, p)  # noqa: E731
                    yield _case(kernel.name, f"{dtype}, short rows", _of_dtype(dtype, few), text)
            continue
        if kernel in alike:
            text = lambda k=kernel: elementwise_text(k, "float32", "packed")  # noqa: E731
            yield _case(kernel.name, "float32, packed", few, text)
            continue
        for dtype in DTYPES:
            for variant in ("packed", "bare", "repeated", "beside float32"):
                if variant == "beside float32" and dtype not in NARROW:
                    continue
                if variant == "repeated" and dtype != "float32":
                    continue  # where an element is read from does not depend on its dtype
                archs = few[:1]
                if variant == "packed":
                    archs = every if dtype == "float32" else _of_dtype(dtype, few)
                text = lambda k=kernel, d=dtype, v=variant: elementwise_text(k, d, v)  # noqa: E731
                yield _case(kernel.name, f"{dtype}, {variant}", archs, text)
    for name, kernel in network_steps():
        main = name in ("relu and adam", "relu, dropout, guard and adam")
        kinds = {"float32": every, "float64": few} if main else {"float32": few[:1]}
        for dtype, archs in kinds.items():
            text = lambda k=kernel, d=dtype: k.source(d, 16 // np.dtype(d).itemsize)  # noqa: E731
            yield _case("network_step", f"{dtype}, {name}", archs, text)


def _of_dtype(dtype: str, few: tuple[int, ...]) -> tuple[int, ...]:
    """The architectures for a dtype: one, unless the newest has instructions of its own for it."""
    return few if dtype in ("float32", "bfloat16") else few[:1]


def network_steps() -> Iterator[tuple[str, Any]]:
    """The kernels of whole steps: with each rule, and with each activation in its fullest form."""
    from gpunn.ops import Activation
    from gpunn.ops.elementwise import ACTIVATIONS
    from gpunn.optim.rule import RULES
    from gpunn.train.steps.network import step_kernel

    def kernel(activation: Any, full: bool, rule: Any) -> Any:
        form = rule.kernels[("decoupled" if full else "", full, False)]
        layouts = tuple("each" if p.name in ("pace", "fade") else "value" for p in form.inputs[3:])
        return step_kernel(activation, full, full, form, layouts)

    relu, adam = ACTIVATIONS["relu"], RULES["adam"]
    for name, rule in RULES.items():
        yield f"relu and {name}", kernel(relu, False, rule)
    for name, found in ACTIVATIONS.items():
        if isinstance(found, Activation) and found.differentiable:
            yield f"{name}, dropout, guard and adam", kernel(found, True, adam)


def elementwise_text(kernel: Any, dtype: str, variant: str) -> str:
    """The text of a kernel for arrays of one dtype, laid out in one way."""
    found = []
    outputs = len(kernel.inputs)
    for k, param in enumerate((*kernel.inputs, *kernel.outputs)):
        name = dtype if param.type == "T" else param.type
        array = param.type == "T" or k >= outputs
        if param.name == "words" and variant == "packed":
            found.append(Argument("words", param.type))
        elif param.role in ("raw", "sum", "one"):
            found.append(Argument("raw" if param.role == "raw" else "one", name))
        elif param in kernel.inputs and re.search(rf"\b{param.name}\b", kernel.once):
            found.append(Argument("one", name))
        elif not array:
            found.append(Argument("value", param.type))
        elif variant == "repeated" and k < outputs:
            found.append(Argument(("row", "column", "one")[k % 3], name))
        elif variant == "beside float32" and k % 2:
            found.append(Argument("each", "float32" if param.type == "T" else name))
        else:
            found.append(Argument("each", name))
    lanes = 1
    if variant != "bare":
        arrays = [a.dtype for a in found if a.layout != "words"]
        lanes = 16 // max(np.dtype(WIDTHS.get(dtype, dtype)).itemsize for dtype in arrays)
    return elementwise_source(kernel, tuple(found), max(1, lanes), wide=variant == "bare")


def compile_case(case: Case) -> Outcome:
    """Compile one text for its architectures; runs in a worker."""
    start = time.perf_counter()
    failures = [f"{case.kernel} [{case.variant}]: {case.error}"] if case.error else []
    compiled = 0
    for arch in () if case.error else case.archs:
        try:
            cubin(case.source, arch, f"{case.kernel}.cu")
            compiled += 1
        except CompileError as error:
            failures.append(f"{case.kernel} [{case.variant}] sm_{arch}:\n{error}")
    return Outcome(case.kernel, compiled, tuple(failures), time.perf_counter() - start)


def check_refusal() -> str:
    """Nothing if a broken body is refused by its line; else what is wrong with this check."""
    from gpunn.backends.kernel import KERNELS, Elementwise

    broken = Elementwise("broken", "x -> y", numpy=None, cuda="T z = x;\ny = z + nosuch;")
    del KERNELS["broken"]
    try:
        cubin(elementwise_text(broken, "float32", "packed"), 90, "broken.cu")
    except CompileError as error:
        named = "broken.body(2)" in str(error) and "nosuch" in str(error)
        return "" if named else f"the message does not name line 2 of the body:\n{error}"
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


if __name__ == "__main__":
    sys.exit(main())
