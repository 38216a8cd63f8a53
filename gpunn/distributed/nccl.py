"""A group of processes with a GPU each, whose sums go from GPU to GPU."""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np

from gpunn.backends import Backend, Device, backend
from gpunn.distributed.mpi import MpiGroup, mpi
from gpunn.distributed.window import Bytes, Window
from gpunn.errors import DeviceUnavailableError, WorkerError
from gpunn.typing import Message

NAME_BYTES = 1024


class NcclGroup:
    """The processes of an MPI job, each with a GPU of its own.

    The sums of a step go through NCCL, as a part of the captured step. Everything else goes
    through MPI: what the workers tell each other at the start, and the wish to stop.

    Args:
        group: the processes.
        b: the backend of this worker's GPU.

    Attributes:
        rank: the number of this worker, from 0.
        size: the number of workers.
        wish: whether this worker wants all to stop.
        agreed: whether a worker wanted to at the last meeting.
        device: the name of this worker's GPU.

    Raises:
        MissingExtraError: NCCL is not installed.
        WorkerError: NCCL cannot connect the GPUs, for example because two workers have the same.
    """

    def __init__(self, group: MpiGroup, b: Backend) -> None:
        self._group, self._backend = group, b
        self.rank, self.size, self.device = group.rank, group.size, str(b.device)
        self.wish = self.agreed = False
        try:
            self._links = b.connect(group.rank, group.size, self._tell)
        except RuntimeError as error:  # NCCL's own
            raise WorkerError(
                f"got {error} from NCCL in worker {self.rank} of {self.size} on {self.device}; "
                "expected a GPU of its own for each worker: start fewer workers, or pass "
                "group=gn.distributed.mpi(), whose sums go through the host"
            ) from error

    def allgather(self, mine: Bytes, sizes: list[int]) -> list[Bytes]:
        """Return the bytes of all workers, by rank, through the host."""
        return self._group.allgather(mine, sizes)

    def window(self, part_bytes: int) -> Window | None:
        """Return memory of the host that all workers share; None on several machines."""
        return self._group.window(part_bytes)

    def reaches(self, b: Backend) -> bool:
        """Return whether `swap` takes the arrays of a backend: it does on this worker's GPU."""
        return b is self._backend

    def swap(self, sent: Sequence[Message], received: Sequence[Message]) -> None:
        """Send and receive arrays of the GPU, in order with its stream. Does not wait."""
        self._links.swap(sent, received)

    def meet(self, *, last: bool) -> None:
        """Learn whether a worker wants to stop, and wait for the steps before the newest.

        Args:
            last: whether to wait for the newest, too.

        Raises:
            WorkerError: a worker does not answer within the limit.
        """
        wishes = self.allgather(np.array([self.wish], np.uint8), [1] * self.size)
        self.agreed = any(bool(wish[0]) for wish in wishes)
        limit_s = self._group.limit_s
        why = f"no end of a step for {limit_s:g} s"
        try:
            if self._links.wait(limit_s, last=last or self.agreed):
                return
        except RuntimeError as error:  # NCCL's own
            why = str(error)
        self._links.abort()
        raise WorkerError(
            f"got {why} in worker {self.rank} of {self.size}; expected the sums of the others: "
            "look for a GPU or a connection that has failed, and start again from the checkpoint"
        )

    def _tell(self, numbers: Sequence[int]) -> list[int]:
        """Send the numbers of the first worker to all."""
        mine = np.frombuffer(json.dumps(numbers).encode().ljust(NAME_BYTES), np.uint8)
        first = self.allgather(mine, [NAME_BYTES] * self.size)[0]
        return list(json.loads(first.tobytes()))


def nccl(limit_s: float | None = None) -> NcclGroup:
    """Return the group of all processes of this MPI job, with a GPU of its own for each.

    On each machine, the first process gets `cuda:0`, the second `cuda:1`, and so on. The network
    belongs on that device: `net.to(group.device)`.

    Args:
        limit_s: as for `mpi`.

    Raises:
        DeviceUnavailableError: a machine has fewer GPUs than processes.
        MissingExtraError: mpi4py or NCCL is not installed.
        WorkerError: NCCL cannot connect the GPUs, or mpi4py belongs to another MPI.
    """
    group = mpi(limit_s)
    return NcclGroup(group, backend(f"cuda:{_place(group)[0]}"))


def workers(device: Device) -> MpiGroup | NcclGroup:
    """Return the group of all processes of this MPI job for a fit on a device.

    On GPUs it is that of `nccl`, if every machine has a GPU for each of its processes. Otherwise
    the processes share the device, and their sums go through the host.

    Args:
        device: the device; of GPUs, the first one.

    Raises:
        MissingExtraError, WorkerError: as for `nccl`.
    """
    group = mpi()
    number, count = _place(group)
    enough = device.kind == "cuda" and device.index == 0
    if enough:
        try:
            backend(f"cuda:{count - 1}")
        except DeviceUnavailableError:
            enough = False
    found = group.allgather(np.array([enough], np.uint8), [1] * group.size)
    if not all(bool(there[0]) for there in found):
        return group
    return NcclGroup(group, backend(f"cuda:{number}"))


def _place(group: MpiGroup) -> tuple[int, int]:
    """Return the number of this worker on its machine, and how many workers there are on it."""
    names = group.machines()
    there = [k for k, name in enumerate(names) if np.array_equal(name, names[group.rank])]
    return there.index(group.rank), len(there)
