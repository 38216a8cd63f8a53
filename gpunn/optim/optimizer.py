"""What optimizers share: update rules, flat buffers, state, a learning rate on the device."""

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
from gpunn.names import at_home_of, home_of, register
from gpunn.optim.flat import FlatParameters
from gpunn.storage.state import check_state
from gpunn.typing import Array

RULES: dict[str, Rule] = {}
"""Every update rule, by name."""

COUNT = "taken = taken + (factor != T(0) ? 1 : 0);"


class Rule:
    """The kernels of an update rule.

    Each multiplies the gradient by `factor`, skips the update where that is 0, and counts the
    steps taken, all in one launch.

    Args:
        name: of the kernel.
        signature: "T momentum -> v": numbers on the left; state arrays on the right.
        numpy: called as `numpy(g, lr, step, numbers..., p, states...)` on chunks, with `step`
            counted from 1.
        cuda: the same for one element.
        cuda_constants: what `cuda` uses and no element decides; compilers take it out of a loop.

    Attributes:
        kernel: "g, factor, lr, numbers -> p, states, taken".
        narrow_kernel: "... -> p, states, narrow, taken"; writes p also in the dtype that products
            are computed in.
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
        inputs = "g, factor, lr" + (f", {numbers}" if numbers else "")
        outputs = "p" + (f", {states}" if states else "")
        place = numbers.count(",") + 1 if numbers else 0  # of p behind the numbers
        text = (
            "const long long step = taken + 1; (void)step; "
            f"{cuda_constants} if (factor != T(0)) {{ g = g * factor; {cuda} }}"
        )

        @at_home_of(numpy)
        def body(g: Array, factor: Array, lr: Array, *rest: Any) -> None:
            *arrays, taken = rest
            times = float(factor)
            if times != 0:
                if times != 1:
                    g = np.multiply(g, factor, out=scratch_like(g))
                numpy(g, lr, int(taken) + 1, *arrays)

        @at_home_of(numpy)
        def narrow_body(g: Array, factor: Array, lr: Array, *rest: Any) -> None:
            *arrays, narrow, taken = rest
            body(g, factor, lr, *arrays, taken)
            np.copyto(narrow, arrays[place], casting="same_kind")

        self.kernel = Elementwise(
            name,
            f"{inputs} -> {outputs}, one int64 taken",
            numpy=body,
            cuda=text,
            once=COUNT,
            numpy_once=_count,
        )
        self.narrow_kernel = Elementwise(
            f"{name}_narrow",
            f"{inputs} -> {outputs}, narrow, one int64 taken",
            numpy=narrow_body,
            cuda=f"{text} narrow = p;",
            once=COUNT,
            numpy_once=_count,
        )

    def __fingerprint__(self) -> None:
        """A rule never changes."""

    def __reduce__(self) -> tuple[Any, ...]:
        """There is one rule of a name: a copy of it is itself."""
        return _known, (self.name,)


def _known(name: str) -> Rule:
    return RULES[name]


def _count(g: Array, factor: Array, lr: Array, *rest: Any) -> None:
    taken = rest[-1]
    taken.fill(int(taken) + (float(factor) != 0))


ELSEWHERE = {
    "betas": "the two numbers by themselves: beta1=0.9, beta2=0.999",
    "alpha": "decay, the weight of the past",
    "weight_decay": (
        "a penalty: Trainer(regularizer=optim.L2(weight_decay / 2)), whose gradient is "
        "weight_decay * W (of weights, not of biases); or AdamW"
    ),
    "amsgrad": "Adam as it is: AMSGrad is not here",
    "dampening": "momentum without dampening",
    "params": "parameters, or none for a Trainer",
    "learning_rate": "lr",
}
"""What PyTorch's options, and those of other libraries, are here."""

OPTIMIZERS: dict[str, type[Optimizer]] = {}
"""Every optimizer that can be named by a string."""


