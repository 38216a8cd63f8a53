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

import numpy as np

from gpunn.names import home_of, register
from gpunn.typing import DType

KERNELS: dict[str, Elementwise | RowKernel] = {}
"""Every kernel that the imported modules declare, by name."""

WARP_COLUMNS = 1024
"""The longest row that one warp works on; a longer one has a whole block of threads."""
TILE_LANES = 8
"""Lanes side by side along the columns of a tile, 16 bytes each: together a line of the cache."""
TALL_ROWS, TALL_THREADS = 256, 512
"""From how many rows on a tile of columns has the larger block, and the threads of that."""

SHARED_BLOCKS, SHARED_ROWS = 512, 512
"""Blocks that sums of columns are dealt to at most, and rows of a share at least."""

CTYPES = {
    "bool": "bool",
    "int8": "signed char",
    "uint8": "unsigned char",
    "int16": "short",
    "uint16": "unsigned short",
    "int32": "int",
    "uint32": "unsigned int",
    "int64": "long long",
    "uint64": "unsigned long long",
    "float16": "__half",
    "bfloat16": "__nv_bfloat16",
    "float32": "float",
    "float64": "double",
}
HEADERS = {"float16": "#include <cuda_fp16.h>\n", "bfloat16": "#include <cuda_bf16.h>\n"}

_PARAM = re.compile(r"(?:(?P<role>raw|sum|one) )?(?:(?P<type>\w+) )?(?P<name>\w+)")


class Param(NamedTuple):
    """One parameter of a kernel.

    Attributes:
        type: T, the dtype of the arrays, or a dtype's name.
        name: as both bodies use it.
        role: "each", an element a time; "raw", indexed by the body itself; "sum", an output to
            which every element adds; "one", an output with one element that `once` sets.
    """

    type: str
    name: str
    role: str


def _params(text: str) -> tuple[Param, ...]:
    found = []
    for part in filter(None, (part.strip() for part in text.split(","))):
        match = _PARAM.fullmatch(part)
        if match is None:
            raise ValueError(f"got kernel parameter {part!r}; expected '[role] [type] name'")
        found.append(Param(match["type"] or "T", match["name"], match["role"] or "each"))
    return tuple(found)


@dataclass(frozen=True, eq=False)
class Elementwise:
    """A formula that is applied to every element.

    Args:
        name: unique name; also the CUDA kernel's.
        signature: "gy, y, T rate -> gx, sum total". A parameter without a type has letter T, the
            dtype of the arrays; see `Param` for the roles. An output may be read before it is
            written, and then must be passed to `Backend.launch` as `out`.
        numpy: the body for NumPy arrays; it writes its outputs, and adds to those that are sums.
        cuda: the body for CUDA, in which each name is one element and `i` the flat index. It
            computes in T: float, for float64 arrays double, whatever they are stored in; S is what
            the first of them is stored in.
        preamble: CUDA functions that the body calls.
        once: what is done after all elements, by one thread, with the finished sums.
        numpy_once: the same for NumPy, called with all inputs and outputs.
        chunkable: whether the NumPy body may be called on slices of axis 0, one after another;
            never where a parameter is `raw`.
    """

    name: str
    signature: str
    numpy: Callable[..., Any]
    cuda: str
    preamble: str = ""
    once: str = ""
    numpy_once: Callable[..., Any] | None = None
    chunkable: bool = True
    inputs: tuple[Param, ...] = field(init=False)
    outputs: tuple[Param, ...] = field(init=False)
    sums: tuple[Param, ...] = field(init=False)

    def __fingerprint__(self) -> None:
        """A kernel never changes."""

    def __post_init__(self) -> None:
        left, right = self.signature.split("->")
        object.__setattr__(self, "inputs", _params(left))
        object.__setattr__(self, "outputs", _params(right))
        object.__setattr__(self, "sums", tuple(p for p in self.outputs if p.role == "sum"))
        if any(p.role == "raw" for p in self.inputs):
            object.__setattr__(self, "chunkable", False)
        _declare(self)


@dataclass(frozen=True, eq=False)
class RowKernel:
    """A kernel in which blocks of threads share out the rows of a matrix, from a `.cu` file.

    Its last two parameters are the number of columns and the number of rows.

    Args:
        name: unique name; an `extern "C"` function of the file.
        numpy: the body for NumPy arrays, called with the same arguments in the same order.
        cuda_file: the `.cu` file; `S` is the type that its arrays are stored in and `T` the type
            that it computes in: double for float64, else float. The `block.cuh` beside it is put
            before its text.
        threads: threads of a block.
        dtypes: the dtypes that S may be.
        ticket: whether the CUDA function takes, as its last argument, an `unsigned int*` that is
            0 and that it leaves 0: by it the block that arrives last knows itself.
        by_columns: whether a block works on a tile of columns, over all rows.
    """

    name: str
    numpy: Callable[..., Any]
    cuda_file: Path
    threads: int = 256
    dtypes: tuple[str, ...] = ("float32", "float64", "float16", "bfloat16")
    by_columns: bool = False
    ticket: bool = False

    def __fingerprint__(self) -> None:
        """A kernel never changes."""

    def __post_init__(self) -> None:
        _declare(self)

    def held(self, item_bytes: int, columns: int | None) -> int:
        """How many elements of a row of that length, None for any, a thread keeps in registers."""
        few = 16 // item_bytes
        short = columns is not None and columns <= 32 * few and not self.by_columns
        return few if short else WARP_COLUMNS // 32

    def source(self, dtype: str, held: int = WARP_COLUMNS // 32) -> str:
        """The complete CUDA text for one dtype, and elements of a row that a thread holds."""
        compute = "double" if dtype == "float64" else "float"
        shared = self.cuda_file.with_name("block.cuh").read_text(encoding="utf-8")
        return (
            f"{HEADERS.get(dtype, '')}typedef {CTYPES[dtype]} S;\n"
            f"typedef {compute} T;\n"
            f"constexpr int WARP_COLUMNS = {WARP_COLUMNS}, TILE_LANES = {TILE_LANES};\n"
            f"constexpr int HELD = {held};\n"
            f"{shared}\n{self.cuda_file.read_text(encoding='utf-8')}"
        )

    def geometry(self, item_bytes: int, rows: int, columns: int) -> tuple[int, int]:
        """How many blocks, and of how many threads, work on a matrix of such elements."""
        if self.by_columns:
            width = TILE_LANES * 16 // item_bytes
            return -(-columns // width), TALL_THREADS if rows >= TALL_ROWS else self.threads
        if columns > WARP_COLUMNS:
            return rows, self.threads
        return -(-rows // (self.threads // 32)), self.threads


def shares(item_bytes: int, rows: int, columns: int) -> int:
    """Into how many shares the rows of a narrow, tall matrix are dealt for sums of its columns.

    Its tiles alone are too few to keep a GPU busy. The shape decides, so the bits of a sum are the
    same on every card.
    """
    tiles = -(-columns * item_bytes // (TILE_LANES * 16))
    return max(1, min(SHARED_BLOCKS // tiles, rows // SHARED_ROWS))


_SINGLE, _DOUBLE = np.dtype("float32"), np.dtype("float64")


def computed(dtype: DType) -> np.dtype[Any]:
    """The dtype that kernels compute in for arrays of another, and keep losses and sums in."""
    return _DOUBLE if dtype == _DOUBLE else _SINGLE


def _declare(kernel: Elementwise | RowKernel) -> None:
    register(KERNELS, "kernel", kernel.name, kernel, home_of(kernel.numpy))
