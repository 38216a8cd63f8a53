"""Captured CUDA graphs and their memory."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from gpunn.backends.base import not_capturable

MEMORY_ALLOCATION = 2  # cudaErrorMemoryAllocation


def graph_pool(xp: Any, limit_bytes: int) -> Any:
    """Make a memory pool for the arrays of one graph. It keeps its blocks until they are freed.

    A graph writes to the addresses of its arrays even after Python has deleted them. CuPy's pool
    gives idle blocks back to the device when the device has no room. The graph would then write to
    memory that others use. The pool's allocator therefore raises the out-of-memory error itself,
    before the pool can give blocks back.

    Args:
        xp: the module `cupy`. The pool is on its current device.
        limit_bytes: the most bytes that the pool may take; 0 for no limit.
    """
    memory, taken = xp.cuda.memory, 0

    def take(size_bytes: int) -> Any:
        nonlocal taken
        if limit_bytes and taken + size_bytes > limit_bytes:
            raise memory.OutOfMemoryError(size_bytes, taken, limit_bytes)
        try:
            block = memory.Memory(size_bytes)
        except xp.cuda.runtime.CUDARuntimeError as error:
            if error.status != MEMORY_ALLOCATION:  # such as an illegal address in a kernel
                raise
            raise memory.OutOfMemoryError(size_bytes, taken, limit_bytes) from error
        taken += size_bytes
        return memory.MemoryPointer(block, 0)

    pool = xp.cuda.MemoryPool(take)
    pool.set_limit(size=0)  # a limit from the environment would make it give blocks back
    return pool


class Recording:
    """A captured graph with its memory, which nothing else may use.

    Args:
        stream: the stream that the graph is captured on.
        pool: the memory pool that its arrays come from.

    Attributes:
        done: False, because a capture executes nothing.
        refused: always empty, because work that cannot be captured raises an error.
        graph: CuPy's graph, once it is captured.
        kept: arrays to keep alive, because a graph holds no references to them.
    """

    done = False
    refused = ""

    def __init__(self, stream: Any, pool: Any) -> None:
        self.stream, self.pool = stream, pool
        self.graph: Any = None
        self.kept: Any = None

    @property
    def size_bytes(self) -> int:
        """The bytes of the memory pool."""
        return int(self.pool.total_bytes())

    def launch(self, times: int = 1) -> None:
        """Repeat the recorded work `times` times in a row."""
        for _ in range(times):
            self.graph.launch(self.stream)


class Graphs:
    """The captured graphs of one device, with their memory pools.

    A pool of CuPy 14 does not free its idle blocks when it is deleted. A graph's pool is therefore
    kept until it is empty.

    Args:
        xp: the module `cupy`.
    """

    def __init__(self, xp: Any) -> None:
        self.xp = xp
        self._pools: list[tuple[weakref.ref[Recording], Any]] = []

    def capture(self, stream: Any, work: Callable[[], Any], limit_bytes: int) -> Recording:
        """Capture what `work` launches on a stream.

        Args:
            stream: a stream that is current and not the default stream.
            work: returns the arrays to keep alive.
            limit_bytes: the most that the graph's arrays may take; 0 for no limit.

        Raises:
            CaptureError: the work cannot be captured.
        """
        pool = graph_pool(self.xp, limit_bytes)
        recording = Recording(stream, pool)
        self._pools.append((weakref.ref(recording), pool))
        stream.begin_capture()
        try:
            with self.xp.cuda.using_allocator(pool.malloc):
                recording.kept = work()
            recording.graph = stream.end_capture()
            recording.graph.upload(stream)
        except BaseException as error:
            with suppress(Exception):  # the capture is broken; the first error is reported
                stream.end_capture()
            if not isinstance(error, Exception):
                raise
            raise not_capturable(error) from error
        return recording

    def free(self) -> None:
        """Give the memory of deleted graphs back to the device."""
        for graph, pool in self._pools:
            if graph() is None:
                pool.free_all_blocks()
        self._pools = [
            (graph, pool)
            for graph, pool in self._pools
            if graph() is not None or pool.total_bytes()
        ]
