"""Buffers that copy a batch from the host to the GPU while the GPU works on the one before."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import numpy as np

from gpunn.typing import Array, DType, Shape


class _Slot:
    """The pinned arrays and the device arrays of one batch, with events for their last reads."""

    def __init__(self, xp: Any, kinds: Sequence[tuple[Shape, DType]]) -> None:
        self.pinned = [_pinned(xp, shape, np.dtype(dtype)) for shape, dtype in kinds]
        self.device = [xp.empty(shape, dtype) for shape, dtype in kinds]
        self.copied: Any = None  # after this event, the pinned arrays may be filled again
        # After this event, the device arrays may be written again. The first event is needed,
        # because the current stream may still use arrays that were in this memory before.
        self.used: Any = xp.cuda.get_current_stream().record()


class DoubleBuffer:
    """Two sets of buffers that take turns: one is filled while the GPU computes with the other.

    Copies run from pinned memory on a stream of their own. The host and the computing stream wait
    for a copy only if they get ahead of it.

    Args:
        xp: the module `cupy`. The buffers are made on its current device.
        kinds: the (shape, dtype) of each array of a batch. The last batch may have fewer rows.
    """

    def __init__(self, xp: Any, kinds: Sequence[tuple[Shape, DType]]) -> None:
        self.xp = xp
        self._copies = xp.cuda.Stream(non_blocking=True)
        self._slots = [_Slot(xp, kinds) for _ in range(2)]

    def __del__(self) -> None:
        # If an epoch ends early, a copy may still be writing to the buffers.
        with suppress(Exception):  # at exit, the driver may be closed already
            self._copies.synchronize()

    def put(self, number: int, rows: int, fill: Callable[[Sequence[Array]], None]) -> None:
        """Start the copy of a batch.

        Args:
            number: the number of the batch.
            rows: the number of its rows.
            fill: writes the rows into the pinned arrays that it is given.
        """
        slot = self._slots[number % 2]
        if slot.copied is not None:
            slot.copied.synchronize()
        fill([array[:rows] for array in slot.pinned])
        self._copies.wait_event(slot.used)
        for host, device in zip(slot.pinned, slot.device, strict=True):
            device[:rows].set(host[:rows], stream=self._copies)
        slot.copied = self._copies.record()

    def get(self, number: int, rows: int) -> list[Array]:
        """Return batch `number` on the device. Its arrays are valid until `release`.

        The current stream waits for the copy.
        """
        slot = self._slots[number % 2]
        self.xp.cuda.get_current_stream().wait_event(slot.copied)
        return [array[:rows] for array in slot.device]

    def release(self, number: int) -> None:
        """Declare that no work launched after this call reads batch `number`."""
        self._slots[number % 2].used = self.xp.cuda.get_current_stream().record()


def _pinned(xp: Any, shape: Shape, dtype: np.dtype[Any]) -> Array:
    count = int(np.prod(shape, dtype=np.int64))
    memory = xp.cuda.alloc_pinned_memory(max(1, count * dtype.itemsize))
    return np.frombuffer(memory, dtype, count).reshape(shape)
