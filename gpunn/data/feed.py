"""Feeds, which give the batches of a fit to the steps, on the device."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from gpunn.backends import Backend, backend_of
from gpunn.backends.random import SHUFFLE_STREAM, permutation
from gpunn.ops import identity
from gpunn.ops.gather import RowGather
from gpunn.ops.reductions import ACCUMULATE
from gpunn.sparse import is_sparse
from gpunn.typing import Array, DType


def on_device(b: Backend, part: Array) -> Array:
    """Move rows of a table to a device. Sparse rows become dense on a GPU."""
    if is_sparse(part):
        return part if b.on_host else b.upload(part.toarray())
    return part if backend_of(part) is b else b.upload(part)


class Feed:
    """Batches of examples and targets that are on the device.

    Args:
        b: the backend of the arrays.
        tables: (N, ...) examples and targets, and (N,) weights of examples if there are any. All
            are contiguous.
        batch_size: the rows of a batch. The last batch may have fewer.
        mine: the rows of a whole batch that are needed, because other workers take the others;
            None for all.

    Attributes:
        drop_last: whether a smaller last batch is left out.
        x: the examples.
        order: (N,) int64 row numbers of this epoch on the device; None for the order of the data.
        total: the sum of the losses of the epoch's rows so far, a 0-d float64 array of the device.
    """

    repeats = True  # whether `begin` may go back to an earlier batch
    drop_last = False

    def __init__(
        self, b: Backend, tables: tuple[Array, ...], batch_size: int, mine: slice | None = None
    ) -> None:
        self.backend, self.tables, self.batch_size = b, tables, batch_size
        self.x = tables[0]
        self.order: Array | None = None
        self._mine, self._my_order = mine, None
        self.total = b.zeros((), np.float64)
        self._gathers = [RowGather(b, part) for part in (tables[:2], tables[2:]) if part]

    def __len__(self) -> int:
        return int(self.x.shape[0])

    @property
    def steps(self) -> int:
        """The number of batches in an epoch."""
        return self.whole_steps if self.drop_last else -(-len(self) // self.batch_size)

    @property
    def epoch_rows(self) -> int:
        """The number of rows in the batches of an epoch."""
        return self.whole_steps * self.batch_size if self.drop_last else len(self)

    @property
    def whole_steps(self) -> int:
        """The number of batches that have `batch_size` rows."""
        return len(self) // self.batch_size

    def shuffled(self, seed: int, epoch: int) -> Any:
        """Return a random order of the rows, for `begin`."""
        return permutation(len(self), seed, SHUFFLE_STREAM, epoch)

    def in_order(self) -> Any:
        """Return the order of the data, for `begin`."""
        return np.arange(len(self))

    def begin(self, order: Any, first: int = 0, total: float = 0.0) -> None:
        """Start an epoch. A new order is written to the same buffer as the last one.

        Args:
            order: (N,) row numbers; None for the order of the data.
            first: the number of the first batch, 0 unless an epoch is resumed.
            total: the sum of the losses of the rows before it.
        """
        self.total.fill(total)
        self.order = self._put_order(self.order, order)
        if self._mine is not None and order is not None:
            whole = order[: self.whole_steps * self.batch_size].reshape(-1, self.batch_size)
            self._my_order = self._put_order(self._my_order, whole[:, self._mine].ravel())

    def _put_order(self, place: Array | None, order: Any) -> Array | None:
        """Write row numbers to the device, to the same place as the last ones."""
        if place is None or order is None:
            return None if order is None else self.backend.upload(order)
        self.backend.write(place, order)
        return place

    def batch(self, number: int) -> tuple[Array, ...]:
        """Return batch `number` of the epoch, counted from 0: its rows of every table."""
        start = number * self.batch_size
        part = slice(start, start + self.batch_size)
        if self.order is None:
            return tuple(table[part] for table in self.tables)
        rows = self.order[part]
        return self._rows(rows, self.backend.zero(), 0, len(rows))

    def batch_at(self, tick: Array, ahead: int) -> tuple[Array, ...]:
        """Return batch number `tick + ahead`, with any content in rows that are not needed.

        The device reads the tick.
        """
        assert self.order is not None
        if self._mine is None:
            return self._rows(self.order, tick, ahead, self.batch_size)
        b, (gather, *weights), mine = self.backend, self._gathers, self._mine
        made = tuple(b.empty((self.batch_size, *t.shape[1:]), t.dtype) for t in gather.tables)
        own = tuple(table[mine] for table in made)
        gather(self._my_order, tick, ahead, mine.stop - mine.start, own)
        for each in weights:  # the weight of a shard is one of all of them
            made += each(self.order, tick, ahead, self.batch_size)
        return made

    def _rows(self, order: Array, tick: Array, ahead: int, count: int) -> tuple[Array, ...]:
        found: tuple[Array, ...] = ()
        for gather in self._gathers:
            found += gather(order, tick, ahead, count)
        return found

    def rows(self, number: int) -> int:
        """Return the number of rows of batch `number`."""
        return min(self.batch_size, len(self) - number * self.batch_size)

    def done(self, number: int) -> None:
        """Note that the step on batch `number` has been launched."""

    def add(self, loss: Array, rows: int) -> None:
        """Add the losses of a batch to the sum of the epoch.

        Args:
            loss: the mean loss of the batch, a 0-d array of the device.
            rows: the rows of the batch.
        """
        self.backend.launch(ACCUMULATE, loss, float(rows), out=self.total)


class StreamedFeed(Feed):
    """Batches of data that stay on the host, because the device has no room for them.

    While the device computes with a batch, the next one is gathered into pinned memory and copied.

    Args:
        b: the backend of the device that the batches are copied to.
        tables: (N, ...) examples and targets on the host, and weights if there are any.
        batch_size: the rows of a batch.
        dtype: the dtype that the network computes in. The device converts the examples to it.
    """

    def __init__(
        self, b: Backend, tables: tuple[Array, ...], batch_size: int, dtype: DType
    ) -> None:
        self.backend, self.tables, self.batch_size = b, tables, batch_size
        self.x = tables[0]
        self.dtype = np.dtype(dtype)
        self.total = b.zeros((), np.float64)
        self._chosen: np.ndarray | None = None
        rows = min(batch_size, self.x.shape[0])
        self._buffers = b.double_buffer([((rows, *a.shape[1:]), a.dtype) for a in tables])

    def begin(self, order: np.ndarray | None, first: int = 0, total: float = 0.0) -> None:
        """Start an epoch and the copy of its first batch."""
        self.total.fill(total)
        self._chosen = np.arange(self.x.shape[0]) if order is None else order
        self._put(first)

    def batch(self, number: int) -> tuple[Array, ...]:
        """Return batch `number` on the device, and start the copy of the next one."""
        x, *rest = self._buffers.get(number, self.rows(number))
        if number + 1 < self.steps:
            self._put(number + 1)
        if x.dtype != self.dtype:
            x = self.backend.launch(identity.kernel, x, out=self.backend.empty(x.shape, self.dtype))
        return x, *rest

    def done(self, number: int) -> None:
        """Allow the buffers of batch `number` to be overwritten after its step."""
        self._buffers.release(number)

    def _put(self, number: int) -> None:
        assert self._chosen is not None
        start = number * self.batch_size
        chosen = self._chosen[start : start + self.batch_size]

        def fill(pinned: Sequence[Array]) -> None:
            for table, place in zip(self.tables, pinned, strict=True):
                np.take(table, chosen, axis=0, out=place, mode="clip")

        self._buffers.put(number, len(chosen), fill)


class SparseFeed(Feed):
    """Batches of sparse examples, which stay on the host.

    On the CPU a batch has sparse rows, and SciPy computes their products. For a GPU it is made
    dense.

    Args:
        b: the backend of the device that the batches are moved to.
        tables: (N, D) sparse rows and their targets, and weights if there are any.
        batch_size: the rows of a batch.
    """

    def __init__(self, b: Backend, tables: tuple[Array, ...], batch_size: int) -> None:
        self.backend, self.tables, self.batch_size = b, tables, batch_size
        self.x = tables[0]
        self.total = b.zeros((), np.float64)
        self._chosen: np.ndarray | None = None

    def begin(self, order: np.ndarray | None, first: int = 0, total: float = 0.0) -> None:
        """Start an epoch with the rows in this order."""
        self.total.fill(total)
        self._chosen = order

    def batch(self, number: int) -> tuple[Array, ...]:
        """Return batch `number`: its rows of every table."""
        start = number * self.batch_size
        part: slice | np.ndarray = slice(start, start + self.batch_size)
        if self._chosen is not None:
            part = self._chosen[part]
        return tuple(on_device(self.backend, table[part]) for table in self.tables)
