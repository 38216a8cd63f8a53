"""The state of the pretended GPU: what was counted, which device is current, what it holds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any


class CUDARuntimeError(RuntimeError):
    """As `cupy.cuda.runtime.CUDARuntimeError`; the status of 2 means that memory is out."""

    def __init__(self, words: str, status: int = 1) -> None:
        super().__init__(words)
        self.status = status


class OutOfMemoryError(MemoryError):
    """As `cupy.cuda.memory.OutOfMemoryError`."""

    def __init__(self, size: int, total: int, limit: int = 0) -> None:
        limited = f", limit set to: {limit:,} bytes" if limit else ""
        super().__init__(
            f"Out of memory allocating {size:,} bytes (allocated so far: {total:,} bytes{limited})."
        )


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


class Machine:
    """The pretended GPU.

    Attributes:
        counters: what it was asked to do.
        devices: the numbers of the devices in use; the current one last.
        current: the current stream, put there by `tests.standin.streams`.
        pool: the default pool of memory, put there by `tests.standin.memory`.
        held: bytes of memory that each device has given away.
    """

    def __init__(self) -> None:
        self.counters = Counters()
        self.devices = [0]
        self.held: Counter[int] = Counter()
        self.current: Callable[[], Any]
        self.pool: Any

    def launch(self, name: str, action: Callable[[], Any]) -> None:
        """A kernel that writes arrays which exist, on the current stream."""
        self.counters.launches[name] += 1
        self.current().do(action)

    def product(self) -> None:
        """Count a matrix product; cuBLAS is refused in a capture, as CuPy does."""
        if self.current().graph is not None:
            raise NotImplementedError("calling cuBLAS API during stream capture is unsupported")
        self.counters.matmuls += 1

    def synchronise(self) -> None:
        """Count a wait for the device."""
        self._refuse_in_capture()
        self.counters.synchronisations += 1

    def copy_to_host(self) -> None:
        """Count a copy to the host, which waits for the current stream."""
        self.synchronise()
        self.current().finish()
        self.counters.device_to_host += 1

    def copy_to_device(self) -> None:
        """Count a copy to the device."""
        self._refuse_in_capture()
        self.counters.host_to_device += 1

    def _refuse_in_capture(self) -> None:
        if self.current().graph is not None:
            raise CUDARuntimeError(
                "cudaErrorStreamCaptureUnsupported: not permitted while capturing"
            )


MACHINE = Machine()
