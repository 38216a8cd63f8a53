"""The choice of launches that run as compiled code, and the packing of their arguments."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import pairwise
from struct import Struct, pack
from typing import Any, NamedTuple

import numpy as np

from gpunn.backends.bounded import Bounded
from gpunn.backends.cpu.blas import is_single_threaded, thread_count
from gpunn.backends.cpu.compiled.compiler import Compiler, address, start_of
from gpunn.backends.cpu.compiled.text import (
    Argument,
    chain_text,
    elementwise_text,
    fork_text,
    own_text,
    product_text,
    row_text,
    shares,
    words_text,
)
from gpunn.backends.cpu.processor import processor_flags
from gpunn.backends.kernel import CTYPES, Elementwise, Param, RowKernel
from gpunn.backends.random import Draw
from gpunn.log import logger
from gpunn.typing import Array, Shape

SERIAL = r"\b(?:pow|sin|cos|sinh|cosh|philox4x64)\("
"""Functions that a compiled loop computes one at a time, while NumPy computes several at a time."""
VECTORS = r"|\b(?:exp|log|log1p|tanh|erf|erfc)\("
"""The same if the compiler has no vector mathematics. NumPy's expm1 is as slow, so it is absent."""
ROW_COLUMNS = 64
"""The longest compiled row if the compiler has no vector mathematics. NumPy's faster exponentials
win for longer ones."""
SMALL_PRODUCT, SERIAL_PRODUCT, LARGE_PRODUCT = 1 << 17, 1 << 23, 1 << 28
"""The largest product, in multiplications, that our kernel computes instead of BLAS: without
AVX-512; with AVX-512 and a multi-threaded BLAS; with AVX-512 and a single-threaded BLAS.
"""
PRODUCT, WORDS = Struct("=12q"), Struct("=7Q")
PRODUCT_DEPTH = 256  # DEPTH in product.h: a longer sum is added to the output in parts
LEAST_BLOCKS = 64  # of a piece of a kernel that is divided
TILE_COLUMNS = 64  # PACK in column.h
MOST_ENTRIES = 1024  # of a cache of launches or products
MOST_FUNCTIONS, MOST_OF_A_KERNEL = 512, 32
"""The most compiled functions that are kept, and the most that are compiled from one kernel. An
integer is compiled in, and a kernel that gets another integer at each call must not be compiled
each time.
"""
UNKNOWN: Any = object()
INTEGERS = (int, np.integer)
NAMES = {np.dtype(name): name for name in CTYPES if "float16" not in name}

Run = Callable[[bytes], None]


class Call(NamedTuple):
    """A compiled function and its argument, the bytes of the slots."""

    run: Run
    args: tuple[bytes]


class Launch(NamedTuple):
    """A compiled function for arguments of certain layouts and dtypes, of any size.

    Attributes:
        run: the function.
        slots: the format of the arguments in memory.
        nested: whether the function loops over rows and columns.
    """

    run: Run
    slots: Struct
    nested: bool


