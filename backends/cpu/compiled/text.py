"""The C++ source of a kernel for one thread: a loop around its CUDA body."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from gpunn.backends.kernel import CTYPES, EXACT, Elementwise, Param, RowKernel, exact_part
from gpunn.backends.random import PHILOX_CUDA

HERE = Path(__file__).parent
KERNEL = re.compile(r'^(?=extern "C")', re.MULTILINE)
INCLUDE = re.compile(r"^#include .*$", re.MULTILINE)
LANES = 16  # the number of partial sums that a sum adds up side by side


class Argument(NamedTuple):
    """The way in which an argument is passed.

    Attributes:
        layout: "value", "raw", "one" and "each" as on a GPU; "row" and "column", an array that is
            indexed by the inner or the outer of two loops; "fixed", a number that is compiled in.
        dtype: the name of the dtype; for "fixed", the number.
    """

    layout: str
    dtype: str


def elementwise_text(kernel: Elementwise, arguments: tuple[Argument, ...], nested: bool) -> str:
    """Return the complete source of `run(const Slot*)` for an elementwise kernel.

    The slots are the arguments, the number of elements and the number of columns.

    Args:
        kernel: the declaration.
        arguments: the layouts of its inputs and outputs, in order.
        nested: whether to loop over rows and columns, because an argument repeats.
    """
    text = _Text(kernel, arguments)
    count = len(arguments)
    body = "{" + text.joined("load") + "{" + kernel.cuda + "}" + text.joined("store") + "}"
    if nested:
        loop = (
            f"const I w_ = a_[{count + 1}].i;\n"
            "for (I r_ = 0; r_ < n_ / w_; ++r_) {\n#pragma GCC ivdep\n"
            f"for (I c_ = 0; c_ < w_; ++c_) {{ const I i = r_ * w_ + c_; {body} }} }}\n"
        )
    elif kernel.sums:
        loop = (
            "const I whole_ = n_ - n_ % LANES_;\n"
            "for (I at_ = 0; at_ < whole_; at_ += LANES_) {\n#pragma GCC ivdep\n"
            f"for (int k_ = 0; k_ < LANES_; ++k_) {{ const I i = at_ + k_; {body} }} }}\n"
            f"for (I i = whole_; i < n_; ++i) {{ const int k_ = (int)(i - whole_); {body} }}\n"
        )
    else:
        loop = f"#pragma GCC ivdep\nfor (I i = 0; i < n_; ++i) {body}\n"
    return (
        f"{_header('host.h')}\n"
        f"typedef float T; typedef float S; typedef long long I;\nconstexpr int LANES_ = {LANES};\n"
        f"{exact_part(kernel.cuda)}{kernel.preamble}\n"
        f'extern "C" void run(const Slot* a_) {{\nconst I n_ = a_[{count}].i;\n'
        f"{text.joined('before')}\n{loop}{text.joined('after')}\n{{ {kernel.once} }}\n"
        f"{text.joined('end')}\n}}\n"
    )


def own_text(kernel: RowKernel) -> str:
    """Return the kernel's source and everything before the first kernel of its file.

    Other kernels of the file are left out, because they may compile only for a GPU.
    """
    first, *kernels = KERNEL.split(kernel.text)
    return first + next(text for text in kernels if f" {kernel.name}(" in text)


@lru_cache(maxsize=512)
def shares(kernel: RowKernel) -> str:
    """Return the part that a block of the kernel works on.

    It is a "row", a "column" (a tile of several columns), or a "block" if the kernel divides its
    work itself.
    """
    if kernel.by_columns:
        return "column"
    return "row" if "this_row(" in own_text(kernel) else "block"


def row_text(kernel: RowKernel, dtype: str = "float32") -> str:
    """Return the complete source of `run(const Slot*)` for a row kernel.

    The slots are the arguments, a ticket if the kernel takes one, and the number of blocks.

    Args:
        kernel: the kernel.
        dtype: the dtype S that its arrays are stored in. The kernel computes in float.
    """
    return (
        f"{_header('host.h')}\ntypedef float T; typedef {CTYPES[dtype]} S;\n{EXACT}\n"
        f"{_header(f'{shares(kernel)}.h')}\n{own_text(kernel)}\n"
        f'extern "C" void run(const Slot* a_) {{ each_(&{kernel.name}, a_); }}\n'
    )


def product_text() -> str:
    """Return the complete source of `run(const Slot*)` for products; see the end of `product.h`."""
    return f"{_header('host.h')}\n{_header('product.h')}"


def chain_text() -> str:
    """Return the complete source of `run(const Slot*)` that makes several calls.

    The slots are the number of calls, then the function and the argument of each.
    """
    return (
        f"{_header('host.h')}\ntypedef void Run(const Slot*);\n"
        'extern "C" void run(const Slot* a_) {\n'
        "for (long long k = 0; k < a_->i; ++k)\n"
        "  ((Run*)a_[1 + 2 * k].p)((const Slot*)a_[2 + 2 * k].p);\n}\n"
    )


def fork_text() -> str:
    """Return the complete source of `run(const Slot*)` that makes several calls at the same time.

    The slots are those of a chain.
    """
    return f"{_header('host.h')}\n{_header('fork.h')}"


def program_text(texts: Sequence[str], rest: str) -> str:
    """Return one source of several complete texts, each in a namespace of its own.

    Args:
        texts: complete sources of functions `run(const Slot*)`.
        rest: what comes behind them. In it, RUNS stands for their functions, in order.
    """
    host, intrinsics = _header("host.h"), "#include <immintrin.h>"  # of which a text makes sure
    includes, parts = set(INCLUDE.findall(host)), []
    for number, text in enumerate(texts):
        own = text.replace(host, "").replace('extern "C" ', "")
        includes |= set(INCLUDE.findall(own))
        parts.append(f"namespace kernel_{number} {{\n{INCLUDE.sub('', own)}\n}}\n")
    first = [*sorted(includes - {intrinsics}), "#if defined(__x86_64__)", intrinsics, "#endif"]
    runs = ", ".join(f"kernel_{number}::run" for number in range(len(texts)))
    return "\n".join([*first, INCLUDE.sub("", host), *parts, rest.replace("RUNS", runs)])


def words_text() -> str:
    """Return the complete source of `run(const Slot*)` for random words; see `words.h`."""
    return f"{_header('host.h')}\n{PHILOX_CUDA}\n{_header('words.h')}"


def _header(name: str) -> str:
    return (HERE / name).read_text(encoding="utf-8")


class _Text:
    """The parts of a loop's source, built up parameter by parameter."""

    def __init__(self, kernel: Elementwise, arguments: tuple[Argument, ...]) -> None:
        self.before: list[str] = []
        self.load: list[str] = []
        self.store: list[str] = []
        self.after: list[str] = []
        self.end: list[str] = []
        self._once = bool(kernel.once)
        for k, param in enumerate((*kernel.inputs, *kernel.outputs)):
            self._add(k, param, arguments[k], is_output=k >= len(kernel.inputs))

    def joined(self, part: str) -> str:
        """Return the lines of a part as one text."""
        return " ".join(getattr(self, part))

    def _add(self, k: int, param: Param, argument: Argument, is_output: bool) -> None:
        name, (layout, dtype) = param.name, argument
        kind = param.ctype
        if layout == "fixed":
            self.before.append(f"constexpr {kind} {name} = ({kind}){dtype};")
            return
        if layout == "value":
            self.before.append(f"const {kind} {name}_c = From<{kind}>::slot(a_[{k}]);")
            self.load.append(f"{kind} {name} = {name}_c;")
            self.after.append(f"{kind} {name} = {name}_c;" if self._once else "")
            return
        stored = CTYPES[dtype]
        const = "" if is_output else "const "
        pointer = name if layout == "raw" else f"{name}_p"
        self.before.append(f"{const}{stored}* {pointer} = ({const}{stored}*)a_[{k}].p;")
        if param.role == "sum":
            # A sum of a million floats needs the precision of a double.
            self.before.append(f"double {name}_s[LANES_] = {{}};")
            self.load.append(f"{kind} {name} = 0;")
            self.store.append(f"{name}_s[k_] += {name};")
            self.after.append(
                f"double {name}_t = 0; for (double part_ : {name}_s) {name}_t += part_;"
            )
            self.after.append(f"{kind} {name} = ({kind}){name}_t;")
            self.end.append(f"*{name}_p = ({stored}){name};")
        elif param.role == "one":
            self.before.append(f"const {kind} {name}_c = ({kind})*{name}_p;")
            self.load.append(f"{kind} {name} = {name}_c;")
            self.after.append(f"{kind} {name} = {name}_c;")
            self.end.append(f"*{name}_p = ({stored}){name};")
        elif layout == "one":
            self.before.append(f"const {kind} {name}_c = ({kind})*{name}_p;")
            self.load.append(f"{kind} {name} = {name}_c;")
            self.after.append(f"{kind} {name} = {name}_c;" if self._once else "")
        elif layout != "raw":
            at = {"each": "i", "row": "c_", "column": "r_"}[layout]
            self.load.append(f"{kind} {name} = ({kind}){name}_p[{at}];")
            if is_output:
                self.store.append(f"{name}_p[{at}] = ({stored}){name};")
