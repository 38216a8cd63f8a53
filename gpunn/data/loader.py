"""Batches: the rows of a data set in a new order every epoch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from gpunn.backends import backend
from gpunn.backends.random import RandomStream, permutation
from gpunn.data.checks import check_count, check_lengths
from gpunn.data.dataset import Dataset
from gpunn.errors import ArgumentError, DataError
from gpunn.frames import from_frame
from gpunn.typing import Array, DeviceLike

SHUFFLE_STREAM = 2**63  # the trainer's stream, so that both see the rows in the same order


def batches(
    x: Any,
    y: Any = None,
    batch_size: int = 128,
    *,
    seed: int = 0,
    epoch: int = 1,
    shuffle: bool = True,
    drop_last: bool = False,
    device: DeviceLike = None,
) -> Iterator[tuple[Array, Array]]:
    """One epoch of batches, each row in exactly one of them.

    The order depends on (seed, epoch) alone, so any epoch can be repeated without the ones before.
    Arguments are checked by this call, not by the first `next`.

    Args:
        x: (N, ...) examples, an array or a frame; or a `Dataset` with its targets.
        y: (N, ...) targets.
        batch_size: rows of a batch, at least 1; the last batch may be smaller.
        seed: 64-bit seed of the order.
        epoch: number of the epoch; every one has another order, the trainer's first is 1.
        shuffle: False for the order of the arrays; the batches are then views of them.
        drop_last: leave out a last batch that is smaller than the others.
        device: where each batch is copied to; None for batches on the host.

    Returns:
        An iterator of pairs (x, y) of shapes (batch_size, ...).

    Raises:
        ArgumentError: an argument outside its range, or `drop_last` would leave no batch.
        ShapeError: x and y of different lengths.
        DataError: no rows, no targets, or a frame's column that does not hold numbers.
        DeviceUnavailableError: the device cannot be used.

    Example:
        >>> x, y = np.arange(5.0)[:, None], np.arange(5)
        >>> [labels.tolist() for _, labels in batches(x, y, 2, shuffle=False)]
        [[0, 1], [2, 3], [4]]
        >>> shuffled = [labels for _, labels in batches(x, y, 2, seed=3, epoch=7)]
        >>> np.sort(np.concatenate(shuffled))
        array([0, 1, 2, 3, 4])
    """
    if isinstance(x, Dataset):
        x, y = x.x, x.y
    if y is None:
        raise DataError("got x without targets; expected both, or a Dataset")
    x, y = np.asarray(from_frame(x, "x")), np.asarray(from_frame(y, "y"))
    check_lengths(x, y)
    steps = steps_per_epoch(len(x), batch_size, drop_last)
    check_count("epoch", epoch, least=0)
    key = RandomStream(seed, SHUFFLE_STREAM, epoch)
    order = permutation(len(x), key.seed, key.stream, key.call) if shuffle else None
    pairs = _slices(x, y, int(batch_size), steps, order)
    if device is None:
        return pairs
    there = backend(device)
    return ((there.upload(rows), there.upload(targets)) for rows, targets in pairs)


def steps_per_epoch(n: int, batch_size: int, drop_last: bool = False) -> int:
    """How many batches an epoch has: n / batch_size, rounded up, or down with `drop_last`.

    Args:
        n: rows, at least 1.
        batch_size: rows of a batch, at least 1.
        drop_last: whether a smaller last batch is left out.

    Raises:
        ArgumentError: an argument outside its range, or `drop_last` would leave no batch.

    Example:
        >>> steps_per_epoch(10, 4), steps_per_epoch(10, 4, drop_last=True)
        (3, 2)
    """
    n, batch_size = check_count("n", n), check_count("batch_size", batch_size)
    if not drop_last:
        return -(-n // batch_size)
    if n < batch_size:
        raise ArgumentError(
            f"got batch_size={batch_size} for {n} rows with drop_last=True, which leaves no batch; "
            f"expected a batch_size of at most {n}"
        )
    return n // batch_size


def _slices(
    x: np.ndarray[Any, Any],
    y: np.ndarray[Any, Any],
    batch_size: int,
    steps: int,
    order: np.ndarray[Any, Any] | None,
) -> Iterator[tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]]:
    for step in range(steps):
        part = slice(step * batch_size, (step + 1) * batch_size)
        rows = part if order is None else order[part]
        yield x[rows], y[rows]
