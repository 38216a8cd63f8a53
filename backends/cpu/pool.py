"""A pool of CPU buffers. A buffer is used again as soon as nothing else refers to it."""

from __future__ import annotations

import sys
import threading
from math import prod
from typing import Any

import numpy as np

from gpunn.typing import Array, DType, Shape


class BufferPool(threading.local):
    """A pool of arrays. It hands out an array again once it holds the only reference to it.

    Without a pool, NumPy frees and maps large arrays at every step, and the page faults cost as
    much as the arithmetic. A view refers to its array and so keeps it in use. Every thread has its
    own arrays.
    """

    SMALL_BYTES = 4096  # smaller arrays come from NumPy's allocator, which is as fast for them
    ALIGN = 64  # bytes of a cache line and of an AVX-512 register

    def __init__(self) -> None:
        self._buckets: dict[tuple[Shape, Any], list[Array]] = {}
        self._idle = self._references([self._new((1,), np.dtype(np.uint8))], 0)

    def empty(self, shape: Shape, dtype: np.dtype[Any]) -> Array:
        """Return an array that is not in use, with undefined content."""
        bucket = self._buckets.get((shape, dtype))
        if bucket is None:
            if prod(shape) * dtype.itemsize < self.SMALL_BYTES:
                return np.empty(shape, dtype)
            bucket = self._buckets[shape, dtype] = []
        references, idle = sys.getrefcount, self._idle
        for i in range(len(bucket)):
            if references(bucket[i]) == idle:
                return bucket[i]
        bucket.append(self._new(shape, dtype))
        return bucket[-1]

    def size_bytes(self) -> int:
        """Return the bytes of all buffers, in use or idle."""
        return sum(array.nbytes for array in self.arrays())

    def owns(self, array: Array) -> bool:
        """Return whether an array is one of the buffers, not a view of one."""
        return any(array is one for one in self._buckets.get((array.shape, array.dtype), ()))

    def arrays(self) -> list[Array]:
        """Return all buffers, in use or idle."""
        return [array for bucket in self._buckets.values() for array in bucket]

    def free(self) -> None:
        """Drop the idle buffers."""
        for key, bucket in list(self._buckets.items()):
            busy = [i for i in range(len(bucket)) if self._references(bucket, i) != self._idle]
            self._buckets[key] = [bucket[i] for i in busy]
            if not busy:
                del self._buckets[key]

    def _new(self, shape: Shape, dtype: np.dtype[Any]) -> Array:
        size_bytes = prod(shape) * dtype.itemsize
        memory = bytearray(size_bytes + self.ALIGN)  # with an array here, views would skip ours
        return np.ndarray(shape, dtype, memory, -address(memory) % self.ALIGN)

    @staticmethod
    def _references(bucket: list[Array], i: int) -> int:
        return sys.getrefcount(bucket[i])


def address(memory: bytearray) -> int:
    """Return the address of the first byte."""
    start: int = np.frombuffer(memory, np.uint8).__array_interface__["data"][0]
    return start


_SCRATCH = BufferPool()


def scratch_like(array: Array, dtype: DType | None = None) -> Array:
    """Return a scratch array for a NumPy body, with undefined content.

    Args:
        array: an array of the wanted shape.
        dtype: the wanted dtype; None for that of `array`.
    """
    return _SCRATCH.empty(array.shape, array.dtype if dtype is None else np.dtype(dtype))


def widened(array: Array, dtype: DType) -> Array:
    """Return an array in a wider dtype, in scratch memory; the array itself if it has that dtype.

    Args:
        array: an array on the host.
        dtype: the wanted dtype.
    """
    if array.dtype == dtype:
        return array
    wide = scratch_like(array, dtype)
    np.copyto(wide, array)
    return wide
