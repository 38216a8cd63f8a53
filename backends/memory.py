"""The arrays of a device: how they are made, filled, copied and given back."""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
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
        xp: the array module, `numpy` or `cupy`.
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

    def empty_like(self, array: Array) -> Array:
        """An array with undefined content and the shape and dtype of another."""
        return self.empty(array.shape, array.dtype)

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

    def double_buffer(self, kinds: Sequence[tuple[Shape, DType]]) -> DoubleBuffer:
        """Buffers through which batches of such (shape, dtype) come from the host."""
        raise ArgumentError(f"got data to stream to {self.device}, where host arrays are at home")
