"""The interface to the memory of a device: make, fill, copy and free arrays."""

from __future__ import annotations

import sys
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import numpy as np

from gpunn.backends.cuda.streaming import DoubleBuffer
from gpunn.backends.device import Device
from gpunn.errors import ArgumentError, OutOfMemoryError
from gpunn.typing import Array, DType, Shape

MOST_CONSTANTS = 1024
"""The constants of a device that are kept."""


class Memory(ABC):
    """The memory of one device; `Backend` adds the work that is done in it.

    Attributes:
        device: the device.
        scope: a context manager that makes this device current; None if it always is.
        xp: the functions of `numpy` or `cupy`. Operations call `b.xp.multiply(x, y)` instead of
            `x * y`, so that a recording contains the call.
    """

    xp: Any

    def __init__(self, device: Device) -> None:
        self.device = device
        self.scope: AbstractContextManager[Any] | None = None
        self._constants: dict[Any, Array] = {}
        self._ones: dict[DType, Array] = {}
        self._limits: list[int] = []  # of the open blocks of `limited_memory`
        self._limit_outside: int | None = None
        self._limiting = threading.Lock()

    @classmethod
    @abstractmethod
    def device_of(cls, array: Any) -> Device | None:
        """Return the device of an array of this backend; None for anything else."""

    @contextmanager
    def telling_room(self) -> Iterator[None]:
        """Raise gpunn's error where another library finds no room inside the block.

        Raises:
            OutOfMemoryError: the device has no room, whoever asked for it.
        """
        try:
            yield
        except OutOfMemoryError:
            raise
        except MemoryError as error:
            raise OutOfMemoryError(
                f"got work for which {self.device} has no room ({error}); expected less: use a "
                "smaller batch_size, less data or a smaller network"
            ) from error

    def current(self) -> AbstractContextManager[Any]:
        """Make this device the current one inside the block."""
        return nullcontext() if self.scope is None else self.scope

    @abstractmethod
    def empty(self, shape: Shape, dtype: DType) -> Array:
        """Return an array with undefined content, from memory that may have been used before."""

    @abstractmethod
    def upload(self, array: np.ndarray[Any, Any]) -> Array:
        """Copy a host array to this device."""

    @abstractmethod
    def download(self, array: Array) -> np.ndarray[Any, Any]:
        """Copy an array to the host. This waits for the device."""

    @abstractmethod
    def write(self, array: Array, content: np.ndarray[Any, Any]) -> None:
        """Copy a host array into an array of this device that has the same shape.

        The dtype of the content is converted to that of the array.
        """

    def zeros(self, shape: Shape, dtype: DType) -> Array:
        """Return an array of zeros."""
        return self.full(shape, 0, dtype)

    def full(self, shape: Shape, value: float, dtype: DType) -> Array:
        """Return an array filled with one value."""
        array = self.empty(shape, dtype)
        with self.current():
            array.fill(value)
        return array

    def copy_to(self, to: Array, array: Array) -> None:
        """Copy the content of `array` into `to`."""
        to[...] = array

    def empty_like(self, array: Array) -> Array:
        """Return an array with undefined content and the shape and dtype of another."""
        return self.empty(array.shape, array.dtype)

    def kept(self, array: Array) -> Array:
        """Return an array whose memory nothing else will count on, for a caller who keeps it.

        It is the array itself, or a copy.
        """
        return array

    def cast(self, array: Array, dtype: DType) -> Array:
        """Return the array itself if it has that dtype, else a converted copy."""
        if array.dtype == dtype:
            return array
        found = self.empty(array.shape, dtype)
        self.copy_to(found, array)
        return found

    def zero(self) -> Array:
        """Return the integer 0 as a 0-d array. Every call returns the same array."""
        if "zero" not in self._constants:
            self._constants["zero"] = self.zeros((), np.int64)
        return self._constants["zero"]

    def one(self, dtype: DType) -> Array:
        """Return the number 1 as a 0-d array: the gradient of a loss with respect to itself.

        Every call with the same dtype returns the same array.
        """
        found = self._ones.get(dtype)  # faster than to look up the name of the dtype
        if found is None:
            kind = np.dtype(dtype)
            found = self._ones[dtype] = self._ones.setdefault(kind, self.full((), 1, kind))
        return found

    def constant(self, numbers: np.ndarray[Any, Any]) -> Array:
        """Return host numbers as an array of this device, which nothing may write to.

        Equal numbers give the same array. It is never freed, so that a recording can read it.
        Beyond MOST_CONSTANTS different ones, every call makes an array of its own.

        Args:
            numbers: the numbers, a small array.
        """
        key = numbers.dtype, numbers.shape, numbers.tobytes()
        found = self._constants.get(key)
        if found is None:
            found = self.upload(numbers)
            if len(self._constants) < MOST_CONSTANTS:
                found = self._constants.setdefault(key, found)
        return found

    @abstractmethod
    def memory_bytes(self) -> int:
        """Return the bytes that the buffers of this backend occupy, in use or idle."""

    @abstractmethod
    def free_memory(self) -> None:
        """Free every buffer that is not in use."""

    def free_bytes(self) -> int:
        """Return the bytes that new arrays may take."""
        return sys.maxsize

    def limit_memory(self, limit_bytes: int | None) -> None:
        """Limit the bytes that all arrays together may take; None for no limit.

        Raises:
            ArgumentError: the memory of this device cannot be limited.
        """
        if limit_bytes is not None:
            raise ArgumentError(
                f"got memory_limit={limit_bytes} on {self.device}; expected None: only the memory "
                "of a GPU can be limited"
            )

    def memory_limit(self) -> int | None:
        """Return the limit in bytes; None if there is none."""
        return None

    @contextmanager
    def limited_memory(self, limit_bytes: int | None) -> Iterator[None]:
        """Set a limit inside the block and restore the earlier one after it.

        None leaves the earlier limit in place. Blocks of several threads may overlap: the limit of
        the block that was opened last holds, and the last one to close restores the first state.
        """
        if limit_bytes is None:
            yield
            return
        with self._limiting:
            before = self.memory_limit()
            self.limit_memory(limit_bytes)
            if not self._limits:
                self._limit_outside = before
            self._limits.append(limit_bytes)
        try:
            yield
        finally:
            with self._limiting:
                self._limits.remove(limit_bytes)
                self.limit_memory(self._limits[-1] if self._limits else self._limit_outside)

    def double_buffer(self, kinds: Sequence[tuple[Shape, DType]]) -> DoubleBuffer:
        """Make the buffers that batches from the host are copied into.

        Args:
            kinds: the shape and dtype of each array of a batch.

        Raises:
            ArgumentError: arrays of this device are host arrays.
        """
        raise ArgumentError(
            f"got data to stream to {self.device}; expected a GPU: use the host arrays directly"
        )
