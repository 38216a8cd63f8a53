"""Kernels: one name and one signature, with a NumPy body and a CUDA body side by side.

The NumPy body is the specification. It takes the inputs and then the outputs, and writes to the
outputs. The CUDA body computes the same on a GPU. Both bodies use the same variable names.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from gpunn.errors import ArgumentError
from gpunn.names import home_of, register
from gpunn.typing import DType

KERNELS: dict[str, Elementwise | RowKernel] = {}
"""Every kernel that the imported modules declare, by name."""

WARP_COLUMNS = 1024
"""The longest row that one warp works on. A whole block of threads works on a longer row."""
TILE_LANES = 8
"""Threads side by side along a tile's columns. At 16 bytes each they read one cache line."""
TALL_ROWS, TALL_THREADS = 256, 512
"""Tiles with at least TALL_ROWS rows get TALL_THREADS threads."""

SHARED_BLOCKS, SHARED_ROWS = 512, 512
"""Sums of columns use at most SHARED_BLOCKS blocks, with at least SHARED_ROWS rows each."""

EXACT = (Path(__file__).parent / "exact.h").read_text(encoding="utf-8")
"""The functions that a kernel can call for the rounding errors of sums and products."""
_EXACT_NAMES = re.compile("|".join(re.findall(r"inline V (\w+)\(", EXACT)))

RESERVED = ("i", "S", "T")
"""The names that every elementwise kernel has already."""

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

_INCLUDE = re.compile(r'^#include "([\w.]+)"$', re.M)
_PARAM = re.compile(r"(?:(?P<role>raw|sum|one) )?(?:(?P<type>\w+) )?(?P<name>\w+)")


