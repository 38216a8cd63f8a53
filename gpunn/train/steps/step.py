"""The training step: forward and backward pass of a batch, penalties, update."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from gpunn.autograd import Tensor
from gpunn.backends import Backend, RandomStream
from gpunn.backends.counts import Counts
from gpunn.backends.kernel import ADDED
from gpunn.errors import ArgumentError, DivergenceError
from gpunn.fingerprint import Fingerprint, Tracked
from gpunn.nn import Buffer, Module, Parameter
from gpunn.nn.classifier import loss_in_one
from gpunn.ops import identity
from gpunn.ops.elementwise import opened
from gpunn.ops.elementwise_losses import masses
from gpunn.ops.loss_reduction import SCALED
from gpunn.optim import Optimizer, Regularizer
from gpunn.optim.factor import Factor, LossScale, sign_of_gradients
from gpunn.optim.flat import FlatParameters
from gpunn.optim.guard import Guard
from gpunn.optim.kept import CHOSEN, Kept
from gpunn.optim.regularizers import constrains
from gpunn.train.steps.network import step_in_one
from gpunn.train.trouble import divergence
from gpunn.typing import Array


class EagerStep(Tracked):
    """A training step that launches its operations one after another.

    Args:
        model: the network, in training mode.
        loss: a function of outputs and targets that returns one number. If examples have weights,
            it must take `reduction="none"`.
        optimizer: an optimizer that is bound to the model's parameters.
        regularizer: a penalty or constraint, or None.
        clip_norm: the largest global norm of the gradients, or None.
        scale: the loss scale of a float16 network, or None.
        guard: the guard that lets no loss that is not finite change the parameters, or None.
        stops: whether a loss that is not finite is an error, if it can be read without waiting.

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
        self.regularizer, self.stops = regularizer, stops
        self.factor = Factor(clip_norm, scale, guard)
        self.kept: Kept | None = None
        self.look()
        trained = set(optimizer.bound.tensors)
        self._others = tuple(p for p in model.parameters() if p not in trained)

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
            DivergenceError: the loss can be read without waiting, and it is NaN or infinite. No
                parameter was changed.
        """
        flat, kept, guard = self.optimizer.bound, self.kept, self.factor.guard
        streams = self.model.streams() if self.skips else []
        calls = [stream.call for stream in streams]
        value = None
        if weights is None and self._is_simple():
            value = step_in_one(self.model, self.loss, self.optimizer, guard, (x, y))
        if value is None:
            value = self._apart(x, y, weights)
        if kept is not None and guard is not None:
            kept.settle(guard.go)
        if guard is not None:
            for stream, before in zip(streams, calls, strict=True):
                Counts.take_back_unless(flat.backend, guard.go, stream, before)
        return value

    def _is_simple(self) -> bool:
        """Return whether nothing but a guard comes between the gradients and the update."""
        factor = self.factor
        others = self.regularizer, self.kept, factor.clip_norm, factor.scale
        return self.is_whole and all(each is None for each in others)

    def _apart(self, x: Array, y: Array, weights: Array | None) -> Array:
        """Compute gradients and update, one operation after another, and return the loss."""
        flat, kept, guard = self.optimizer.bound, self.kept, self.factor.guard
        value = self.gradients(x, y, weights)
        self._check(x, value, sign_of_gradients)
        signs = () if kept is None or guard is None else kept.signs()
        factor, value = self.factor.of(flat, value, x.shape[0], signs)
        self.optimizer.step(factor)
        if self.regularizer is not None and constrains(self.regularizer):
            self._constrain(self.regularizer, guard)
        if self.optimizer.averaged is not None:
            times = flat.backend.one(flat.dtype) if factor is None else factor
            self.optimizer.averaged.take(times, self.optimizer.device_step)
        return value

    @property
    def is_whole(self) -> bool:
        """Whether the batch is computed in one piece."""
        return True

    @property
    def lanes(self) -> int:
        """The number of parts of the step that are done at the same time."""
        return 1

    @property
    def skips(self) -> bool:
        """Whether broken steps are skipped."""
        return self.factor.guard is not None and self.factor.guard.mode == "skip"

    @property
    def keeps(self) -> bool:
        """Whether the step keeps the buffers' values before it, to set them back."""
        return self.stops or self.factor.guard is not None

    def look(self) -> None:
        """Look for the buffers that the model has now."""
        buffers = [t for _, t in self.model.state() if isinstance(t, Buffer)]
        buffers = buffers if self.keeps else []
        if list(map(id, buffers)) != list(map(id, self.kept.tensors if self.kept else ())):
            self.kept = Kept(self.optimizer.bound.backend, buffers) if buffers else None

    def _constrain(self, regularizer: Regularizer, guard: Guard | None) -> None:
        """Apply a constraint, unless the step is broken: it may round parameters that meet it."""
        flat, b = self.optimizer.bound, self.optimizer.bound.backend
        if guard is None:
            regularizer.constrain(flat)
            return
        before = b.launch(identity.kernel, flat.data, out=b.empty_like(flat.data))
        regularizer.constrain(flat)
        b.launch(CHOSEN, before, guard.go, out=flat.data)

    def gradients(self, x: Array, y: Array, weights: Array | None = None) -> Array:
        """Compute the gradients of one batch without changing a parameter.

        Args:
            x: (N, ...) examples on the model's device.
            y: their targets there.
            weights: (N,) weights of the examples there; None for the same for all.

        Returns:
            The loss with the penalty, a 0-d array of the device.

        Raises:
            DivergenceError: as for a call of the step.
        """
        flat, scale = self.optimizer.bound, self.factor.scale
        b = flat.backend
        if self.kept is not None:
            self.kept.save()
        value = self.sums(x, y, weights)
        times = b.one(flat.dtype) if scale is None else scale.scale
        penalty = self.penalty(times, x.shape[0], weights)
        if penalty is not None:
            value = b.launch(ADDED, value, penalty)
            self._check(x, value)
        return value

    def sums(self, x: Array, y: Array, weights: Array | None) -> Array:
        """Return the loss of a batch without penalties, and compute its gradients."""
        loss = self.loss_at(x, y, weights)
        self._check(x, loss.data)
        self.differentiate(loss)
        return loss.data

    def loss_at(self, x: Array, y: Array, weights: Array | None) -> Tensor:
        """Return the loss of some rows, a 0-d tensor.

        Args:
            x: (N, ...) examples.
            y: their targets.
            weights: (N,) weights, or None.

        Raises:
            ArgumentError: the loss is not one number.
        """
        found = loss_in_one(self.model, self.loss, x, y) if weights is None else None
        loss = self.loss_of(self.model(x), y, weights) if found is None else found
        if not isinstance(loss, Tensor) or loss.shape:
            raise ArgumentError(
                f"got a loss that is {_kind(loss)}; expected one number, a 0-d tensor: end the "
                "loss function with .mean() or .sum()"
            )
        return loss

    def differentiate(
        self, loss: Tensor, share: float | Array = 1.0, *, adds: bool = False
    ) -> None:
        """Compute the gradients of a loss times a share.

        Args:
            loss: a 0-d tensor.
            share: a factor for the gradients, a number or a 0-d array of the device.
            adds: whether they are added to the present ones.
        """
        flat, scale = self.optimizer.bound, self.factor.scale
        if not adds:
            flat.zero_grad()
        for parameter in self._others:
            parameter.zero_grad()
        seed = None if scale is None else scale.scale
        if not isinstance(share, float) or share != 1.0:
            one = flat.backend.one(loss.dtype) if seed is None else seed
            seed = flat.backend.launch(SCALED, share, one, 1.0)
        loss.backward(seed)

    def loss_of(self, outputs: Tensor, y: Array, weights: Array | None) -> Tensor:
        """Compute the loss of a batch; with weights, the weighted mean of its examples' losses.

        The mean of a loss whose labels have weights is computed in the same way, so that a batch of
        labels that do not count changes nothing.
        """
        if weights is None and masses(self.loss, outputs.backend, y) is None:
            return self.loss(outputs, y)
        return weighted_mean(self.loss, outputs, y, weights)

    def penalty(self, times: Array, rows: int, weights: Array | None) -> Array | None:
        """Add the regularizer's gradient to the gradients of the loss.

        Args:
            times: a factor for the gradients, a 0-d array of the device.
            rows: the rows of the batch.
            weights: (N,) weights of its examples, or None.

        Returns:
            The value of the penalty, a 0-d array of the device; None if there is no penalty.
        """
        if self.regularizer is None:
            return None
        value = self.regularizer.penalize(self.optimizer.bound, times)
        self.optimizer.bound.mute()
        return value

    def parts(self) -> Fingerprint:
        """Make a fingerprint of everything that a step depends on."""
        return Fingerprint({"step": self}, collect=(RandomStream, Parameter, Buffer))

    def changes(self, parts: Fingerprint) -> list[Array]:
        """Return the arrays that a step changes.

        Args:
            parts: a fingerprint of the step, which has found the parameters and buffers.
        """
        optimizer, flat = self.optimizer, self.optimizer.bound
        mine = set(flat.tensors)
        others = [t.data for t in parts.found if isinstance(t, Tensor) and t not in mine]
        moved = [flat.data, *optimizer.state, optimizer.device_step, *self.factor.state()]
        moved += [] if optimizer.averaged is None else [optimizer.averaged.mean]
        return moved + others

    def _check(
        self,
        x: Array,
        value: Array,
        more: Callable[[FlatParameters], Array] | None = None,
    ) -> None:
        """Raise an error for a broken step, if it must be and can be seen at once.

        Args:
            x: the examples.
            value: the loss.
            more: another number that must be finite, as a function of the parameters; the loss has
                its gradients then.
        """
        flat, kept = self.optimizer.bound, self.kept
        if not self.stops or self.factor.guard is not None or not flat.backend.synchronous:
            return
        numbers = [value, *(() if kept is None else kept.signs())]
        numbers += [] if more is None else [more(flat)]
        if all(np.isfinite(number) for number in numbers):
            return
        if kept is not None:
            kept.set_back()
        done = None if more is None else lambda: value
        raise DivergenceError(divergence(self.model, x, float(value), done))


