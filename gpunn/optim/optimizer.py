"""The base class of optimizers, with its flat buffers and state, and the class of update rules."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from inspect import Parameter, signature
from typing import Any

import numpy as np

from gpunn.arguments import in_range
from gpunn.autograd import Tensor
from gpunn.backends import Elementwise, scratch_like
from gpunn.errors import ArgumentError
from gpunn.fingerprint import Same, Tracked
from gpunn.guesses import answer
from gpunn.names import at_home_of, home_of, is_own, register
from gpunn.optim.flat import FlatParameters
from gpunn.storage.state import check_state, fitted
from gpunn.typing import Array

RULES: dict[str, Rule] = {}
"""Every update rule, by name."""

COUNT = "taken = taken + (factor != T(0) ? 1 : 0);"


class Rule:
    """The kernels of an update rule.

    In one launch, a kernel multiplies the gradient by `factor`, updates the parameters and counts
    the step. If the factor is 0, it does nothing.

    Args:
        name: the name of the kernel.
        signature: for example "T momentum -> v", with numbers on the left and state arrays on the
            right.
        numpy: the NumPy body, called on chunks as `numpy(g, lr, step, numbers..., p, states...)`.
            `step` counts from 1. With factors, `lr` and a number named "shrink" are arrays.
        cuda: the CUDA body, for one element.
        cuda_constants: CUDA code for values that are the same for all elements. A compiler moves
            it out of the loop.

    Attributes:
        kernels: the kernels by (paced, narrow). The signature of (False, False) is
            "g, factor, lr, numbers -> p, states, taken". A paced kernel also takes the factors of
            every element's rate and decay behind the numbers. A narrow one also writes p in the
            dtype that products are computed in, before it counts.
    """

    def __init__(
        self,
        name: str,
        signature: str,
        numpy: Callable[..., Any],
        cuda: str,
        cuda_constants: str = "",
    ) -> None:
        self.name = name
        register(RULES, "update rule", name, self, home_of(numpy))
        numbers, states = (part.strip() for part in signature.split("->"))
        names = [part.split()[-1] for part in numbers.split(",")] if numbers else []
        shrink = names.index("shrink") if "shrink" in names else None
        self.kernels = {
            (paced, narrow): self._kernel(
                name + "_paced" * paced + "_narrow" * narrow,
                ", ".join(filter(None, ("g, factor, lr", numbers, "pace, fade" if paced else ""))),
                ", ".join(filter(None, ("p", states, "narrow" if narrow else ""))),
                _body(numpy, len(names), shrink, paced, narrow),
                "const long long step = taken + 1; (void)step; "
                + cuda_constants
                + "if (factor != T(0)) { g = g * factor; "
                + "lr = lr * pace; " * paced
                + ("shrink = shrink * fade; " if shrink is not None else "(void)fade; ") * paced
                + f"{cuda} }} "
                + "narrow = p;" * narrow,
            )
            for paced in (False, True)
            for narrow in (False, True)
        }

    @staticmethod
    def _kernel(
        name: str, inputs: str, outputs: str, numpy: Callable[..., Any], cuda: str
    ) -> Elementwise:
        return Elementwise(
            name,
            f"{inputs} -> {outputs}, one int64 taken",
            numpy=numpy,
            cuda=cuda,
            once=COUNT,
            numpy_once=_count,
        )

    def __fingerprint__(self) -> None:
        """Return None, because a rule never changes."""

    def __identity__(self) -> dict[str, Any] | str:
        return (
            self.name
            if is_own("update rule", self.name)
            else {"kernel": self.kernels[False, False]}
        )

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle a rule as its name, so that a copy of a rule is the same object."""
        return _known, (self.name,)


def _body(
    rule: Callable[..., Any], count: int, shrink: int | None, paced: bool, narrow: bool
) -> Callable[..., Any]:
    """Return the NumPy body of a kernel of a rule.

    Args:
        rule: the rule's own body.
        count: the number of numbers that it takes.
        shrink: the position of the weight decay among them, or None.
        paced: whether elements have factors of their rate and decay.
        narrow: whether a narrow copy of p is written.
    """

    @at_home_of(rule)
    def body(g: Array, factor: Array, lr: Array, *rest: Any) -> None:
        times = float(factor)
        numbers, arrays, step = list(rest[:count]), list(rest[count:-1]), int(rest[-1]) + 1
        factors = [arrays.pop(0), arrays.pop(0)] if paced else []
        copy = arrays.pop() if narrow else None
        if times != 0:
            if times != 1:
                g = np.multiply(g, factor, out=scratch_like(g))
            if paced:
                pace, fade = factors
                lr = np.multiply(pace, lr, out=scratch_like(pace))
                if shrink is not None:
                    numbers[shrink] = np.multiply(fade, numbers[shrink], out=scratch_like(fade))
            rule(g, lr, step, *numbers, *arrays)
        if copy is not None:
            np.copyto(copy, arrays[0], casting="same_kind")

    return body


