"""A pool of CPU buffers. A buffer comes back to its pool when the last array over it is deleted."""

from __future__ import annotations

import threading
from collections import deque
from math import inf, prod
from typing import Any, TypeAlias
from weakref import getweakrefs, ref

import numpy as np
from numpy import ndarray

from gpunn.typing import Array, DType, Shape

SMALL_BYTES = 4096  # smaller arrays come from NumPy's allocator, which is as fast for them
ALIGN = 64  # bytes of a cache line and of an AVX-512 register
SIZES = 8  # sizes of buffers between a power of two and the next
BITS = SIZES.bit_length()
COPIED_BYTES = 65_536  # a copy of so few bytes is faster than a new buffer
WINDOW = 1024  # arrays that are handed out between two looks at what the pool needs
IDLE = 1.75
"""The most idle bytes for each byte that was in use at one time. The buffers of a training step are
not all in use at once; for networks whose layers have very different widths, 1.6 were counted.
"""


# Plain tuples, because one of each is made or taken apart whenever an array is handed out.
Block: TypeAlias = "tuple[bytearray, int, int]"
"""The memory of one buffer, the position of the first byte that is used, and the number of bytes.

The memory is no array: the base of a view of our array would be that array, and not ours.
"""
Loan: TypeAlias = "tuple[ref[Array], Block, int]"
"""A weak reference to the array that was handed out, its buffer, and the window it was made in."""


class BufferPool:
    """A pool of buffers of one thread. Its idle buffers are limited by what was in use lately.

    Without a pool, NumPy frees and maps large arrays at every step, and the page faults cost as
    much as the arithmetic. A view refers to its array and so keeps it in use. No buffer is looked
    for: the weak reference to an array reports its deletion, in whichever thread that happens.

    Sizes are rounded up, so that arrays of many shapes share few buffers. Every `WINDOW` arrays
    the pool looks at what it needs. It drops the buffers that were idle all the time. It forgets
    those that were in use all the time, which are parameters, or results that somebody keeps:
    their memory is freed when they are deleted.
    """

    def __init__(self) -> None:
        self._idle: dict[int, list[Loan]] = {}  # size -> the last loans of idle buffers
        self._loans: dict[int, Loan] = {}
        self._deleted: deque[ref[Array]] = deque()  # any thread adds, the owner takes
        self._report = self._deleted.append
        self._used = self._idle_bytes = 0
        self._peak = self._peak_before = 0  # the most bytes in use, in this window and the last
        self._window, self._left = 0, WINDOW

    def empty(self, shape: Shape, dtype: np.dtype[Any]) -> Array:
        """Return an array that is not in use, with undefined content."""
        size_bytes = prod(shape) * dtype.itemsize
        if size_bytes < SMALL_BYTES:
            return np.empty(shape, dtype)
        if self._deleted:
            self._take_back()
        step = 1 << (size_bytes - 1).bit_length() - BITS
        size_bytes = size_bytes + step - 1 & -step
        idle = self._idle.get(size_bytes)
        if idle:
            block = idle.pop()[1]
            self._idle_bytes -= size_bytes
        else:
            block = self._larger(size_bytes, step) or self._new(size_bytes)
        memory, offset, size_bytes = block
        array: Array = ndarray(shape, dtype, memory, offset)
        reference = ref(array, self._report)
        self._loans[id(reference)] = reference, block, self._window
        self._used = used = self._used + size_bytes
        if used > self._peak:
            self._peak = used
        self._left -= 1
        if self._left <= 0:
            self._look()
        return array

    def forget(self, array: Array) -> Array:
        """Return an array that does not belong to the pool: the same one, or a copy.

        It is a copy if it is small, or a small part of its buffer.

        Args:
            array: an array that will be kept, such as a result for the caller. It may belong to
                the pool or not.
        """
        root = root_of(array)
        for reference in getweakrefs(root):
            loan = self._loans.get(id(reference))
            if loan is not None:
                if array.nbytes <= COPIED_BYTES or loan[1][2] > 1.25 * array.nbytes:
                    return array.copy()
                self._end(loan)
        return array

    def size_bytes(self) -> int:
        """Return the bytes of all buffers, in use or idle."""
        self._take_back()
        return self._used + self._idle_bytes

    def free(self) -> None:
        """Drop the idle buffers."""
        self._take_back()
        self._peak = self._peak_before = self._used
        self._trim(0)

    def _new(self, size_bytes: int) -> Block:
        memory = bytearray(size_bytes + ALIGN)
        return memory, -address(memory) % ALIGN, size_bytes

    def _larger(self, size_bytes: int, step: int) -> Block | None:
        """Return an idle buffer of up to twice the size, and None if there is none."""
        for size in range(size_bytes + step, 2 * size_bytes + 1, step):
            idle = self._idle.get(size)
            if idle:
                self._idle_bytes -= size
                return idle.pop()[1]
        return None

    def _take_back(self) -> None:
        """Make the buffers of deleted arrays idle."""
        deleted, loans, sizes, back_bytes = self._deleted, self._loans, self._idle, 0
        while deleted:
            loan = loans.pop(id(deleted.popleft()), None)
            if loan is None:  # it was forgotten
                continue
            size_bytes = loan[1][2]
            back_bytes += size_bytes
            idle = sizes.get(size_bytes)
            if idle is None:
                idle = sizes[size_bytes] = []
            idle.append(loan)
        self._used -= back_bytes
        self._idle_bytes += back_bytes
        limit = IDLE * max(self._peak, self._peak_before)
        if self._idle_bytes > limit:
            self._trim(limit)

    def _end(self, loan: Loan) -> None:
        """Forget a buffer in use: nothing reports the deletion of its array."""
        reference, block, _ = loan
        del self._loans[id(reference)]
        self._used -= block[2]

    def _look(self) -> None:
        """Begin a window. Forget, or drop, the buffers that were not handed out in the last one."""
        for loan in [loan for loan in self._loans.values() if loan[2] < self._window]:
            self._end(loan)
        self._trim(0, self._window)
        self._window, self._left = self._window + 1, WINDOW
        self._peak_before, self._peak = self._peak, self._used

    def _trim(self, limit_bytes: float, before: float = inf) -> None:
        """Drop buffers that were last used before a window, until the idle ones have no more bytes.

        The buffers that were not used for the longest time go first.
        """
        for size, idle in sorted(self._idle.items(), key=_last_use):
            while idle and self._idle_bytes > limit_bytes and idle[0][2] < before:
                idle.pop(0)
                self._idle_bytes -= size
            if not idle:
                del self._idle[size]


