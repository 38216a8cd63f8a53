"""Groups of workers that do one fit together."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Protocol

from gpunn.backends import Backend
from gpunn.distributed.window import Bytes, Window
from gpunn.errors import ArgumentError
from gpunn.typing import Message

LAUNCHERS = ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "PMIX_SIZE")
"""What launchers of MPI tell each process: the number of processes."""


class Group(Protocol):
    """Workers that hold the same data and do the same steps.

    Attributes:
        rank: the number of this worker, from 0.
        size: the number of workers.
        wish: whether this worker wants all to stop, because it got a signal.
        agreed: whether a worker wanted to in the last exchange; the same in all of them.
    """

    rank: int
    size: int
    wish: bool
    agreed: bool

    def allgather(self, mine: Bytes, sizes: list[int]) -> list[Bytes]:
        """Return the bytes of all workers, by rank. Every worker calls this with its own bytes.

        Args:
            mine: the bytes of this worker.
            sizes: the number of bytes of each worker.

        Raises:
            WorkerError: a worker does not answer in time.
        """

    def window(self, part_bytes: int) -> Window | None:
        """Return memory that all workers share, or None if they are on several machines.

        Every worker calls this with the same number.

        Args:
            part_bytes: the least bytes of the part of a worker; 0 for the memory that there is.
        """

    def reaches(self, b: Backend) -> bool:
        """Return whether `swap` takes arrays of a backend; else they go through the host."""

    def swap(self, sent: Sequence[Message], received: Sequence[Message]) -> None:
        """Send arrays to other workers, and receive theirs into arrays.

        Between two workers, the arrays go in the order of the sequences.

        Raises:
            WorkerError: a worker does not answer in time.
        """

    def meet(self, *, last: bool) -> None:
        """Set `agreed` after some steps, if their exchange does not do it.

        Args:
            last: whether these are the last steps before the host reads an array of the device.

        Raises:
            WorkerError: a worker does not answer in time.
        """


class Alone:
    """The group of a single worker."""

    rank, size, wish, agreed = 0, 1, False, False

    def allgather(self, mine: Bytes, sizes: list[int]) -> list[Bytes]:
        """Return the bytes of this worker."""
        return [mine]

    def window(self, part_bytes: int) -> None:
        """Return None: a single worker shares nothing."""

    def reaches(self, b: Backend) -> bool:
        """Return True: there is nothing to send."""
        return True

    def swap(self, sent: Sequence[Message], received: Sequence[Message]) -> None:
        """Do nothing: there is no one to send to."""

    def meet(self, *, last: bool) -> None:
        """Do nothing: there is no one to meet."""


ALONE = Alone()
"""The group of one process, which exchanges nothing."""


def shards_of(rank: int, size: int, shards: int) -> range:
    """Return the numbers of the shards that a worker computes."""
    return range(rank * shards // size, (rank + 1) * shards // size)


def launched() -> int:
    """Return the number of processes that a launcher of MPI has started; 1 without a launcher."""
    counts = (os.environ.get(name, "") for name in LAUNCHERS)
    return max([1, *(int(count) for count in counts if count.isdecimal())])


def check_launched_alone() -> None:
    """Check that no launcher of MPI has started several of these processes.

    Raises:
        ArgumentError: there are several, and each would do the whole fit.
    """
    if launched() > 1:
        raise ArgumentError(
            f"got {launched()} processes of a launcher of MPI and no group; expected one process, "
            "because each would do the whole fit: pass group=gn.distributed.mpi() and shards (on "
            "the command line, --shards)"
        )
