"""The training loop."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import closing
from typing import Any, TypeAlias

import numpy as np

from gpunn.arguments import count
from gpunn.backends import backend_of
from gpunn.backends.random import SHUFFLE_STREAM, permutation
from gpunn.data.dataset import Dataset
from gpunn.errors import ArgumentError, DataError
from gpunn.examples import BATCH_ROWS
from gpunn.ops.elementwise_losses import decision, targets_checked
from gpunn.progress_bar import progress_bar
from gpunn.sparse import is_sparse
from gpunn.train.callbacks import Callback, check_callbacks
from gpunn.train.inputs import pair, training_arrays, training_weights
from gpunn.train.repeated import Repeated
from gpunn.train.scores import classes, evaluate
from gpunn.train.session import Session
from gpunn.train.training import History, Training
from gpunn.typing import Array

Shuffle: TypeAlias = "bool | Callable[[int, int], np.ndarray[Any, Any]]"


class Trainer(Training):
    """Trains a model on arrays.

    Making one stores its arguments and changes nothing. The first `fit` moves the model, seeds its
    dropout layers and takes its parameters into the optimizer's memory. `evaluate`, `predict` and
    `classify` do none of this but move it. Two trainers may train one model in turn.

    Args:
        model: the network.
        loss: a registered name, or a function of outputs and targets that gives one number.
            `gpunn.ops.get_loss` chooses options. `gpunn.ops.decides` says of a function of your
            own how outputs become classes; without it there is no accuracy.
        optimizer: a registered name, or an optimizer, with parameters or without.
        device: where to train; None for where the model is; "auto" for a GPU if one can be used.
            The first `fit`, `evaluate`, `predict` or `classify` moves the model there.
        seed: of shuffling and dropout. The same seed gives the same order and masks everywhere.
            A dropout layer that was given a seed of its own keeps it.
        regularizer: a penalty on the weights, or a constraint.
        schedule: of the learning rate, by optimizer steps; a registered name or a `Schedule`.
        clip_norm: largest global norm of the gradients, None for no limit.
        capture: whether steps are recorded once and repeated, on a GPU as CUDA graphs: "auto"
            where it can be done, with a line in the log where it cannot; True demands it; False
            forbids it. The numbers are the same.
        precision: what training computes in. "float32": the dtype of the model, in full. On a GPU
            and for float32 models also "tf32": products round their operands to 10 bits;
            "float16" and "bfloat16": everything but losses, gradients of parameters and updates
            is in that dtype. The parameters stay in float32 throughout; evaluation uses them.
        memory_limit: bytes that arrays on the GPU may take together while this trainer works; None
            for the limit that holds already. Data for which there is no room stays on the host and
            is streamed, batch by batch.
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
        step_class: the class of a training step, for subclasses that compute one otherwise.
        position: where the training stands: its fits, epochs and steps.
        history: of the last fit.
        base_lr: the learning rate that the schedule multiplies; a callback may change it.
        precision: what training computes in; has the loss scale of a float16 training.

    Raises:
        UnknownNameError: an unknown loss, optimizer or schedule.
        ArgumentError: an optimizer that belongs to another model, or an argument of another kind.
        DeviceUnavailableError: the device cannot be used.

    Example:
        >>> import numpy as np
        >>> from gpunn import nn
        >>> x = np.array([[0, 0], [0, 1], [1, 0], [1, 1]], np.float32)
        >>> y = np.array([0, 1, 1, 0])
        >>> net = nn.Sequential(nn.Linear(2, 8, "tanh", seed=1), nn.Linear(8, 2, seed=2))
        >>> trainer = Trainer(net, optimizer="adam", seed=0)
        >>> history = trainer.fit(x, y, epochs=1, batch_size=4, progress=False)
        >>> sorted(trainer.evaluate(x, y))
        ['accuracy', 'loss']
    """

    def fit(
        self,
        x: Any,
        y: Any = None,
        *,
        epochs: int = 10,
        batch_size: int = 128,
        validation: tuple[Any, Any] | Dataset | None = None,
        shuffle: Shuffle = True,
        sample_weight: Any = None,
        callbacks: Sequence[Callback] = (),
        progress: bool = True,
    ) -> History:
        """Train for a number of epochs; a second call goes on where the first ended.

        Arrays are converted to the model's dtype and moved to its device once, at the start.

        Args:
            x: (N, D) numbers, an array, a frame of pandas or Polars, or a sparse matrix of SciPy's
                (for networks that begin with a linear layer); or a `Dataset`.
            y: (N,) integer labels, one-hot rows, or targets of the outputs' shape.
            epochs: how often every example is seen.
            batch_size: examples of a step, at least 1; the last batch may be smaller.
            validation: arrays (x, y) or a `Dataset`, evaluated after every epoch.
            shuffle: a new order for every epoch; or a function of the epoch's number, counted from
                1, and of N, that gives the row numbers in their order.
            sample_weight: (N,) numbers of at least 0; the loss of a batch is then the mean of its
                examples' losses by these weights.
            callbacks: called between epochs, in order.
            progress: whether to show a progress bar.

        Returns:
            The curves of this fit.

        Raises:
            DataError: no examples, NaN or infinity, labels out of range, a column of text.
            ShapeError: x and y, or x and the model, do not fit.
            DivergenceError: the loss became NaN or infinite; it names the layer.
            ArgumentError: an argument outside its range.
        """
        epochs, batch_size = count("epochs", epochs), count("batch_size", batch_size)
        callbacks = check_callbacks(callbacks)
        steps: Repeated | None = None
        tables: tuple[Array, ...] = ()
        held_out: tuple[Array, Array] | None = None
        with self.at_work() as b:
            self.base_lr = self.optimizer.lr
            try:
                tables, held_out = self._data(x, y, sample_weight, validation)
                self.prepare()
                self.position.fits += 1
                self.history = History(device=b.describe())
                # an overflow is reported once, as the divergence that it leads to
                with (
                    Session(self, callbacks, tables, batch_size) as session,
                    np.errstate(all="ignore"),
                    targets_checked(),
                    closing(ShownBar() if progress else Bar()) as bar,
                ):
                    steps = None if session.is_over else Repeated(self, tables, batch_size)
                    for number in session.epochs(epochs):
                        assert steps is not None
                        begun = time.perf_counter()
                        bar.begin(number, epochs, steps.count, self)
                        loss = self._epoch(steps, epochs, shuffle, session, bar)
                        numbers = {"loss": loss, "lr": self.optimizer.lr}
                        numbers |= self._validated(held_out, batch_size)
                        bar.end(numbers)
                        numbers["seconds"] = time.perf_counter() - begun
                        session.ended(number, numbers, last=number == epochs)
            finally:
                self.optimizer.lr = self.base_lr  # a schedule's last factor was this fit's
                steps, tables, held_out = None, (), None
                if not b.on_host:
                    b.free_memory()
        return self.history

    def _epoch(
        self, steps: Repeated, epochs: int, shuffle: Shuffle, session: Session, bar: Bar
    ) -> float:
        """Do one epoch, or what is left of it; its mean loss."""
        at, b = self.position, self.model.backend
        if not at.batches:
            at.epoch += 1
        self.model.train()
        with b.own_stream(), self.precision.training(self.optimizer.bound):
            steps.begin(self._order(steps, shuffle), self._rates(steps.count, epochs))
            while at.batches < steps.count and not session.interrupted:
                bar.update(steps.advance())
        if not b.synchronous and shuffle and not callable(shuffle) and at.epochs + 1 < epochs:
            steps.next_order = self._permuted(len(steps.feed), at.epoch + 1)  # while it computes
        loss = steps.mean_loss()
        if at.batches < steps.count:
            session.leave()
        return loss

    def _order(self, steps: Repeated, shuffle: Shuffle) -> np.ndarray[Any, Any] | None:
        """The rows of this epoch in their order; None for that of the data."""
        rows = len(steps.feed)
        if callable(shuffle):
            return _checked_order(shuffle(self.epoch, rows), rows)
        foreseen, steps.next_order = steps.next_order, None
        if not shuffle or foreseen is not None:
            return foreseen
        return self._permuted(rows, self.epoch)

    def _permuted(self, rows: int, epoch: int) -> np.ndarray[Any, Any]:
        return permutation(rows, self.seed, SHUFFLE_STREAM, epoch)

    def _rates(self, count: int, epochs: int) -> list[float]:
        """The learning rate of every step of this epoch."""
        at, factor = self.position, self.schedule.factor
        begun, end = at.steps - at.batches, at.start + epochs * count
        return [self.base_lr * factor(begun + k, end) for k in range(count)]

    def _data(
        self, x: Any, y: Any, weights: Any, validation: tuple[Any, Any] | Dataset | None
    ) -> tuple[tuple[Array, ...], tuple[Array, Array] | None]:
        """The tables of a fit and its validation data, checked and where they should be."""
        tables: tuple[Array, ...] = self._inputs(x, y, "x")
        if weights is not None:
            tables += (training_weights(tables[0], weights),)
        if validation is None:
            return tables, None
        return tables, self._inputs(*pair(validation), "validation")

    def _inputs(self, x: Any, y: Any, name: str) -> tuple[Array, Array]:
        return training_arrays(self.model, self.loss, x, y, name)

    def _validated(self, held_out: tuple[Array, Array] | None, batch_size: int) -> dict[str, float]:
        """The numbers of the validation data, if there are any."""
        if held_out is None:
            return {}
        x, b = held_out[0], self.model.backend
        streamed = not is_sparse(x) and backend_of(x) is not b
        rows = batch_size if streamed else max(batch_size, BATCH_ROWS)
        scores = evaluate(self.model, self.loss, *held_out, rows)
        return {f"val_{name}": value for name, value in scores.items()}

    # use -------------------------------------------------------------------------------------

    def evaluate(self, x: Any, y: Any = None, *, batch_size: int = BATCH_ROWS) -> dict[str, float]:
        """The mean loss (without penalties) and, for classifiers, the accuracy.

        Args:
            x: (N, D) numbers, or a `Dataset`.
            y: targets as in `fit`.
            batch_size: examples at a time.

        Raises:
            DataError, ShapeError: as `fit`.
        """
        batch_size = count("batch_size", batch_size)
        with self.at_work():
            return evaluate(self.model, self.loss, *self._inputs(x, y, "x"), batch_size)

    def predict(self, x: Any, *, batch_size: int = BATCH_ROWS) -> Array:
        """The outputs for many examples, as `Module.predict`; `classify` gives classes.

        Args:
            x: (N, D) numbers. NumPy in, NumPy out; CuPy in, CuPy out.
            batch_size: examples at a time.

        Returns:
            (N, ...) outputs, scores for a classifier.
        """
        with self.at_work():
            return self.model.predict(x, batch_size=batch_size)

    def classify(self, x: Any, *, batch_size: int = BATCH_ROWS) -> Array:
        """The classes of examples, as the loss decides them.

        Args:
            x: (N, D) numbers. NumPy in, NumPy out; CuPy in, CuPy out.
            batch_size: examples at a time.

        Returns:
            (N,) class numbers, 0 or 1 where the loss is for two classes; for the perceptron -1 or
            1, as its targets are.

        Raises:
            ArgumentError: the loss says nothing about classes.
        """
        if decision(self.loss) is None:
            raise ArgumentError(
                "got a loss that says nothing about classes; expected one such as "
                "softmax_cross_entropy: use predict for the outputs"
            )
        return classes(self.predict(x, batch_size=batch_size), self.loss)


def _checked_order(order: Any, rows: int) -> np.ndarray[Any, Any]:
    """Return the row numbers that a function of a user's gave as an order.

    Raises:
        DataError: they are not N integers from 0 to N - 1.
    """
    found = np.asarray(order)
    whole = found.shape == (rows,) and found.dtype.kind in "iu"
    if not whole or found.min() < 0 or found.max() >= rows:
        raise DataError(
            f"got an order of shape {found.shape} and {found.dtype} from shuffle for {rows} rows; "
            f"expected ({rows},) integers from 0 to {rows - 1}: return "
            "rng.permutation(rows), for example"
        )
    return found.astype(np.int64, copy=False)


class Bar:
    """The progress of a fit; this one shows nothing. tqdm's import takes 10 ms and a thread."""

    def begin(self, number: int, epochs: int, count: int, training: Training) -> None:
        """Epoch `number` of so many begins, each of which has `count` steps."""

    def update(self, steps: int) -> None:
        """Steps were taken."""

    def end(self, numbers: dict[str, float]) -> None:
        """An epoch has ended with these numbers."""

    def close(self) -> None:
        """The fit is over."""


class ShownBar(Bar):
    """The progress of a fit as a line of tqdm's."""

    def __init__(self) -> None:
        self._bar: Any = None

    def begin(self, number: int, epochs: int, count: int, training: Training) -> None:
        """Make the line, with the steps of a resumed fit; name the epoch."""
        if self._bar is None:
            at = training.position
            self._bar = progress_bar(epochs * count, "step")
            if at.steps > at.start:
                self._bar.update(at.steps - at.start)
        self._bar.set_description(f"epoch {number}/{epochs} on {training.model.device}", False)

    def update(self, steps: int) -> None:
        """Move the line."""
        self._bar.update(steps)

    def end(self, numbers: dict[str, float]) -> None:
        """Show the numbers of the epoch behind the line."""
        self._bar.set_postfix({k: f"{v:.4g}" for k, v in numbers.items()}, refresh=False)

    def close(self) -> None:
        """Leave the line as it is."""
        if self._bar is not None:
            self._bar.close()
