"""Batches that somebody else makes: a loader, a generator, or any iterable of (x, y)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from gpunn.arguments import count
from gpunn.backends import Backend
from gpunn.data.feed import Feed
from gpunn.errors import ArgumentError, DataError
from gpunn.frames import is_frame
from gpunn.sparse import is_sparse
from gpunn.typing import Array


class BatchSource:
    """An iterable of batches, each (x, y) or (x, y, weights).

    Args:
        batches: the iterable. An iterator, which cannot begin anew, goes on from epoch to epoch.
        steps: the number of batches of an epoch; None for its length.

    Attributes:
        shape: (steps,), as if each batch were a row.

    Raises:
        ArgumentError: it has no length, and `steps` is None.
    """

    def __init__(self, batches: Iterable[Any], steps: int | None = None) -> None:
        if steps is None and not hasattr(batches, "__len__"):
            raise ArgumentError(
                f"got batches from a {type(batches).__name__}, which has no len(); expected the "
                "number of batches in an epoch: pass steps_per_epoch="
            )
        self.batches = batches
        steps = len(batches) if steps is None else steps  # type: ignore[arg-type]
        self.shape = (count("steps_per_epoch", steps),)
        self.begins_anew = iter(batches) is not batches
        self._going: Iterator[Any] | None = None

    def mark(self) -> str:
        """Return what identifies the batches in a checkpoint: their number and their type."""
        return f"{self.shape[0]} batches of {type(self.batches).__qualname__}"

    def epoch(self) -> Iterator[Any]:
        """Return the batches of an epoch."""
        if self.begins_anew:
            return iter(self.batches)
        if self._going is None:
            self._going = iter(self.batches)
        return self._going


def source_of(x: Any, y: Any, steps: int | None) -> BatchSource | None:
    """Return the batches that a fit was given in place of examples; None for examples.

    Raises:
        ArgumentError: `steps` is given for examples.
    """
    alone = y is None and isinstance(x, Iterable)
    if alone and isinstance(x, list | tuple):
        alone = len(x) > 0 and all(isinstance(b, list | tuple) and len(b) in (2, 3) for b in x)
        alone = alone and all(np.ndim(part) for part in x[0][:2])
    known = any(hasattr(x, name) for name in ("shape", "dtype", "x"))
    known = known or is_frame(x) or is_sparse(x) or isinstance(x, str | bytes | Mapping)
    if alone and not known:
        return BatchSource(x, steps)
    if steps is not None:
        raise ArgumentError(
            f"got steps_per_epoch={steps} with examples; expected it with an iterable of batches "
            "only: an epoch uses each example once; see batch_size"
        )
    return None


class BatchFeed(Feed):
    """The batches of a source, checked and moved to the device one by one.

    Args:
        b: the backend of the device.
        source: the batches.
        check: a function that checks a batch and moves it to the device.
    """

    repeats = False

    def __init__(
        self, b: Backend, source: BatchSource, check: Callable[..., tuple[Array, ...]]
    ) -> None:
        self.backend, self.tables, self.batch_size = b, (), 1
        self._source, self._check, self._read = source, check, 0
        self.total = b.zeros((), np.float64)
        self._going: Iterator[Any] = iter(())

    def __len__(self) -> int:
        return self.steps

    @property
    def steps(self) -> int:
        """The number of batches in an epoch."""
        return self._source.shape[0]

    @property
    def whole_steps(self) -> int:
        """Always 0: no batch is known before it comes."""
        return 0

    @property
    def epoch_rows(self) -> int:
        """The rows that were read in this epoch."""
        return self._read

    def begin(self, order: Any, first: int = 0, total: float = 0.0) -> None:
        """Start an epoch.

        Args:
            order: nothing; the source has its own order.
            first: the number of the first batch, 0 unless an epoch is resumed.
            total: the sum of the losses of the rows before it.
        """
        self.total.fill(total)
        self._going = self._source.epoch()
        self._read = sum(len(next(self._going)[0]) for _ in range(first))

    def batch(self, number: int) -> tuple[Array, ...]:
        """Return the next batch.

        Raises:
            DataError: there is none, or it is not (x, y) or (x, y, weights).
        """
        try:
            given = next(self._going)
        except StopIteration:
            raise DataError(
                f"got {number} batches from a {type(self._source.batches).__name__}; expected "
                f"{self.steps} in an epoch: pass steps_per_epoch={max(number, 1)}, or more data"
            ) from None
        if not isinstance(given, list | tuple) or len(given) not in (2, 3):
            raise DataError(
                f"got a batch that is a {type(given).__name__}; expected (x, y) or (x, y, weights)"
            )
        arrays = self._check(*given)
        self._read += arrays[0].shape[0]
        return arrays
