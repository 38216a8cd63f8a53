"""One training step: forward, loss, backward, regularise, clip, update."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from gpunn.autograd import Tensor, no_grad
from gpunn.errors import DivergenceError
from gpunn.nn import Module, observe
from gpunn.optim import Optimizer, Regularizer, clip_by_global_norm
from gpunn.typing import Array


class EagerStep:
    """A step that launches its operations one after another.

    Args:
        model: in training mode.
        loss: `loss(outputs, targets)` with a single number.
        optimizer: bound to the model's parameters.
        regularizer: a penalty or constraint, or None.
        clip_norm: largest global norm of the gradients, or None.
    """

    def __init__(
        self,
        model: Module,
        loss: Callable[..., Tensor],
        optimizer: Optimizer,
        regularizer: Regularizer | None = None,
        clip_norm: float | None = None,
    ) -> None:
        self.model, self.loss, self.optimizer = model, loss, optimizer
        self.regularizer, self.clip_norm = regularizer, clip_norm
        trained = set(optimizer.bound.tensors)
        self._others = [p for p in model.parameters() if p not in trained]

    def __call__(self, x: Array, y: Array) -> Array:
        """Train on one batch.

        Args:
            x: (N, ...) examples on the model's device.
            y: their targets there.

        Returns:
            The loss before the update, with the penalty, a 0-d array of the device.

        Raises:
            DivergenceError: where the loss can be read without waiting, it is NaN or infinite;
                nothing was updated.
        """
        loss = self.loss(self.model(x), y)
        value = loss.data
        flat = self.optimizer.bound
        if self.regularizer is not None:
            value = value + self.regularizer.value(flat)
        if flat.backend.synchronous and not np.isfinite(value):
            raise DivergenceError(divergence(self.model, x, float(value)))
        flat.zero_grad()
        for parameter in self._others:
            parameter.zero_grad()
        loss.backward()
        if self.regularizer is not None:
            self.regularizer.add_gradient(flat)
        if self.clip_norm is not None:
            clip_by_global_norm(flat, self.clip_norm)
        self.optimizer.step()
        if self.regularizer is not None:
            self.regularizer.constrain(flat)
        return value


def divergence(model: Module, x: Array, loss: float) -> str:
    """Why a loss is not finite: the parameter, or the layer, in which it began."""
    streams, buffers = [s.call for s in model.streams()], model.state_dict()
    begins = _where(model, x)
    for stream, call in zip(model.streams(), streams, strict=True):
        stream.call = call  # looking for the layer must not count as a step
    model.load_state_dict(buffers)
    return (
        f"got a loss of {loss}; it began in {begins}: lower the learning rate, clip the "
        "gradients with clip_norm, or scale the data"
    )


def _where(model: Module, x: Array) -> str:
    names = {id(module): name or "the model" for name, module in model.named_modules()}
    for name, parameter in model.named_parameters():
        if not np.isfinite(parameter.numpy()).all():
            return f"parameter {name!r}, which is no longer finite"
    found: list[str] = []

    def look(module: Module, y: Tensor) -> None:
        if not found and not np.isfinite(y.numpy()).all():
            found.append(f"the output of layer {names[id(module)]!r} ({type(module).__name__})")

    with no_grad(), np.errstate(all="ignore"), observe(look):
        model(x)
    return found[0] if found else "the loss itself"
