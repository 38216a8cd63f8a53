"""The training loop."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import closing
from typing import Any, TypeAlias

import numpy as np

from gpunn.arguments import count, flag
from gpunn.backends.floating import unwarned
from gpunn.data.batchfeed import BatchSource
from gpunn.data.dataset import Dataset
from gpunn.data.rows import Rows
from gpunn.errors import ArgumentError, DataError, DTypeError, ShapeError
from gpunn.examples import BATCH_ROWS
from gpunn.guesses import answers
from gpunn.names import named
from gpunn.ops.elementwise_losses import decision, targets_checked
from gpunn.optim.average import swapped
from gpunn.train.callbacks import Callback, check_callbacks
from gpunn.train.callbacks.bar import Bar, ShownBar
from gpunn.train.class_weights import weights_of_fit
from gpunn.train.curves import History, new_history
from gpunn.train.identity import Given
from gpunn.train.inputs import batches_of, hint, pair, training_arrays, training_weights
from gpunn.train.scores import classes, evaluate, probabilities, validated
from gpunn.train.session import Session
from gpunn.train.steps.repeated import Repeated
from gpunn.train.training import Training
from gpunn.typing import Array

Shuffle: TypeAlias = "bool | Callable[[int, int], np.ndarray[Any, Any]]"


class Trainer(Training):
    """A trainer, which trains a model on arrays.

    The constructor stores its arguments and changes nothing. The first `fit` moves the model, seeds
    its dropout layers and moves its parameters into the optimizer's memory. `evaluate`, `predict`
    and `classify` only move the model. Two trainers may train one model in turn.

    Args:
        model: the network.
        loss: a registered name, or a function of outputs and targets that returns one number.
            `gpunn.ops.get_loss` returns a loss with options. `gpunn.ops.decides` declares how the
            outputs of your own loss become classes; without it there is no accuracy.
        optimizer: a registered name, or an optimizer, with parameters or without.
        lr, weight_decay: options of an optimizer that is named; None for its own.
        device: the device to train on; None for the model's device; "auto" for a GPU if one can
            be used. The first `fit`, `evaluate`, `predict` or `classify` moves the model there.
        seed: the seed of shuffling and dropout. The same seed gives the same order and masks on
            every device. A dropout layer with a seed of its own keeps it.
        regularizer: a penalty on the weights, or a constraint.
        schedule: the schedule of the learning rate by steps; a registered name or a `Schedule`.
        clip_norm: the largest global norm of the gradients; None for no limit.
        average: an average of the parameters over the steps, such as `optim.EMA(0.999)`. The
            validation, the callbacks and the end of a fit have the averaged parameters; the steps
            go on from the others. Running values, such as those of batch norm, are not averaged.
        metrics: more curves of the validation data, "val_" and the name, and more numbers of
            `evaluate`: names, such as "roc_auc", "f1_macro" or "top_3_accuracy", functions of (N,)
            targets and (N,) predicted classes (or outputs, if the loss has no classes), or
            `gn.train.Metric`.
        capture: whether steps are recorded once and repeated, on a GPU as CUDA graphs. "auto"
            captures if possible, and writes a line to the log otherwise. True raises an error if
            capture is not possible. False turns it off. The results are the same.
        precision: the precision that training computes in. "float32": the dtype of the model, in
            full. Float32 models on a GPU have three more. "tf32": products round their operands to
            a mantissa of 10 bits. "float16" and "bfloat16": everything except losses, gradients of
            parameters and updates is in that dtype. The parameters always stay in float32, and
            evaluation uses them.
        memory_limit: the bytes that arrays on the GPU may take together while this trainer works;
            None to leave the present limit. Data that has no room stays on the host, and its
            batches are streamed.
        on_nonfinite: the reaction to a broken step: its loss or the norm of its gradients is NaN or
            infinite, or it makes a running value of the model so. "stop": the step and all later
            ones change nothing, and the fit ends with a `DivergenceError` that names the step and
            the layer. On a GPU it ends after the epoch, because no step waits for its loss. "skip":
            the step changes nothing, and its loss is not counted. "ignore": nothing happens.
        shards: the number of pieces of a batch that are computed one by one and added in a fixed
            tree; None for one computation of the whole batch. The results depend on this number.
        group: the workers that share the shards, such as `gn.distributed.mpi()`; None for this
            process alone. The results do not depend on their number. Every worker calls `fit` with
            the same data; the first one writes checkpoints and shows the progress.
        checkpoint: the folder for checkpoints of the fit; None for no checkpoints. If the folder
            has checkpoints of the same run, `fit` goes on from the newest whole one. Its results
            have the same bits as those of an uninterrupted run. Ctrl-C and SIGTERM finish the
            step, write a checkpoint, and end the program.
        every: the number of epochs between checkpoints.
        keep: the number of checkpoints to keep.

    Attributes:
        step_class: the class of a training step. A subclass may use another one.
        position: the counts of fits, epochs and steps.
        history: the curves of the last fit.
        base_lr: the learning rate that the schedule multiplies. A callback may write to it, or to
            `optimizer.lr`, which is the rate of the last step: a constant schedule keeps a rate
            that is written there, and other schedules go on from it.
        precision: the precision of the training; holds the loss scale of a float16 training.

    Raises:
        UnknownNameError: the loss, optimizer or schedule is unknown.
        ArgumentError: the optimizer belongs to another model, or an argument is invalid.
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

    @answers
    def fit(
        self,
        x: Any,
        y: Any = None,
        *,
        epochs: int = 10,
        batch_size: int = 128,
        validation: tuple[Any, Any] | Dataset | Rows | None = None,
        shuffle: Shuffle = True,
        drop_last: bool = False,
        steps_per_epoch: int | None = None,
        sample_weight: Any = None,
        class_weight: Any = None,
        callbacks: Sequence[Callback] = (),
        progress: bool = True,
    ) -> History:
        """Train for a number of epochs. A second call goes on where the first ended.

        Arrays are converted to the model's dtype and moved to its device once, at the start.

        Args:
            x: (N, D) numbers: an array, a frame of pandas or Polars, or a SciPy sparse matrix (for
                networks that begin with a linear layer); or a `Dataset`; or what
                `gpunn.data.open_rows` opened, which is read meanwhile; or an iterable of batches
                (x, y) or (x, y, weights), such as a loader of PyTorch, which decides their order.
            y: (N,) integer labels, one-hot rows, or targets of the outputs' shape.
            epochs: the number of epochs, at least 1. Each uses every example once.
            batch_size: the examples of a step, at least 1. The last batch may be smaller.
            validation: arrays (x, y), a `Dataset` or `Rows`, evaluated after every epoch.
            shuffle: whether every epoch has a new order; or a function of the epoch's number,
                counted from 1, and of N that returns the row numbers in their order.
            drop_last: whether the last batch is left out if it is smaller than the others.
            steps_per_epoch: the batches of an epoch, for an iterable without a length. A generator
                goes on from epoch to epoch.
            sample_weight: (N,) numbers of at least 0. The loss of a batch is then the weighted
                mean of its examples' losses.
            class_weight: a weight for each class, which multiplies the weights of its examples: a
                dict of labels and weights, (C,) numbers, or "balanced" as in scikit-learn. To have
                it in the loss of validation data, too, give the loss its `weight`.
            callbacks: the callbacks, called in order.
            progress: whether to show a progress bar.

        Returns:
            The curves of this fit.

        Raises:
            DataError: there are no examples, a number is NaN or infinite, a label is out of range,
                or a column is text.
            ShapeError: x and y, or x and the model, do not fit together.
            DivergenceError: the loss became NaN or infinite; the message names the layer.
            ArgumentError: an argument is outside its range.
        """
        epochs, batch_size = count("epochs", epochs), count("batch_size", batch_size)
        callbacks, progress = check_callbacks(callbacks), flag("progress", progress)
        drop_last = flag("drop_last", drop_last)
        weights = sample_weight, class_weight
        source = batches_of(self, x, y, steps_per_epoch, weights, drop_last)
        if source is not None:
            x, shuffle, batch_size = source, False, 1
        if not callable(shuffle):
            shuffle = flag("shuffle", shuffle)
        steps: Repeated | None = None
        tables: tuple[Array, ...] = ()
        held_out: tuple[Array, Array] | None = None
        given: Given | None = None
        with self.at_work() as b:
            self.base_lr = self.optimizer.lr
            try:
                tables, held_out = self._data(x, y, weights, validation)
                self.prepare()
                self.use_rate(self.base_lr, 1.0)
                self.position.fits += 1
                self.history = new_history(b.describe(), named(self.loss), x, tables, held_out)
                given = Given(
                    tables, held_out or (), batch_size, shuffle, callbacks, epochs, drop_last
                )
                with (
                    Session(self, given) as session,
                    unwarned(),
                    targets_checked(),
                    closing(ShownBar() if progress and not self.group.rank else Bar()) as bar,
                ):
                    if not session.is_over:
                        steps = Repeated(self, tables, batch_size, drop_last)
                    for number in session.epochs():
                        assert steps is not None
                        begun = time.perf_counter()
                        bar.begin(number, epochs, steps.count, self)
                        loss = self._epoch(steps, epochs, shuffle, session, bar)
                        numbers = {"loss": loss, "lr": self.optimizer.lr}
                        with swapped(self.optimizer.averaged):
                            numbers |= validated(self, held_out, batch_size)
                        bar.end(numbers)
                        numbers["seconds"] = time.perf_counter() - begun
                        session.ended(number, numbers, last=number == epochs)
            finally:
                self.optimizer.lr = self.base_lr  # undo the last factor of the schedule
                self.use_rate(self.base_lr, 1.0)
                steps, tables, held_out, given = None, (), None, None
                if not b.on_host:
                    b.free_memory()
        return self.history

    def _epoch(
        self, steps: Repeated, epochs: int, shuffle: Shuffle, session: Session, bar: Bar
    ) -> float:
        """Do one epoch, or the rest of one, and return its mean loss."""
        at, b = self.position, self.model.backend
        if not at.batches:
            at.epoch += 1
        self.into_training_mode()
        begun, end = at.steps - at.batches, at.start + epochs * steps.count
        self.optimizer.move(begun, end)
        steps.follow()
        factors = [self.schedule.factor(begun + k, end) for k in range(steps.count)]
        with b.own_stream(), self.precision.training(self.optimizer.bound):
            rates = [self.base_lr * each for each in factors]
            steps.begin(_order(self, steps, shuffle), rates, begun, end)
            while at.batches < steps.count and not session.interrupted:
                bar.update(steps.advance())
        self.use_rate(self.optimizer.lr, factors[at.batches - 1])
        self.optimizer.move(begun + at.batches - 1, end)
        if not b.synchronous and shuffle and not callable(shuffle) and at.epochs + 1 < epochs:
            # The host draws the next order while the device computes.
            steps.next_order = steps.feed.shuffled(self.seed, at.epoch + 1)
        loss = steps.mean_loss()
        if at.batches < steps.count:
            session.leave()
        return loss

    def _data(
        self, x: Any, y: Any, given: tuple[Any, Any], validation: Any
    ) -> tuple[tuple[Array, ...], tuple[Array, Array] | None]:
        """Check the tables of a fit and its validation data, and move them to the device."""
        tables: tuple[Any, ...] = (x,)
        if not isinstance(x, BatchSource):
            tables = training_arrays(self.model, self.loss, x, y, "x")
            if self.hints:
                hint(self.model, self.loss, *tables)
        weights = weights_of_fit(self, tables, *given)
        if weights is not None:
            tables += (weights,)
        if validation is None:
            return tables, None
        return tables, training_arrays(self.model, self.loss, *pair(validation), "validation")

    def weights_of(self, x: Array, weights: Any) -> Array:
        """Check the weights of examples, and convert them; a subclass may allow other weights."""
        return training_weights(x, weights)

    # evaluation and prediction ---------------------------------------------------------------

    def evaluate(self, x: Any, y: Any = None, *, batch_size: int = BATCH_ROWS) -> dict[str, float]:
        """Compute the mean loss, without penalties, for classifiers the accuracy, and the metrics.

        Args:
            x: (N, D) numbers, or a `Dataset`.
            y: the targets, as in `fit`.
            batch_size: the number of examples at a time.

        Raises:
            DataError, ShapeError: as in `fit`.
        """
        batch_size = count("batch_size", batch_size)
        with self.at_work():
            data = training_arrays(self.model, self.loss, x, y, "x")
            return evaluate(self.model, self.loss, *data, batch_size, self.metrics)

    def predict(self, x: Any, *, batch_size: int = BATCH_ROWS) -> Array:
        """Compute the outputs for many examples, as `Module.predict` does.

        Use `classify` for classes.

        Args:
            x, batch_size: as for `Module.predict`.

        Returns:
            (N, ...) outputs; for a classifier, scores.
        """
        with self.at_work():
            return self.model.predict(x, batch_size=batch_size)

    def classify(self, x: Any, *, batch_size: int = BATCH_ROWS) -> Array:
        """Compute the classes of examples. The loss decides how outputs become classes.

        Args:
            x, batch_size: as for `Module.predict`.

        Returns:
            (N,) class numbers. They are 0 or 1 if the loss is for two classes, and -1 or 1 for the
            perceptron loss.

        Raises:
            ArgumentError: the loss does not define classes.
            DataError: a score that decides is NaN or infinite, as for examples with NaN.
        """
        if decision(self.loss) is None:
            raise ArgumentError(
                "got a loss that does not define classes; expected one such as "
                "softmax_cross_entropy: use predict for the outputs"
            )
        return classes(self.predict(x, batch_size=batch_size), self.loss)

    def predict_proba(self, x: Any, *, batch_size: int = BATCH_ROWS) -> Array:
        """Return the probabilities of classes, (N, C) float64. They are not calibrated.

        Args:
            x, batch_size: as for `Module.predict`.

        Raises:
            ArgumentError: the loss is of scores that are no probabilities, such as hinge.
        """
        return probabilities(self.predict(x, batch_size=batch_size), self.loss)


