"""The session of a fit: it resumes from checkpoints, writes them, and handles signals."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from types import FrameType

from gpunn.data.loader import steps_per_epoch
from gpunn.distributed import check_alike
from gpunn.errors import ModelFileError
from gpunn.log import logger
from gpunn.optim.average import swapped
from gpunn.train.identity import Given, Run, refuse
from gpunn.train.snapshot import Saved, check_run, collect, restore
from gpunn.train.steps.sharded import sign_of_kernels
from gpunn.train.training import Position, Training


class Session:
    """A fit from its start, or from its newest checkpoint, to its end.

    Use it in a `with` block. Inside the block no other run may use the folder of the checkpoints.
    Without a folder, nothing is written, and signals act as usual.

    Args:
        training: the training; its position is set and moved.
        given: the arguments of the fit. A checkpoint stores what identifies them.

    Attributes:
        is_over: whether a checkpoint says that this fit is over and a later one has begun.
    """

    def __init__(
        self,
        training: Training,
        given: Given,
    ) -> None:
        self.training, self.callbacks, self._epochs = training, given.callbacks, given.epochs
        self._steps = steps_per_epoch(given.tables[0].shape[0], given.batch_size, given.drop_last)
        self.is_over = False
        group, self._run = training.group, None
        if training.checkpoints is not None or group.size > 1:
            self._run = Run.of(training, given)
        if group.size > 1 and self._run is not None:
            kernels = sign_of_kernels(training, given.tables, given.batch_size)
            check_alike(group, self._run.settings | self._run.given | {"kernels": kernels})
        self._signal = 0
        training.group.wish = training.group.agreed = False
        self._open = ExitStack()

    def __enter__(self) -> Session:
        checkpoints = self.training.checkpoints
        with ExitStack() as opened:
            group = self.training.group
            if checkpoints is not None and group.rank == 0:  # the others only read
                opened.enter_context(checkpoints.locked())
            if checkpoints is not None or group.size > 1:
                opened.enter_context(self._watching())
            try:
                self._start()
            except ModelFileError:
                self.training.position.fits -= 1  # this fit has not begun
                raise
            self._open = opened.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        self._open.close()

    @property
    def interrupted(self) -> bool:
        """Whether a signal has asked the fit to end; in a group, whether all know of one."""
        group = self.training.group
        return group.agreed if group.size > 1 else bool(self._signal)

    def epochs(self) -> Iterator[int]:
        """Yield the numbers of the epochs that are left, until a callback stops the fit."""
        while not self.is_over and not self.training.history.stopped:
            number = self.training.position.epochs + 1
            if number > self._epochs:
                break
            yield number
        if not self.is_over:
            if self.training.optimizer.averaged is not None:
                self.training.optimizer.averaged.use()
            for callback in self.callbacks:
                callback.on_fit_end(self.training, self.training.history)

    def ended(self, number: int, numbers: dict[str, float], *, last: bool) -> None:
        """Store an epoch's numbers, call the callbacks, and write a checkpoint if one is due."""
        training = self.training
        history, at = training.history, training.position
        history.append(numbers)
        with swapped(training.optimizer.averaged):
            reasons = [c.on_epoch_end(training, number, history) for c in self.callbacks]
        history.stopped = next(filter(None, reasons), "")
        training.follow_rate()
        at.epochs, at.batches, at.loss_sum = number, 0, 0.0
        if self.interrupted:
            self.leave()
        if last or history.stopped or number % training.every == 0:
            self._write()

    def leave(self) -> None:
        """Write a checkpoint and end the program as the signal asked.

        Raises:
            KeyboardInterrupt: after Ctrl-C.
            SystemExit: after SIGTERM, or a signal to another worker, with the exit status 128 + 15
                that shells use.
        """
        self._write()
        if self._signal == signal.SIGINT:
            raise KeyboardInterrupt
        raise SystemExit(128 + (self._signal or signal.SIGTERM))

    def _start(self) -> None:
        """Restore the newest checkpoint, if it belongs to this fit or a later one.

        Raises:
            ModelFileError: the checkpoint belongs to another run, or no checkpoint is whole.
        """
        training, checkpoints = self.training, self.training.checkpoints
        at = training.position
        at.start, at.epochs, at.batches, at.loss_sum = at.steps, 0, 0, 0.0
        found = None if checkpoints is None else checkpoints.newest()
        saved = None if found is None else Saved.of(found[1])
        if self._run is None or found is None or saved is None or saved.position.fits < at.fits:
            for callback in self.callbacks:
                callback.on_fit_start(training)
            training.follow_rate()
            return
        self.is_over = saved.position.fits > at.fits
        callbacks = None if self.is_over else self.callbacks
        check_run(training, saved, callbacks, self._run)
        if not self.is_over:
            self._check_counts(saved.position)
        restore(training, found[0], saved, callbacks)
        logger.warning(
            "resuming from %s: epoch %d, step %d",
            checkpoints.folder if checkpoints else "",
            saved.position.epochs + 1,
            training.position.steps,
        )

    def _check_counts(self, there: Position) -> None:
        """Check that this fit has at least the steps that a checkpoint has done."""
        if there.batches >= self._steps:
            raise ModelFileError(
                f"got a checkpoint after {there.batches} steps of an epoch; expected "
                f"fewer than its {self._steps}: delete the file to go on from the one before"
            )
        done = there.epochs + bool(there.batches)
        if done > self._epochs:
            refuse("epochs", f"{done} that it began", f"at most {self._epochs}")

    def _write(self) -> None:
        first = self.training.group.rank == 0
        if first and self.training.checkpoints is not None and self._run is not None:
            state = collect(self.training, self._run, self.callbacks)
            self.training.checkpoints.write(*state)

    @contextmanager
    def _watching(self) -> Iterator[None]:
        """Remember SIGINT and SIGTERM inside the block instead of acting on them.

        A second signal acts at once. Does nothing outside the main thread.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {n: signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)}

        def note(number: int, frame: FrameType | None) -> None:
            self._signal = number
            self.training.group.wish = True
            for known, handler in before.items():
                signal.signal(known, handler)

        try:
            for number in before:
                signal.signal(number, note)
            yield
        finally:
            for known, handler in before.items():
                signal.signal(known, handler)
