"""One fit of a trainer: its data, its steps, and the loop over epochs."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from gpunn.backends import backend_of
from gpunn.backends.random import SHUFFLE_STREAM, permutation
from gpunn.data.loader import steps_per_epoch
from gpunn.errors import CaptureError, DivergenceError, OutOfMemoryError
from gpunn.examples import BATCH_ROWS
from gpunn.log import logger
from gpunn.ops.elementwise_losses import targets_checked
from gpunn.progress_bar import progress_bar
from gpunn.sparse import is_sparse
from gpunn.train.callbacks import Callback
from gpunn.train.feed import Feed, SparseFeed, StreamedFeed
from gpunn.train.guard import Guard
from gpunn.train.runner import CapturedRunner, EagerRunner
from gpunn.train.saver import Saver
from gpunn.train.scores import evaluate
from gpunn.train.snapshot import Progress
from gpunn.train.step import EagerStep, divergence, no_room
from gpunn.typing import Array

if TYPE_CHECKING:
    from gpunn.train.trainer import Trainer

Shuffle: TypeAlias = "bool | Callable[[int, int], np.ndarray[Any, Any]]"


class Fit:
    """A fit on arrays that are checked and where they should be.

    Args:
        trainer: what is to be trained and how; its counts of steps and epochs move.
        tables: (N, ...) examples and their targets, on the device, or on the host where it has no
            room for them; and (N,) weights of the examples, if there are any.
        epochs: how often every example is seen.
        batch_size: examples of a step.
        held_out: validation data, or None.
        shuffle: a new order for every epoch; see `Trainer.fit`.
        callbacks: called between epochs.
    """

    def __init__(
        self,
        trainer: Trainer,
        tables: tuple[Array, ...],
        epochs: int,
        batch_size: int,
        held_out: tuple[Array, Array] | None,
        shuffle: Shuffle,
        callbacks: Sequence[Callback],
    ) -> None:
        self.trainer, self.tables = trainer, tables
        self.epochs, self.batch_size, self.shuffle = epochs, batch_size, shuffle
        self.held_out, self.callbacks = held_out, callbacks
        self.steps = steps_per_epoch(tables[0].shape[0], batch_size)
        self.come = Progress(trainer.fits, trainer.steps)
        self.saver = Saver(trainer, callbacks)

    def run(self, progress: bool) -> None:
        """Train, from where a checkpoint was taken or from the start."""
        trainer, saver = self.trainer, self.saver
        with saver.open(), saver.interruption.watching():
            self.come = saver.start(self.come, self.tables, self.batch_size)
            if self.come.fit > trainer.fits:  # this fit was over, and a later one had begun
                return
            try:
                # an overflow is reported once, as the divergence it leads to
                shown = progress_bar(self.epochs * self.steps, "step", shown=progress)
                with shown as bar, np.errstate(all="ignore"), targets_checked():
                    if trainer.steps > self.come.start:
                        bar.update(trainer.steps - self.come.start)
                    self._train(bar)
            finally:
                trainer.optimizer.lr = trainer.base_lr  # a schedule's last factor was this fit's
            for callback in self.callbacks:
                callback.on_fit_end(trainer, trainer.history)

    def _train(self, bar: Any) -> None:
        """Run the epochs that are left."""
        trainer, history, come = self.trainer, self.trainer.history, self.come
        runner = self._runner()
        for number in range(come.epochs + 1, self.epochs + 1):
            if history.stopped:
                return
            bar.set_description(f"epoch {number}/{self.epochs} on {trainer.model.device}", False)
            start = time.perf_counter()
            numbers = {"loss": self._epoch(runner, bar), "lr": trainer.optimizer.lr}
            numbers |= self._validated()
            history.record(numbers | {"seconds": time.perf_counter() - start})
            bar.set_postfix({k: f"{v:.4g}" for k, v in numbers.items()}, refresh=False)
            reasons = [c.on_epoch_end(trainer, number, history) for c in self.callbacks]
            history.stopped = next(filter(None, reasons), "")
            come.epochs, come.batches, come.total = number, 0, 0.0
            self.saver.epoch_ended(come, last=number == self.epochs or bool(history.stopped))

    def _epoch(self, runner: EagerRunner, bar: Any) -> float:
        """Run one epoch, or what is left of it; the mean loss, read from the device once."""
        trainer, come, feed = self.trainer, self.come, runner.feed
        b = trainer.model.backend
        if not come.batches:
            trainer.epoch += 1
        order = self._order(len(feed))
        if order is None and isinstance(runner, CapturedRunner):
            order = np.arange(len(feed))
        trainer.model.train()
        with b.own_stream(), trainer.precision.training():
            feed.begin(order, come.batches, come.total)
            if runner.step.guard is not None:
                runner.step.guard.begin(come.batches)
            try:
                for taken in runner.epoch(self._rates(), come.batches):
                    trainer.steps += taken
                    come.batches += taken
                    bar.update(taken)
                    if self.saver.interruption.signal:
                        break
            except MemoryError as error:
                raise OutOfMemoryError(no_room(runner.step, feed, error)) from error
        come.total = float(b.download(feed.total))
        if trainer.on_nonfinite == "stop" and not np.isfinite(come.total):
            raise DivergenceError(self._diverged(runner, order))
        if come.batches < feed.steps:
            self.saver.leave(come)
        return come.total / len(feed)

    def _order(self, rows: int) -> np.ndarray[Any, Any] | None:
        """The rows of this epoch in their order; None for that of the data."""
        trainer = self.trainer
        if callable(self.shuffle):
            return np.asarray(self.shuffle(trainer.epoch, rows), np.int64)
        if self.shuffle:
            return permutation(rows, trainer.seed, SHUFFLE_STREAM, trainer.epoch)
        return None

    def _rates(self) -> list[float]:
        """The learning rate of every step of this epoch."""
        trainer, come = self.trainer, self.come
        begun, end = trainer.steps - come.batches, come.start + self.epochs * self.steps
        factor = trainer.schedule.factor
        return [trainer.base_lr * factor(begun + k, end) for k in range(self.steps)]

    def _diverged(self, runner: EagerRunner, order: Array | None) -> str:
        """Where a loss that was found to be broken at the end of an epoch began."""
        trainer, feed, guard = self.trainer, runner.feed, runner.step.guard
        first = 0 if guard is None else int(feed.backend.download(guard.first))
        batch = first - 1 if first else self.come.batches - 1
        feed.begin(order, batch)
        x = feed.batch(batch)[0].astype(trainer.model.dtype, copy=False)
        words = divergence(trainer.model, x, self.come.total)
        return f"{words} (step {batch + 1} of epoch {trainer.epoch})"

    def _validated(self) -> dict[str, float]:
        """The numbers of the validation data, if there are any."""
        if self.held_out is None:
            return {}
        model, loss = self.trainer.model, self.trainer.loss
        x = self.held_out[0]
        streamed = not is_sparse(x) and backend_of(x) is not model.backend
        rows = self.batch_size if streamed else max(self.batch_size, BATCH_ROWS)
        scores = evaluate(model, loss, *self.held_out, rows)
        return {f"val_{name}": value for name, value in scores.items()}

    # how the steps run -----------------------------------------------------------------------

    def _runner(self) -> EagerRunner:
        """The steps, captured where that is wanted and can be."""
        trainer, feed = self.trainer, self._feed()
        b = trainer.model.backend
        why = "" if trainer.capture else "capture=False"
        if not why:
            why = b.why_no_capture()
        if not why and isinstance(feed, StreamedFeed | SparseFeed):
            why = "the data is streamed from the host"
        if not why and feed.whole_steps < 2:
            why = f"an epoch of {len(feed)} rows has fewer than two whole batches"
        if not why:
            return CapturedRunner(self._step(captured=True), feed, required=trainer.capture is True)
        if trainer.capture is True:
            raise CaptureError(
                f"got capture=True, but {why}; expected steps that can be captured: pass "
                'capture="auto" to go on without'
            )
        if trainer.capture and not b.synchronous:
            logger.warning("training without captured steps: %s", why)
        return EagerRunner(self._step(), feed)

    def _feed(self) -> Feed:
        """The batches: from the device, or from the host where it has no room."""
        b, precision = self.trainer.model.backend, self.trainer.precision
        x, *rest = self.tables
        if is_sparse(x):
            return SparseFeed(b, self.tables, self.batch_size)
        if backend_of(x) is b:
            return Feed(b, (precision.narrow(x), *rest), self.batch_size)
        return StreamedFeed(b, self.tables, self.batch_size, precision.dtype)

    def _step(self, captured: bool = False) -> EagerStep:
        """The training step with all that the trainer was asked for."""
        trainer = self.trainer
        b, mode = trainer.model.backend, trainer.on_nonfinite
        guarded = mode == "skip" or (mode == "stop" and (captured or not b.synchronous))
        return trainer.step_class(
            trainer.model,
            trainer.loss,
            trainer.optimizer,
            trainer.regularizer,
            trainer.clip_norm,
            trainer.precision.loss_scale,
            Guard(b, mode, trainer.optimizer.bound.dtype) if guarded else None,
            stops=mode == "stop",
        )