class Param(NamedTuple):
    """One parameter of a kernel.

    Attributes:
        type: "T", the dtype of the arrays, or the name of a dtype.
        name: the name of the variable in both bodies.
        role: "each", the body handles one element at a time; "raw", the body indexes the array
            itself; "sum", an output to which every element adds; "one", an output with one
            element that `once` sets.
    """

    type: str
    name: str
    role: str

    @property
    def ctype(self) -> str:
        """The C type that the body computes in."""
        return "T" if self.type == "T" else CTYPES[self.type]


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
        name: the unique name, also of the CUDA kernel.
        signature: for example "gy, y, T rate -> gx, sum total". A parameter without a type has the
            type T, the dtype of the arrays; see `Param` for the roles. If a body reads an output
            before it writes it, pass the output to `Backend.launch` as `out`.
        numpy: the body for NumPy arrays. It writes to its outputs, and adds to those that are sums,
            which are float64 arrays.
        cuda: the body for CUDA. Each name in it is one element, and `i` is the flat index. It
            computes in the type T: double for float64 arrays, float for other floats. S is the
            type that the first array of type T is stored in.
        preamble: CUDA functions that the body calls.
        once: CUDA code that one thread runs after all elements, with the finished sums.
        numpy_once: the same for NumPy, called with all inputs and outputs.
        chunkable: whether the NumPy body may be called on slices of axis 0, one after another.
            False if a parameter is `raw`.
        widens: whether the NumPy body gets float16 and bfloat16 arrays of type T as float32, in
            which the CUDA body computes, too. False if the formula depends on the dtype.
    """

    name: str
    signature: str
    numpy: Callable[..., Any]
    cuda: str
    preamble: str = ""
    once: str = ""
    numpy_once: Callable[..., Any] | None = None
    chunkable: bool = True
    widens: bool = True
    inputs: tuple[Param, ...] = field(init=False)
    outputs: tuple[Param, ...] = field(init=False)
    sums: tuple[Param, ...] = field(init=False)

    def __fingerprint__(self) -> None:
        """Return None, because a kernel never changes."""

    def __identity__(self) -> dict[str, Any]:
        parts = ("name", "signature", "numpy", "cuda", "preamble", "once", "numpy_once")
        return {name: getattr(self, name) for name in parts}

    def __post_init__(self) -> None:
        left, right = self.signature.split("->")
        object.__setattr__(self, "inputs", _params(left))
        object.__setattr__(self, "outputs", _params(right))
        names = [*RESERVED, *(p.name for p in (*self.inputs, *self.outputs))]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise ArgumentError(
                f"got a second parameter named {twice!r} in the kernel {self.name!r}; expected a "
                "name that is not taken: choose another name for the option"
            )
        object.__setattr__(self, "sums", tuple(p for p in self.outputs if p.role == "sum"))
        if any(p.role == "raw" for p in self.inputs):
            object.__setattr__(self, "chunkable", False)
        _declare(self)

    def function(self, name: str) -> str:
        """Return the text of a CUDA function with the body of the kernel, for use in other kernels.

        It takes the index `i`, the inputs by value and the outputs by reference, all of one
        element. The preamble is not part of the text.

        Args:
            name: the name of the function.
        """
        inputs = [f"{p.ctype} {p.name}" for p in self.inputs]
        outputs = [f"{p.ctype}& {p.name}" for p in self.outputs]
        parameters = ", ".join(("long long i", *inputs, *outputs))
        return f"static __device__ inline void {name}({parameters}) {{ {{\n{self.cuda}\n}} }}\n"


class FileKernel:
    """A kernel from a `.cu` file.

    `S` is the type that the arrays of the file are stored in. `T` is the type that it computes in:
    double for float64, else float. The text of the `block.cuh` in the same folder is put before
    it, and before that `exact.h`. It can include other files of its folder.

    Attributes:
        name: the name, an `extern "C"` function of the file.
        cuda_file: the `.cu` file.
        threads: the threads per block.
        dtypes: the dtypes that S may be.
        before: CUDA code that comes before the text of the file.
    """

    name: str
    cuda_file: Path
    threads: int
    dtypes: tuple[str, ...]
    before: str = ""

    def __fingerprint__(self) -> None:
        """Return None, because a kernel never changes."""

    @property
    def counts_in(self) -> str:
        """The workspace that is the last argument: "ticket", "counts", or "" for none."""
        return ""

    def held(self, item_bytes: int, columns: int | None) -> int:
        """Return the number of elements of a row that one thread keeps in registers.

        Args:
            item_bytes: the bytes of one element.
            columns: the length of a row; None if rows may have any length.
        """
        few = 16 // item_bytes
        return few if columns is not None and columns <= 32 * few else WARP_COLUMNS // 32

    @property
    def text(self) -> str:
        """The text of the file, with that of the files which it includes."""
        text = self.cuda_file.read_text(encoding="utf-8")
        beside = self.cuda_file.with_name
        return _INCLUDE.sub(lambda found: beside(found[1]).read_text(encoding="utf-8"), text)

    def source(self, dtype: str, held: int = WARP_COLUMNS // 32) -> str:
        """Return the complete CUDA source.

        Args:
            dtype: the name of the dtype that the arrays are stored in.
            held: the number of elements of a row that one thread keeps in registers.
        """
        compute = "double" if dtype == "float64" else "float"
        shared = self.cuda_file.with_name("block.cuh").read_text(encoding="utf-8")
        return (
            f"{HEADERS.get(dtype, '')}typedef {CTYPES[dtype]} S;\n"
            f"typedef {compute} T;\n"
            f"constexpr int WARP_COLUMNS = {WARP_COLUMNS}, TILE_LANES = {TILE_LANES};\n"
            f"constexpr int HELD = {held};\n"
            f"{EXACT}\n{shared}\n{self.before}\n{self.text}"
        )


@dataclass(frozen=True, eq=False)
class GridKernel(FileKernel):
    """A kernel from a `.cu` file whose blocks wait for each other; see `Backend.launch_grid`.

    Its last parameter is an `unsigned int*` to three zeros, with which the blocks count. They are
    zeros again at the end.

    Args:
        name, cuda_file, threads, dtypes, before: as for `FileKernel`.
    """

    name: str
    cuda_file: Path
    before: str = ""
    threads: int = 256
    dtypes: tuple[str, ...] = ("float32", "float64")

    @property
    def counts_in(self) -> str:
        """The workspace that is the last argument, for blocks that wait for each other."""
        return "counts"


@dataclass(frozen=True, eq=False)
class RowKernel(FileKernel):
    """A kernel from a `.cu` file, in which blocks of threads divide the rows of a matrix.

    Its last two parameters are the number of columns and the number of rows.

    Args:
        name: the unique name, an `extern "C"` function of the file.
        numpy: the body for NumPy arrays, called with the same arguments in the same order.
        cuda_file: the `.cu` file; see `FileKernel`.
        threads: the threads per block.
        dtypes: the dtypes that S may be.
        by_columns: whether a block works on a tile of columns, over all rows.
        ticket: whether the last argument of the CUDA function is an `unsigned int*`. It points to
            a 0, and the function sets it back to 0. Blocks count with it, so that the last block
            knows that it is the last.
    """

    name: str
    numpy: Callable[..., Any]
    cuda_file: Path
    threads: int = 256
    dtypes: tuple[str, ...] = ("float32", "float64", "float16", "bfloat16")
    by_columns: bool = False
    ticket: bool = False

    def __post_init__(self) -> None:
        _declare(self)

    @property
    def counts_in(self) -> str:
        """The workspace that is the last argument, if there is one."""
        return "ticket" if self.ticket else ""

    def held(self, item_bytes: int, columns: int | None) -> int:
        """Return the number of elements of a row that one thread keeps in registers."""
        return super().held(item_bytes, None if self.by_columns else columns)

    def geometry(self, item_bytes: int, rows: int, columns: int) -> tuple[int, int]:
        """Return the number of blocks and the threads per block for a matrix.

        Args:
            item_bytes: the bytes of one element.
            rows: the rows of the matrix.
            columns: the columns of the matrix.
        """
        if self.by_columns:
            width = TILE_LANES * 16 // item_bytes
            return -(-columns // width), TALL_THREADS if rows >= TALL_ROWS else self.threads
        if columns > WARP_COLUMNS:
            return rows, self.threads
        return -(-rows // (self.threads // 32)), self.threads


def exact_part(text: str) -> str:
    """Return the functions of `exact.h` if the text of a kernel calls one of them, else nothing."""
    return f"{EXACT}\n" if _EXACT_NAMES.search(text) else ""


def shares(item_bytes: int, rows: int, columns: int) -> int:
    """Return the number of shares that the rows of a matrix are divided into for column sums.

    A narrow, tall matrix has too few tiles to keep a GPU busy. The number depends only on the
    shape and the size of an element, so a sum has the same bits on every GPU.
    """
    tiles = -(-columns * item_bytes // (TILE_LANES * 16))
    return max(1, min(SHARED_BLOCKS // tiles, rows // SHARED_ROWS))


_SINGLE, _DOUBLE = np.dtype("float32"), np.dtype("float64")


def computed(dtype: DType) -> np.dtype[Any]:
    """Return the dtype that kernels compute in, and store losses and sums in.

    Args:
        dtype: the dtype of the arrays.
    """
    return _DOUBLE if dtype == _DOUBLE else _SINGLE


def _declare(kernel: Elementwise | RowKernel) -> None:
    register(KERNELS, "kernel", kernel.name, kernel, home_of(kernel.numpy))


ADDED = Elementwise(
    "added",
    "a, c -> y",
    numpy=lambda a, c, y: np.add(a, c, out=y),
    cuda="y = a + c;",
)
"""The sum of two arrays."""
