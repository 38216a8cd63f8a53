"""The training loop."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gpunn.autograd import Tensor
from gpunn.backends import backend_of
from gpunn.backends.random import RandomStream, permutation
from gpunn.data.checks import check_count
from gpunn.data.dataset import Dataset
from gpunn.data.loader import SHUFFLE_STREAM, steps_per_epoch
from gpunn.errors import (
    ArgumentError,
    CaptureError,
    DivergenceError,
    OutOfMemoryError,
    lookup,
)
from gpunn.nn import Module
from gpunn.ops import get_loss
from gpunn.optim import Optimizer, Regularizer, Schedule, get_optimizer, get_schedule
from gpunn.train.callbacks import Callback
from gpunn.train.evaluation import evaluate
from gpunn.train.feed import Feed, StreamedFeed
from gpunn.train.guard import MODES, Guard
from gpunn.train.history import History
from gpunn.train.inputs import pair, training_arrays
from gpunn.train.metrics import classes
from gpunn.train.precision import Precision
from gpunn.train.progress import Progress
from gpunn.train.resume import Checkpoints
from gpunn.train.runner import CapturedRunner, EagerRunner
from gpunn.train.saver import Saver
from gpunn.train.step import EagerStep, divergence, no_room
from gpunn.typing import Array, DeviceLike

logger = logging.getLogger("gpunn")


class Trainer:
    """Trains a model on arrays.

    Args:
        model: the network; it is moved to `device`.
        loss: a registered name, or a function of outputs and targets that gives one number.
        optimizer: a registered name, or an optimizer, with parameters or without.
        device: where to train; None for where the model is; "auto" for a GPU if one can be used.
        seed: of shuffling and dropout. The same seed gives the same order and masks everywhere.
            A dropout layer that was given a seed of its own keeps it.
        regularizer: a penalty on the weights, or a constraint.
        schedule: of the learning rate, by optimizer steps; a registered name or a `Schedule`.
        clip_norm: largest global norm of the gradients, None for no limit.
        capture: whether a fit runs as CUDA graphs: "auto" where it can, with a line in the log
            where it cannot; True demands it; False forbids it. The numbers are the same.
        precision: what training computes in. "float32": the dtype of the model, in full. On a GPU
            and for float32 models also "tf32": products round their operands to 10 bits;
            "float16" and "bfloat16": everything but losses, gradients of parameters and updates
            is in that dtype. The parameters stay in float32 throughout; evaluation uses them.
        memory_limit: bytes that arrays on the GPU may take together, None for all it has. Data
            for which there is no room stays on the host and is streamed, batch by batch.
        on_nonfinite: what a loss that is NaN or infinite does. "stop": no parameter changes any
            more and the fit ends with `DivergenceError`, which names the step and the layer; on a
            GPU at the end of the epoch, since no step waits. "skip": that step changes no
            parameter and its loss is not counted. "ignore": nothing.
        checkpoint: folder for checkpoints of the fit, None for none. Where it holds some of the
            same run, `fit` goes on from the newest whole one, and ends in the bits of a run that
            was never interrupted. Ctrl-C and SIGTERM finish the step, write one, and end.
        every: epochs from one checkpoint to the next.
        keep: how many checkpoints stay.

    Attributes:
        history: of the last fit.
        precision: what training computes in; has the loss scale of a float16 training.

    Raises:
        UnknownNameError: an unknown loss, optimizer or schedule.
        ArgumentError: an optimizer that belongs to another model.
        DeviceUnavailableError: the device cannot be used.

    Example:
        >>> from gpunn import nn
        >>> x = np.array([[0, 0], [0, 1], [1, 0], [1, 1]], np.float32)
        >>> y = np.array([0, 1, 1, 0])
        >>> net = nn.Sequential(nn.Linear(2, 8, "tanh", seed=1), nn.Linear(8, 2, seed=2))
        >>> trainer = Trainer(net, optimizer="adam", seed=0)
        >>> history = trainer.fit(x, y, epochs=1, batch_size=4, progress=False)
        >>> sorted(trainer.evaluate(x, y))
        ['accuracy', 'loss']
    """

    def __init__(
        self,
        model: Module,
        loss: str | Callable[..., Tensor] = "softmax_cross_entropy",
        optimizer: str | Optimizer = "adam",
        *,
        device: DeviceLike = None,
        seed: int = 0,
        regularizer: Regularizer | None = None,
        schedule: str | Schedule = "constant",
        clip_norm: float | None = None,
        capture: bool | str = "auto",
        precision: str = "float32",
        memory_limit: int | None = None,
        on_nonfinite: str = "stop",
        checkpoint: str | Path | None = None,
        every: int = 1,
        keep: int = 2,
    ) -> None:
        if capture not in (True, False, "auto"):
            raise ArgumentError(f'got capture={capture!r}; expected True, False or "auto"')
        self.capture = capture
        self.loss = get_loss(loss)
        self.optimizer = get_optimizer(optimizer)
        self.schedule = get_schedule(schedule)
        self.regularizer, self.clip_norm = regularizer, clip_norm
        self.model = model if device is None else model.to(device)
        self.seed = RandomStream(seed).seed
        for number, stream in enumerate(model.streams(), start=1):
            if not stream.chosen:
                stream.seed, stream.stream, stream.call = self.seed, number, 0
        if self.optimizer.flat is None:
            self.optimizer.bind(model.parameters())
        elif not set(self.optimizer.flat.tensors) <= set(model.parameters()):
            raise ArgumentError(
                "got an optimizer of another model's parameters; expected one of this model's: "
                "make it with model.parameters(), or without parameters"
            )
        model.backend.limit_memory(memory_limit)
        self.precision = Precision(precision, model, self.optimizer)
        self.base_lr = self.optimizer.lr
        lookup("on_nonfinite", on_nonfinite, MODES)
        self.on_nonfinite = on_nonfinite
        self.checkpoints = None if checkpoint is None else Checkpoints(checkpoint, keep)
        self.every = check_count("every", every)
        self.epoch = 0
        self.steps = 0
        self.fits = 0
        self.history = History()

    def fit(
        self,
        x: Any,
        y: Any = None,
        *,
        epochs: int = 10,
        batch_size: int = 128,
        validation: tuple[Any, Any] | Dataset | None = None,
        shuffle: bool = True,
        callbacks: Sequence[Callback] = (),
        progress: bool = True,
    ) -> History:
        """Train for a number of epochs; a second call goes on where the first ended.

        Arrays are converted to the model's dtype and moved to its device once, at the start.

        Args:
            x: (N, D) numbers, or a `Dataset` with its targets.
            y: (N,) integer labels, one-hot rows, or targets of the outputs' shape.
            epochs: how often every example is seen.
            batch_size: examples of a step, at least 1; the last batch may be smaller.
            validation: arrays (x, y) or a `Dataset`, evaluated after every epoch.
            shuffle: a new order for every epoch.
            callbacks: called between epochs, in order.
            progress: whether to show a progress bar.

        Returns:
            The curves of this fit.

        Raises:
            DataError: no examples, NaN or infinity, labels out of range.
            ShapeError: x and y, or x and the model, do not fit.
            DivergenceError: the loss became NaN or infinite; it names the layer.
            ArgumentError: an argument outside its range.
        """
        numbers = check_count("epochs", epochs), check_count("batch_size", batch_size)
        try:
            with self.model.backend.current():
                return self._fit(x, y, *numbers, validation, shuffle, callbacks, progress)
        finally:
            if not self.model.backend.synchronous:
                self.model.backend.free_memory()

    def evaluate(self, x: Any, y: Any = None, *, batch_size: int = 4096) -> dict[str, float]:
        """The mean loss (without penalties) and, for classifiers, the accuracy.

        Args:
            x: (N, D) numbers, or a `Dataset`.
            y: targets as in `fit`.
            batch_size: examples at a time.

        Raises:
            DataError, ShapeError: as `fit`.
        """
        batch_size = check_count("batch_size", batch_size)
        with self.model.backend.current():
            return evaluate(self.model, self.loss, *self._inputs(x, y, "x"), batch_size)

    def predict(self, x: Any, *, batch_size: int = 4096) -> Array:
        """What the model says of examples: classes for a classifier, else its outputs.

        Args:
            x: (N, D) numbers. NumPy in, NumPy out; CuPy in, CuPy out.
            batch_size: examples at a time.

        Returns:
            (N,) class numbers, 0 or 1 where the loss is for two classes (for the perceptron -1 or
            1, as its targets are); or the outputs, for other losses.
        """
        scores = self.model.predict(x, batch_size=batch_size)
        return classes(scores, self.loss)

    def _inputs(self, x: Any, y: Any, name: str) -> tuple[Array, Array]:
        return training_arrays(self.model, self.loss, x, y, name)

    def _fit(
        self,
        x: Any,
        y: Any,
        epochs: int,
        batch_size: int,
        validation: tuple[Any, Any] | Dataset | None,
        shuffle: bool,
        callbacks: Sequence[Callback],
        progress: bool,
    ) -> History:
        x_all, y_all = self._inputs(x, y, "x")
        steps = steps_per_epoch(len(x_all), batch_size)
        held_out = None if validation is None else self._inputs(*pair(validation), "validation")
        self.history = history = History(device=self.model.backend.describe())
        self.fits += 1
        come = Progress(self.fits, self.steps)
        self.base_lr = self.optimizer.lr
        saver = Saver(self, callbacks)
        with saver.open(), saver.interruption.watching():
            come = saver.start(come, x_all, y_all, batch_size)
            if come.fit > self.fits:  # this fit was over, and a later one had begun
                return history
            remaining = range(come.epochs + 1, 1 if history.stopped else epochs + 1)
            step = self._step()
            runner = self._runner(step, self._feed(x_all, y_all, batch_size))
            last_step = come.start + epochs * steps
            try:
                # an overflow is reported once, as the divergence it leads to
                with _bar(epochs * steps, progress) as bar, np.errstate(all="ignore"):
                    if self.steps > come.start:
                        bar.update(self.steps - come.start)
                    for number in remaining:
                        title = f"epoch {number}/{epochs} on {self.model.device}"
                        bar.set_description(title, refresh=False)
                        start = time.perf_counter()
                        loss = self._epoch(runner, shuffle, last_step, bar, come, saver)
                        numbers = {"loss": loss, "lr": self.optimizer.lr}
                        numbers |= self._validated(held_out, batch_size)
                        history.record(numbers | {"seconds": time.perf_counter() - start})
                        bar.set_postfix({k: f"{v:.4g}" for k, v in numbers.items()}, refresh=False)
                        reasons = [c.on_epoch_end(self, number, history) for c in callbacks]
                        history.stopped = next(filter(None, reasons), "")
                        come.epochs, come.batches, come.total = number, 0, 0.0
                        saver.epoch_ended(come, last=number == epochs or bool(history.stopped))
                        if history.stopped:
                            break
            finally:
                self.optimizer.lr = self.base_lr  # a schedule's last factor is not for what follows
            for callback in callbacks:
                callback.on_fit_end(self, history)
        return history

    # the parts of a fit ----------------------------------------------------------------------

    def _step(self) -> EagerStep:
        """The training step with all that this trainer was asked for."""
        b, mode = self.model.backend, self.on_nonfinite
        guarded = mode == "skip" or (mode == "stop" and not b.synchronous)
        return EagerStep(
            self.model,
            self.loss,
            self.optimizer,
            self.regularizer,
            self.clip_norm,
            self.precision.loss_scale,
            Guard(b, mode, self.optimizer.bound.dtype) if guarded else None,
            stops=mode == "stop",
        )

    def _feed(self, x: Array, y: Array, batch_size: int) -> Feed:
        """The batches: from the device, or from the host where it has no room."""
        b = self.model.backend
        if backend_of(x) is b:
            return Feed(b, self.precision.narrow(x), y, batch_size)
        return StreamedFeed(b, x, y, batch_size, self.precision.dtype)

    def _runner(self, step: EagerStep, feed: Feed) -> EagerRunner:
        """How the steps run: captured where that is wanted and can be."""
        b = self.model.backend
        why = "" if self.capture else "capture=False"
        if not why:
            why = b.why_no_capture()
        if not why and isinstance(feed, StreamedFeed):
            why = "the data is streamed from the host"
        if not why and feed.whole_steps < 2:
            why = f"an epoch of {len(feed)} rows has fewer than two whole batches"
        if not why:
            return CapturedRunner(step, feed, required=self.capture is True)
        if self.capture is True:
            raise CaptureError(
                f"got capture=True, but {why}; expected steps that can be captured: pass "
                'capture="auto" to go on without'
            )
        if self.capture and not b.synchronous:
            logger.warning("training without CUDA graphs: %s", why)
        return EagerRunner(step, feed)

    def _epoch(
        self,
        runner: EagerRunner,
        shuffle: bool,
        last_step: int,
        bar: Any,
        come: Progress,
        saver: Saver,
    ) -> float:
        """Run one epoch, or what is left of it; the mean loss, read from the device once."""
        b, feed = self.model.backend, runner.feed
        if not come.batches:
            self.epoch += 1
        order = np.arange(len(feed)) if isinstance(runner, CapturedRunner) else None
        if shuffle:
            order = permutation(len(feed), self.seed, SHUFFLE_STREAM, self.epoch)
        begun = self.steps - come.batches
        rates = [
            self.base_lr * self.schedule.factor(begun + k, last_step) for k in range(feed.steps)
        ]
        self.model.train()
        with b.own_stream(), self.precision.training():
            feed.begin(order, come.batches, come.total)
            if runner.step.guard is not None:
                runner.step.guard.begin(come.batches)
            try:
                for taken in runner.epoch(rates, come.batches):
                    self.steps += taken
                    come.batches += taken
                    bar.update(taken)
                    if saver.interruption.signal and come.batches < feed.steps:
                        break
            except MemoryError as error:
                raise OutOfMemoryError(no_room(runner.step, feed, error)) from error
        come.total = float(b.download(feed.total))
        if come.batches < feed.steps:
            saver.leave(come)
        if self.on_nonfinite == "stop" and not np.isfinite(come.total):
            raise DivergenceError(self._diverged(runner, come.total))
        return come.total

    def _diverged(self, runner: EagerRunner, loss: float) -> str:
        """Where a loss that was found at the end of an epoch began."""
        feed, guard = runner.feed, runner.step.guard
        first = 0 if guard is None else int(feed.backend.download(guard.first))
        batch = first - 1 if first else feed.steps - 1
        x = feed.batch(batch)[0].astype(self.model.dtype, copy=False)
        return f"{divergence(self.model, x, loss)} (step {batch + 1} of epoch {self.epoch})"

    def _validated(self, held_out: tuple[Array, Array] | None, batch_size: int) -> dict[str, float]:
        """The numbers of the validation data, if there are any."""
        if held_out is None:
            return {}
        streamed = backend_of(held_out[0]) is not self.model.backend
        rows = batch_size if streamed else max(batch_size, 4096)
        scores = evaluate(self.model, self.loss, *held_out, rows)
        return {f"val_{name}": value for name, value in scores.items()}


def _bar(total: int, progress: bool) -> Any:
    from tqdm import tqdm

    return tqdm(total=total, unit="step", disable=not progress, dynamic_ncols=True)
