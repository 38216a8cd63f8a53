"""The kernels that a small network needs, as one module of WebAssembly.

Their texts are those of the compiled CPU path. No formula is written here.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from gpunn import ops
from gpunn.backends.counts import ADVANCE
from gpunn.backends.cpu.compiled.compiler import FLAGS
from gpunn.backends.cpu.compiled.text import (
    Argument,
    chain_text,
    elementwise_text,
    product_text,
    program_text,
    row_text,
    words_text,
)
from gpunn.backends.kernel import ADDED, Elementwise, Param
from gpunn.errors import MissingExtraError, OutputError
from gpunn.ops import ACTIVATIONS, LOSSES, Activation
from gpunn.ops.elementwise_losses import ElementwiseLoss
from gpunn.ops.gather import GATHER_ROWS
from gpunn.ops.reductions import COLUMN_SUMS
from gpunn.optim import Optimizer
from gpunn.optim.guard import JUDGED
from gpunn.optim.regularizers import PENALTY

UNIT = "uint32"
"""The unit in which rows are copied. Rows of float32 have whole units at every address."""
SINGLE = ("factor", "lr", "times", "value", "weight", "pos_weight")
"""The inputs that are one number of the device in every launch of a network without groups."""
NUMBERS = {"T": "d", "float64": "d"}
REST = """
extern "C" {
#define EXPORT(name) __attribute__((export_name(#name), visibility("default")))
typedef void Run(const Slot*);
static Run* const runs[] = {RUNS};
EXPORT(address) Run* address(int number) { return runs[number]; }
EXPORT(run) void run(int number, const Slot* slots) { runs[number](slots); }
extern unsigned char __heap_base;
EXPORT(heap) unsigned char* heap() { return &__heap_base; }
}
"""
TARGET = ("-target", "wasm32-wasi", "-mexec-model=reactor", "-msimd128", "-s", "-Wl,--strip-all")
TIMEOUT_S = 600  # seconds; zig builds its mathematics on its first call


class Loop(NamedTuple):
    """An elementwise kernel of the module, as the page calls it.

    Attributes:
        text: its source.
        slots: a letter for each argument: "p" for an address, "d" for a float, "i" for an integer.
        nested: whether it loops over rows and columns, because a bias repeats.
        body: the formula for one element, as it is declared.
    """

    text: str
    slots: str
    nested: bool
    body: str


def losses() -> dict[str, ElementwiseLoss]:
    """Return gpunn's losses for one output and targets 0 and 1, -1 and +1, or any numbers."""
    left_out = ("kullback_leibler", "poisson_error", "quantile_error")  # of distributions, counts
    return {
        name: loss
        for name, loss in LOSSES.items()
        if getattr(ops, name, None) is loss
        and isinstance(loss, ElementwiseLoss)
        and not (name in left_out or loss.predictions)
    }


def activations() -> dict[str, Activation]:
    """Return gpunn's elementwise activations, without steps, which pass no gradient."""
    return {
        name: activation
        for name, activation in ACTIVATIONS.items()
        if getattr(ops, name, None) is activation
        and isinstance(activation, Activation)
        and (activation.differentiable and activation.name == name)
    }


def elementwise(optimizers: list[Optimizer]) -> Iterator[Elementwise]:
    """Return the elementwise kernels that networks and these optimizers launch."""
    for activation in activations().values():
        yield activation.bias_kernel
        yield activation.bias_dropout_kernel
        if activation.saves:
            yield activation.grad_kernel
        yield activation.grad_dropout_kernel
    for loss in losses().values():
        yield loss.kernel
    for optimizer in optimizers:
        yield optimizer.rule.kernels[optimizer.decay_kind, False, False]
    yield from (PENALTY, ADDED, JUDGED, ADVANCE)


def loop(kernel: Elementwise) -> Loop:
    """Return the loop of a kernel for the layouts that its arguments have in a network."""
    given = arguments(kernel)
    params = (*kernel.inputs, *kernel.outputs)
    slots = "".join(
        NUMBERS.get(param.type, "i") if argument.layout == "value" else "p"
        for param, argument in zip(params, given, strict=True)
    )
    nested = any(argument.layout == "row" for argument in given)
    return Loop(elementwise_text(kernel, given, nested), slots, nested, kernel.cuda)


def arguments(kernel: Elementwise) -> tuple[Argument, ...]:
    """Return the ways in which a network passes the arguments of a kernel."""
    return tuple(
        Argument(
            _layout(kernel, param, is_input=k < len(kernel.inputs)),
            "float32" if param.type == "T" else param.type,
        )
        for k, param in enumerate((*kernel.inputs, *kernel.outputs))
    )


def _layout(kernel: Elementwise, param: Param, *, is_input: bool) -> str:
    if param.role == "raw":
        return "raw"
    single = is_input and param.type == "T" and param.name in SINGLE
    if param.role in ("sum", "one") or single:
        return "one"
    if param.name == "bias":
        return "row"
    named = f"T {param.name}" in kernel.signature
    numbers = is_input and kernel is not ADVANCE and (param.type != "T" or named)
    return "value" if numbers and param.name != "loss" else "each"


def own_texts() -> dict[str, str]:
    """Return the texts that are no elementwise kernels, by the names that the page uses."""
    return {
        "chain": chain_text(),
        "product": product_text(),
        "words": words_text(),
        COLUMN_SUMS.name: row_text(COLUMN_SUMS),
        GATHER_ROWS.name: row_text(GATHER_ROWS, UNIT),
    }


def program(optimizers: list[Optimizer]) -> tuple[str, dict[str, Loop], list[str]]:
    """Return the source of the module, its loops, and the names of its functions in order."""
    loops = {kernel.name: loop(kernel) for kernel in elementwise(optimizers)}
    texts = own_texts() | {name: found.text for name, found in loops.items()}
    return program_text(tuple(texts.values()), REST), loops, list(texts)


def webassembly(source: str) -> bytes:
    """Compile the source to a module without imports.

    Raises:
        MissingExtraError: ziglang is not installed.
        OutputError: the compiler refused the source.
    """
    if find_spec("ziglang") is None:
        raise MissingExtraError("ziglang", "compiled", "a new build of the playground")
    flags = [flag for flag in FLAGS if flag != "-shared"]
    with tempfile.TemporaryDirectory() as place:
        (Path(place) / "kernels.cpp").write_text(source, encoding="utf-8")
        zig = sys.executable, "-m", "ziglang"
        compiling = *zig, "c++", *TARGET, *flags, "-c", "kernels.cpp"
        linking = *zig, "cc", *TARGET, "kernels.o", "-o", "kernels.wasm"  # c++ builds a library
        for command in (compiling, linking):
            done = subprocess.run(
                command, cwd=place, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
            )
            if done.returncode:
                raise OutputError(
                    "got an error of ziglang for the kernels of the playground; expected a module: "
                    f"install ziglang 0.17.1 ({done.stderr.strip()[:2000]})"
                )
        return (Path(place) / "kernels.wasm").read_bytes()
