"""The launch of kernels on a GPU: layouts, packs, blocks and compilation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from gpunn.backends.bounded import Bounded
from gpunn.backends.cuda.source import (
    MAX_SUMS,
    PACK_BYTES,
    SUM_BLOCKS,
    THREADS,
    Argument,
    compute_type,
    elementwise_source,
    parts_type,
)
from gpunn.backends.device import Device
from gpunn.backends.kernel import CTYPES, Elementwise, FileKernel
from gpunn.backends.random import Words
from gpunn.errors import DeviceMismatchError, DeviceUnavailableError, ShapeError
from gpunn.typing import Array, DType, Shape

MOST_FUNCTIONS = 1024  # compiled kernels that are kept
PACKED = ("each", "row")  # layouts that are read in packs
NUMBERS = (float, int, np.generic)
SCALARS = {ctype: np.dtype(name).type for name, ctype in CTYPES.items() if name != "bfloat16"}


class Plan(NamedTuple):
    """A launch of a kernel, prepared for arguments of the same shapes, dtypes and alignment.

    Attributes:
        function: the compiled function.
        blocks: the number of blocks.
        kinds: for each argument the type of a number, `Words` for random words, or None for an
            array.
        repeats: for each argument how often it repeats, in the type of the index, or None.
        end: the arguments behind these.
    """

    function: Any
    blocks: int
    kinds: tuple[Any, ...]
    repeats: tuple[Any, ...]
    end: tuple[Any, ...]

    def launch(self, values: Sequence[Any]) -> None:
        """Launch the function; every number has its exact C type."""
        found: list[Any] = []
        for kind, repeat, value in zip(self.kinds, self.repeats, values, strict=True):
            if kind is None:
                found.append(value)
            elif kind is Words:
                found += value.arguments()
            else:
                found.append(kind(value))
            if repeat is not None:
                found.append(repeat)
        self.function((self.blocks,), (THREADS,), (*found, *self.end))


class Launcher:
    """A launcher of kernels. It compiles a kernel on first use.

    All launches use the same small workspaces, so use only one stream at a time.

    Args:
        xp: the module `cupy`.
    """

    def __init__(self, xp: Any) -> None:
        self.xp = xp
        self._array: type[Any] = xp.ndarray
        self._plans: Bounded[Any, Plan] = Bounded(MOST_FUNCTIONS)
        self._compiled: Bounded[Any, Any] = Bounded(MOST_FUNCTIONS)
        self._files: Bounded[tuple[FileKernel, DType, int], Any] = Bounded(MOST_FUNCTIONS)
        self._workspace: dict[str, Array] = {}
        self._counts: Array | None = None  # the workspace, once a kernel has it

    def launch(self, kernel: Elementwise, inputs: Sequence[Any], outputs: Sequence[Array]) -> None:
        """Run a kernel once over all elements."""
        values: list[Any] = [*inputs, *outputs]
        key = self._key(kernel, values)
        plan = None if key is None else self._plans.get(key)
        if plan is not None:
            plan.launch(values)
            return
        shape = loop_shape(kernel, inputs, outputs)
        n = int(np.prod(shape, dtype=np.int64))
        arranged = self._arranged(kernel, values, len(inputs), shape)
        if not n:
            for param, array in zip(kernel.outputs, outputs, strict=True):
                if param.role == "sum":
                    array.fill(0)
            return
        layouts, given, repeats = zip(*arranged, strict=True)
        plan = self._plan(kernel, layouts, given, repeats, n)
        if key is not None and all(a is b for a, b in zip(given, values, strict=True)):
            self._plans[key] = plan
        plan.launch(given)
        for value, array in zip(outputs, given[len(inputs) :], strict=True):
            if array is not value:
                value[...] = array

    def _key(self, kernel: Elementwise, values: Sequence[Any]) -> Any:
        """Return what a plan depends on; None if an argument is no contiguous array or number."""
        key: list[Any] = [kernel]
        for value in values:
            if type(value) is self._array:
                if not value.flags.c_contiguous:
                    return None
                key += (value.shape, value.dtype, value.data.ptr % PACK_BYTES)
            elif isinstance(value, NUMBERS):
                key.append(None)
            elif type(value) is Words:
                key.append(Words)
            else:
                return None
        return tuple(key)

    def _arranged(
        self, kernel: Elementwise, values: Sequence[Any], inputs: int, shape: Shape
    ) -> list[tuple[Argument, Any, int]]:
        """Return the layout of each argument, its array, and the length of its repetition."""
        found = []
        params = (*kernel.inputs, *kernel.outputs)
        for k, (param, value) in enumerate(zip(params, values, strict=True)):
            layout, array, repeat = self._arrange(param.role, value, shape, k >= inputs)
            found.append((Argument(layout, _dtype_name(array, param.type, layout)), array, repeat))
        return found

    def _plan(
        self,
        kernel: Elementwise,
        key: tuple[Argument, ...],
        given: Sequence[Any],
        repeats: Sequence[int],
        n: int,
    ) -> Plan:
        """Return the plan of a launch over n elements, with the function compiled."""
        lanes, wide = _lanes(n, key, given, repeats), n >= 2**31
        function = self._compiled.get((kernel, key, lanes, wide))
        if function is None:
            function = self._compile(kernel, key, lanes, wide)
        blocks = -(-n // (lanes * THREADS))
        if kernel.sums:
            blocks = min(blocks, SUM_BLOCKS)
        index, computed = np.int64 if wide else np.uint32, compute_type(kernel, key)
        kinds: list[Any] = [Words if argument.layout == "words" else None for argument in key]
        for k, (param, argument) in enumerate(zip(kernel.inputs, key, strict=False)):
            if argument.layout == "value":
                kinds[k] = SCALARS[computed if param.type == "T" else CTYPES[param.type]]
        lengths = [
            index(repeat) if argument.layout in ("row", "column") else None
            for argument, repeat in zip(key, repeats, strict=True)
        ]
        end: tuple[Any, ...] = (index(n),)
        if kernel.sums or kernel.once:
            end += self.space(parts_type(kernel, key)), self.space("ticket")
        return Plan(function, blocks, tuple(kinds), tuple(lengths), end)

    def launch_file(
        self,
        kernel: FileKernel,
        how: tuple[int, int, int | None],
        dtype: np.dtype[Any],
        args: Sequence[Any],
    ) -> None:
        """Run a kernel from a file.

        Args:
            kernel: the kernel.
            how: the number of blocks, the threads per block, and the length of a row, or None.
            dtype: the dtype of the kernel's arrays.
            args: its arguments, without the workspace that it counts in.
        """
        blocks, threads, columns = how
        key = kernel, dtype, kernel.held(dtype.itemsize, columns)
        function = self._files.get(key)
        if function is None:
            text = kernel.source(dtype.name, key[2])
            function = self.xp.RawKernel(text, kernel.name, options=("--std=c++17",))
            self._files[key] = function
        if not blocks:
            return
        given = [_argument(a) for a in args]
        if kernel.counts_in:
            given.append(self.space(kernel.counts_in))
        if kernel.counts_in == "counts":
            self._counts = given[-1]
        function((blocks,), (threads,), tuple(given))

    def _arrange(
        self, role: str, value: Any, shape: Shape, is_output: bool
    ) -> tuple[str, Any, int]:
        """Return the layout of an argument, its array and the length of its repetition.

        The array is a copy if the order of its elements does not fit. The length is 0 if nothing
        repeats.
        """
        if isinstance(value, Words):
            return "words", value, 0
        if not hasattr(value, "dtype") or isinstance(value, np.generic):
            return "value", value, 0
        if isinstance(value, np.ndarray):
            raise DeviceMismatchError(
                "got a host array in a kernel on a GPU; expected an array of that device: move it "
                "with .to(device)"
            )
        if role == "raw":
            return "raw", self._ordered(value), 0
        if role in ("sum", "one") or (value.size == 1 and not is_output):
            return "one", value, 0
        if value.shape != shape:
            row = value.shape
            while row and row[0] == 1:
                row = row[1:]
            if value.flags.c_contiguous:
                if row == shape[len(shape) - len(row) :]:
                    return "row", value, value.size
                if value.ndim == len(shape) and _is_column(value.shape, shape):
                    return "column", value, int(np.prod(shape, dtype=np.int64)) // value.size
            value = self.xp.broadcast_to(value, shape)
        return "each", self._ordered(value), 0

    def _ordered(self, value: Array) -> Array:
        """Return the array, or a contiguous copy. CuPy's function would make a 0-d array 1-d."""
        return value if value.flags.c_contiguous else self.xp.ascontiguousarray(value)

    def _compile(
        self, kernel: Elementwise, key: tuple[Argument, ...], lanes: int, wide: bool
    ) -> Any:
        function = self.xp.RawKernel(
            elementwise_source(kernel, key, lanes, wide),
            f"gpunn_{kernel.name}",
            options=("--std=c++17",),
        )
        self._compiled[kernel, key, lanes, wide] = function
        return function

    def space(self, name: str) -> Array:
        """Return a workspace: "ticket", "counts", "float" or "double" (the parts of sums)."""
        self.make_spaces()
        return self._workspace[name]

    def check_waits(self, device: Device) -> None:
        """Check that no block has waited in vain for others, and set the counts back if one has.

        Raises:
            DeviceUnavailableError: one has.
        """
        if self._counts is None or not int(self._counts[2]):
            return
        self._counts.fill(0)
        raise DeviceUnavailableError(
            f"got a kernel on {device} whose blocks waited for each other in vain; expected all "
            "of them to run at the same time: start again from a checkpoint, with no other "
            "program on the device"
        )

    def make_spaces(self) -> None:
        """Make the workspaces if there are none.

        Call this before a capture, because inside one they would not be set to 0.
        """
        if not self._workspace:
            parts = MAX_SUMS * SUM_BLOCKS
            kinds: dict[str, tuple[int, Any]] = {
                "ticket": (1, np.uint32),
                "counts": (3, np.uint32),
                "float": (parts, np.float32),
                "double": (parts, np.float64),
            }
            for name, (size, dtype) in kinds.items():
                self._workspace[name] = self.xp.zeros((size,), dtype)