def _order(training: Training, steps: Repeated, shuffle: Shuffle) -> Any:
    """Return the order of the rows in this epoch; None for the order of the data."""
    rows = len(steps.feed)
    if callable(shuffle):
        return _checked_order(shuffle(training.epoch, rows), rows)
    foreseen, steps.next_order = steps.next_order, None
    if not shuffle or foreseen is not None:
        return foreseen
    return steps.feed.shuffled(training.seed, training.epoch)


def _checked_order(order: Any, rows: int) -> np.ndarray[Any, Any]:
    """Check an order that a user's function returned, and return it as int64 row numbers.

    Raises:
        ShapeError: the order is not (N,).
        DTypeError: it does not hold integers.
        DataError: a number is not in the range from 0 to N - 1.
    """
    found = np.asarray(order)
    wrong: type[Exception] | None = None
    if found.shape != (rows,):
        wrong = ShapeError
    elif found.dtype.kind not in "iu":
        wrong = DTypeError
    elif found.min() < 0 or found.max() >= rows:
        wrong = DataError
    if wrong is not None:
        raise wrong(
            f"got an order of shape {found.shape} and {found.dtype} from shuffle for {rows} rows; "
            f"expected ({rows},) integers from 0 to {rows - 1}: return "
            "rng.permutation(rows), for example"
        )
    return found.astype(np.int64, copy=False)
