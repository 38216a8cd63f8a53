"""Run the CUDA text of CuPy kernels on the CPU, on NumPy arrays.

`HostElementwiseKernel` and `HostRawKernel` take the strings given to `cupy.ElementwiseKernel` and
`cupy.RawKernel`, compile them with g++ and apply CuPy's rules. Every CUDA thread of a block is a
fiber; blocks run one after another; shared memory, barriers, shuffles, votes and atomics work.
The results are the kernel's own arithmetic. Speed, memory ordering, the GPU's rounding of
transcendental functions and reads outside an array (but for `raw` parameters) are not covered.
"""

from __future__ import annotations

import ctypes
import math
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from tests.standin.compiler import HostCompileError, build, why_unavailable

__all__ = [
    "HostCompileError",
    "HostElementwiseKernel",
    "HostRawKernel",
    "all_orders",
    "why_unavailable",
]

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
    "float16": "float16",
    "float32": "float",
    "float64": "double",
    "bfloat16": "bfloat16",
}
ORDERS = ("forward", "reverse", "shuffle", "warps", "warps-reverse")
GUARD_BYTES = 256
GUARD = 0xA5
Word = ctypes.c_ssize_t


class Param:
    """One parameter of an elementwise kernel: "raw float32 x" or "T x"."""

    def __init__(self, text: str, const: bool) -> None:
        words = text.split()
        if len(words) < 2:
            raise ValueError(f"Syntax error: {text}")
        *keys, self.type, self.name = words
        if set(keys) - {"raw", "_non_const"}:
            raise ValueError(f"Unknown keyword in {text!r}")
        if self.name == "i":
            raise ValueError("Can not use 'i' as a parameter name")
        self.raw = "raw" in keys
        self.const = "const " if const and "_non_const" not in keys else ""
        self.letter = self.type if len(self.type) == 1 else None
        self.dtype = None if self.letter else _dtype(self.type)
        self.ctype = self.letter or CTYPES[_dtype(self.type).name]


