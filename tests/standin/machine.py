"""The state of the pretended GPU: what was counted, what is allocated, what is being captured."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np


class CUDARuntimeError(RuntimeError):
    """As `cupy.cuda.runtime.CUDARuntimeError`; the status of 2 means that memory is out."""

    def __init__(self, words: str, status: int = 1) -> None:
        super().__init__(words)
        self.status = status


class OutOfMemoryError(MemoryError):
    """As `cupy.cuda.memory.OutOfMemoryError`."""


@dataclass
class Counters:
    """What the device was asked to do, since the process began or `reset`.

    Attributes:
        launches: how often each kernel was launched, by name; ufuncs and reductions by theirs.
        allocations: arrays that were given memory.
        host_to_device: copies to the device.
        device_to_host: copies to the host; each of them waits for the device.
        synchronisations: waits for the device, those of copies to the host included.
        matmuls: matrix products.
    """

    launches: Counter[str] = field(default_factory=Counter)
    allocations: int = 0
    host_to_device: int = 0
    device_to_host: int = 0
    synchronisations: int = 0
    matmuls: int = 0

    def reset(self) -> None:
        """Count from zero."""
        self.__dict__.update(Counters().__dict__)

    @contextmanager
    def count(self) -> Iterator[Counters]:
        """Yield counters that, after the `with` block, hold what happened in it."""
        before = Counters(**{**self.__dict__, "launches": Counter(self.launches)})
        found = Counters()
        try:
            yield found
        finally:
            found.launches = self.launches - before.launches
            for name in self.__dict__.keys() - {"launches"}:
                setattr(found, name, getattr(self, name) - getattr(before, name))


class Pool:
    """As CuPy's memory pool: freed blocks are kept until `free_all_blocks`."""

    ROUND_BYTES = 512

    def __init__(self) -> None:
        self._used = self._free = self._limit = 0

    def take(self, size_bytes: int) -> int:
        """Account for an array; returns the bytes of its block."""
        block = -(-size_bytes // self.ROUND_BYTES) * self.ROUND_BYTES
        fresh = max(0, block - self._free)
        if self._limit and self.total_bytes() + fresh > self._limit:
            raise OutOfMemoryError(
                f"Out of memory allocating {block:,} bytes (allocated so far: "
                f"{self.total_bytes():,} bytes, limit set to: {self._limit:,} bytes)."
            )
        self._used += block
        self._free -= block - fresh
        return block

    def give(self, block: int) -> None:
        """Account for the end of an array."""
        self._used -= block
        self._free += block

    def used_bytes(self) -> int:
        """Bytes of living arrays."""
        return self._used

    def free_bytes(self) -> int:
        """Bytes that are kept for the next arrays."""
        return self._free

    def total_bytes(self) -> int:
        """Bytes that the pool holds."""
        return self._used + self._free

    def free_all_blocks(self, stream: Any = None) -> None:
        """Give the free blocks back."""
        self._free = 0

    def set_limit(self, size: int | None = None, fraction: float | None = None) -> None:
        """Allow at most `size` bytes; 0 for no limit."""
        self._limit = size or 0

    def get_limit(self) -> int:
        """The limit in bytes; 0 for none."""
        return self._limit


class Graph:
    """What a capture recorded."""

    def __init__(self) -> None:
        self.actions: list[Callable[[], None]] = []
        self.memory: list[np.ndarray] = []

    def launch(self, stream: Any = None) -> None:
        """Do it."""
        with np.errstate(all="ignore"):
            for action in self.actions:
                action()

    def upload(self, stream: Any = None) -> None:
        """Nothing to prepare."""


class Machine:
    """The pretended GPU. While a capture is on, work is recorded and not done."""

    def __init__(self) -> None:
        self.counters = Counters()
        self.pool = Pool()
        self.devices = [0]  # the current one last
        self.graph: Graph | None = None  # of the current stream, while it is captured

    def launch(self, name: str, action: Callable[[], Any]) -> None:
        """A kernel that writes arrays which exist."""
        self.counters.launches[name] += 1
        self.act(action)

    def act(self, action: Callable[[], Any]) -> None:
        """Do, or record, work that writes arrays which exist."""
        if self.graph is not None:
            self.graph.actions.append(action)
            return
        with np.errstate(all="ignore"):  # a GPU does not warn
            action()

    def produce(self, compute: Callable[[], Any]) -> Any:
        """Work that makes new arrays; in a capture they are written again at every replay."""
        with np.errstate(all="ignore"):
            made = compute()
        if self.graph is None:
            return made
        results = made if isinstance(made, tuple) else (made,)
        hosts = tuple(np.asarray(result) for result in results)

        def again() -> None:
            value = compute()
            found = value if isinstance(made, tuple) else (value,)
            for host, part in zip(hosts, found, strict=True):
                host[...] = part

        self.graph.actions.append(again)
        return hosts if isinstance(made, tuple) else hosts[0]

    def product(self) -> None:
        """Count a matrix product; cuBLAS is refused in a capture, as CuPy does."""
        if self.graph is not None:
            raise NotImplementedError("calling cuBLAS API during stream capture is unsupported")
        self.counters.matmuls += 1

    def synchronise(self) -> None:
        """Wait for the device."""
        self._refuse_in_capture()
        self.counters.synchronisations += 1

    def copy_to_host(self) -> None:
        """Count a copy to the host, which waits."""
        self.synchronise()
        self.counters.device_to_host += 1

    def copy_to_device(self) -> None:
        """Count a copy to the device."""
        self._refuse_in_capture()
        self.counters.host_to_device += 1

    def _refuse_in_capture(self) -> None:
        if self.graph is not None:
            raise CUDARuntimeError(
                "cudaErrorStreamCaptureUnsupported: not permitted while capturing"
            )


MACHINE = Machine()


class Block:
    """The memory of one array; its views hold it too."""

    def __init__(self, size_bytes: int) -> None:
        self.size = 0
        self.device = MACHINE.devices[-1]
        self.size = MACHINE.pool.take(size_bytes)
        MACHINE.counters.allocations += 1

    def __del__(self) -> None:
        MACHINE.pool.give(self.size)
