"""Kernels: one name and one signature, with a NumPy body and a CUDA body side by side.

The NumPy body is the specification. It is called with the inputs and then the outputs, and writes
into the outputs it is given. The CUDA body is the optimisation; both use the same variable names.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

KERNELS: dict[str, Elementwise | RowKernel] = {}
"""Every kernel that the imported modules declare, by name."""

_PARAM = re.compile(r"(?P<raw>raw )?(?:(?P<type>\w+) )?(?P<name>\w+)")


class Param(NamedTuple):
    """One parameter of a kernel: type letter or dtype name, its name, whether it is indexed."""

    type: str
    name: str
    raw: bool

    def cuda(self) -> str:
        """The parameter as `cupy.ElementwiseKernel` writes it."""
        return f"{'raw ' if self.raw else ''}{self.type} {self.name}"


def _params(text: str) -> tuple[Param, ...]:
    found = []
    for part in filter(None, (part.strip() for part in text.split(","))):
        match = _PARAM.fullmatch(part)
        if match is None:
            raise ValueError(f"got kernel parameter {part!r}; expected '[raw] [type] name'")
        found.append(Param(match["type"] or "T", match["name"], match["raw"] is not None))
    return tuple(found)


@dataclass(frozen=True, eq=False)
class Elementwise:
    """A formula that is applied to every element.

    Args:
        name: unique name; also the CUDA kernel's.
        signature: "gy, y, float32 rate -> gx". A parameter without a type has letter T, the dtype
            of the arrays. `raw` parameters are indexed by the body itself. An output may be read
            before it is written, and then must be passed to `Backend.launch` as `out`.
        numpy: the body for NumPy arrays; it writes its outputs.
        cuda: the body for CUDA, in which each name is one element and `i` the flat index.
        preamble: CUDA functions that the body calls.
        chunkable: whether the NumPy body may be called on slices of axis 0, one after another;
            never where a parameter is `raw`.
    """

    name: str
    signature: str
    numpy: Callable[..., Any]
    cuda: str
    preamble: str = ""
    chunkable: bool = True
    inputs: tuple[Param, ...] = field(init=False)
    outputs: tuple[Param, ...] = field(init=False)

    def __post_init__(self) -> None:
        left, right = self.signature.split("->")
        object.__setattr__(self, "inputs", _params(left))
        object.__setattr__(self, "outputs", _params(right))
        if any(p.raw for p in self.inputs + self.outputs):
            object.__setattr__(self, "chunkable", False)
        _declare(self)

    def cuda_in_params(self) -> str:
        """The inputs as `cupy.ElementwiseKernel` takes them."""
        return ", ".join(p.cuda() for p in self.inputs)

    def cuda_out_params(self) -> str:
        """The outputs as `cupy.ElementwiseKernel` takes them."""
        return ", ".join(p.cuda() for p in self.outputs)


@dataclass(frozen=True, eq=False)
class RowKernel:
    """A kernel in which one block of threads works on one row, from a `.cu` file.

    Args:
        name: unique name; the file's `extern "C"` function.
        numpy: the body for NumPy arrays, called with the same arguments in the same order.
        cuda_file: the `.cu` file; `S` is the type that its arrays are stored in and `T` the type
            that it computes in: double for float64, else float.
        threads: threads of a block.
        dtypes: the dtypes that S may be.
    """

    name: str
    numpy: Callable[..., Any]
    cuda_file: Path
    threads: int = 256
    dtypes: tuple[str, ...] = ("float32", "float64", "float16")

    def __post_init__(self) -> None:
        _declare(self)

    def source(self, dtype: str) -> str:
        """The complete CUDA text for one dtype."""
        ctype = {"float32": "float", "float64": "double", "float16": "__half"}[dtype]
        include = "#include <cuda_fp16.h>\n" if dtype == "float16" else ""
        compute = "double" if dtype == "float64" else "float"
        text = self.cuda_file.read_text(encoding="utf-8")
        return f"{include}typedef {ctype} S;\ntypedef {compute} T;\n{text}"


def _declare(kernel: Elementwise | RowKernel) -> None:
    if kernel.name in KERNELS:
        raise ValueError(f"two kernels are named {kernel.name!r}; a name must be unique")
    KERNELS[kernel.name] = kernel