class HostElementwiseKernel:
    """`cupy.ElementwiseKernel` on NumPy arrays."""

    def __init__(
        self,
        in_params: str,
        out_params: str,
        operation: str,
        name: str = "kernel",
        preamble: str = "",
        **options: Any,
    ) -> None:
        if options:
            raise TypeError(f"the stand-in does not know the options {sorted(options)}")
        self.ins = [Param(p, True) for p in in_params.split(",") if p.strip()]
        self.outs = [Param(p, False) for p in out_params.split(",") if p.strip()]
        self.params = self.ins + self.outs
        self.operation, self.name, self.preamble = operation, name, preamble
        self._compiled: dict[Any, Any] = {}

    def __call__(self, *args: Any, size: int | None = None) -> Any:
        """Run it on inputs and, optionally, outputs; returns the outputs."""
        if len(args) not in (len(self.ins), len(self.params)):
            raise TypeError(f"Wrong number of arguments for {self.name!r}")
        arrays = [a if isinstance(a, np.ndarray) else None for a in args]
        types = self._bind(arrays)
        shape = self._loop_shape(arrays, size)
        count = len(self.ins)
        outs = arrays[count:] or [np.empty(shape, p.dtype or types[p.letter]) for p in self.outs]
        for param, out in zip(self.outs, outs, strict=True):
            if out is None:
                raise TypeError(f"output {param.name} of {self.name!r} is no array")
            if not param.raw and out.shape != shape:
                raise ValueError("Out shape is mismatched")
        scalars = (*(a is None for a in arrays[:count]), *(False for _ in outs))
        views = [
            np.asarray(value, param.dtype or types[param.letter])
            if array is None
            else array
            if param.raw or array.shape == shape
            else np.broadcast_to(array, shape)
            for param, array, value in zip(self.ins, arrays, args, strict=False)
        ]
        self._run(types, scalars, shape, [*views, *outs])
        return outs[0] if len(outs) == 1 else tuple(outs)

    def source(self, types: dict[str, np.dtype], scalars: Sequence[bool]) -> str:
        """The C++ text for a choice of types, and of inputs that are scalars."""
        whole, row, element = [], [], []
        for k, (p, scalar) in enumerate(zip(self.params, scalars, strict=True)):
            if scalar:
                whole.append(f"const {p.ctype} {p.name} = *(const {p.ctype}*)data_[{k}];")
            elif p.raw:
                kind = f"StandinRaw<{p.const}{p.ctype}>"
                parts = f'(char*)data_[{k}], ndims_[{k}], shapes_[{k}], strides_[{k}], "{p.name}"'
                whole.append(f"{kind} {p.name} = {{{parts}}};")
            else:
                start = f"standin_row(data_[{k}], row_, ndim_, shape_, strides_[{k}])"
                row.append(f"char* const row_{k} = {start};")
                place = f"row_{k} + column_ * strides_[{k}][ndim_ - 1]"
                element.append(f"{p.const}{p.ctype} &{p.name} = *({p.const}{p.ctype}*)({place});")
        typedefs = "\n".join(f"typedef {CTYPES[d.name]} {t};" for t, d in sorted(types.items()))
        return TEMPLATE.format(
            typedefs=typedefs,
            name=self.name,
            preamble=self.preamble,
            whole="\n  ".join(whole),
            row="\n    ".join(row),
            element="\n      ".join(element),
            operation=self.operation,
        )

    def _bind(self, arrays: Sequence[np.ndarray | None]) -> dict[str, np.dtype]:
        types: dict[str, np.dtype] = {}
        count = len(self.ins)
        given = zip((*self.outs, *self.ins), (*arrays[count:], *arrays[:count]), strict=False)
        if len(arrays) == count:
            given = zip(self.ins, arrays, strict=True)
        for param, array in given:  # CuPy binds the letters from the outputs first
            if array is None:
                continue
            bound = param.dtype
            if bound is None:
                bound = types.setdefault(param.letter or "", array.dtype)
            if bound != array.dtype:
                raise TypeError(f"Type is mismatched. {param.name} {array.dtype} {bound}")
        for param in self.params:
            if param.letter and param.letter not in types:
                raise KeyError(param.letter)  # what CuPy raises: a scalar decides no letter
        return types

    def _loop_shape(self, arrays: Sequence[Any], size: int | None) -> tuple[int, ...]:
        pairs = zip(self.params, arrays, strict=False)
        shapes = {a.shape for p, a in pairs if a is not None and not p.raw}
        if size is not None:
            if shapes:
                raise ValueError(
                    "Specified 'size' can be used only if all of the ndarray are 'raw'."
                )
            return (size,)
        if not shapes:
            raise ValueError("Loop size is undecided.")
        return shapes.pop() if len(shapes) == 1 else np.broadcast_shapes(*shapes)

    def _run(self, types: Any, scalars: Any, shape: tuple[int, ...], views: list[Any]) -> None:
        key = (tuple((letter, dtype.num) for letter, dtype in sorted(types.items())), scalars)
        run = self._compiled.get(key)
        if run is None:
            run = self._compiled[key] = build(self.source(types, scalars), self.name).run_
            run.restype = ctypes.c_char_p
        if not (total := math.prod(shape)):
            return
        looped = [not (p.raw or s) for p, s in zip(self.params, scalars, strict=True)]
        flat = all(v.flags.c_contiguous for v, loop in zip(views, looped, strict=True) if loop)
        if flat or not shape:  # as CuPy does, one axis is enough
            views = [v.reshape(total) if loop else v for v, loop in zip(views, looped, strict=True)]
            shape = (total,)
        count, layout = len(views), []
        for v in views:
            layout += [(Word * max(1, v.ndim))(*v.shape), (Word * max(1, v.ndim))(*v.strides)]
        pointers = [ctypes.addressof(words) for words in layout]
        error = run(
            Word(total // shape[-1]),
            ctypes.c_int(len(shape)),
            (Word * len(shape))(*shape),
            (ctypes.c_void_p * count)(*[v.ctypes.data for v in views]),
            (ctypes.c_int * count)(*[v.ndim for v in views]),
            (ctypes.c_void_p * count)(*pointers[0::2]),
            (ctypes.c_void_p * count)(*pointers[1::2]),
        )
        if error:
            raise RuntimeError(f"{self.name}: {error.decode()}")


TEMPLATE = """#include "prelude.h"
#include "elementwise.h"
{typedefs}
#line 1 "{name}.preamble"
{preamble}
extern "C" const char* run_(ptrdiff_t rows_, int ndim_, const ptrdiff_t* shape_, void* const* data_,
                            const int* ndims_, const ptrdiff_t* const* shapes_,
                            const ptrdiff_t* const* strides_) {{
  const ptrdiff_t columns_ = shape_[ndim_ - 1];
  StandinIndexer _ind = {{rows_ * columns_, 0}};
  standin_error[0] = 0;
  {whole}
  for (ptrdiff_t row_ = 0; row_ < rows_; ++row_) {{
    {row}
    for (ptrdiff_t column_ = 0; column_ < columns_; ++column_) {{
      ptrdiff_t i = row_ * columns_ + column_;
      _ind.at = i;
      {element}
#line 1 "{name}.operation"
      {operation};
    }}
  }}
  return standin_error[0] ? standin_error : nullptr;
}}
"""


class HostRawKernel:
    """`cupy.RawKernel` on NumPy arrays, which are changed in place.

    The kernel runs once for each scheduling order; a result that depends on the order is a race and
    raises. Arrays lie between guard bands, so that a write outside of one raises too.

    Attributes:
        default_orders: the orders of a call that names none. One order is enough for training;
            `all_orders()` is for the tests of a kernel.
    """

    default_orders: Sequence[str] = ("warps",)
    default_rtol: float = 0.0

    def __init__(self, code: str, name: str, options: tuple[str, ...] = ()) -> None:
        self.code, self.name, self.options = code, name, options
        self._run: Any = None

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
        if not 0 < math.prod(sizes[1]) <= 1024 or not math.prod(sizes[0]):
            raise ValueError(
                f"a launch of grid {tuple(grid)} and block {tuple(block)} is not legal"
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
            f'#include "prelude.h"\n#include "grid.h"\n#line 1 "{self.name}.cu"\n{text}\n'
            'extern "C" const char* run_(void** values, const size_t* sizes, const size_t* items,\n'
            "    int n, const unsigned* grid, const unsigned* block, size_t bytes, int order) {\n"
            f"  return launch_(&{self.name}, values, sizes, items, n, grid, block, bytes, order);\n"
            "}\n"
        )

    def _launch(self, order: str, sizes: Any, args: Sequence[Any], shared: int) -> list[Any]:
        if self._run is None:
            self._run = build(self.source(), self.name).run_
            self._run.restype = ctypes.c_char_p
        guarded: list[tuple[np.ndarray, np.ndarray]] = []
        same: dict[Any, tuple[np.ndarray, np.ndarray]] = {}  # one array may be input and output
        values, items = [], []
        for a in args:
            if isinstance(a, np.ndarray):
                place = (a.ctypes.data, a.shape, a.dtype)
                inside, band = same[place] = same.get(place) or _guarded(a)
                guarded.append((inside, band))
                values.append(np.array(inside.ctypes.data, np.uintp))
                items.append(a.itemsize)
            else:  # as CuPy: int -> long long, float -> double, NumPy scalars as they are
                values.append(np.array(a))
                items.append(0)
        count = len(values)
        error = self._run(
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
        for k, (inside, band) in enumerate(guarded):
            ends = (band[:GUARD_BYTES], band[GUARD_BYTES + inside.nbytes :])
            if any((end != GUARD).any() for end in ends):
                raise RuntimeError(f"{self.name} wrote outside array {k}")
        return [inside for inside, _ in guarded]


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


def _guarded(array: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    if not array.flags.c_contiguous:
        raise ValueError(
            "a raw kernel is given a pointer: the stand-in takes contiguous arrays only"
        )
    band = np.full(array.nbytes + 2 * GUARD_BYTES, GUARD, np.uint8)
    inside = band[GUARD_BYTES : GUARD_BYTES + array.nbytes].view(array.dtype).reshape(array.shape)
    inside[...] = array
    return inside, band


def _dtype(name: str) -> np.dtype:
    if name == "bfloat16":
        import ml_dtypes

        return np.dtype(ml_dtypes.bfloat16)
    return np.dtype(name)
