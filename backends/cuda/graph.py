"""Captured work, and the memory that it works in."""

from __future__ import annotations

from typing import Any

MEMORY_ALLOCATION = 2  # cudaErrorMemoryAllocation


def graph_pool(xp: Any, limit_bytes: int) -> Any:
    """A memory pool for the arrays of one graph, which gives nothing back before it is told to.

    A graph writes to the addresses of arrays that are long gone. CuPy's pool gives its idle blocks
    back to the device where it finds no room, and a graph would then write to memory that is
    somebody else's; so it is kept from finding none: what is below it raises first.

    Args:
        xp: the module `cupy`; its current device.
        limit_bytes: that the pool may take; 0 for no limit.
    """
    memory, taken = xp.cuda.memory, 0

    def take(size_bytes: int) -> Any:
        nonlocal taken
        if limit_bytes and taken + size_bytes > limit_bytes:
            raise memory.OutOfMemoryError(size_bytes, taken, limit_bytes)
        try:
            block = memory.Memory(size_bytes)
        except xp.cuda.runtime.CUDARuntimeError as error:
            if error.status != MEMORY_ALLOCATION:  # such as an earlier kernel's illegal address
                raise
            raise memory.OutOfMemoryError(size_bytes, taken, limit_bytes) from error
        taken += size_bytes
        return memory.MemoryPointer(block, 0)

    pool = xp.cuda.MemoryPool(take)
    pool.set_limit(size=0)  # one from the environment would make it give blocks back
    return pool


class Recording:
    """A captured graph with the memory that it works in, which nobody else may use.

    Args:
        stream: that it is captured on.
        pool: that its arrays come from.

    Attributes:
        done: False, because a capture executes nothing.
        refused: empty: what cannot be captured raises.
        graph: CuPy's graph, once it is captured.
        kept: arrays to keep alive: a graph holds no reference to them.
    """

    done = False
    refused = ""

    def __init__(self, stream: Any, pool: Any) -> None:
        self.stream, self.pool = stream, pool
        self.graph: Any = None
        self.kept: Any = None

    def launch(self, times: int = 1) -> None:
        """Do the recorded work, several times one after another."""
        for _ in range(times):
            self.graph.launch(self.stream)