def loop_shape(kernel: Elementwise, inputs: Sequence[Any], outputs: Sequence[Any]) -> Shape:
    """Return the shape that a kernel runs over.

    It is the shape of the outputs, or the one that the inputs broadcast to.

    Raises:
        ShapeError: the inputs do not broadcast together.
    """
    for param, array in zip(kernel.outputs, outputs, strict=True):
        if param.role == "each":
            return tuple(array.shape)
    pairs = zip(kernel.inputs, inputs, strict=True)
    shapes = [v.shape for p, v in pairs if p.role == "each" and hasattr(v, "dtype")]
    try:
        return np.broadcast_shapes(*shapes)
    except ValueError as error:
        raise ShapeError(
            f"got arrays of shapes {shapes}; expected shapes that broadcast together: reshape them"
        ) from error


def _dtype_name(array: Any, letter: str, layout: str) -> str:
    return letter if layout in ("value", "words") else np.dtype(array.dtype).name


def _is_column(shape: Shape, whole: Shape) -> bool:
    """Return whether a shape is the leading part of another, followed by ones."""
    k = len(shape)
    while k and shape[k - 1] == 1:
        k -= 1
    return shape[:k] == whole[:k]


def _lanes(n: int, key: tuple[Argument, ...], given: Sequence[Any], repeats: Sequence[int]) -> int:
    """Return the largest pack of at most 16 bytes that divides all sizes and addresses."""
    packed = [a for a, argument in zip(given, key, strict=True) if argument.layout in PACKED]
    lanes = PACK_BYTES // max((a.dtype.itemsize for a in packed), default=4)
    lanes = max(1, lanes)
    while lanes > 1 and (
        n % lanes
        or any(r % lanes for r in repeats)
        or any(a.data.ptr % (lanes * a.dtype.itemsize) for a in packed)
    ):
        lanes //= 2
    return lanes


def _argument(value: Any) -> Any:
    """Convert an argument for RawKernel: an int becomes a C int; a float is a C double already."""
    if isinstance(value, int):
        return np.int32(value)
    if hasattr(value, "flags") and not value.flags.c_contiguous:
        raise ValueError(
            f"got an array of shape {value.shape} in a row kernel that is not contiguous; expected "
            "a contiguous one, because the kernel gets only its address: use ascontiguousarray"
        )
    return value
