"""The base class of optimizers, with its flat buffers, its state and its moving numbers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from inspect import Parameter, signature
from types import MappingProxyType
from typing import Any, ClassVar, TypeAlias

import numpy as np

from gpunn.arguments import flag, in_range
from gpunn.autograd import Tensor
from gpunn.backends import Elementwise
from gpunn.errors import ArgumentError
from gpunn.fingerprint import Same, Tracked
from gpunn.guesses import answer
from gpunn.names import constructed, register
from gpunn.optim.average import Average, Averaged
from gpunn.optim.flat import FlatParameters
from gpunn.optim.groups import ungrouped
from gpunn.optim.rule import Rule
from gpunn.optim.schedules import Schedule
from gpunn.storage.state import check_state, fitted
from gpunn.typing import Array

Limits: TypeAlias = dict[str, tuple[float, ...]]
Parameters: TypeAlias = Iterable[Tensor | Mapping[str, Any]] | None

OPTIMIZERS: dict[str, type[Optimizer]] = {}
"""Every optimizer that can be named by a string."""


class Optimizer(Tracked):
    """The base class of optimizers, which update parameters by their gradients.

    A subclass declares its rule and its options. `class Mine(Optimizer, name="mine")` registers a
    subclass, so that "mine" stands for it. A subclass without a name is not registered.

    A number of an optimizer, such as the momentum, may be a `Schedule`. Its factor at a step is
    then the number itself. `Trainer` moves it at every step. If you call `step` yourself, call
    `move` before it.

    Args:
        parameters: the parameters to train; None to set them later with `bind`, as a Trainer does.
            Instead of parameters there may be groups, dicts with "params" and their own "lr" or
            "weight_decay" or both.
        lr: the learning rate, at least 0.
        weight_decay: the strength of the weight decay, at least 0. It adds weight_decay * p to the
            gradient; if the class is `decoupled`, it subtracts lr * weight_decay * p from p.
        decay_biases: whether biases, and the gains of normalisation, decay as well.

    Attributes:
        slots: the names of the state arrays, each as long as the flat parameters.
        rule: the update rule, as kernels over the flat buffers.
        decoupled: whether the weight decay is kept apart from the gradient.
        limits: the range of each number that may be a schedule, [low, high) or [low, infinity).
        flat: the flat parameters; None before `bind`.
    """

    slots: tuple[str, ...] = ()
    rule: Rule
    decoupled: ClassVar[bool] = False
    limits: ClassVar[Limits] = {}
    weight_decay: float | Schedule = 0.0
    decay_biases = True
    untracked = frozenset(("_lr", "lr", "_present", "_elsewhere"))
    _elsewhere = False  # whether the last step had its rate in another array than `device_lr`
    _present: Mapping[str, float] = MappingProxyType({})  # the values of numbers that move
    device_numbers: tuple[Array, ...] = ()
    averaged: Averaged | None = None

    def __new__(cls, *args: Any, **options: Any) -> Any:
        """Make an optimizer, and explain options of PyTorch that have another name in gpunn.

        Raises:
            ArgumentError: an option is PyTorch's, and this optimizer does not have it.
        """
        known = signature(cls.__init__).parameters
        open_ended = any(parameter.kind is Parameter.VAR_KEYWORD for parameter in known.values())
        unknown = {} if open_ended else {k: v for k, v in options.items() if k not in known}
        answer("Optimizer", cls.__name__, unknown)
        return super().__new__(cls)

    def __init__(
        self,
        parameters: Parameters = None,
        lr: float = 1e-3,
        weight_decay: float | Schedule = 0.0,
        decay_biases: bool = True,
    ) -> None:
        self._lr = in_range("lr", lr, 0.0)
        self.take_numbers(weight_decay=weight_decay)
        if not flag("decay_biases", decay_biases):
            self.decay_biases = False
        self.flat: FlatParameters | None = None
        if parameters is not None:
            self.bind(parameters)

    def __init_subclass__(cls, name: str | None = None, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if name is not None:
            register(OPTIMIZERS, "optimizer", name, cls, cls.__module__)

    __repr__ = constructed

    def __fingerprint__(self) -> dict[str, Any]:
        parts = {k: v for k, v in vars(self).items() if k not in self.untracked}
        if self.flat is not None:  # a repetition reads the present content of these arrays
            parts |= {"flat": Same(self.flat.data), "state": tuple(map(Same, self.state))}
            parts |= {"device_lr": Same(self.device_lr), "device_step": Same(self.device_step)}
            parts |= {"device_numbers": tuple(map(Same, self.device_numbers))}
            parts |= {"factors": tuple(map(Same, self.flat.factors or ()))}
        return parts

    def __identity__(self) -> dict[str, Any]:
        made = {"flat", "state", "averaged", "device_lr", "device_step", "device_numbers"}
        made |= {"_lr", "_present", "_elsewhere"}
        options = {name: value for name, value in vars(self).items() if name not in made}
        return {"lr": self._lr, **options}

    # numbers ---------------------------------------------------------------------------------

    def take_numbers(self, **numbers: Any) -> None:
        """Set numbers, each of which may be a schedule, after a check of their ranges.

        Raises:
            ArgumentError: a number is outside its range in `limits`.
        """
        for name, value in numbers.items():
            if not isinstance(value, Schedule):
                value = in_range(name, value, *self.limits.get(name, (0.0,)))
            if getattr(self, name, None) != value:  # else it stays the default of the class
                setattr(self, name, value)

    def number(self, name: str) -> float:
        """Return the present value of a number, which may be a schedule."""
        value = getattr(self, name)
        return self._present[name] if isinstance(value, Schedule) else value

    def options(self) -> tuple[float, ...]:
        """Return the numbers that the rule's kernel takes, at present."""
        return ()

    def numbers(self) -> tuple[float, ...]:
        """Return the options and, if there is weight decay, its strength."""
        return (*self.options(), *([self.number("weight_decay")] if self.decay_kind else ()))

    @property
    def decay_kind(self) -> str:
        """The kind of weight decay: "coupled", "decoupled", or "" for none."""
        kind = "decoupled" if self.decoupled else "coupled"
        return kind if isinstance(self.weight_decay, Schedule) or self.weight_decay else ""

    @property
    def moves(self) -> bool:
        """Whether a number is a schedule."""
        return any(isinstance(value, Schedule) for value in vars(self).values())

    def foresee(self, step: int, total: int) -> tuple[float, ...]:
        """Return the numbers of a step, and note the values of the schedules there.

        Args:
            step: the number of the step, counted from 0.
            total: the number of steps of the whole run.

        Raises:
            ArgumentError: a schedule leaves the range of its number.
        """
        self._present = {
            name: in_range(name, value.factor(step, total), *self.limits.get(name, (0.0,)))
            for name, value in vars(self).items()
            if isinstance(value, Schedule)
        }
        return self.numbers()

    def move(self, step: int, total: int) -> None:
        """Set every number that is a schedule to its value at a step, as `foresee`."""
        if not self.moves:
            return
        b = self.bound.backend
        types = [*self.rule.types.values(), *["T"] * bool(self.decay_kind)]
        dtypes = [self.bound.dtype if each == "T" else np.dtype(each) for each in types]
        if [a.dtype for a in self.device_numbers] != dtypes:
            self.device_numbers = tuple(b.zeros((), dtype) for dtype in dtypes)
        with b.current():
            for array, value in zip(self.device_numbers, self.foresee(step, total), strict=True):
                array.fill(value)

    # parameters ------------------------------------------------------------------------------

    def bind(self, parameters: Iterable[Tensor | Mapping[str, Any]]) -> None:
        """Move the parameters into one flat buffer, and make new state.

        Raises:
            ArgumentError: this optimizer has parameters already, or there are no parameters, or
                a group is not one, or eps is 0 in their dtype.
        """
        if self.flat is not None:
            raise ArgumentError(
                "got parameters for an optimizer that has some; expected a new optimizer: make "
                "one for each model"
            )
        given = [parameters] if isinstance(parameters, Tensor) else list(parameters)
        tensors, decay = ungrouped(given, self._lr, self.weight_decay)
        eps, dtypes = (
            getattr(self, "eps", None),
            {t.dtype for t in tensors if hasattr(t, "dtype")},
        )
        if eps is not None and any(kind.kind == "f" and kind.type(eps) == 0 for kind in dtypes):
            raise ArgumentError(
                f"got eps={eps} for {', '.join(map(str, dtypes))} parameters, in which it is 0; "
                "expected a larger one, because 0 / 0 is NaN: pass e.g. eps=1e-4, or train in "
                "float32"
            )
        self.take_numbers(weight_decay=decay)
        self.flat = flat = FlatParameters(tensors, self.decay_biases)
        b = flat.backend
        self.state = [b.zeros(flat.data.shape, flat.dtype) for _ in self.slots]
        self.device_lr = b.full((), self._lr, flat.dtype)
        self.device_step = b.zeros((), np.int64)
        self.move(0, 1)

    @property
    def bound(self) -> FlatParameters:
        """The flat parameters.

        Raises:
            ArgumentError: the optimizer has no parameters yet.
        """
        if self.flat is None:
            raise ArgumentError(
                "got an optimizer without parameters; expected some: pass model.parameters(), or "
                "let Trainer do it"
            )
        return self.flat

    @property
    def lr(self) -> float:
        """The learning rate. Setting it also writes it to the device, where the kernel reads it."""
        return self._lr

    @lr.setter
    def lr(self, value: float) -> None:
        value = in_range("lr", value, 0.0)
        if (value != self._lr or self._elsewhere) and self.flat is not None:
            with self.flat.backend.current():
                self.device_lr.fill(value)
            self._elsewhere = False
        self._lr = value

    def note_lr(self, value: float) -> None:
        """Store the learning rate of a step that read it from another array; see `reading`."""
        self._lr, self._elsewhere = value, True

    def zero_grad(self) -> None:
        """Forget all gradients. The next backward pass overwrites them."""
        self.bound.zero_grad()

    def step(self, factor: Array | None = None) -> None:
        """Update every parameter by its gradient, with one kernel over the flat buffer.

        Args:
            factor: a factor for every gradient, a 0-d array of the device; None for 1. If it is 0,
                nothing is changed and the step is not counted.

        Raises:
            GradientError: a parameter has no gradient.
        """
        b, (kernel, inputs, outputs) = self.bound.backend, self.update()
        times = b.one(self.bound.dtype) if factor is None else factor
        b.launch(kernel, self.bound.grad, times, *inputs, out=outputs)

    def update(self) -> tuple[Elementwise, tuple[Any, ...], tuple[Array, ...]]:
        """Return the kernel of an update, its inputs behind gradient and factor, and its outputs.

        Raises:
            GradientError: a parameter has no gradient.
        """
        (flat := self.bound).check_ready()
        if self._elsewhere:
            self.lr = self._lr
        kind = self.decay_kind, flat.factors is not None, flat.narrow is not None
        narrow = () if flat.narrow is None else (flat.narrow,)
        if self.moves and not self.device_numbers:
            self.move(0, 1)
        numbers = self.device_numbers if self.moves else self.numbers()
        inputs = (self.device_lr, *numbers, *(flat.factors or ()))
        return self.rule.kernels[kind], inputs, (flat.data, *self.state, *narrow, self.device_step)

    def keep_average(self, average: Average | None) -> None:
        """Begin to average the parameters from their present values; None ends it."""
        if average is not (None if self.averaged is None else self.averaged.average):
            self.averaged = None if average is None else Averaged(average, self.bound)

    # state -----------------------------------------------------------------------------------

    def arrays(self) -> dict[str, Array]:
        """Return the state on the device: the slots, the number of steps and the learning rate.

        The learning rate is a host array.
        """
        slots = self._slots()
        return slots | {"step": self.device_step, "lr": np.array(self._lr)}

    def _slots(self) -> dict[str, Array]:
        slots = dict(zip(self.slots, self.state, strict=True))
        return slots if self.averaged is None else slots | {"average": self.averaged.mean}

    def state_dict(self) -> dict[str, np.ndarray[Any, Any]]:
        """Return host copies of the slots, the number of steps and the learning rate."""
        b, arrays = self.bound.backend, self.arrays()
        lr = arrays.pop("lr")
        return {name: b.download(array) for name, array in arrays.items()} | {"lr": lr}

    def load_state_dict(self, state: dict[str, np.ndarray[Any, Any]]) -> None:
        """Set the state. If an error is raised, nothing is changed.

        Raises:
            ModelFileError: the state belongs to another optimizer or model.
            ArgumentError: the learning rate or the number of steps is outside its range.
        """
        b = self.bound.backend
        check_state(state, self.arrays(), what="optimizer state", exact=False)
        lr, step = in_range("lr", float(state["lr"]), 0.0), int(state["step"])
        in_range("step", step, 0, 2**63)
        slots = self._slots()
        found = fitted(state, slots, "optimizer state")
        with b.current():
            for name, array in slots.items():
                array[...] = b.upload(found[name])
            self.device_step.fill(step)
        self.lr = lr


@contextmanager
def reading(optimizer: Optimizer, lr: Array, numbers: tuple[Array, ...]) -> Iterator[None]:
    """Let steps of an optimizer inside the block read their numbers from other arrays.

    Args:
        optimizer: the optimizer.
        lr: the learning rate, a 0-d array of the device.
        numbers: the numbers of the rule, 0-d arrays, if one of them moves; else nothing.
    """
    kept = optimizer.device_lr, optimizer.device_numbers
    optimizer.device_lr, optimizer.device_numbers, optimizer._elsewhere = lr, numbers, False
    try:
        yield
    finally:
        (optimizer.device_lr, optimizer.device_numbers), optimizer._elsewhere = kept, True
