"""Run the CUDA text of CuPy kernels on the CPU, on NumPy arrays.

`HostRawKernel` takes the text given to `cupy.RawKernel`, compiles it with g++ and runs it. Every
CUDA thread of a block is a fiber; blocks run one after another, or in turn if they wait for each
other in a loop with `__nanosleep`; shared memory, barriers, shuffles, votes and atomics work. The
results are the kernel's own arithmetic. Speed, memory ordering and the GPU's rounding of
transcendental functions are not covered.
"""

from __future__ import annotations

import ctypes
import math
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from tests.standin.compiler import HostCompileError, build, flags, why_unavailable

__all__ = [
    "HostCompileError",
    "HostRawKernel",
    "all_orders",
    "why_unavailable",
]

ORDERS = ("forward", "reverse", "shuffle", "warps", "warps-reverse")
GUARD_BYTES = 256
MOST_BLOCKS = 65535  # along the second and third side of a grid; the first is longer than an int
Guarded = tuple[np.ndarray, np.ndarray, np.ndarray]  # an array, its memory, what lies around it


class HostRawKernel:
    """`cupy.RawKernel` on NumPy arrays, which are changed in place.

    The kernel runs once for each scheduling order; a result that depends on the order is a race and
    raises. Arrays lie between guard bands, so that a write outside of one raises too. What is read
    there is a NaN, another for each array, so that it is noticed where it is written; for integers
    it is -1 in the first of the orders and 0 in the others.

    Attributes:
        default_orders: the orders of a call that names none. One order is enough for training;
            `all_orders()` is for the tests of a kernel.
    """

    default_orders: Sequence[str] = ("warps",)
    default_rtol: float = 0.0

    def __init__(self, code: str, name: str, options: tuple[str, ...] = ()) -> None:
        self.code, self.name, self.options = code, name, options
        self.most_threads = most_threads(name, code)
        self._runs: dict[tuple[str, ...], Any] = {}

    def __call__(
        self,
        grid: Sequence[int],
        block: Sequence[int],
        args: Sequence[Any],
        shared_mem: int = 0,
        orders: Sequence[str] | None = None,
        rtol: float | None = None,
    ) -> None:
        """Run it with CuPy's arguments; orders and rtol override the defaults of the class."""
        orders = self.default_orders if orders is None else orders
        rtol = self.default_rtol if rtol is None else rtol
        sizes = [(ctypes.c_uint * 3)(*(*map(int, d), 1, 1, 1)[:3]) for d in (grid, block)]
        (blocks, *more), threads = map(int, sizes[0]), math.prod(sizes[1])
        if (
            not 0 < threads <= self.most_threads
            or not blocks
            or not all(0 < side <= MOST_BLOCKS for side in more)
        ):
            raise ValueError(
                f"CUDA_ERROR_INVALID_VALUE: a launch of grid {tuple(grid)} and block "
                f"{tuple(block)}; the function has at most {self.most_threads} threads"
            )
        results = [self._launch(order, sizes, args, shared_mem) for order in orders]
        arrays = [a for a in args if isinstance(a, np.ndarray)]
        for order, found in zip(orders, results, strict=True):
            for k, (x, y) in enumerate(zip(results[0], found, strict=True)):
                if x.tobytes() != y.tobytes() and not (rtol and np.allclose(x, y, rtol=rtol)):
                    raise RuntimeError(
                        f"array {k} depends on the order the threads run in ({order}): a race"
                    )
        for array, found in zip(arrays, results[0], strict=True):
            if array.flags.writeable:
                array[...] = found

    def source(self) -> str:
        """The C++ text."""
        header = r'#\s*include\s*[<"](cuda_|cooperative|cupy|math_constants)[^\n]*'
        text = re.sub(header, "", self.code)
        dynamic = r"extern\s+__shared__\s+(?:__align__\(\d+\)\s*)?([\w ]+?)\s+(\w+)\s*\[\s*\]\s*;"
        text = re.sub(dynamic, r"\1* \2 = (\1*)dynamic_shared_;", text)
        return (
            f'#include "common.h"\n#line 1 "{self.name}.cu"\n{text}\n'
            'extern "C" const char* run_(void** values, const size_t* sizes, const size_t* items,\n'
            "    int n, const unsigned* grid, const unsigned* block, size_t bytes, int order) {\n"
            f"  return launch_(&{self.name}, values, sizes, items, n, grid, block, bytes, order,\n"
            f"                 {str('__nanosleep' in text).lower()});\n"
            "}\n"
        )

    def _launch(self, order: str, sizes: Any, args: Sequence[Any], shared: int) -> list[Any]:
        run = self._runs.get(flags())
        if run is None:
            run = self._runs[flags()] = build(self.source(), self.name).run_
            run.restype = ctypes.c_char_p
        guarded: list[Guarded] = []
        same: dict[Any, Guarded] = {}  # one array may be input and output
        values, items = [], []
        for a in args:
            if isinstance(a, np.ndarray):
                place = (a.ctypes.data, a.shape, a.dtype)
                guard = _guard(a.dtype, len(guarded), order)
                inside, _, _ = same[place] = same.get(place) or _guarded(a, guard)
                guarded.append(same[place])
                values.append(np.array(inside.ctypes.data, np.uintp))
                items.append(a.itemsize)
            else:  # as CuPy: int -> long long, float -> double, NumPy scalars as they are
                values.append(np.array(a))
                items.append(0)
        count = len(values)
        error = run(
            (ctypes.c_void_p * count)(*[v.ctypes.data for v in values]),
            (ctypes.c_size_t * count)(*[v.nbytes for v in values]),
            (ctypes.c_size_t * count)(*items),
            count,
            *sizes,
            ctypes.c_size_t(shared),
            ORDERS.index(order),
        )
        if error:
            raise RuntimeError(f"{self.name}: {error.decode()}")
        for k, (inside, band, guard) in enumerate(guarded):
            ends = (band[:GUARD_BYTES], band[GUARD_BYTES + inside.nbytes :])
            if any((end != guard).any() for end in ends):
                raise RuntimeError(f"{self.name} wrote outside array {k}")
        return [inside for inside, _, _ in guarded]