def _known(name: str) -> Rule:
    return RULES[name]


def _count(g: Array, factor: Array, lr: Array, *rest: Any) -> None:
    taken = rest[-1]
    taken.fill(int(taken) + (float(factor) != 0))


OPTIMIZERS: dict[str, type[Optimizer]] = {}
"""Every optimizer that can be named by a string."""


class Optimizer(Tracked):
    """The base class of optimizers, which update parameters by their gradients.

    A subclass declares its rule and its options. `class Mine(Optimizer, name="mine")` registers a
    subclass, so that "mine" stands for it. A subclass without a name is not registered.

    Args:
        parameters: the parameters to train; None to set them later with `bind`, as a Trainer does.
        lr: the learning rate, at least 0.

    Attributes:
        slots: the names of the state arrays, each as long as the flat parameters.
        rule: the update rule, as kernels over the flat buffers.
        flat: the flat parameters; None before `bind`.
    """

    slots: tuple[str, ...] = ()
    rule: Rule
    untracked = frozenset(("_lr", "lr"))

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

    def __init__(self, parameters: Iterable[Tensor] | None, lr: float) -> None:
        self._lr = in_range("lr", lr, 0.0)
        self.flat: FlatParameters | None = None
        if parameters is not None:
            self.bind(parameters)

    def __init_subclass__(cls, name: str | None = None, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if name is not None:
            register(OPTIMIZERS, "optimizer", name, cls, cls.__module__)

    def __fingerprint__(self) -> dict[str, Any]:
        parts = {name: value for name, value in vars(self).items() if name != "_lr"}
        if self.flat is not None:  # a repetition reads the present content of these arrays
            parts |= {"flat": Same(self.flat.data), "state": tuple(map(Same, self.state))}
            parts |= {"device_lr": Same(self.device_lr), "device_step": Same(self.device_step)}
            parts |= {"factors": tuple(map(Same, self.flat.factors or ()))}
        return parts

    def __identity__(self) -> dict[str, Any]:
        made = ("_lr", "flat", "state", "device_lr", "device_step")
        options = {name: value for name, value in vars(self).items() if name not in made}
        return {"lr": self._lr, **options}

    def options(self) -> tuple[float, ...]:
        """Return the numbers that the rule's kernel takes."""
        return ()

    def bind(self, parameters: Iterable[Tensor]) -> None:
        """Move the parameters into one flat buffer, and make new state.

        Raises:
            ArgumentError: this optimizer has parameters already, or there are no parameters, or
                eps is 0 in their dtype.
        """
        if self.flat is not None:
            raise ArgumentError(
                "got parameters for an optimizer that has some; expected a new optimizer: make "
                "one for each model"
            )
        parameters = [parameters] if isinstance(parameters, Tensor) else list(parameters)
        eps, dtypes = (
            getattr(self, "eps", None),
            {t.dtype for t in parameters if hasattr(t, "dtype")},
        )
        if eps is not None and any(kind.kind == "f" and kind.type(eps) == 0 for kind in dtypes):
            raise ArgumentError(
                f"got eps={eps} for {', '.join(map(str, dtypes))} parameters, in which it is 0; "
                "expected a larger one, because 0 / 0 is NaN: pass e.g. eps=1e-4, or train in "
                "float32"
            )
        self.flat = flat = FlatParameters(parameters)
        b = flat.backend
        self.state = [b.zeros(flat.data.shape, flat.dtype) for _ in self.slots]
        self.device_lr = b.full((), self._lr, flat.dtype)
        self.device_step = b.zeros((), np.int64)

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
        if value != self._lr and self.flat is not None:
            with self.flat.backend.current():
                self.device_lr.fill(value)
        self._lr = value

    def note_lr(self, value: float) -> None:
        """Store a learning rate that a kernel has already set on the device."""
        self._lr = value

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
        flat = self.bound
        flat.check_ready()
        b = flat.backend
        times = b.one(flat.dtype) if factor is None else factor
        kernel = self.rule.kernels[flat.factors is not None, flat.narrow is not None]
        narrow = () if flat.narrow is None else (flat.narrow,)
        inputs = (flat.grad, times, self.device_lr, *self.options(), *(flat.factors or ()))
        b.launch(kernel, *inputs, out=(flat.data, *self.state, *narrow, self.device_step))

    def arrays(self) -> dict[str, Array]:
        """Return the state on the device: the slots, the number of steps and the learning rate.

        The learning rate is a host array.
        """
        slots = dict(zip(self.slots, self.state, strict=True))
        return slots | {"step": self.device_step, "lr": np.array(self._lr)}

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
        slots = dict(zip(self.slots, self.state, strict=True))
        found = fitted(state, slots, "optimizer state")
        with b.current():
            for name, array in slots.items():
                array[...] = b.upload(found[name])
            self.device_step.fill(step)
        self.lr = lr
