"""Batches of a data set, with its rows in a new order every epoch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from gpunn.arguments import count
from gpunn.backends import Backend, backend, backend_of
from gpunn.backends.random import order_stream, permutation
from gpunn.data.checks import check_lengths
from gpunn.data.dataset import Dataset
from gpunn.errors import ArgumentError, DataError, DeviceMismatchError
from gpunn.examples import rows_of
from gpunn.guesses import answers
from gpunn.sparse import is_sparse, sparse_rows
from gpunn.typing import Array, DeviceLike


class Batches:
    """An iterable of batches. Every loop over it takes the next epochs, so it has new orders.

    `gpunn.data.batches` creates it.

    Attributes:
        epoch: the number of the epoch with which the next loop begins.
        epochs: the number of epochs of a loop.
    """

    def __init__(
        self,
        x: Array,
        y: Array,
        batch_size: int,
        *,
        epochs: int,
        epoch: int,
        seed: int | None,
        shuffle: bool,
        drop_last: bool,
        there: Backend | None,
    ) -> None:
        self._x, self._y, self._batch_size, self._there = x, y, batch_size, there
        self._steps = steps_per_epoch(x.shape[0], batch_size, drop_last)
        self._stream = order_stream(seed) if shuffle else None
        self._home = backend("cpu") if is_sparse(x) else backend_of(x)
        self.epoch, self.epochs = epoch, epochs

    def __len__(self) -> int:
        """Return the number of batches in a loop."""
        return self._steps * self.epochs

    def __iter__(self) -> Iterator[tuple[Array, Array]]:
        first, self.epoch = self.epoch, self.epoch + self.epochs
        return self._batches(range(first, self.epoch))

    def _batches(self, epochs: range) -> Iterator[tuple[Array, Array]]:
        for epoch in epochs:
            order = None
            if self._stream is not None:
                key = self._stream
                order = permutation(self._x.shape[0], key.seed, key.stream, epoch)
                order = self._home.upload(order)
            for step in range(self._steps):
                part = slice(step * self._batch_size, (step + 1) * self._batch_size)
                rows = part if order is None else order[part]
                yield self._moved(self._x[rows]), self._moved(self._y[rows])

    def _moved(self, rows: Array) -> Array:
        if self._there is None or self._there is self._home:
            return rows
        return self._there.upload(rows.toarray() if is_sparse(rows) else rows)


@answers
def batches(
    x: Any,
    y: Any = None,
    batch_size: int = 128,
    *,
    epochs: int = 1,
    seed: int | None = None,
    epoch: int = 1,
    shuffle: bool = True,
    drop_last: bool = False,
    device: DeviceLike = None,
) -> Batches:
    """Divide the rows of a data set into batches, for one epoch or several.

    Each row is in exactly one batch of an epoch, and every epoch has another order. A loop over the
    result takes `epochs` epochs, and the next loop takes the epochs after them. Without a seed, the
    next call of `batches` has other orders, too. The arguments are checked by this call, not by the
    first batch.

    Args:
        x: (N, ...) examples: a tensor, an array of NumPy or CuPy, a frame, a sparse matrix; or a
            `Dataset` with its targets.
        y: (N, ...) targets.
        batch_size: the number of rows in a batch, at least 1; the last batch of an epoch may be
            smaller.
        epochs: the number of epochs of a loop.
        seed: 64-bit seed of the orders, which then depend only on (seed, epoch). The seed of a
            `Trainer` gives the trainer's orders. None takes a new seed, from `gpunn.manual_seed` if
            that was called.
        epoch: the number of the first epoch. With a seed, calls inside a loop over epochs must pass
            it.
        shuffle: False for the order of the arrays; the batches are then views of them.
        drop_last: whether to leave out a last batch that is smaller than the others.
        device: the device to which each batch is copied; None to copy nothing.

    Returns:
        An iterable of pairs (x, y) of shapes (batch_size, ...), with a length.

    Raises:
        ArgumentError: an argument is outside its range, or `drop_last` would leave no batch.
        ShapeError: x and y have different lengths.
        DTypeError, DataError: there are no rows or no targets, or a column does not hold numbers.
        DeviceMismatchError: the arrays are on two devices, or on another GPU than `device`.
        DeviceUnavailableError: the device cannot be used.

    Example:
        >>> x, y = np.arange(5.0)[:, None], np.arange(5)
        >>> [labels.tolist() for _, labels in batches(x, y, 2, shuffle=False)]
        [[0, 1], [2, 3], [4]]
        >>> sum(len(labels) for _, labels in batches(x, y, 2, epochs=3))
        15
    """
    if isinstance(x, Dataset):
        x, y = x.x, x.y
    if y is None:
        raise DataError("got x without targets; expected both: pass x and y, or a Dataset")
    x, y = rows_of(x, "x"), rows_of(y, "y")
    check_lengths(x, y)
    there = None if device is None else backend(device)
    if is_sparse(x):
        x = sparse_rows(x, np.float64 if x.dtype.kind != "f" else x.dtype)
    elif backend_of(x) is not backend_of(y) or (
        there not in (None, backend_of(x)) and not backend_of(x).on_host
    ):
        raise DeviceMismatchError(
            f"got x on {backend_of(x).device} and y on {backend_of(y).device}; expected both on "
            "the host, or both where the batches should be: move them first"
        )
    return Batches(
        x,
        y,
        count("batch_size", batch_size),
        epochs=count("epochs", epochs),
        epoch=count("epoch", epoch, least=0),
        seed=seed,
        shuffle=shuffle,
        drop_last=drop_last,
        there=there,
    )


def steps_per_epoch(n: int, batch_size: int, drop_last: bool = False) -> int:
    """Return the number of batches in an epoch: n / batch_size, rounded up (`drop_last`: down).

    Args:
        n: the number of rows, at least 1.
        batch_size: the number of rows in a batch, at least 1.
        drop_last: whether a smaller last batch is left out.

    Raises:
        ArgumentError: an argument is outside its range, or `drop_last` would leave no batch.

    Example:
        >>> steps_per_epoch(10, 4), steps_per_epoch(10, 4, drop_last=True)
        (3, 2)
    """
    n, batch_size = count("n", n), count("batch_size", batch_size)
    if not drop_last:
        return -(-n // batch_size)
    if n < batch_size:
        raise ArgumentError(
            f"got batch_size={batch_size} for {n} rows with drop_last=True, which leaves no batch; "
            f"expected a batch_size of at most {n}: reduce it, or pass drop_last=False"
        )
    return n // batch_size
