"""Memory that the workers of one machine share, in which they add up their sums."""

from __future__ import annotations

import mmap
import os
import platform
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from gpunn.errors import WorkerError

Bytes: TypeAlias = "np.ndarray[Any, np.dtype[np.uint8]]"

LINE = 128  # bytes between two counters, so that they lie in different cache lines
PATIENCE_S = 0.001  # a worker that has waited so long for another one sleeps between looks
FOLDER = "/dev/shm"  # memory that is a file; elsewhere a file of the usual temporary folder


class Window:
    """A part of memory for each worker of a machine, which all of them read and write.

    Args:
        tell: sends bytes of the first worker to all, and returns them.
        rank: the number of this worker.
        size: the number of workers.
        part_bytes: the bytes of a worker's part.
        limit_s: the seconds that a worker waits for the others.

    Attributes:
        parts: the part of each worker.
    """

    def __init__(
        self,
        tell: Callable[[bytes], bytes],
        rank: int,
        size: int,
        part_bytes: int,
        limit_s: float,
    ) -> None:
        self.rank, self.size, self.limit_s, self._met = rank, size, limit_s, 0
        start, path, file = size * LINE, "", -1
        if rank == 0:
            folder = FOLDER if os.access(FOLDER, os.W_OK) else None
            file, path = tempfile.mkstemp(prefix="gpunn-", dir=folder)
            os.ftruncate(file, start + size * part_bytes)
            if hasattr(os, "posix_fallocate"):  # no room is an error here, and no crash later
                os.posix_fallocate(file, 0, start + size * part_bytes)
        path = tell(path.encode()).decode()
        if rank:
            file = os.open(path, os.O_RDWR)
        memory = np.frombuffer(mmap.mmap(file, start + size * part_bytes), np.uint8)
        os.close(file)
        self._counters = memory[:start].view(np.int64)[:: LINE // 8]
        self.parts: list[Bytes] = np.split(memory[start:], size)
        self.meet()
        if rank == 0:
            os.unlink(path)  # the memory goes with the last process that has it

    def meet(self) -> None:
        """Wait until all workers have come here.

        Raises:
            WorkerError: some have not come within the limit.
        """
        self._met += 1
        self._counters[self.rank] = self._met
        begun = 0.0
        while self._counters.min() < self._met:
            now = time.monotonic()
            begun = begun or now
            if now - begun > self.limit_s:
                late = np.flatnonzero(self._counters < self._met).tolist()
                raise WorkerError(
                    f"got no answer for {self.limit_s:g} s from {_workers(late)} of {self.size}; "
                    "expected their sums: look for a worker that was stopped or killed, and start "
                    "again from the checkpoint"
                )
            time.sleep(0 if now - begun < PATIENCE_S else 1e-4)


def machine() -> str:
    """Return a text that only processes have that share the memory of a window."""
    try:
        place = os.stat(FOLDER).st_dev
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:  # not Linux
        return platform.node()
    return f"{boot} {place} {platform.node()}"


def _workers(numbers: list[int]) -> str:
    return f"worker{'s' * (len(numbers) > 1)} {', '.join(map(str, numbers))}"
