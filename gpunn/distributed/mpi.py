"""A group of the processes that mpiexec or srun has started."""

from __future__ import annotations

import atexit
import os
import sys
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Any

import numpy as np

from gpunn.arguments import in_range
from gpunn.backends import Backend
from gpunn.distributed.group import launched
from gpunn.distributed.window import Bytes, Window, machine
from gpunn.errors import MissingExtraError, WorkerError
from gpunn.typing import Array, Message

AGAIN = 75  # exit status of a job that may be started again, as in sysexits.h
LIMIT = "GPUNN_LIMIT_S"
"""The environment variable with the seconds that workers wait for each other."""
LIMIT_S = 300.0
MOMENT_S = 0.5  # in which other workers say what they have to say, before they are ended
PATH_BYTES = NAME_BYTES = 256

_several: Any = None  # the communicator of a job of several processes


class MpiGroup:
    """The processes of an MPI job.

    If a program of one of them ends by an error, all are ended: the others would wait for it.

    Args:
        communicator: an mpi4py communicator.
        limit_s: the seconds that a worker waits for the others.

    Attributes:
        rank: the number of this worker, from 0.
        size: the number of workers.
        wish: whether this worker wants all to stop.
        agreed: whether a worker wanted to in the last exchange.
    """

    def __init__(self, communicator: Any, limit_s: float = LIMIT_S) -> None:
        self._all = communicator
        self._together: bool | None = None  # whether all are on one machine; unknown at first
        self.limit_s = in_range("limit_s", limit_s, 0.0)
        self.rank, self.size = int(communicator.Get_rank()), int(communicator.Get_size())
        self.wish = self.agreed = False
        self._window: Window | None = None

    def allgather(self, mine: Bytes, sizes: list[int]) -> list[Bytes]:
        """Return the bytes of all workers, by rank.

        Raises:
            WorkerError: the others do not answer within the limit.
        """
        found = np.empty(sum(sizes), np.uint8)
        self._wait(self._all.Iallgatherv(np.ascontiguousarray(mine), (found, sizes)))
        return np.split(found, np.cumsum(sizes)[:-1])

    def reaches(self, b: Backend) -> bool:
        """Return whether the arrays of a backend are in the memory of the host."""
        return b.on_host

    def swap(self, sent: Sequence[Message], received: Sequence[Message]) -> None:
        """Send arrays to other workers, and receive theirs into arrays, all at the same time.

        Raises:
            WorkerError: the others do not answer within the limit.
        """
        requests = [self._all.Irecv(_bytes(array), peer) for peer, array in received]
        requests += [self._all.Isend(_bytes(array), peer) for peer, array in sent]
        for request in requests:
            self._wait(request)

    def meet(self, *, last: bool) -> None:
        """Do nothing: `agreed` comes with the sums of each step."""

    def machines(self) -> list[Bytes]:
        """Return a name of the machine of each worker. Workers with one name share memory."""
        mine = np.frombuffer(machine().encode().ljust(NAME_BYTES)[:NAME_BYTES], np.uint8)
        return self.allgather(mine, [NAME_BYTES] * self.size)

    def window(self, part_bytes: int) -> Window | None:
        """Return memory that all workers share; None if they are on several machines.

        Args:
            part_bytes: the least bytes of the part of a worker; 0 for the memory that there is.

        Raises:
            WorkerError: the others do not answer within the limit.
        """
        if not part_bytes:
            return self._window
        if self._together is None:
            first, *others = self.machines()
            self._together = all(np.array_equal(name, first) for name in others)
        known = self._window
        if not self._together or (known is not None and known.parts[0].size >= part_bytes):
            return known
        self._window = Window(self._tell, self.rank, self.size, part_bytes, self.limit_s)
        return self._window

    def _tell(self, content: bytes) -> bytes:
        """Send bytes of the first worker to all."""
        buffer = np.frombuffer(content.ljust(PATH_BYTES, b"\0"), np.uint8).copy()
        self._wait(self._all.Ibcast(buffer, root=0))
        return buffer.tobytes().rstrip(b"\0")

    def _wait(self, request: Any) -> None:
        end = time.monotonic() + self.limit_s
        while not request.Test():
            if time.monotonic() > end:
                raise WorkerError(
                    f"got no answer for {self.limit_s:g} s from the other workers of worker "
                    f"{self.rank} of {self.size}; expected their sums: look for one that was "
                    "stopped or killed, and start again from the checkpoint"
                )


def mpi(limit_s: float | None = None) -> MpiGroup:
    """Return the group of all processes of this MPI job; a single one without a launcher.

    Args:
        limit_s: the seconds that a worker waits for the others before it raises a `WorkerError`.
            None for the environment variable `GPUNN_LIMIT_S`, or else 300.

    Raises:
        ArgumentError: limit_s is below 0.
        MissingExtraError: mpi4py is not installed.
        WorkerError: mpi4py belongs to another MPI than the launcher.
    """
    try:
        from mpi4py import MPI
    except ImportError as error:
        raise MissingExtraError("mpi4py", "mpi", "a fit by several processes") from error
    if limit_s is None:
        given = os.environ.get(LIMIT, "")
        limit_s = float(given) if given.replace(".", "", 1).isdecimal() else LIMIT_S
    group = MpiGroup(MPI.COMM_WORLD, limit_s)
    if launched() > group.size:
        raise WorkerError(
            f"got {launched()} processes of a launcher, and mpi4py sees {group.size}; expected as "
            "many: mpiexec and mpi4py belong to different MPIs, so use the mpiexec beside the one "
            "that MPI4PY_LIBMPI names"
        )
    if group.size > 1:
        _end_all_after_an_error(MPI.COMM_WORLD)
    return group


def _bytes(array: Array) -> Bytes:
    """Return a view of the bytes of a contiguous array. MPI knows no float16."""
    found: Bytes = array.reshape(-1).view(np.uint8)
    return found


def ended_by(error: BaseException) -> int:
    """Return the exit status of a program that an error ends.

    In a job of several processes, all of them are then ended at the exit of this one.
    """
    status = AGAIN if isinstance(error, WorkerError) else 2
    if _several is not None:
        atexit.register(_end, _several, status)  # runs before MPI waits for the others
    return status


def _end(communicator: Any, status: int) -> None:
    time.sleep(MOMENT_S)
    communicator.Abort(status)


def _end_all_after_an_error(communicator: Any) -> None:
    """End all processes of the job when an error ends this program."""
    global _several
    if _several is None:
        _several, shown = communicator, sys.excepthook

        def hook(
            kind: type[BaseException], error: BaseException, traceback: TracebackType | None
        ) -> None:
            shown(kind, error, traceback)
            ended_by(error)

        sys.excepthook = hook
