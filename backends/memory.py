"""The arrays of a device: how they are made, filled, copied and given back."""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import Any

import numpy as np

from gpunn.backends.cuda.streaming import DoubleBuffer
from gpunn.backends.device import Device
from gpunn.errors import ArgumentError
from gpunn.typing import Array, DType, Shape


class Memory(ABC):
    """The memory of one device; `Backend` adds the work that is done in it.

    Attributes:
        device: the device.
        scope: makes this device current in a `with` block; None where it always is.
        xp: the functions of `numpy` or `cupy`. Operations call `b.xp.multiply(x, y)` rather than
            write `x * y`, so that recorded work can be done again.
    """

    xp: Any

    def __init__(self, device: Device) -> None:
        self.device = device
        self.scope: AbstractContextManager[Any] | None = None
        self._constants: dict[str, Array] = {}
        self._ones: dict[DType, Array] = {}

    @classmethod
    @abstractmethod
    def device_of(cls, array: Any) -> Device | None:
        """The device of an array of this backend; None for anything else."""

    def current(self) -> AbstractContextManager[Any]:
        """A block in which array functions run on this device, whichever was current before."""
        return nullcontext() if self.scope is None else self.scope

    @abstractmethod
    def empty(self, shape: Shape, dtype: DType) -> Array:
        """An array with undefined content, from buffers that are used again."""

    @abstractmethod
    def upload(self, array: np.ndarray[Any, Any]) -> Array:
        """A copy of a host array on this device."""

    @abstractmethod
    def download(self, array: Array) -> np.ndarray[Any, Any]:
        """A host array with an array's content; waits for the device."""

    @abstractmethod
    def write(self, array: Array, content: np.ndarray[Any, Any]) -> None:
        """Copy a host array of the same shape into one of this device, and convert its dtype."""

    def zeros(self, shape: Shape, dtype: DType) -> Array:
        """An array of zeros."""
        return self.full(shape, 0, dtype)

    def full(self, shape: Shape, value: float, dtype: DType) -> Array:
        """An array filled with one value."""
        array = self.empty(shape, dtype)
        with self.current():
            array.fill(value)
        return array

    def add_to(self, total: Array, part: Array) -> None:
        """Add a part to a sum, in place."""
        total += part

    def copy_to(self, to: Array, array: Array) -> None:
        """Copy an array over another."""
        to[...] = array

    def empty_like(self, array: Array) -> Array:
        """An array with undefined content and the shape and dtype of another."""
        return self.empty(array.shape, array.dtype)

    def cast(self, array: Array, dtype: DType) -> Array:
        """An array in a dtype: itself if it has that dtype, else a converted copy."""
        if array.dtype == dtype:
            return array
        found = self.empty(array.shape, dtype)
        self.copy_to(found, array)
        return found

    def zero(self) -> Array:
        """The integer 0 as a 0-d array, always the same one."""
        if "zero" not in self._constants:
            self._constants["zero"] = self.zeros((), np.int64)
        return self._constants["zero"]

    def one(self, dtype: DType) -> Array:
        """The number 1 as a 0-d array, always the same one: the gradient of a loss by itself."""
        found = self._ones.get(dtype)  # a dtype's name costs more than the rest of this
        if found is None:
            kind = np.dtype(dtype)
            found = self._ones[dtype] = self._ones.setdefault(kind, self.full((), 1, kind))
        return found

    @abstractmethod
    def memory_bytes(self) -> int:
        """Bytes that buffers of this backend occupy, in use or kept for use."""

    @abstractmethod
    def free_memory(self) -> None:
        """Give back every buffer that nobody uses."""

    def free_bytes(self) -> int:
        """Bytes that new arrays may take."""
        return sys.maxsize

    def limit_memory(self, limit_bytes: int | None) -> None:
        """Let arrays take at most so many bytes together; None for no limit.

        Raises:
            ArgumentError: this device has no such limit.
        """
        if limit_bytes is not None:
            raise ArgumentError(
                f"got memory_limit={limit_bytes} on {self.device}; expected None: only the memory "
                "of a GPU can be limited"
            )

    def memory_limit(self) -> int | None:
        """The limit that was set; None for none."""
        return None

    @contextmanager
    def limited_memory(self, limit_bytes: int | None) -> Iterator[None]:
        """Set a limit inside the block and put the one before back; None leaves it alone."""
        if limit_bytes is None:
            yield
            return
        with ExitStack() as put_back:
            put_back.callback(self.limit_memory, self.memory_limit())
            self.limit_memory(limit_bytes)
            yield

    def double_buffer(self, kinds: Sequence[tuple[Shape, DType]]) -> DoubleBuffer:
        """Buffers through which batches of such (shape, dtype) come from the host."""
        raise ArgumentError(f"got data to stream to {self.device}, where host arrays are at home")
