"""Captured CUDA graphs and their memory."""

from __future__ import annotations

from typing import Any

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

    def launch(self, times: int = 1) -> None:
        """Repeat the recorded work `times` times in a row."""
        for _ in range(times):
            self.graph.launch(self.stream)
