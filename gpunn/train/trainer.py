"""The training loop."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from gpunn.autograd import Tensor
from gpunn.backends import Backend, as_array, backend_of
from gpunn.backends.random import RandomStream, permutation
from gpunn.data.checks import check_count, check_finite, check_labels, check_lengths
from gpunn.data.dataset import Dataset
from gpunn.data.loader import SHUFFLE_STREAM, steps_per_epoch
from gpunn.errors import (
    ArgumentError,
    CaptureError,
    DataError,
    DeviceMismatchError,
    DivergenceError,
    DTypeError,
    ShapeError,
)
from gpunn.nn import Module
from gpunn.ops import ElementwiseLoss, get_loss
from gpunn.optim import Optimizer, Regularizer, Schedule, get_optimizer, get_schedule
from gpunn.train.callbacks import Callback
from gpunn.train.feed import ACCUMULATE, Feed
from gpunn.train.history import History
from gpunn.train.metrics import classes, correct, decision
from gpunn.train.runner import CapturedRunner, EagerRunner
from gpunn.train.step import EagerStep, divergence
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

    Attributes:
        history: of the last fit.

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
        self.base_lr = self.optimizer.lr
        self.epoch = 0
        self.steps = 0
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
        epochs = check_count("epochs", epochs)
        x_all, y_all = self._ready(x, y, "x")
        steps = steps_per_epoch(len(x_all), batch_size)
        held_out = None if validation is None else self._ready(*_pair(validation), "validation")
        self.history = history = History(device=self.model.backend.describe())
        for callback in callbacks:
            callback.on_fit_start(self)
        step = EagerStep(self.model, self.loss, self.optimizer, self.regularizer, self.clip_norm)
        runner = self._runner(step, Feed(self.model.backend, x_all, y_all, int(batch_size)))
        last_step = self.steps + epochs * steps
        self.base_lr = self.optimizer.lr
        try:
            # an overflow is reported once, as the divergence it leads to
            with _bar(epochs * steps, progress) as bar, np.errstate(all="ignore"):
                for number in range(1, epochs + 1):
                    title = f"epoch {number}/{epochs} on {self.model.device}"
                    bar.set_description(title, refresh=False)
                    start = time.perf_counter()
                    loss = self._epoch(runner, shuffle, last_step, bar)
                    numbers = {"loss": loss, "lr": self.optimizer.lr} | self._validated(held_out)
                    history.record(numbers | {"seconds": time.perf_counter() - start})
                    bar.set_postfix({k: f"{v:.4g}" for k, v in numbers.items()}, refresh=False)
                    reasons = [c.on_epoch_end(self, number, history) for c in callbacks]
                    history.stopped = next(filter(None, reasons), "")
                    if history.stopped:
                        break
        finally:
            self.optimizer.lr = self.base_lr  # the schedule's last factor is not for the next fit
        for callback in callbacks:
            callback.on_fit_end(self, history)
        return history

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
        return self._evaluate(*self._ready(x, y, "x"), batch_size=batch_size)

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

    # the parts of a fit ----------------------------------------------------------------------

    def _runner(self, step: EagerStep, feed: Feed) -> EagerRunner:
        """How the steps run: captured where that is wanted and can be."""
        b = self.model.backend
        why = "" if self.capture else "capture=False"
        if not why:
            why = b.why_no_capture()
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

    def _epoch(self, runner: EagerRunner, shuffle: bool, last_step: int, bar: Any) -> float:
        """Run one epoch; the mean loss, read from the device once."""
        b, feed = self.model.backend, runner.feed
        self.epoch += 1
        order = None
        if shuffle:
            order = permutation(len(feed), self.seed, SHUFFLE_STREAM, self.epoch)
        elif isinstance(runner, CapturedRunner):
            order = np.arange(len(feed))
        rates = [
            self.base_lr * self.schedule.factor(self.steps + k, last_step)
            for k in range(feed.steps)
        ]
        self.model.train()
        with b.own_stream():
            feed.begin(order)
            for taken in runner.epoch(rates):
                self.steps += taken
                bar.update(taken)
        mean = float(b.download(feed.total))
        if not np.isfinite(mean):
            raise DivergenceError(divergence(self.model, feed.batch(feed.steps - 1)[0], mean))
        return mean

    def _validated(self, held_out: tuple[Array, Array] | None) -> dict[str, float]:
        """The numbers of the validation data, if there are any."""
        if held_out is None:
            return {}
        scores = self._evaluate(*held_out, batch_size=4096)
        return {f"val_{name}": value for name, value in scores.items()}

    def _evaluate(self, x: Array, y: Array, *, batch_size: int) -> dict[str, float]:
        b, how = self.model.backend, decision(self.loss)
        loss, hits = b.zeros((), np.float64), b.zeros((), np.float64)
        with self.model.evaluating():
            for start in range(0, len(x), batch_size):
                part = slice(start, start + batch_size)
                xb, yb = x[part], y[part]
                scores = self.model(xb)
                value = self.loss(scores, yb).data
                b.launch(ACCUMULATE, value, len(xb) / len(x), out=loss)
                if how is not None:
                    hits += correct(b, scores.data, yb, how)
        numbers = {"loss": float(b.download(loss))}
        if how is not None:
            numbers["accuracy"] = float(b.download(hits)) / len(x)
        return numbers

    # arrays in ---------------------------------------------------------------------------------

    def _ready(self, x: Any, y: Any, name: str) -> tuple[Array, Array]:
        """Check examples and targets and bring them to the model's device and dtype."""
        if isinstance(x, Dataset):
            x, y = x.x, x.y
        if y is None:
            raise DataError(f"got {name} without targets; expected both: pass x and y")
        x, y = (as_array(a.data if isinstance(a, Tensor) else a) for a in (x, y))
        check_lengths(x, y)
        b = self.model.backend
        x, y = self._moved(b, x, name), self._moved(b, y, f"the targets of {name}")
        if x.dtype.kind not in "fiub" or y.dtype.kind not in "fiub":
            raise DTypeError(
                f"got {name} of dtype {x.dtype} and targets of {y.dtype}; expected numbers: "
                "encode text as integers first"
            )
        x = b.xp.ascontiguousarray(x.astype(self.model.dtype, copy=False))
        _check_finite(b, name, x)
        how = decision(self.loss)
        if how == "argmax" and y.ndim == 2 and y.shape[1] == 1:
            raise ShapeError(
                f"got targets of {name} of shape {y.shape}; expected (N,) labels or (N, C) one-hot "
                "rows: use y.ravel()"
            )
        if how == "argmax" and y.ndim == 1:
            check_labels(b.download(y), self._outputs(x))
            return x, b.xp.ascontiguousarray(y.astype(np.int64, copy=False))
        if y.dtype.kind == "f" or isinstance(self.loss, ElementwiseLoss):
            y = y.astype(self.model.dtype, copy=False)
        y = b.xp.ascontiguousarray(y)  # a loss of the user's gets integers as they are
        _check_finite(b, f"the targets of {name}", y)
        if isinstance(self.loss, ElementwiseLoss):
            self.loss.check_targets(y)
        return x, y

    def _moved(self, b: Backend, array: Array, name: str) -> Array:
        here = backend_of(array)
        if here is b:
            return array
        if not here.synchronous:
            raise DeviceMismatchError(
                f"got {name} on {here.device} and a model on {b.device}; expected one device: "
                f"pass device={str(here.device)!r} to Trainer, or move the data yourself"
            )
        return b.upload(array)

    def _outputs(self, x: Array) -> int:
        """The number of outputs, found by running the model on one example."""
        with self.model.evaluating():
            shape = self.model(x[:1]).shape
        if len(shape) != 2:
            raise ShapeError(
                f"got outputs of shape {shape}; expected (N, C) scores for {self.loss}"
            )
        return shape[1]


def _pair(validation: tuple[Any, Any] | Dataset) -> tuple[Any, Any]:
    if isinstance(validation, Dataset):
        return validation.x, validation.y
    if not isinstance(validation, tuple) or len(validation) != 2:
        raise ArgumentError(
            f"got validation of type {type(validation).__name__}; expected a pair (x, y) or a "
            "Dataset: pass validation=(x_test, y_test)"
        )
    return validation


def _check_finite(b: Backend, name: str, array: Array) -> None:
    if not bool(b.xp.isfinite(array).all()):
        check_finite(name, b.download(array))


def _bar(total: int, progress: bool) -> Any:
    from tqdm import tqdm

    return tqdm(total=total, unit="step", disable=not progress, dynamic_ncols=True)
