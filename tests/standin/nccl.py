"""A test-only stand-in for the module `cupy.cuda.nccl`, between processes of MPI.

Messages are work of the current stream: a capture records them, and each launch of the graph sends
them again. A message begins with its number and its size, so that one that is missing, out of order
or of another size is an error.
"""

from __future__ import annotations

import ctypes
import itertools
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np

from tests.standin.machine import MACHINE
from tests.standin.streams import Stream

available = True
NCCL_UINT8 = 1
NAME_NUMBERS = 128
LIMIT_S = 60.0

counted: Counter[str] = Counter()
"""The messages so far: "groups", "sent", "received", and "bytes" sent."""

_names = itertools.count()
_open: list[list[Callable[[], None]]] = []


class NcclError(RuntimeError):
    """As `cupy.cuda.nccl.NcclError`."""


def get_unique_id() -> tuple[int, ...]:
    """A name; signed numbers of a byte, as CuPy's."""
    return (-next(_names) - 1, *range(NAME_NUMBERS - 1))


def groupStart() -> None:
    """Begin messages that are under way at once."""
    _open.append([])


def groupEnd() -> None:
    """Put the messages of the group into the current stream."""
    messages = _open.pop()
    MACHINE.launch("nccl", lambda: _exchange(messages))


class NcclCommunicator:
    """As CuPy's, for the calls that gpunn makes."""

    def __init__(self, ndev: int, commId: tuple[int, ...], rank: int) -> None:
        from mpi4py import MPI

        if not isinstance(commId, tuple) or len(commId) != NAME_NUMBERS or commId[0] >= 0:
            raise NcclError(f"NCCL_ERROR_INVALID_ARGUMENT: {commId}")
        self._all = MPI.COMM_WORLD.Dup()
        assert (self._all.size, self._all.rank) == (ndev, rank)
        self._sent: Counter[int] = Counter()
        self._received: Counter[int] = Counter()
        self.aborted = False

    def send(self, sendbuf: int, count: int, datatype: int, peer: int, stream: int) -> None:
        """Send bytes."""
        self._add(peer, stream, datatype, lambda: self._do_send(sendbuf, count, peer))

    def recv(self, recvbuf: int, count: int, datatype: int, peer: int, stream: int) -> None:
        """Receive bytes."""
        self._add(peer, stream, datatype, lambda: self._do_receive(recvbuf, count, peer))

    def check_async_error(self) -> None:
        """There is none."""

    def abort(self) -> None:
        """End it."""
        self.aborted = True

    def _add(self, peer: int, stream: int, datatype: int, message: Callable[[], Any]) -> None:
        if datatype != NCCL_UINT8 or not 0 <= peer < self._all.size or peer == self._all.rank:
            raise NcclError(f"NCCL_ERROR_INVALID_ARGUMENT: peer {peer}, data type {datatype}")
        if stream != MACHINE.current().ptr or stream not in Stream.known:
            raise NcclError("NCCL_ERROR_INVALID_USAGE: the messages of a group use several streams")
        _open[-1].append(message)

    def _do_send(self, pointer: int, size: int, peer: int) -> list[Any]:
        head = np.array([self._sent[peer], size], np.int64)
        self._sent[peer] += 1
        counted.update(sent=1, bytes=size)
        content = np.frombuffer(ctypes.string_at(pointer, size), np.uint8)
        return [self._all.Isend(part, peer) for part in (head, content)]

    def _do_receive(self, pointer: int, size: int, peer: int) -> list[Any]:
        head = np.empty(2, np.int64)
        _wait([self._all.Irecv(head, peer)])
        expected = [self._received[peer], size]
        if head.tolist() != expected:
            raise NcclError(f"got message and bytes {head.tolist()}, and expected {expected}")
        self._received[peer] += 1
        counted.update(received=1)
        place = np.frombuffer((ctypes.c_uint8 * size).from_address(pointer), np.uint8)
        return [self._all.Irecv(place, peer)]


def _exchange(messages: list[Callable[[], Any]]) -> None:
    counted.update(groups=1)
    _wait([request for message in messages for request in message()])


def _wait(requests: list[Any]) -> None:
    end = time.monotonic() + LIMIT_S
    while not all([request.Test() for request in requests]):
        if time.monotonic() > end:
            raise NcclError("the other workers do not send what this one receives")
