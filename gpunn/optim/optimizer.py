"""What optimizers have in common: flat buffers, state, a learning rate that lives on the device."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from gpunn.autograd import Tensor
from gpunn.errors import ArgumentError, in_range
from gpunn.optim.flat import FlatParameters
from gpunn.optim.rule import Rule
from gpunn.storage.state import check_state
from gpunn.typing import Array

OPTIMIZERS: dict[str, type[Optimizer]] = {}
"""Every optimizer that can be named by a string."""


class Optimizer:
    """Changes parameters along their gradients. A subclass declares its rule and its options.

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

    def __init__(self, parameters: Iterable[Tensor] | None, lr: float) -> None:
        self._lr = in_range("lr", lr, 0.0)
        self.flat: FlatParameters | None = None
        if parameters is not None:
            self.bind(parameters)

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        OPTIMIZERS[cls.__name__.lower()] = cls

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
