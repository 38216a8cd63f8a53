"""A training: its parts, its position and its history."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpunn.arguments import check_kind, count, lookup
from gpunn.autograd import Tensor
from gpunn.backends import Backend, RandomStream, backend
from gpunn.distributed import ALONE, Group, check_launched_alone
from gpunn.errors import ArgumentError
from gpunn.guesses import answers
from gpunn.html import table
from gpunn.names import named
from gpunn.nn import Module
from gpunn.ops import get_loss
from gpunn.optim import (
    Average,
    Optimizer,
    Regularizer,
    Schedule,
    get_optimizer,
    get_schedule,
)
from gpunn.optim.guard import MODES
from gpunn.optim.precision import Precision
from gpunn.train.checkpoints import Checkpoints
from gpunn.train.curves import History
from gpunn.train.metric import Metric, get_metrics
from gpunn.train.steps.step import EagerStep
from gpunn.typing import DeviceLike


@dataclass
class Position:
    """The position of a training. It has all the counts, and a checkpoint stores it.

    Attributes:
        fits: the calls of `fit`, including the current one.
        epoch: the epochs of the training, including the current one.
        steps: the steps of the training.
        start: the steps before this fit.
        epochs: the whole epochs of this fit.
        batches: the steps of the current epoch.
        loss_sum: the sum of the losses of its rows, when it was last read from the device.
    """

    fits: int = 0
    epoch: int = 0
    steps: int = 0
    start: int = 0
    epochs: int = 0
    batches: int = 0
    loss_sum: float = 0.0


class Training:
    """A model and the choices for its training. `Trainer` adds `fit` and explains the arguments.

    The constructor only stores its arguments. `prepare` moves the model, binds the optimizer and
    seeds the random streams.

    Attributes:
        step_class: the class of a training step.
        hints: whether the log tells if the data are of a scale that a network learns badly.
        position: the counts of fits, epochs and steps.
        history: the curves of the last fit.
        base_lr: the learning rate that the schedule multiplies.
        precision: the precision of the training; holds the loss scale of a float16 training.
        beginning: the identity of the numbers that the model had before the first fit.
        told: the settings at the first fit with checkpoints, and the changes before later ones.
        warned: whether the log has named a part that nothing identifies.
    """

    step_class: type[EagerStep] = EagerStep
    hints: bool = True

    @answers
    def __init__(
        self,
        model: Module,
        loss: str | Callable[..., Tensor] = "softmax_cross_entropy",
        optimizer: str | Optimizer = "adam",
        *,
        lr: float | None = None,
        weight_decay: float | None = None,
        device: DeviceLike = None,
        seed: int = 0,
        regularizer: Regularizer | None = None,
        schedule: str | Schedule = "constant",
        clip_norm: float | None = None,
        average: Average | None = None,
        metrics: Iterable[str | Metric | Callable[..., Any]] = (),
        capture: bool | str = "auto",
        precision: str = "float32",
        memory_limit: int | None = None,
        on_nonfinite: str = "stop",
        shards: int | None = None,
        group: Group | None = None,
        checkpoint: str | Path | None = None,
        every: int = 1,
        keep: int = 2,
    ) -> None:
        check_kind("model", model, Module, "a network such as nn.Sequential(...)")
        if regularizer is not None:
            check_kind("regularizer", regularizer, Regularizer, "one such as optim.L2(1e-4)")
        if capture not in (True, False, "auto"):
            raise ArgumentError(f'got capture={capture!r}; expected True, False or "auto"')
        lookup("on_nonfinite", on_nonfinite, MODES)
        self.model, self.loss = model, get_loss(loss)
        chosen = {"lr": lr, "weight_decay": weight_decay}
        chosen = {name: value for name, value in chosen.items() if value is not None}
        self.optimizer, self.schedule = get_optimizer(optimizer, **chosen), get_schedule(schedule)
        self.regularizer, self.clip_norm = regularizer, clip_norm
        self.capture, self.on_nonfinite = capture, on_nonfinite
        self.metrics, self.average = get_metrics(metrics), average
        if average is not None:
            check_kind("average", average, Average, "one such as optim.EMA(0.999)")
        self.shards = None if shards is None else count("shards", shards)
        if group is None:
            check_launched_alone()
        self.group = ALONE if group is None else group
        if self.group.size > (self.shards or 1):
            raise ArgumentError(
                f"got shards={shards} for {self.group.size} workers; expected at least as many "
                "shards as workers: pass shards=8, for example; the results depend on this number"
            )
        if shards is not None and self.step_class is not EagerStep:
            raise ArgumentError(
                f"got shards={shards} with the step {self.step_class.__name__}; expected "
                "EagerStep: leave out shards, because another step defines its own sums"
            )
        self.seed = RandomStream(seed).seed
        self._there = None if device is None else backend(device)
        self.precision = Precision(precision, self._there or model.backend, model.dtype)
        self.memory_limit = memory_limit
        if memory_limit is not None and (self._there or model.backend).on_host:
            (self._there or model.backend).limit_memory(memory_limit)  # raises an error
        self.checkpoints = None if checkpoint is None else Checkpoints(checkpoint, keep)
        self.every = count("every", every)
        self.base_lr = self.optimizer.lr
        self.position, self.history = Position(), History()
        self.beginning: dict[str, str] = {}
        self.told: list[tuple[int, dict[str, str | None]]] = []
        self.warned = False
        self._seeded = False
        self._resting: list[Module] = []  # the modules that stay in evaluation mode
        self._rate: tuple[Optimizer, float, float] = self.optimizer, self.base_lr, 1.0
        self._check_optimizer()

    def __repr__(self) -> str:
        at = f"{self.epoch} epochs, {self.steps} steps"
        size = sum(p.size for p in self.model.parameters())
        model = f"a {type(self.model).__name__} with {size:,} parameters"
        return f"<{type(self).__name__} of {model}: {at}>"

    def _repr_html_(self) -> str:
        """Return the model, the settings and the curves, for a notebook."""
        chosen = ("loss", "optimizer", "schedule", "regularizer", "precision", "seed")
        facts = {name: getattr(self, name) for name in chosen} | {"precision": self.precision.name}
        facts |= {"learning rate": self.base_lr, "epochs": self.epoch, "steps": self.steps}
        rows = [(name, named(value)) for name, value in facts.items() if value is not None]
        curves = self.history._repr_html_() if self.history.epochs else ""
        return f"{self.model._repr_html_()}{table((), rows)}{curves}"

    @property
    def epoch(self) -> int:
        """The number of epochs of the training, including the current one."""
        return self.position.epoch

    @property
    def fits(self) -> int:
        """The number of calls of `fit`."""
        return self.position.fits

    @property
    def steps(self) -> int:
        """The number of steps of the training."""
        return self.position.steps

    def settings(self) -> dict[str, Any]:
        """Return everything that decides the numbers of the training, by name.

        A checkpoint stores it as text. The device, the checkpoints and the recording of steps
        decide no numbers.
        """
        trained = set(self.optimizer.bound.tensors)
        names = [name for name, p in self.model.named_parameters() if p in trained]
        return {
            "optimizer": self.optimizer,
            "precision": self.precision.name,
            "seed": self.seed,
            "loss": self.loss,
            "schedule": self.schedule,
            "regularizer": self.regularizer,
            "clip_norm": self.clip_norm,
            "on_nonfinite": self.on_nonfinite,
            "trained": names,
            "model": self.model,
            "step": self.step_class,
            **({} if self.shards is None else {"shards": self.shards}),
            **({} if self.average is None else {"average": self.average}),
        }

    def __getstate__(self) -> dict[str, Any]:
        """Return the attributes without the group, which belongs to running processes."""
        return {name: value for name, value in vars(self).items() if name != "group"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        later: dict[str, Any] = {"beginning": {}, "told": [], "warned": False, "_resting": []}
        later |= {"shards": None, "group": ALONE, "metrics": (), "average": None}
        later["_rate"] = state["optimizer"], 0.0, 1.0
        vars(self).update(later | state)  # a pickle of an older release lacks some attributes
        if self._rate[2] != 1.0:  # copied by a callback: the rate has the schedule's factor in it
            self.follow_rate()
            self.optimizer.lr = self.base_lr
            self.use_rate(self.base_lr, 1.0)

    def place(self) -> Backend:
        """Move the model to the chosen device, and return the backend of that device."""
        b = self.model.backend
        if self._there is not None and b is not self._there:
            self.model.to(self._there.device)
            return self._there
        return b

    def prepare(self) -> None:
        """Move the model, seed its dropout layers once, and bind the optimizer to its parameters.

        `fit` calls this method. Call it yourself to load an optimizer's state before the first fit.

        Raises:
            ArgumentError: the optimizer belongs to another model.
        """
        b = self.place()
        self.loss, self.schedule = get_loss(self.loss), get_schedule(self.schedule)
        self.optimizer = get_optimizer(self.optimizer)
        self._check_optimizer()
        if not self._seeded:
            self._seeded = True
            for number, stream in enumerate(self.model.streams(), start=1):
                if not stream.chosen:
                    stream.seed, stream.stream, stream.call = self.seed, number, 0
        if self.optimizer.flat is None:
            self.optimizer.bind(self.model.parameters())
        else:
            self.optimizer.flat.take_back()  # another training may have taken the parameters
        self.optimizer.keep_average(self.average)
        self.precision.prepare(b)

    def into_training_mode(self) -> None:
        """Put the model into training mode, except modules that the user put into evaluation mode.

        A model that is in evaluation mode as a whole was used meanwhile. Then the modules rest that
        rested when it was last in training mode.
        """
        if self.model.training:
            self._resting = [module for module in self.model.modules() if not module.training]
            return
        self._resting = [module for module in self._resting if not module.training]
        self.model.train()
        for module in self._resting:
            module.training = False

    def use_rate(self, rate: float, factor: float) -> None:
        """Note the rate of the last step, and the factor of the schedule in it."""
        self._rate = self.optimizer, rate, factor

    def follow_rate(self) -> None:
        """If `optimizer.lr` was written since the last step, multiply it by the schedule from now.

        The schedule goes on from where it is: what was written is the rate at this moment.
        """
        optimizer, rate, factor = self._rate
        if self.optimizer is not optimizer:
            self.base_lr = self.optimizer.lr
        elif self.optimizer.lr != rate:
            self.base_lr = self.optimizer.lr / (factor or 1.0)

    def _check_optimizer(self) -> None:
        flat = self.optimizer.flat
        if flat is not None and not set(flat.tensors) <= set(self.model.parameters()):
            raise ArgumentError(
                "got an optimizer of another model's parameters; expected one of this model's: "
                "make it with model.parameters(), or without parameters"
            )

    @contextmanager
    def at_work(self) -> Iterator[Backend]:
        """Make the model's device current, and set the memory limit, inside the block.

        Raises:
            OutOfMemoryError: the device has no room, whoever asked for it.
        """
        b = self.place()
        alike = nullcontext() if self.shards is None else b.single_threaded()
        with b.current(), b.limited_memory(self.memory_limit), alike, b.telling_room():
            yield b