def most_threads(name: str, code: str) -> int:
    """The most threads of a block that a text allows for a kernel: its launch bounds, or 1024."""
    whole = re.sub(r"(?m)^#define (\w+) (__launch_bounds__.*)$", "", code)
    for macro, content in re.findall(r"(?m)^#define (\w+) (__launch_bounds__.*)$", code):
        whole = re.sub(rf"\b{macro}\b", content, whole)
    found = re.search(rf"__launch_bounds__\((\w+)[^\n]*\)\s+{name}\(", whole)
    if found is None:
        return 1024
    if not found[1].isdigit():  # a constant of the text
        found = re.search(rf"\b{found[1]} = (\d+)", whole)
        assert found is not None, f"{name} has no number in its launch bounds"
    return int(found[1])


@contextmanager
def all_orders(rtol: float = 0.0) -> Iterator[None]:
    """Run every raw kernel in every scheduling order inside a `with` block.

    Args:
        rtol: how far orders may differ, for kernels with floating-point atomics.
    """
    kept = HostRawKernel.default_orders, HostRawKernel.default_rtol
    HostRawKernel.default_orders, HostRawKernel.default_rtol = ORDERS, rtol
    try:
        yield
    finally:
        HostRawKernel.default_orders, HostRawKernel.default_rtol = kept


def _guard(dtype: np.dtype, number: int, order: str) -> np.ndarray:
    """The bytes on either side of a kernel's array of this number."""
    if dtype.kind in "iub":
        return np.full(GUARD_BYTES, 0xFF if order == ORDERS[0] else 0, np.uint8)
    if order == ORDERS[1]:  # a number, since a NaN that is computed with stays what it was
        return np.full(GUARD_BYTES // dtype.itemsize, number + 1.5, dtype).view(np.uint8)
    guard = np.full(GUARD_BYTES, 0xFF, np.uint8)
    guard[:: dtype.itemsize] = number + 1  # the end of the NaN's mantissa
    return guard


def _guarded(array: np.ndarray, guard: np.ndarray) -> Guarded:
    if not array.flags.c_contiguous:
        raise ValueError(
            "a raw kernel is given a pointer: the stand-in takes contiguous arrays only"
        )
    band = np.concatenate([guard, np.empty(array.nbytes, np.uint8), guard])
    inside = band[GUARD_BYTES : GUARD_BYTES + array.nbytes].view(array.dtype).reshape(array.shape)
    inside[...] = array
    return inside, band, guard
