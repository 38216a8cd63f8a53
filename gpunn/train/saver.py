"""When a fit writes checkpoints, and how it goes on from one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from gpunn.data.loader import steps_per_epoch
from gpunn.errors import ModelFileError
from gpunn.log import logger
from gpunn.train.callbacks import Callback
from gpunn.train.interrupt import Interruption
from gpunn.train.snapshot import Progress, Saved, collect, describe_data, restore
from gpunn.typing import Array

if TYPE_CHECKING:
    from gpunn.train.trainer import Trainer


class Saver:
    """The checkpoints of one fit; does nothing for a trainer without a folder.

    Args:
        trainer: whose fit it is.
        callbacks: of the fit.

    Attributes:
        interruption: the signal that asks the fit to end, if one arrived.
    """

    def __init__(self, trainer: Trainer, callbacks: Sequence[Callback]) -> None:
        self.trainer, self.callbacks = trainer, callbacks
        self.checkpoints = trainer.checkpoints
        self.interruption = Interruption(watch=self.checkpoints is not None)

    @contextmanager
    def open(self) -> Iterator[None]:
        """Keep other runs out of the folder inside the block."""
        if self.checkpoints is None:
            yield
            return
        with self.checkpoints.locked():
            yield

    def start(self, come: Progress, tables: tuple[Array, ...], batch_size: int) -> Progress:
        """Go on from the newest checkpoint, if there is one of this fit or a later one.

        Raises:
            ModelFileError: the checkpoint is another run's, or none is whole.
        """
        found = None
        if self.checkpoints is not None:
            come.data = describe_data(tables, batch_size)
            found = self.checkpoints.newest()
        saved = None if found is None else Saved.of(found[1])
        if found is None or saved is None or saved.progress.fit < come.fit:
            for callback in self.callbacks:
                callback.on_fit_start(self.trainer)
            return come
        over = saved.progress.fit > come.fit  # and a later one had begun
        steps = steps_per_epoch(tables[0].shape[0], batch_size)
        if not over and saved.progress.batches >= steps:
            raise ModelFileError(
                f"got a checkpoint after {saved.progress.batches} steps of an epoch; expected "
                f"fewer than its {steps}: delete the file to go on from the one before"
            )
        come = restore(self.trainer, found[0], saved, None if over else self.callbacks, come.data)
        logger.warning(
            "resuming from %s: epoch %d, step %d",
            self.checkpoints.folder if self.checkpoints else "",
            come.epochs + 1,
            self.trainer.steps,
        )
        return come

    def epoch_ended(self, come: Progress, *, last: bool) -> None:
        """Write a checkpoint if one is due, or if a signal arrived."""
        if self.interruption.signal:
            self.leave(come)
        if last or come.epochs % self.trainer.every == 0:
            self._write(come)

    def leave(self, come: Progress) -> None:
        """Write a checkpoint and end the program as the signal would have.

        Raises:
            KeyboardInterrupt, SystemExit: see `Interruption.leave`.
        """
        self._write(come)
        self.interruption.leave()

    def _write(self, come: Progress) -> None:
        if self.checkpoints is not None:
            self.checkpoints.write(*collect(self.trainer, come, self.callbacks))
