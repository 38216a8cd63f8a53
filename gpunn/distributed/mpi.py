"""A group of the processes that mpiexec or srun has started."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from gpunn.arguments import in_range
from gpunn.distributed.group import Bytes
from gpunn.errors import MissingExtraError, WorkerError


class MpiGroup:
    """The processes of an MPI job.

    Args:
        communicator: an mpi4py communicator.
        limit_s: the seconds that a worker waits for the others.

    Attributes:
        rank: the number of this worker, from 0.
        size: the number of workers.
    """

    def __init__(self, communicator: Any, limit_s: float = 300.0) -> None:
        self._all = communicator
        self.limit_s = in_range("limit_s", limit_s, 0.0)
        self.rank, self.size = int(communicator.Get_rank()), int(communicator.Get_size())

    def allgather(self, mine: Bytes, sizes: list[int]) -> list[Bytes]:
        """Return the bytes of all workers, by rank.

        Raises:
            WorkerError: the others do not answer within the limit.
        """
        found = np.empty(sum(sizes), np.uint8)
        request = self._all.Iallgatherv(np.ascontiguousarray(mine), (found, sizes))
        end = time.monotonic() + self.limit_s
        while not request.Test():
            if time.monotonic() > end:
                raise WorkerError(
                    f"got no answer for {self.limit_s:g} s from the other workers of worker "
                    f"{self.rank} of {self.size}; expected their sums: look for one that was "
                    "stopped or killed, and start again from the checkpoint"
                )
        return np.split(found, np.cumsum(sizes)[:-1])


def mpi(limit_s: float = 300.0) -> MpiGroup:
    """Return the group of all processes of this MPI job; a single one without a launcher.

    Args:
        limit_s: the seconds that a worker waits for the others before it raises a `WorkerError`.

    Raises:
        MissingExtraError: mpi4py is not installed.

    Example:
        trainer = gn.Trainer(net, shards=8, group=gn.distributed.mpi())  # mpiexec -n 4 python ...
    """
    try:
        from mpi4py import MPI
    except ImportError as error:
        raise MissingExtraError("mpi4py", "mpi", "a fit by several processes") from error
    return MpiGroup(MPI.COMM_WORLD, limit_s)
