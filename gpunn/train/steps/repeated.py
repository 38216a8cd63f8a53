"""The steps of a fit, epoch by epoch, captured or not."""

from __future__ import annotations

import math
from operator import is_
from typing import Any

import numpy as np

from gpunn.backends import backend_of
from gpunn.backends.capture import WINDOW, Captured, State
from gpunn.data.batchfeed import BatchFeed, BatchSource
from gpunn.data.feed import Feed, SparseFeed, StreamedFeed
from gpunn.data.rowfeed import STREAMS, RowsFeed
from gpunn.data.rows import RowTable
from gpunn.distributed import shards_of
from gpunn.errors import CaptureError, DivergenceError, OutOfMemoryError
from gpunn.examples import edges
from gpunn.fingerprint import Fingerprint
from gpunn.log import logger
from gpunn.optim.guard import Guard
from gpunn.optim.optimizer import reading
from gpunn.sparse import is_sparse
from gpunn.train.inputs import batch_check, rows_check
from gpunn.train.steps.by_hand import CapturedStep
from gpunn.train.steps.sharded import LEAST_ROWS, ShardedStep
from gpunn.train.steps.step import EagerStep
from gpunn.train.training import Training
from gpunn.train.trouble import divergence, no_room
from gpunn.typing import Array

STEPS_PER_GRAPH = 4  # enough work to hide the launch of the next graph


