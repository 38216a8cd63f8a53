"""The training loop."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from gpunn.arguments import check_kind, count, lookup
from gpunn.autograd import Tensor
from gpunn.backends.random import RandomStream
from gpunn.data.dataset import Dataset
from gpunn.errors import ArgumentError
from gpunn.examples import BATCH_ROWS
from gpunn.nn import Module
from gpunn.ops import get_loss
from gpunn.optim import Optimizer, Regularizer, Schedule, get_optimizer, get_schedule
from gpunn.train.callbacks import Callback, check_callbacks
from gpunn.train.checkpoints import Checkpoints
from gpunn.train.fit import Fit, Shuffle
from gpunn.train.guard import MODES
from gpunn.train.history import History
from gpunn.train.inputs import pair, training_arrays, training_weights
from gpunn.train.precision import Precision
from gpunn.train.scores import classes, evaluate
from gpunn.train.step import EagerStep
from gpunn.typing import Array, DeviceLike


class Trainer:
    """Trains a model on arrays.

    Args:
        model: the network; it is moved to `device`.
        loss: a registered name, or a function of outputs and targets that gives one number.
            `gpunn.ops.get_loss` chooses options. `gpunn.ops.decides` says of a function of your
            own how outputs become classes; without it there is no accuracy.
        optimizer: a registered name, or an optimizer, with parameters or without.
        device: where to train; None for where the model is; "auto" for a GPU if one can be used.
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
        step_class: the class of a training step, for subclasses that compute one otherwise.
        history: of the last fit.
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

    step_class: type[EagerStep] = EagerStep

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
        check_kind("model", model, Module, "a network such as nn.Sequential(...)")
        if regularizer is not None:
            check_kind("regularizer", regularizer, Regularizer, "one such as optim.L2(1e-4)")
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
        self.every = count("every", every)
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
        b, fit = self.model.backend, None
        try:
            with b.current():
                arrays: tuple[Array, ...] = self._inputs(x, y, "x")
                if sample_weight is not None:
                    arrays += (training_weights(arrays[0], sample_weight),)
                held_out = None
                if validation is not None:
                    held_out = self._inputs(*pair(validation), "validation")
                self.history = History(device=b.describe())
                self.fits += 1
                self.base_lr = self.optimizer.lr
                fit = Fit(self, arrays, epochs, batch_size, held_out, shuffle, callbacks)
                del arrays, held_out
                fit.run(progress)
        finally:
            fit = None
            if not b.synchronous:
                b.free_memory()
        return self.history

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
        with self.model.backend.current():
            return evaluate(self.model, self.loss, *self._inputs(x, y, "x"), batch_size)

    def predict(self, x: Any, *, batch_size: int = BATCH_ROWS) -> Array:
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
