"""The data of a fit as the steps see it: batch after batch, on the device."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gpunn.backends import Backend, Elementwise
from gpunn.ops import identity
from gpunn.ops.shaping import RowGather
from gpunn.typing import Array, DType

ACCUMULATE = Elementwise(
    "accumulate",
    "T loss, float64 weight -> float64 total",
    numpy=lambda loss, weight, total: np.add(total, loss * weight, out=total),
    cuda="total = total + (double)loss * weight;",
)


class Feed:
    """Examples and targets on a device, in the order of an epoch.

    Args:
        b: the backend of both arrays.
        x: (N, ...) examples, contiguous.
        y: (N, ...) targets, contiguous.
        batch_size: B, rows of a batch; the last one has what is left.

    Attributes:
        order: (N,) int64 row numbers of this epoch on the device; None for the order of the data.
        tick: 0-d int64 of the device, by which a captured step knows its batch.
        total: 0-d float64 of the device, the mean loss of the epoch so far.
    """

    def __init__(self, b: Backend, x: Array, y: Array, batch_size: int) -> None:
        self.backend, self.x, self.y, self.batch_size = b, x, y, batch_size
        self.order: Array | None = None
        self.total = b.zeros((), np.float64)
        self._gather = RowGather(b, (x, y))

    def __len__(self) -> int:
        return len(self.x)

    @property
    def steps(self) -> int:
        """Batches of an epoch."""
        return -(-len(self.x) // self.batch_size)

    @property
    def whole_steps(self) -> int:
        """Batches that have all their rows."""
        return len(self.x) // self.batch_size

    def begin(self, order: np.ndarray | None, first: int = 0, total: float = 0.0) -> None:
        """Start an epoch with the rows in this order; its buffer stays where it is.

        Args:
            order: (N,) row numbers; None for the order of the data.
            first: the batch that comes first, 0 unless an epoch is resumed.
            total: what the batches before it added to the mean loss.
        """
        b = self.backend
        self.total.fill(total)
        if order is None:
            self.order = None
        elif self.order is None:
            self.order = b.upload(order)
        else:
            b.write(self.order, order)

    def batch(self, number: int) -> tuple[Array, Array]:
        """Batch `number` of the epoch, counted from 0."""
        start = number * self.batch_size
        part = slice(start, start + self.batch_size)
        if self.order is None:
            return self.x[part], self.y[part]
        x, y = self._gather(self.order[part], self.backend.zero(), 0, len(self.order[part]))
        return x, y

    def batch_at(self, tick: Array, ahead: int) -> tuple[Array, Array]:
        """Batch number `tick + ahead`, where the tick is read on the device."""
        assert self.order is not None
        x, y = self._gather(self.order, tick, ahead, self.batch_size)
        return x, y

    def rows(self, number: int) -> int:
        """Rows of batch `number`."""
        return min(self.batch_size, len(self.x) - number * self.batch_size)

    def done(self, number: int) -> None:
        """The step on batch `number` has been launched."""

    def add(self, loss: Array, rows: int) -> None:
        """Count the loss of a batch into the mean of the epoch."""
        self.backend.launch(ACCUMULATE, loss, rows / len(self.x), out=self.total)


class StreamedFeed(Feed):
    """Examples and targets that stay on the host, because the device has no room for them.

    While the device computes with a batch, the next one is gathered into pinned memory and copied.

    Args:
        b: the backend to stream to.
        x: (N, ...) examples on the host.
        y: (N, ...) targets on the host.
        batch_size: rows of a batch.
        dtype: that the network computes in; examples are converted on the device.
    """

    def __init__(self, b: Backend, x: Array, y: Array, batch_size: int, dtype: DType) -> None:
        self.backend, self.x, self.y, self.batch_size = b, x, y, batch_size
        self.dtype = np.dtype(dtype)
        self.total = b.zeros((), np.float64)
        self._rows: np.ndarray | None = None
        rows = min(batch_size, len(x))
        self._buffers = b.double_buffer([((rows, *a.shape[1:]), a.dtype) for a in (x, y)])

    def begin(self, order: np.ndarray | None, first: int = 0, total: float = 0.0) -> None:
        """Start an epoch: the first batch is on its way."""
        self.total.fill(total)
        self._rows = np.arange(len(self.x)) if order is None else order
        self._put(first)

    def batch(self, number: int) -> tuple[Array, Array]:
        """Batch `number` on the device; the next one starts on its way."""
        x, y = self._buffers.get(number, self.rows(number))
        if number + 1 < self.steps:
            self._put(number + 1)
        if x.dtype != self.dtype:
            x = self.backend.launch(identity.kernel, x, out=self.backend.empty(x.shape, self.dtype))
        return x, y

    def done(self, number: int) -> None:
        """The buffers of batch `number` may be written again when its step is over."""
        self._buffers.release(number)

    def _put(self, number: int) -> None:
        assert self._rows is not None
        start = number * self.batch_size
        chosen = self._rows[start : start + self.batch_size]

        def fill(pinned: Sequence[Array]) -> None:
            for table, place in zip((self.x, self.y), pinned, strict=True):
                np.take(table, chosen, axis=0, out=place, mode="clip")

        self._buffers.put(number, len(chosen), fill)