class Optimizer(Tracked):
    """Changes parameters along their gradients. A subclass declares its rule and its options.

    `class Lion(Optimizer, name="lion")` can be asked for by its name; a subclass that gives no
    name cannot.

    Args:
        parameters: what to train; may be left out and given by `bind`, as the Trainer does.
        lr: learning rate, at least 0.

    Attributes:
        slots: names of the state arrays, each as long as the flat parameters.
        rule: the formula, as kernels over the flat buffers.
        flat: the parameters, once bound.
    """

    slots: tuple[str, ...] = ()
    rule: Rule
    untracked = frozenset(("_lr", "lr"))

    def __new__(cls, *args: Any, **options: Any) -> Any:
        """A new optimizer; options of PyTorch's that are called otherwise here are named.

        Raises:
            ArgumentError: an option of PyTorch's that this optimizer does not have.
        """
        known = signature(cls.__init__).parameters
        open_ended = any(parameter.kind is Parameter.VAR_KEYWORD for parameter in known.values())
        for name in options.keys() - known.keys():
            if name in ELSEWHERE and not open_ended:
                raise ArgumentError(
                    f"got {name}={options[name]!r}, which {cls.__name__} does not have; expected "
                    f"{ELSEWHERE[name]}"
                )
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
        if self.flat is not None:  # repeated work sees what is written to these
            parts |= {"flat": Same(self.flat.data), "state": tuple(map(Same, self.state))}
            parts |= {"device_lr": Same(self.device_lr), "device_step": Same(self.device_step)}
        return parts

    def options(self) -> tuple[float, ...]:
        """The numbers that the rule takes."""
        return ()

    def bind(self, parameters: Iterable[Tensor]) -> None:
        """Take the parameters into one flat buffer, with fresh state.

        Raises:
            ArgumentError: this optimizer has parameters already, or gets none.
        """
        if self.flat is not None:
            raise ArgumentError(
                "got parameters for an optimizer that has some; expected a new optimizer: make "
                "one for each model"
            )
        parameters = list(parameters)
        eps, dtypes = (
            getattr(self, "eps", None),
            {t.dtype for t in parameters if hasattr(t, "dtype")},
        )
        if eps is not None and any(kind.kind == "f" and kind.type(eps) == 0 for kind in dtypes):
            raise ArgumentError(
                f"got eps={eps} for {', '.join(map(str, dtypes))} parameters, in which it is 0; "
                "expected more, or 0/0 is NaN: pass e.g. eps=1e-4, or train in float32"
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
            ArgumentError: there are none yet.
        """
        if self.flat is None:
            raise ArgumentError(
                "got an optimizer without parameters; expected some: pass model.parameters(), or "
                "let Trainer do it"
            )
        return self.flat

    @property
    def lr(self) -> float:
        """The learning rate. Setting it writes the number that the kernel reads on the device."""
        return self._lr

    @lr.setter
    def lr(self, value: float) -> None:
        value = in_range("lr", value, 0.0)
        if value != self._lr and self.flat is not None:
            with self.flat.backend.current():
                self.device_lr.fill(value)
        self._lr = value

    def note_lr(self, value: float) -> None:
        """Take note of a rate that the device has set for itself."""
        self._lr = value

    def zero_grad(self) -> None:
        """Forget all gradients."""
        self.bound.zero_grad()

    def step(self, factor: Array | None = None) -> None:
        """Change every parameter along its gradient: one kernel over the flat buffer.

        Args:
            factor: 0-d array of the device that every gradient is multiplied by; where it holds
                0, nothing is changed and the step is not counted.

        Raises:
            GradientError: a parameter has no gradient.
        """
        flat = self.bound
        flat.check_ready()
        b = flat.backend
        times = b.one(flat.dtype) if factor is None else factor
        inputs = (flat.grad, times, self.device_lr, *self.options())
        if flat.narrow is None:
            b.launch(self.rule.kernel, *inputs, out=(flat.data, *self.state, self.device_step))
        else:
            out = (flat.data, *self.state, flat.narrow, self.device_step)
            b.launch(self.rule.narrow_kernel, *inputs, out=out)

    def arrays(self) -> dict[str, Array]:
        """The state where it lives: the slots, the number of steps, and the learning rate."""
        slots = dict(zip(self.slots, self.state, strict=True))
        return slots | {"step": self.device_step, "lr": np.array(self._lr)}

    def state_dict(self) -> dict[str, np.ndarray[Any, Any]]:
        """Host copies of the state: the slots, the number of steps and the learning rate."""
        b, arrays = self.bound.backend, self.arrays()
        lr = arrays.pop("lr")
        return {name: b.download(array) for name, array in arrays.items()} | {"lr": lr}

    def load_state_dict(self, state: dict[str, np.ndarray[Any, Any]]) -> None:
        """Set the state.

        Raises:
            ModelFileError: it belongs to another optimizer or model. Nothing is set.
            ArgumentError: a learning rate or a number of steps outside its range. Nothing is set.
        """
        b = self.bound.backend
        check_state(state, self.arrays(), what="optimizer state", exact=False)
        lr, step = in_range("lr", float(state["lr"]), 0.0), int(state["step"])
        in_range("step", step, 0, 2**63)
        with b.current():
            for name, array in zip(self.slots, self.state, strict=True):
                array[...] = b.upload(state[name].astype(array.dtype))
            self.device_step.fill(step)
        self.lr = lr
