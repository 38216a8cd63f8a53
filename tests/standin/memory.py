"""The memory of the pretended GPU: CuPy's pool, whose blocks are split, and the memory of graphs.

Arrays lie in the pool's blocks, at the addresses that CuPy would give them: memory that is idle is
given to the next array, whatever a graph or another stream still does there. A graph knows whose
memory it uses and is not launched once that memory may belong to others.
"""

from __future__ import annotations

import threading
import weakref
from bisect import bisect_left, insort
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from tests.standin.machine import MACHINE, CUDARuntimeError, OutOfMemoryError
from tests.standin.streams import QUEUES, Graph, current

DEVICE_BYTES = 2**34
ROUND_BYTES = 512
ALIGNMENT = 512
MEMORY_ALLOCATION = 2


class Memory:
    """As `cupy.cuda.memory.Memory`: what `cudaMalloc` gives, until it is deleted.

    Attributes:
        bytes: the memory itself.
        device: the number of its device.
    """

    def __init__(self, size: int) -> None:
        self.size, self.device, self._held = 0, MACHINE.devices[-1], MACHINE.held
        if self._held[self.device] + size > DEVICE_BYTES:
            raise CUDARuntimeError("cudaErrorMemoryAllocation: out of memory", MEMORY_ALLOCATION)
        whole = np.empty(size + ALIGNMENT, np.uint8)
        start = -whole.ctypes.data % ALIGNMENT
        self.bytes = whole[start : start + size]
        self.size = size
        self._held[self.device] += size

    def __del__(self) -> None:
        self._held[self.device] -= self.size


class Chunk:
    """A part of a block of memory, between two others of the same block."""

    __slots__ = ("after", "before", "idle", "memory", "offset", "size", "stream")

    def __init__(self, memory: Memory, offset: int, size: int, stream: int) -> None:
        self.memory, self.offset, self.size, self.stream = memory, offset, size, stream
        self.before: Chunk | None = None
        self.after: Chunk | None = None
        self.idle = False

    def split(self, size: int) -> Chunk | None:
        """Keep `size` bytes and return the rest."""
        if size == self.size:
            return None
        rest = Chunk(self.memory, self.offset + size, self.size - size, self.stream)
        rest.before, rest.after, self.after = self, self.after, rest
        if rest.after is not None:
            rest.after.before = rest
        self.size = size
        return rest

    def merge(self) -> None:
        """Take in the chunk that follows."""
        assert self.after is not None
        self.size += self.after.size
        self.after = self.after.after
        if self.after is not None:
            self.after.before = self


class PooledMemory:
    """Memory that its pool takes back when it is deleted."""

    def __init__(self, pool: DevicePool, chunk: Chunk) -> None:
        self.pool, self.chunk, self.device = pool, chunk, chunk.memory.device
        self.bytes = chunk.memory.bytes[chunk.offset : chunk.offset + chunk.size]
        self.graphs: list[weakref.ref[Graph]] = []

    def __del__(self) -> None:
        for reference in self.graphs:
            graph = reference()
            if graph is not None and self.pool.graph is not reference:
                graph.broken = "an array that is no longer there"
        self.pool.free(self.chunk)


class MemoryPointer:
    """As `cupy.cuda.memory.MemoryPointer`: a place in memory."""

    def __init__(self, memory: Any, offset: int) -> None:
        self.mem, self.offset = memory, offset
        self.device = memory.device

    def array(self, shape: Any, dtype: Any, order: str) -> np.ndarray:
        """An array in this memory."""
        return np.ndarray(shape, dtype, self.mem.bytes, self.offset, order=order)

    def used_by(self, graph: Graph) -> None:
        """Remember that a graph reads or writes here."""
        graphs = getattr(self.mem, "graphs", None)
        if graphs is not None and not any(reference() is graph for reference in graphs):
            graphs.append(weakref.ref(graph))


_pools: list[DevicePool] = []  # CuPy's pools do not give back their memory when they are deleted