def _kind(loss: object) -> str:
    return f"of shape {loss.shape}" if isinstance(loss, Tensor) else f"a {type(loss).__name__}"


def counted(
    loss: Callable[..., Tensor], b: Backend, targets: Array, weights: Array | None
) -> Array | None:
    """Return what each example counts in the mean of a batch; None if all count the same.

    Args:
        loss: the loss.
        b: the backend of the targets.
        targets: (N, ...) targets.
        weights: (N,) weights of the examples, or None.

    Returns:
        (N,) the weights of the examples times those of their labels.
    """
    known = masses(loss, b, targets)
    if known is None or weights is None:
        return weights if known is None else known
    product: Array = b.xp.multiply(known, b.cast(weights, known.dtype))
    return product


def weighted_mean(
    loss: Callable[..., Tensor], outputs: Tensor, targets: Array, weights: Array | None
) -> Tensor:
    """Compute the weighted mean of the losses of examples, sum_n w_n l_n / sum_n w_n m_n.

    Args:
        loss: a loss that takes `reduction="none"`, as every registered loss does. If its labels
            have weights m_n, they are in its l_n; else m_n = 1.
        outputs: (N, ...) outputs of a network.
        targets: their targets.
        weights: (N,) weights; None for 1. If all weights are 0, the result is 0.
    """
    losses = loss(outputs, targets, reduction="none")  # (N,), or (N, K)
    b, rows = outputs.backend, len(targets)
    of_rows = opened(loss)[1].get("reduction") == "batchmean"
    each, xp = 1 if of_rows else losses.size // rows, b.xp
    whole = b.cast(counted(loss, b, targets, weights), losses.dtype)
    mass = xp.maximum(xp.sum(whole), np.finfo(losses.dtype).tiny)
    if weights is None:
        shares = xp.divide(b.one(losses.dtype), mass)
    else:
        shares = xp.divide(b.cast(weights, losses.dtype), xp.multiply(mass, each))
        shares = shares.reshape(rows, *[1] * (losses.ndim - 1))
    total_loss: Tensor = (losses * shares).sum()
    return total_loss