def _last_use(sized: tuple[int, list[Loan]]) -> int:
    """Return the window in which the longest idle buffer of a size was used."""
    return sized[1][0][2] if sized[1] else 0


class LastingPool(BufferPool):
    """A pool that keeps all its memory as long as it lives: the memory of a recording."""

    def __init__(self) -> None:
        super().__init__()
        self._memories: dict[int, bytearray] = {}

    def owns(self, array: Array) -> bool:
        """Return whether an array is over memory of this pool."""
        return id(root_of(array).base) in self._memories

    def _new(self, size_bytes: int) -> Block:
        block = super()._new(size_bytes)
        self._memories[id(block[0])] = block[0]
        return block

    def _look(self) -> None:
        """Forget nothing."""

    def _trim(self, limit_bytes: float, before: float = inf) -> None:
        """Drop nothing."""


def root_of(array: Any) -> Any:
    """Return the array that owns the memory of a view, or lies over memory of a pool."""
    while isinstance(array.base, np.ndarray):
        array = array.base
    return array


def address(memory: bytearray) -> int:
    """Return the address of the first byte."""
    start: int = np.frombuffer(memory, np.uint8).__array_interface__["data"][0]
    return start


class Own(threading.local):
    """The state of one thread.

    Attributes:
        pool: the pool of the thread.
    """

    def __init__(self) -> None:
        self.pool = BufferPool()


OWN = Own()


def scratch_like(array: Array, dtype: DType | None = None) -> Array:
    """Return a scratch array for a NumPy body, with undefined content.

    Args:
        array: an array of the wanted shape.
        dtype: the wanted dtype; None for that of `array`.
    """
    return OWN.pool.empty(array.shape, array.dtype if dtype is None else np.dtype(dtype))


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
