"""Batches from the host to the GPU while the batch before them is computed with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import numpy as np

from gpunn.typing import Array, DType, Shape


class _Slot:
    """Pinned arrays, arrays of the device, and when each was last read."""

    def __init__(self, xp: Any, kinds: Sequence[tuple[Shape, DType]]) -> None:
        self.pinned = [_pinned(xp, shape, np.dtype(dtype)) for shape, dtype in kinds]
        self.device = [xp.empty(shape, dtype) for shape, dtype in kinds]
        self.copied: Any = None  # event: the pinned arrays may be filled again
        # Event: the arrays of the device may be written again. Their memory may have been that of
        # arrays with which the current stream still works.
        self.used: Any = xp.cuda.get_current_stream().record()


class DoubleBuffer:
    """Two pairs of buffers that take turns: one is copied into while the other is computed with.

    Copies run on a stream of their own, from pinned memory, so neither the host nor the stream
    that computes waits for them unless it is ahead.

    Args:
        xp: the module `cupy`; its current device.
        kinds: (shape, dtype) of each array of a batch; the last batch may have fewer rows.
    """

    def __init__(self, xp: Any, kinds: Sequence[tuple[Shape, DType]]) -> None:
        self.xp = xp
        self._copies = xp.cuda.Stream(non_blocking=True)
        self._slots = [_Slot(xp, kinds) for _ in range(2)]

    def __del__(self) -> None:
        # An epoch that is left early drops buffers into which a copy may still write.
        with suppress(Exception):  # at exit the driver may be gone
            self._copies.synchronize()

    def put(self, number: int, rows: int, fill: Callable[[Sequence[Array]], None]) -> None:
        """Start the copy of batch `number`: `fill` writes its rows into pinned arrays."""
        slot = self._slots[number % 2]
        if slot.copied is not None:
            slot.copied.synchronize()
        fill([array[:rows] for array in slot.pinned])
        self._copies.wait_event(slot.used)
        for host, device in zip(slot.pinned, slot.device, strict=True):
            device[:rows].set(host[:rows], stream=self._copies)
        slot.copied = self._copies.record()

    def get(self, number: int, rows: int) -> list[Array]:
        """Batch `number` on the device, once it has arrived; valid until `release`."""
        slot = self._slots[number % 2]
        self.xp.cuda.get_current_stream().wait_event(slot.copied)
        return [array[:rows] for array in slot.device]

    def release(self, number: int) -> None:
        """What was launched so far is all that reads batch `number`."""
        self._slots[number % 2].used = self.xp.cuda.get_current_stream().record()


def _pinned(xp: Any, shape: Shape, dtype: np.dtype[Any]) -> Array:
    count = int(np.prod(shape, dtype=np.int64))
    memory = xp.cuda.alloc_pinned_memory(max(1, count * dtype.itemsize))
    return np.frombuffer(memory, dtype, count).reshape(shape)