class Native:
    """A maker of compiled calls for float32 arrays. Kernels are compiled on first use.

    A method returns None if NumPy or BLAS has to do the work.

    Args:
        compiler: the C++ compiler.
    """

    def __init__(self, compiler: Compiler) -> None:
        self._compiler = compiler
        self._slow = re.compile(SERIAL if compiler.vector_math else SERIAL + VECTORS)
        self._longest_row = sys.maxsize if compiler.vector_math else ROW_COLUMNS
        self._functions: Bounded[Any, Run | None] = Bounded(MOST_FUNCTIONS)
        self._launches: Bounded[Any, Launch | None] = Bounded(MOST_ENTRIES)
        self._products: Bounded[Any, tuple[Run, tuple[int, ...]] | None] = Bounded(MOST_ENTRIES)
        self._ticket = np.zeros(1, np.uint32)
        self._largest = self._largest_single = SMALL_PRODUCT
        if "avx512f" in processor_flags():
            self._largest_single = LARGE_PRODUCT
            self._largest = LARGE_PRODUCT if thread_count() == 1 else SERIAL_PRODUCT

    def elementwise(
        self, kernel: Elementwise, inputs: Sequence[Any], outputs: Sequence[Array]
    ) -> Call | None:
        """Return the call for a launch; None if NumPy has to do it."""
        values = (*inputs, *outputs)
        whole = outputs[0] if kernel.outputs[0].role == "each" else _whole(kernel, inputs, outputs)
        if whole is None or not whole.size:
            return None
        shape = whole.shape
        kinds: list[Any] = [kernel, shape[1:]]  # not the length, which differs from batch to batch
        given: list[Any] = []  # addresses and numbers
        for value in values:
            if isinstance(value, np.ndarray):
                if not value.flags.c_contiguous:
                    return None
                kinds.append(value.dtype)
                own = value.shape
                if own != shape:
                    kinds.append(own if len(own) < 2 else _layout(value, shape))
                given.append(start_of(value))
            else:
                kinds.append(int(value) if isinstance(value, INTEGERS) else type(value))
                given.append(value)
        for value in outputs:
            if not value.flags.writeable:
                return None  # NumPy raises the error
        key = tuple(kinds)
        launch = self._launches.get(key, UNKNOWN)
        if launch is UNKNOWN:
            launch = self._launches[key] = self._launch(kernel, values, shape)
        if launch is None:
            return None
        columns = shape[1] if launch.nested else 0
        return Call(launch.run, (launch.slots.pack(*given, whole.size, columns),))

    def rows(self, kernel: RowKernel, args: Sequence[Any]) -> Call | None:
        """Return the call for a kernel on a matrix; None if NumPy has to do it.

        The last two of `args` are the numbers of columns and rows.
        """
        shared, (columns, blocks) = shares(kernel), args[-2:]
        if shared == "column":
            blocks = -(-columns // TILE_COLUMNS)
        elif shared == "block" or not 0 < columns <= self._longest_row or self._is_serial(kernel):
            return None
        for value in args:
            if isinstance(value, np.ndarray) and value.dtype not in ROW_DTYPES:
                return None
        return next(iter(self._blocks(kernel, blocks, "float32", args)), None)

    def blocks(
        self, kernel: RowKernel, blocks: int, dtype: str, args: Sequence[Any], pieces: int
    ) -> list[Call]:
        """Return the calls for a kernel that divides its work into blocks itself; none for NumPy.

        There is one call for each of the pieces that the blocks are divided into.

        S in the kernel's text is `dtype`. A kernel with a ticket is left to NumPy, because several
        threads would count with one ticket.
        """
        if kernel.ticket or shares(kernel) != "block" or self._is_serial(kernel):
            return []
        return self._blocks(
            kernel, blocks, dtype, args, min(pieces, max(1, blocks // LEAST_BLOCKS))
        )

    @staticmethod
    @lru_cache(maxsize=512)
    def _is_serial(kernel: RowKernel) -> bool:
        return re.search(SERIAL, own_text(kernel)) is not None

    def product(self, a: Array, b: Array, out: Array, *, adds: bool = False) -> Call | None:
        """Return the call for a float32 matrix product; None if BLAS has to do it.

        If it `adds` to the output, the bits are those of a product and an addition.
        """
        if adds and a.shape[1] > PRODUCT_DEPTH:
            return None
        largest = self._largest_single if is_single_threaded() else self._largest
        given = largest, a.shape, a.strides, a.dtype, b.shape, b.strides, b.dtype
        kinds = (*given, out.shape, out.strides, out.dtype, out.flags.writeable)
        found = self._products.get(kinds, UNKNOWN)
        if found is UNKNOWN:
            found = self._products[kinds] = self._product(a, b, out, largest)
        if found is None:
            return None
        run, sizes = found
        return Call(run, (PRODUCT.pack(start_of(a), start_of(b), start_of(out), *sizes, adds),))

    def _product(
        self, a: Array, b: Array, out: Array, largest: int
    ) -> tuple[Run, tuple[int, ...]] | None:
        """Return the compiled function with the strides and sizes that it takes; None for BLAS."""
        (rows, depth), columns = a.shape, b.shape[1]
        if out.shape != (rows, columns) or not out.flags.writeable:
            return None  # NumPy raises the error
        steps = [n for value in (a, b, out) for n in value.strides]
        floats = all(value.dtype == np.float32 for value in (a, b, out))
        if rows * depth * columns > largest or not floats or any(n % 4 for n in steps):
            return None
        if (depth and 4 not in steps[2:4]) or (columns > 1 and steps[5] != 4):
            return None
        run = self._function(("product",), "product", product_text)
        return run and (run, (*[n // 4 for n in steps[:5]], rows, depth, columns))

    def chain(self, calls: Sequence[Call]) -> Call | None:
        """Merge calls into one that makes them in order; None if there is no compiler.

        The merged call refers to the memory of `calls`, so keep them as long as it.
        """
        return self._calls(self._function(("chain",), "chain", chain_text), calls)

    def fork(self, calls: Sequence[Call]) -> Call | None:
        """Merge calls into one that makes them at the same time, on threads; as `chain`."""
        return self._calls(self._function(("fork",), "fork", fork_text), calls)

    @staticmethod
    def _calls(run: Run | None, calls: Sequence[Call]) -> Call | None:
        if run is None:
            return None
        places = [len(calls)]
        for call in calls:
            places += [address(call.run), address(call.args[0])]
        return Call(run, (pack(f"={len(places)}q", *places),))

    def words(self, draw: Draw, out: Array) -> Call | None:
        """Return the call for the random words of a draw; None if NumPy has to compute them."""
        run = self._function(("words",), "words", words_text)
        if run is None:
            return None
        counted = isinstance(draw.call, np.ndarray)  # by the device
        by = (draw.ahead, start_of(draw.call)) if counted else (draw.call + draw.ahead, 0)
        return Call(run, (WORDS.pack(*draw.key, *by, draw.shard, start_of(out), out.size),))

    def _blocks(
        self, kernel: RowKernel, blocks: int, dtype: str, args: Sequence[Any], pieces: int = 1
    ) -> list[Call]:
        slots, given = "=", []
        for value in (*args, *[self._ticket] * kernel.ticket, blocks):
            if isinstance(value, np.ndarray):
                if not value.flags.c_contiguous:
                    return []
                value = start_of(value)
            given.append(value)
            slots += "d" if isinstance(value, float) else "q"
        run = self._function((kernel, dtype), kernel.name, lambda: row_text(kernel, dtype))
        if run is None:
            return []
        ends = [piece * blocks // pieces for piece in range(pieces + 1)]
        return [Call(run, (pack(slots + "qq", *given, *part),)) for part in pairwise(ends)]

    def _launch(self, kernel: Elementwise, values: Sequence[Any], shape: Shape) -> Launch | None:
        if self._slow.search(kernel.cuda):
            return None
        arguments: list[Argument] = []
        for param, value in zip((*kernel.inputs, *kernel.outputs), values, strict=True):
            argument = _arrange(param, value, shape)
            if argument is None:
                return None
            arguments.append(argument)
        kinds = tuple(arguments)
        nested = any(argument.layout in ("row", "column") for argument in kinds)
        if nested and kernel.sums:
            return None
        run = self._function(
            (kernel, kinds, nested), kernel.name, lambda: elementwise_text(kernel, kinds, nested)
        )
        if run is None:
            return None
        slots = Struct("=" + "".join("d" if a.layout == "value" else "q" for a in kinds) + "qq")
        return Launch(run, slots, nested)

    def _function(self, key: Any, name: str, text: Callable[[], str]) -> Run | None:
        """Return a compiled function; None, with a warning in the log, if the compiler failed."""
        run: Run | None = self._functions.get(key, UNKNOWN)
        if run is UNKNOWN:
            if sum(known[0] is key[0] for known in tuple(self._functions)) >= MOST_OF_A_KERNEL:
                return None
            try:
                run = self._compiler.build(text(), name)
            except OSError as error:
                reason = str(error).partition("\n")[0]
                logger.warning("kernel %s runs through NumPy: %s", name, reason)
                run = None
            self._functions[key] = run
        return run


def _whole(kernel: Elementwise, inputs: Sequence[Any], outputs: Sequence[Array]) -> Array | None:
    """Return an array of the shape that a kernel runs over."""
    pairs = (*zip(kernel.outputs, outputs, strict=True), *zip(kernel.inputs, inputs, strict=True))
    for param, value in pairs:
        if param.role == "each" and isinstance(value, np.ndarray):
            return value
    return None


def _layout(value: Array, shape: Shape) -> str:
    """Return how an array that has another shape repeats; an empty text if NumPy has to do it."""
    if value.size == 1:
        return "one"
    if len(shape) == 2 and value.shape in ((shape[1],), (1, shape[1])):
        return "row"
    if len(shape) == 2 and value.shape == (shape[0], 1):
        return "column"
    return ""


def _arrange(param: Param, value: Any, shape: Shape) -> Argument | None:
    """Return the layout of an argument, a contiguous array or a number; None if NumPy has to do it.

    It depends on nothing but what is in the key of a launch.
    """
    if not isinstance(value, np.ndarray):
        if param.type == "T" and getattr(value, "dtype", "float32") != "float32":
            return None  # NumPy would compute with this number in its own dtype
        if "int" in param.type:
            return Argument("fixed", str(int(value)))
        return Argument("value", param.type)
    dtype = NAMES.get(value.dtype, "")
    if not dtype or (param.type == "T" and dtype != "float32"):
        return None
    if param.role == "raw":
        return Argument("raw", dtype)
    if param.role != "each":
        return Argument("one", dtype)
    layout = "each" if value.shape == shape else _layout(value, shape)
    return Argument(layout, dtype) if layout else None


ROW_DTYPES = frozenset((np.dtype(np.float32), np.dtype(np.int64)))
