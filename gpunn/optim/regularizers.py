"""Penalties on the size of weights, in the form of the lectures, and the max-norm constraint.

They do not depend on the batch size, and they do not apply to biases.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gpunn.arguments import check_kind, in_range
from gpunn.backends import Elementwise, widened
from gpunn.errors import ArgumentError
from gpunn.fingerprint import Tracked
from gpunn.names import constructed
from gpunn.ops.reductions import column_sums
from gpunn.optim.flat import FlatParameters
from gpunn.typing import Array


def _penalty(w: Array, times: Array, l1: float, l2: float, g: Array, value: Array) -> None:
    by = float(times)
    if l2:
        wide = widened(w, np.float64).reshape(-1)
        value += l2 * np.dot(wide, wide)
        g += 2 * l2 * by * w
    if l1:
        value += l1 * np.sum(np.abs(w))
        g += l1 * by * np.sign(w)


PENALTY = Elementwise(
    "penalty",
    "w, times, T l1, T l2 -> g, sum value",
    numpy=_penalty,
    cuda=(
        "value = l2 * w * w + l1 * abs(w); g = g + times * "
        "(T(2) * l2 * w + l1 * (w > T(0) ? T(1) : w < T(0) ? T(-1) : T(0)));"
    ),
)


class Regularizer(Tracked):
    """The base class of penalties, which are added to the loss, and of constraints.

    `a + b` applies a, then b: `L2(1e-4) + MaxNorm(3.0)`.
    """

    __repr__ = constructed

    def __add__(self, other: Regularizer) -> Regularizer:
        check_kind("other", other, Regularizer, "one such as L2(1e-4)")
        return Regularizers(*_parts(self), *_parts(other))

    def penalize(self, flat: FlatParameters, times: Array) -> Array | None:
        """Add the gradient of the penalty to the gradients of the loss.

        Args:
            flat: the parameters.
            times: the factor of the loss's gradients, which this gradient is multiplied by, too; a
                0-d array of the device.

        Returns:
            The value of the penalty, a 0-d array of the device; None for a constraint.
        """
        return None

    def constrain(self, flat: FlatParameters) -> None:
        """Change the parameters so that they meet the constraint; called after every update."""


class ElasticNet(Regularizer):
    """The elastic net: lambda * sum(beta * W ** 2 + |W|) over all weights.

    Args:
        strength: lambda, at least 0.
        beta: the weight of the squares, at least 0.

    Gradient:
        lambda * (2 * beta * W + sign(W)), with sign(0) = 0.

    Reference:
        Lecture 001; the squares have no factor 1/2.
    """

    def __init__(self, strength: float, beta: float = 1.0) -> None:
        self.l1 = in_range("strength", strength, 0.0)
        self.l2 = self.l1 * in_range("beta", beta, 0.0)

    @property
    def strength(self) -> float:
        """Lambda."""
        return self.l1

    @property
    def beta(self) -> float:
        """The weight of the squares."""
        return self.l2 / self.l1 if self.l1 else 0.0

    def penalize(self, flat: FlatParameters, times: Array) -> Array:
        """Add the gradient of the penalty and return its value, with one kernel."""
        w, g = flat.data[flat.weights], flat.grad[flat.weights]
        value = flat.backend.empty((), flat.dtype)
        flat.backend.launch(PENALTY, w, times, self.l1, self.l2, out=(g, value))
        return value


class L2(ElasticNet):
    """The L2 penalty: lambda * sum(W ** 2), without a factor 1/2.

    Args:
        strength: lambda, at least 0.

    Gradient:
        2 * lambda * W.

    Reference:
        Lecture 001.
    """

    def __init__(self, strength: float) -> None:
        super().__init__(strength, 1.0)
        self.l1, self.l2 = 0.0, self.l1

    @property
    def strength(self) -> float:
        """Lambda."""
        return self.l2


class L1(ElasticNet):
    """The L1 penalty: lambda * sum(|W|).

    Args:
        strength: lambda, at least 0.

    Gradient:
        lambda * sign(W), with sign(0) = 0.

    Reference:
        Lecture 001.
    """

    def __init__(self, strength: float) -> None:
        super().__init__(strength, 0.0)


class Regularizers(Regularizer):
    """Several penalties and constraints, applied in this order."""

    def __init__(self, *parts: Regularizer) -> None:
        self.parts = parts

    def penalize(self, flat: FlatParameters, times: Array) -> Array | None:
        """Add the gradients of all penalties, and return the sum of their values."""
        found = [part.penalize(flat, times) for part in self.parts]
        values = [value for value in found if value is not None]
        total = values[0] if values else None
        for value in values[1:]:
            total = flat.backend.xp.add(total, value)
        return total

    def constrain(self, flat: FlatParameters) -> None:
        """Apply all constraints in order."""
        for part in self.parts:
            part.constrain(flat)


def constrains(regularizer: Regularizer | None) -> bool:
    """Return whether a regularizer changes the parameters after an update."""
    parts = () if regularizer is None else _parts(regularizer)
    return any(type(part).constrain is not Regularizer.constrain for part in parts)


def _parts(regularizer: Regularizer) -> tuple[Regularizer, ...]:
    return regularizer.parts if isinstance(regularizer, Regularizers) else (regularizer,)


class MaxNorm(Regularizer):
    """The max-norm constraint: the weights into each unit have a norm of at most `limit`.

    The weights are scaled after every update.

    Args:
        limit: the largest norm, above 0; or one for each weight that penalties apply to, in order.

    Raises:
        ArgumentError: a limit is not above 0, or there are others than weights.

    Reference:
        Srivastava et al. (2014), section 5.1.
    """

    def __init__(self, limit: float | Sequence[float]) -> None:
        self.limit: float | tuple[float, ...]
        if isinstance(limit, Sequence) and not isinstance(limit, str):
            self.limit = tuple(_limit(each) for each in limit)
        else:
            self.limit = _limit(limit)

    def constrain(self, flat: FlatParameters) -> None:
        """Scale the columns of every 2-D weight whose norm is too large."""
        xp = flat.backend.xp
        weights = [t for t in flat.tensors if t.ndim == 2 and getattr(t, "regularize", True)]
        limits = self.limit if isinstance(self.limit, tuple) else (self.limit,) * len(weights)
        if len(limits) != len(weights):
            raise ArgumentError(
                f"got {len(limits)} limits for {len(weights)} weights; expected one for each, in "
                "the order of the network, or one number for all"
            )
        for tensor, limit in zip(weights, limits, strict=True):
            if tensor.requires_grad:
                w = flat.views[tensor]  # (D, H); column h has the weights into unit h
                norms = xp.sqrt(column_sums(flat.backend, xp.multiply(w, w)))
                xp.multiply(w, xp.divide(limit, xp.maximum(norms, limit)), out=w)


def _limit(limit: object) -> float:
    return in_range("limit", limit, float(np.finfo(np.float32).tiny))
