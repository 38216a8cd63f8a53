"""The session of a fit: it resumes from checkpoints, writes them, and handles signals."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from types import FrameType

from gpunn.data.loader import steps_per_epoch
from gpunn.errors import ModelFileError
from gpunn.log import logger
from gpunn.train.callbacks import Callback
from gpunn.train.snapshot import Saved, collect, describe_data, restore
from gpunn.train.training import Training
from gpunn.typing import Array


class Session:
    """A fit from its start, or from its newest checkpoint, to its end.

    Use it in a `with` block. Inside the block no other run may use the folder of the checkpoints.
    Without a folder, nothing is written, and signals act as usual.

    Args:
        training: the training; its position is set and moved.
        callbacks: the callbacks of the fit.
        tables: the data. A checkpoint stores a checksum of it, to recognise its run.
        batch_size: the examples of a step.

    Attributes:
        is_over: whether a checkpoint says that this fit is over and a later one has begun.
    """

    def __init__(
        self,
        training: Training,
        callbacks: Sequence[Callback],
        tables: tuple[Array, ...],
        batch_size: int,
    ) -> None:
        self.training, self.callbacks = training, callbacks
        self.is_over = False
        self._steps = steps_per_epoch(tables[0].shape[0], batch_size)
        self._data = "" if training.checkpoints is None else describe_data(tables, batch_size)
        self._signal = 0
        self._open = ExitStack()

    def __enter__(self) -> Session:
        checkpoints = self.training.checkpoints
        with ExitStack() as opened:
            if checkpoints is not None:
                opened.enter_context(checkpoints.locked())
                opened.enter_context(self._watching())
            self._start()
            self._open = opened.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        self._open.close()

    @property
    def interrupted(self) -> bool:
        """Whether a signal has asked the fit to end."""
        return bool(self._signal)

    def epochs(self, count: int) -> Iterator[int]:
        """Yield the numbers of the epochs that are left, until a callback stops the fit.

        Args:
            count: the number of epochs of the whole fit.
        """
        while not self.is_over and not self.training.history.stopped:
            number = self.training.position.epochs + 1
            if number > count:
                break
            yield number
        if not self.is_over:
            for callback in self.callbacks:
                callback.on_fit_end(self.training, self.training.history)

    def ended(self, number: int, numbers: dict[str, float], *, last: bool) -> None:
        """Store an epoch's numbers, call the callbacks, and write a checkpoint if one is due."""
        training = self.training
        history, at = training.history, training.position
        history.append(numbers)
        reasons = [c.on_epoch_end(training, number, history) for c in self.callbacks]
        history.stopped = next(filter(None, reasons), "")
        at.epochs, at.batches, at.loss_sum = number, 0, 0.0
        if self.interrupted:
            self.leave()
        if last or history.stopped or number % training.every == 0:
            self._write()

    def leave(self) -> None:
        """Write a checkpoint and end the program as the signal asked.

        Raises:
            KeyboardInterrupt: after Ctrl-C.
            SystemExit: after SIGTERM, with the exit status 128 + 15 that shells use.
        """
        self._write()
        if self._signal == signal.SIGINT:
            raise KeyboardInterrupt
        raise SystemExit(128 + self._signal)

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
        if found is None or saved is None or saved.position.fits < at.fits:
            for callback in self.callbacks:
                callback.on_fit_start(training)
            return
        self.is_over = saved.position.fits > at.fits
        if not self.is_over and saved.position.batches >= self._steps:
            raise ModelFileError(
                f"got a checkpoint after {saved.position.batches} steps of an epoch; expected "
                f"fewer than its {self._steps}: delete the file to go on from the one before"
            )
        restore(training, found[0], saved, None if self.is_over else self.callbacks, self._data)
        logger.warning(
            "resuming from %s: epoch %d, step %d",
            checkpoints.folder if checkpoints else "",
            saved.position.epochs + 1,
            training.position.steps,
        )

    def _write(self) -> None:
        if self.training.checkpoints is not None:
            state = collect(self.training, self._data, self.callbacks)
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
            for known, handler in before.items():
                signal.signal(known, handler)

        try:
            for number in before:
                signal.signal(number, note)
            yield
        finally:
            for known, handler in before.items():
                signal.signal(known, handler)
