"""One training step: forward, loss, backward, regularise, clip, update."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

from gpunn.autograd import Tensor, no_grad
from gpunn.backends import Elementwise
from gpunn.errors import ArgumentError, DivergenceError
from gpunn.nn import Module
from gpunn.nn.observation import observe
from gpunn.optim import Optimizer, Regularizer
from gpunn.optim.clipping import CLIP_FACTOR, check_max_norm, global_norm
from gpunn.optim.scaling import LossScale
from gpunn.train.feed import on_device
from gpunn.train.weighting import weighted_mean
from gpunn.typing import Array

if TYPE_CHECKING:
    from gpunn.train.feed import Feed
    from gpunn.train.guard import Guard

WITH_PENALTY = Elementwise(
    "with_penalty",
    "loss, penalty -> value",
    numpy=lambda loss, penalty, value: np.add(loss, penalty, out=value),
    cuda="value = loss + penalty;",
)


class EagerStep:
    """A step that launches its operations one after another.

    Args:
        model: in training mode.
        loss: `loss(outputs, targets)` with a single number. It takes `reduction="none"` where
            examples have weights.
        optimizer: bound to the model's parameters.
        regularizer: a penalty or constraint, or None.
        clip_norm: largest global norm of the gradients, or None.
        scale: the loss scale of a float16 network, or None.
        guard: what keeps a loss that is not finite from the parameters, or None.
        stops: whether a loss that is not finite is an error, where it can be read.

    Raises:
        ArgumentError: clip_norm is not above 0.
    """

    def __init__(
        self,
        model: Module,
        loss: Callable[..., Tensor],
        optimizer: Optimizer,
        regularizer: Regularizer | None = None,
        clip_norm: float | None = None,
        scale: LossScale | None = None,
        guard: Guard | None = None,
        stops: bool = True,
    ) -> None:
        self.model, self.loss, self.optimizer = model, loss, optimizer
        self.regularizer, self.scale = regularizer, scale
        self.guard, self.stops = guard, stops
        self.clip_norm = None if clip_norm is None else check_max_norm(clip_norm)
        trained = set(optimizer.bound.tensors)
        self._others = [p for p in model.parameters() if p not in trained]

    def __call__(self, x: Array, y: Array, weights: Array | None = None) -> Array:
        """Train on one batch.

        Args:
            x: (N, ...) examples on the model's device.
            y: their targets there.
            weights: (N,) weights of the examples there; None for the same for all.

        Returns:
            The loss before the update, with the penalty, a 0-d array of the device.

        Raises:
            ArgumentError: the loss is not one number.
            DivergenceError: where the loss can be read without waiting, it is NaN or infinite;
                nothing was updated.
        """
        flat = self.optimizer.bound
        b = flat.backend
        value = self.gradients(x, y, weights)
        factor = self._factor()
        if self.guard is not None:
            factor = self.guard.factor(value, b.one(flat.dtype) if factor is None else factor)
            value = self.guard.kept if self.guard.mode == "skip" else value
        self.optimizer.step(factor)
        if self.regularizer is not None:
            self.regularizer.constrain(flat)
        return value

    def gradients(self, x: Array, y: Array, weights: Array | None = None) -> Array:
        """Compute the gradients of one batch and change no parameter.

        Args:
            x: (N, ...) examples on the model's device.
            y: their targets there.
            weights: (N,) weights of the examples there; None for the same for all.

        Returns:
            The loss with the penalty, a 0-d array of the device.

        Raises:
            DivergenceError: as a whole step.
        """
        flat = self.optimizer.bound
        b = flat.backend
        loss = self.loss_of(self.model(x), y, weights)
        if not isinstance(loss, Tensor) or loss.shape:
            raise ArgumentError(
                f"got a loss that is {_kind(loss)}; expected one number, a 0-d tensor: end the "
                "loss function with .mean() or .sum()"
            )
        value = loss.data
        self._check(x, value)
        flat.zero_grad()
        for parameter in self._others:
            parameter.zero_grad()
        loss.backward(None if self.scale is None else self.scale.scale)
        times = b.one(flat.dtype) if self.scale is None else self.scale.scale
        penalty = self.penalty(times, x.shape[0], weights)
        if penalty is not None:
            value = b.launch(WITH_PENALTY, value, penalty)
            self._check(x, value)
        return value

    def loss_of(self, outputs: Tensor, y: Array, weights: Array | None) -> Tensor:
        """The loss of a batch: the loss function's, or the mean by the weights of its examples."""
        if weights is None:
            return self.loss(outputs, y)
        return weighted_mean(self.loss, outputs, y, weights)

    def penalty(self, times: Array, rows: int, weights: Array | None) -> Array | None:
        """Add the regularizer's gradient to the gradients of the loss.

        Args:
            times: 0-d array of the device that gradients are multiplied by.
            rows: of the batch.
            weights: (N,) weights of its examples, or None.

        Returns:
            The value of the penalty, a 0-d array of the device; None where there is none.
        """
        if self.regularizer is None:
            return None
        return self.regularizer.penalize(self.optimizer.bound, times)

    def _factor(self) -> Array | None:
        """What the update multiplies the gradients by; None for 1."""
        flat = self.optimizer.bound
        if self.scale is not None:
            return self.scale.factor(flat, self.clip_norm)
        if self.clip_norm is None:
            return None
        return flat.backend.launch(CLIP_FACTOR, global_norm(flat), self.clip_norm)

    def _check(self, x: Array, value: Array) -> None:
        """Raise where a loss that can be read without waiting is not finite and must not be."""
        if not self.stops or self.guard is not None:
            return
        if self.optimizer.bound.backend.synchronous and not np.isfinite(value):
            raise DivergenceError(divergence(self.model, x, float(value)))