class Repeated:
    """The steps of a fit, epoch by epoch. They are captured if that is wanted and possible.

    Args:
        training: the training; its position moves with the steps.
        tables: (N, ...) examples and their targets, and (N,) weights of the examples if there are
            any. They are on the device, or on the host if the device has no room for them.
        batch_size: the examples of a step.
        drop_last: whether a smaller last batch is left out.

    Attributes:
        feed: the batches.
        step: the training step.
        captured: the captured step; None if it is not captured.
        next_order: the order of the rows in the next epoch, if it is known already, else None.

    Raises:
        CaptureError: the steps must be captured, but cannot be.
    """

    next_order: np.ndarray[Any, Any] | None = None

    def __init__(
        self,
        training: Training,
        tables: tuple[Array, ...],
        batch_size: int,
        drop_last: bool = False,
    ) -> None:
        self.training = training
        self.feed = self._feed(tables, batch_size)
        if drop_last:
            self.feed.drop_last = True
        self._order: np.ndarray[Any, Any] | None = None
        self._each: list[float] = []
        self._make()

    def follow(self) -> None:
        """Do what the training says now. A callback may have given it another loss, for example."""
        if not all(map(is_, self._choices(), self._made_of)):
            self.training.prepare()
            self._make()
        self.training.optimizer.bound.read_factors()
        self.step.look()

    def _choices(self) -> tuple[Any, ...]:
        at = self.training
        parts = (at.model, at.loss, at.optimizer, at.optimizer.device_numbers, at.regularizer)
        return (*parts, at.clip_norm, at.on_nonfinite, at.capture)

    def _make(self) -> None:
        """Make the step, captured if that is wanted and possible."""
        training = self.training
        self._made_of = self._choices()
        self.captured: Captured | None = None
        why = _why_not_captured(self.feed, training.capture)
        if why and training.capture is True:
            raise CaptureError(
                f"got capture=True, but {why}; expected steps that can be captured: pass "
                'capture="auto" to go on without'
            )
        if why and training.capture and not self.feed.backend.on_host:
            logger.warning("training without captured steps: %s", why)
        by_shape = isinstance(self.feed, BatchFeed) and training.capture and not why
        self.step = self._step(captured=not why)
        self._call = CapturedStep(self.step) if by_shape else self.step
        # a window of rates that starts at the last step ends behind it
        b, length = self.feed.backend, (self.feed.steps + STEPS_PER_GRAPH,)
        moved = (training.optimizer.device_lr, *training.optimizer.device_numbers)
        self._tables = [b.zeros(length, number.dtype) for number in moved]
        if not why and not by_shape:
            self.captured = self._captured()

    @property
    def count(self) -> int:
        """The number of steps in an epoch."""
        return self.feed.steps

    def begin(
        self, order: np.ndarray[Any, Any] | None, rates: list[float], begun: int, total: int
    ) -> None:
        """Start an epoch at the position of the training, which may be in the middle of it.

        Args:
            order: the order of the rows; None for the order of the data.
            rates: the learning rate of each step of the epoch.
            begun: the steps of the training before this epoch.
            total: the steps of the whole training.
        """
        at, captured = self.training.position, self.captured
        if order is None and captured is not None:
            order = self.feed.in_order()
        self.feed.begin(order, at.batches, at.loss_sum)
        guard = self.step.factor.guard
        if guard is not None:
            guard.begin(at.batches)
        self._order, self._each, self._begun, self._total = order, rates, begun, total
        if captured is not None:
            captured.look()
            if captured.state is not State.REFUSED:
                self._write_tables()

    def advance(self) -> int:
        """Do the next step, or several at once, and return the number of steps done.

        Raises:
            DivergenceError: the loss can be read without waiting, and it is NaN or infinite.
            OutOfMemoryError: the device has no room for the batch.
            CaptureError: the steps must be captured, but cannot be.
        """
        at, captured = self.training.position, self.captured
        left = self.feed.whole_steps - at.batches
        try:
            if captured is None or left < _least(captured):  # no capture, or too few steps left
                taken = self._one(at.batches)
            else:
                if self.training.group.size > 1:  # all see after the same step whether to stop
                    left = captured.steps
                taken = captured.advance(at.batches, left)
                self.step.optimizer.note_lr(self._each[at.batches + taken - 1])
        except MemoryError as error:
            step = self.step
            words = no_room(step.model, step.loss_of, step.optimizer, self.feed, error)
            raise OutOfMemoryError(words) from error
        broken = self._broken()
        if broken:
            # Steps that were launched together with the broken one changed no parameter, but they
            # advanced the random streams.
            if captured is not None:
                captured.take_back(at.batches + taken - broken)
            taken = broken - 1 - at.batches
        at.batches += taken
        at.steps += taken
        self.training.group.meet(last=at.batches == self.count)
        if broken:
            self.mean_loss()
        return taken

    def mean_loss(self) -> float:
        """Read the sum of the losses from the device, and return the mean loss of the epoch's rows.

        Raises:
            DivergenceError: the loss is NaN or infinite. The message names the layer and the step.
            DeviceUnavailableError: see `Backend.synchronize`.
        """
        training, feed = self.training, self.feed
        at = training.position
        at.loss_sum = float(feed.backend.download(feed.total))
        if self.captured is not None:
            self.captured.settle()
        finite = bool(np.isfinite(at.loss_sum))
        if not finite or training.on_nonfinite == "skip":
            feed.backend.synchronize()
        if training.on_nonfinite != "stop" or finite:
            return at.loss_sum / max(1, feed.epoch_rows)
        guard = self.step.factor.guard
        first = 0 if guard is None else int(feed.backend.download(guard.first))
        batch = first - 1 if first else at.batches - 1
        if batch < at.batches - 1:  # the host hears of a broken step of a GPU after the epoch
            if self.captured is not None:
                self.captured.take_back(at.batches - 1 - batch)
            at.steps, at.batches = at.steps - at.batches + batch, batch
        where = f"(step {batch + 1} of epoch {at.epoch})"
        if not feed.repeats:
            raise DivergenceError(
                f"got a loss or gradients that are NaN or infinite {where}; expected finite ones: "
                "use a smaller learning rate, and look at the batch"
            )
        feed.begin(self._order, batch)
        x, *given = feed.batch(batch)
        x = x.astype(training.model.dtype, copy=False)
        redo = None if guard is None else (lambda: self.step.gradients(x, *given))
        words = divergence(training.model, x, at.loss_sum, redo)
        raise DivergenceError(f"{words} {where}")

    # how the steps run -----------------------------------------------------------------------

    def _one(self, number: int) -> int:
        """Do one step as usual."""
        if self.captured is not None:
            self.captured.settle()
        self.step.optimizer.lr = self._each[number]
        self.step.optimizer.move(self._begun + number, self._total)
        arrays = self.feed.batch(number)
        loss = self._call(*arrays)
        if self.step.factor.guard is None:
            self.feed.add(loss, arrays[0].shape[0])
        self.feed.done(number)
        return 1

    def _write_tables(self) -> None:
        """Write the rate of each step, and every other number that moves, to the device."""
        columns: list[Any] = [self._each]
        optimizer, steps = self.step.optimizer, range(self._begun, self._begun + self.count)
        if optimizer.moves:
            columns += zip(*(optimizer.foresee(k, self._total) for k in steps), strict=True)
        b, count = self.feed.backend, self.count
        for table, column in zip(self._tables, columns, strict=False):
            b.write(table[:count], np.asarray(column, table.dtype))

    def _broken(self) -> int:
        """Return the step of this epoch, from 1, whose loss ended the training; 0 if there is none.

        On a GPU the result is always 0, because reading the number would wait for the device.
        """
        guard = self.step.factor.guard
        if guard is None or guard.mode != "stop" or not self.feed.backend.synchronous:
            return 0
        return int(guard.first)

    def _captured(self) -> Captured:
        step, feed = self.step, self.feed  # a closure over self is a cycle
        b, tables = feed.backend, self._tables
        steps = 1 if b.synchronous else max(1, min(STEPS_PER_GRAPH, feed.whole_steps - 1))
        windows = [b.zeros((steps,), table.dtype) for table in tables]

        def numbered(tick: Array, k: int) -> Array:
            """Do step number tick + k of the epoch. The device reads the tick."""
            if k == 0:
                for table, window in zip(tables, windows, strict=True):
                    b.launch(WINDOW, table, tick, out=window)
            lr, *numbers = (window[k : k + 1].reshape(()) for window in windows)
            with reading(step.optimizer, lr, tuple(numbers)):
                loss = step(*feed.batch_at(tick, k))
            if step.factor.guard is None:
                feed.add(loss, feed.batch_size)
            return loss

        def changes(parts: Fingerprint) -> list[Array]:
            return [*step.changes(parts), feed.total]

        return Captured(
            b,
            numbered,
            step.parts,
            changes=changes,
            steps=steps,
            pieces=step.lanes,
            settles=step.skips,
            required=self.training.capture is True,
        )

    def _feed(self, tables: tuple[Array, ...], batch_size: int) -> Feed:
        """Make the feed: from the device, or from the host if the data is there or sparse."""
        b, precision = self.training.model.backend, self.training.precision
        x, *rest = tables
        if isinstance(x, BatchSource):
            return BatchFeed(b, x, batch_check(self.training))
        if isinstance(x, RowTable):
            return self._rows_feed(tables, batch_size)
        if is_sparse(x):
            return SparseFeed(b, tables, batch_size)
        if backend_of(x) is b:
            pieces, mine = self._own(batch_size)
            ends = edges(batch_size, pieces)
            rows = slice(ends[mine.start], ends[mine.stop]) if len(mine) < pieces else None
            return Feed(b, (precision.narrow(b, x), *rest), batch_size, rows)
        return StreamedFeed(b, tables, batch_size, precision.dtype)

    def _rows_feed(self, tables: tuple[Any, ...], batch_size: int) -> Feed:
        """Make the feed of rows on disk: a stream for each shard."""
        training = self.training
        check = rows_check(training.model, training.loss, *tables)
        return RowsFeed(training.model.backend, tables, batch_size, *self._own(batch_size), check)

    def _own(self, batch_size: int) -> tuple[int, range]:
        """Return the number of pieces of a whole batch, and those that this worker computes."""
        training, group = self.training, self.training.group
        pieces = max(1, min(training.shards or STREAMS, batch_size // LEAST_ROWS))
        every = group.size > pieces  # each worker computes all of a batch
        return pieces, range(pieces) if every else shards_of(group.rank, group.size, pieces)

    def _step(self, captured: bool) -> EagerStep:
        """Make the training step with the options of the trainer."""
        training = self.training
        b, mode = training.model.backend, training.on_nonfinite
        guarded = mode == "skip" or (mode == "stop" and (captured or not b.synchronous))
        kind = training.step_class if training.shards is None else ShardedStep
        step = kind(
            training.model,
            training.loss,
            training.optimizer,
            training.regularizer,
            training.clip_norm,
            training.precision.loss_scale,
            Guard(b, mode, training.optimizer.bound.dtype, self.feed.total) if guarded else None,
            stops=mode == "stop",
        )
        if isinstance(step, ShardedStep):
            step.divide(training.shards or 1, training.group)
        return step


def _least(captured: Captured) -> float:
    """Return the fewest steps that must be left for the captured work to do its next part."""
    if captured.state is State.REFUSED:
        return math.inf
    return captured.steps if captured.state in (State.WARM, State.PROVED) else 1


def _why_not_captured(feed: Feed, wanted: bool | str) -> str:
    """Return why steps on a feed are not captured; an empty text if they can be."""
    if not wanted:
        return "capture=False"
    if why := feed.backend.why_no_capture():
        return why
    if isinstance(feed, BatchFeed):
        return ""
    if isinstance(feed, StreamedFeed | SparseFeed):
        return "the data is streamed from the host"
    if isinstance(feed, RowsFeed) and not feed.backend.on_host:
        return "the data is read from files"
    if feed.whole_steps < 2:
        return f"an epoch of {len(feed)} rows has fewer than two whole batches"
    return ""
