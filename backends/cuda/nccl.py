"""Messages between the GPUs of several processes, through NCCL."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from gpunn.errors import MissingExtraError
from gpunn.typing import Message

PAUSE_S = 1e-4  # between two looks at work that is not done


class Nccl:
    """One worker of an NCCL communicator.

    The binding is CuPy's. gpunn needs six of its functions, and it comes with CuPy.

    Args:
        xp: the module `cupy`, whose current device is the worker's.
        nccl: the module `cupy.cuda.nccl`.
        rank: the number of this worker.
        size: the number of workers. Each needs a device of its own.
        tell: gets the communicator's name from worker 0 and returns it in every worker.

    Raises:
        MissingExtraError: NCCL is not installed.
        RuntimeError: NCCL cannot connect the devices.
    """

    def __init__(
        self, xp: Any, nccl: Any, rank: int, size: int, tell: Callable[[Sequence[int]], list[int]]
    ) -> None:
        if not nccl.available:
            cuda = xp.cuda.runtime.runtimeGetVersion() // 1000
            raise MissingExtraError(f"nvidia-nccl-cu{cuda}", f"nccl{cuda}", "a fit by several GPUs")
        self._xp, self._nccl = xp, nccl
        name = tell(nccl.get_unique_id() if rank == 0 else ())
        self._communicator = nccl.NcclCommunicator(size, tuple(name), rank)
        self._event: Any = None

    def swap(self, sent: Sequence[Message], received: Sequence[Message]) -> None:
        """Send and receive arrays, in order with the work of the current stream. Does not wait.

        Between two workers, the arrays go in the order of the sequences.
        """
        nccl, stream = self._nccl, self._xp.cuda.get_current_stream().ptr
        nccl.groupStart()  # all of them are under way at once, so no order can block
        try:
            for call, messages in (
                (self._communicator.send, sent),
                (self._communicator.recv, received),
            ):
                for peer, array in messages:
                    call(array.data.ptr, array.nbytes, nccl.NCCL_UINT8, peer, stream)
        finally:
            nccl.groupEnd()

    def wait(self, limit_s: float, *, last: bool) -> bool:
        """Wait for the current stream, and return whether its work was done within the limit.

        Args:
            limit_s: the seconds.
            last: whether to wait for all work, and not only for that before the last call.

        Raises:
            RuntimeError: NCCL has found an error, such as a lost connection.
        """
        before, self._event = self._event, self._xp.cuda.get_current_stream().record()
        event = self._event if last else before
        end = time.monotonic() + limit_s
        while event is not None and not event.done:
            self._communicator.check_async_error()
            if time.monotonic() > end:
                return False
            time.sleep(PAUSE_S)
        return True

    def abort(self) -> None:
        """End the communicator, so that the device stops waiting for the others."""
        self._communicator.abort()