class DevicePool:
    """The pool of one device, as CuPy's `SingleDeviceMemoryPool`.

    Attributes:
        graph: the graph whose memory this is; None for a pool that no capture took memory from.
    """

    def __init__(self, allocator: Callable[[int], MemoryPointer]) -> None:
        self._allocator = allocator
        self._idle: dict[int, dict[int, list[Chunk]]] = {}  # by stream and size
        self._sizes: dict[int, list[int]] = {}
        self._returned: deque[Chunk] = deque()
        self._lock = threading.RLock()
        self._used = self._total = self.limit = 0
        self.graph: weakref.ref[Graph] | None = None
        _pools[:] = [pool for pool in _pools if pool.total()] + [self]

    def malloc(self, size: int) -> MemoryPointer:
        """Give the smallest idle chunk of this stream with room, or new memory."""
        if not size:
            return MemoryPointer(Memory(0), 0)
        size = -(-size // ROUND_BYTES) * ROUND_BYTES
        stream = current().ptr
        with self._lock:
            self._settle()
            chunk = self._take(size, stream)
            self._bind(reused=chunk is not None)
            if chunk is None:
                chunk = Chunk(self._new(size), 0, size, stream)
            self._used += chunk.size
            return MemoryPointer(PooledMemory(self, chunk), 0)

    def free(self, chunk: Chunk) -> None:
        """Take a chunk back, soon: this may be called by the garbage collector at any time."""
        self._returned.append(chunk)

    def used(self) -> int:
        """Bytes of living arrays."""
        with self._lock:
            self._settle()
            return self._used

    def total(self) -> int:
        """Bytes that the pool holds."""
        return self._total

    def _settle(self) -> None:
        while self._returned:
            self._join(self._returned.popleft())

    def _join(self, chunk: Chunk) -> None:
        """Make a chunk idle, with its idle neighbours."""
        self._used -= chunk.size
        if chunk.after is not None and chunk.after.idle:
            self._remove(chunk.after)
            chunk.merge()
        if chunk.before is not None and chunk.before.idle:
            chunk = chunk.before
            self._remove(chunk)
            chunk.merge()
        self._add(chunk)

    def free_all_blocks(self, stream: Any = None) -> None:
        """Give back the idle blocks that are whole."""
        with self._lock:
            self._settle()
            chunks = [c for sizes in self._idle.values() for found in sizes.values() for c in found]
            whole = [c for c in chunks if c.before is None and c.after is None]
            if whole:
                QUEUES.finish_all()  # cudaFree waits for the device
            graph = None if self.graph is None else self.graph()
            if whole and graph is not None:
                graph.broken = "memory that was given back"
            for chunk in whole:
                self._remove(chunk)
                self._total -= chunk.size

    def poison(self) -> None:
        """Fill the idle memory with NaN, so that nobody finds there what an earlier array held."""
        with self._lock:
            self._settle()
            for sizes in self._idle.values():
                for chunk in (c for found in sizes.values() for c in found):
                    chunk.memory.bytes[chunk.offset : chunk.offset + chunk.size] = 0xFF

    def _bind(self, reused: bool) -> None:
        """Note that a graph owns this pool, or that others are given what its graph uses."""
        graph = current().graph
        owner = None if self.graph is None else self.graph()
        if owner is not None and owner is not graph and reused:
            owner.broken = "memory that an array was made in after the capture"
        if graph is not None and owner is None and self is not MACHINE.pool.here():
            self.graph = weakref.ref(graph)  # of which there is one for each graph

    def _new(self, size: int) -> Any:
        if self.limit and self._total + size > self.limit:
            raise OutOfMemoryError(size, self._total, self.limit)
        try:
            memory = self._allocator(size).mem
        except CUDARuntimeError as error:
            if error.status != MEMORY_ALLOCATION:
                raise
            self.free_all_blocks()
            try:
                memory = self._allocator(size).mem
            except CUDARuntimeError:
                raise OutOfMemoryError(size, self._total, self.limit) from error
        self._total += size
        return memory

    def _take(self, size: int, stream: int) -> Chunk | None:
        sizes = self._sizes.get(stream, ())
        at = bisect_left(sizes, size)
        if at == len(sizes):
            return None
        chunk = self._idle[stream][sizes[at]][-1]
        self._remove(chunk)
        rest = chunk.split(size)
        if rest is not None:
            self._add(rest)
        return chunk

    def _add(self, chunk: Chunk) -> None:
        chunk.idle = True
        chunks = self._idle.setdefault(chunk.stream, {}).setdefault(chunk.size, [])
        if not chunks:
            insort(self._sizes.setdefault(chunk.stream, []), chunk.size)
        chunks.append(chunk)

    def _remove(self, chunk: Chunk) -> None:
        chunk.idle = False
        chunks = self._idle[chunk.stream][chunk.size]
        chunks.remove(chunk)
        if not chunks:
            self._sizes[chunk.stream].remove(chunk.size)


class MemoryPool:
    """As `cupy.cuda.MemoryPool`: a pool for each device."""

    def __init__(self, allocator: Callable[[int], MemoryPointer] | None = None) -> None:
        self._allocator = allocator or (lambda size: MemoryPointer(Memory(size), 0))
        self._pools: dict[int, DevicePool] = {}

    def here(self) -> DevicePool:
        """The pool of the current device."""
        device = MACHINE.devices[-1]
        if device not in self._pools:
            self._pools[device] = DevicePool(self._allocator)
        return self._pools[device]

    def malloc(self, size: int) -> MemoryPointer:
        """Memory for an array."""
        return self.here().malloc(size)

    def used_bytes(self) -> int:
        """Bytes of living arrays."""
        return self.here().used()

    def free_bytes(self) -> int:
        """Bytes that are kept for the next arrays."""
        return self.here().total() - self.here().used()

    def total_bytes(self) -> int:
        """Bytes that the pool holds."""
        return self.here().total()

    def free_all_blocks(self, stream: Any = None) -> None:
        """Give the idle blocks back that are not split."""
        self.here().free_all_blocks(stream)

    def set_limit(self, size: int | None = None, fraction: float | None = None) -> None:
        """Allow at most `size` bytes; 0 for no limit."""
        self.here().limit = size or 0

    def get_limit(self) -> int:
        """The limit in bytes; 0 for none."""
        return self.here().limit


class PinnedMemory(bytearray):
    """As what `cupy.cuda.alloc_pinned_memory` gives: copied from when the copy is due."""


def is_pinned(host: Any) -> bool:
    """Whether a host array lies in pinned memory."""
    while isinstance(host, np.ndarray):
        host = host.base
    return isinstance(getattr(host, "obj", host), PinnedMemory)


_local = threading.local()


def allocate(size: int) -> MemoryPointer:
    """Memory from the allocator of this thread."""
    MACHINE.counters.allocations += 1
    return getattr(_local, "allocator", MACHINE.pool.malloc)(size)


@contextmanager
def using_allocator(allocator: Callable[[int], MemoryPointer]) -> Iterator[None]:
    """As `cupy.cuda.using_allocator`."""
    before = getattr(_local, "allocator", MACHINE.pool.malloc)
    _local.allocator = allocator
    try:
        yield
    finally:
        _local.allocator = before


MACHINE.pool = MemoryPool()