def _kind(loss: object) -> str:
    return f"of shape {loss.shape}" if isinstance(loss, Tensor) else f"a {type(loss).__name__}"


def no_room(step: EagerStep, feed: Feed, error: MemoryError) -> str:
    """What an out-of-memory error says: the batch size, and the largest half of it that fits."""
    b = step.optimizer.bound.backend
    error.__traceback__ = None  # it holds the arrays of the failed step
    fits = feed.batch_size // 2
    with undisturbed(step.model):
        while fits and not _fits(step, feed, fits):
            fits //= 2
    step.optimizer.zero_grad()
    b.free_memory()
    remedy = (
        f"batch_size={fits} fits" if fits else "not even a batch of one fits: shrink the network"
    )
    return (
        f"got batch_size={feed.batch_size}, for which {b.device} has no room ({error}); expected "
        f"less: {remedy}"
    )


def _fits(step: EagerStep, feed: Feed, rows: int) -> bool:
    """Whether a forward and a backward pass over so many rows find room."""
    flat = step.optimizer.bound
    b = flat.backend
    b.free_memory()
    try:
        x, *given = (on_device(b, a[:rows].copy()) for a in feed.tables)  # a batch is a copy
        if flat.narrow is not None:  # what is streamed is narrowed on the device
            x = x.astype(flat.narrow.dtype, copy=False)
        y, weights = (*given, None)[:2]
        step.loss_of(step.model(x), y, weights).backward()
    except MemoryError:
        return False
    return True


@contextmanager
def undisturbed(model: Module) -> Iterator[None]:
    """Put streams and state of a model back after the block: what it does is no training."""
    calls, state = [stream.call for stream in model.streams()], model.state_dict()
    try:
        yield
    finally:
        for stream, call in zip(model.streams(), calls, strict=True):
            stream.call = call
        model.load_state_dict(state)


def divergence(model: Module, x: Array, loss: float) -> str:
    """Why a loss is not finite: the parameter, or the layer, in which it began."""
    with undisturbed(model):  # looking for the layer must not count as a step
        begins = _where(model, x)
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
        # Without dropout first: other masks than those of the step may drop what is broken.
        with model.evaluating():
            model(x)
        if not found:  # a batch norm may have broken with the numbers of its batch only
            model(x)
    return found[0] if found else "the loss itself"
