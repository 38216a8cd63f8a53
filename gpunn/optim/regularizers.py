"""Penalties on the size of weights, as the lectures write them, and the max-norm constraint.

None of them depends on the batch size, and none applies to biases.
"""

from __future__ import annotations

import numpy as np

from gpunn.backends import Elementwise
from gpunn.optim.flat import FlatParameters
from gpunn.optim.optimizer import in_range
from gpunn.typing import Array


def _penalty_grad(w: Array, l1: float, l2: float, g: Array) -> None:
    if l2:
        g += 2 * l2 * w
    if l1:
        g += l1 * np.sign(w)


PENALTY_GRAD = Elementwise(
    "penalty_grad",
    "w, T l1, T l2 -> g",
    numpy=_penalty_grad,
    cuda=("g = g + T(2) * l2 * w + l1 * (w > T(0) ? T(1) : w < T(0) ? T(-1) : T(0));"),
)


class Regularizer:
    """A term that training adds to the loss, or a constraint that it keeps."""

    def value(self, flat: FlatParameters) -> Array | float:
        """The term's value, a 0-d array of the device; 0 for a constraint."""
        return 0.0

    def add_gradient(self, flat: FlatParameters) -> None:
        """Add the term's gradient to the gradients."""

    def constrain(self, flat: FlatParameters) -> None:
        """Bring the parameters back into the constraint, after an update."""


class ElasticNet(Regularizer):
    """lambda * sum(beta W**2 + |W|) over all weights.

    Args:
        strength: lambda, at least 0.
        beta: weight of the squares, at least 0.

    Gradient:
        lambda (2 beta W + sign(W)), with sign(0) = 0.

    Reference:
        Lecture 001, which writes no 1/2.
    """

    def __init__(self, strength: float, beta: float = 1.0) -> None:
        self.l1 = in_range("strength", strength, 0.0)
        self.l2 = self.l1 * in_range("beta", beta, 0.0)

    def value(self, flat: FlatParameters) -> Array | float:
        """The penalty."""
        xp, w = flat.backend.xp, flat.data[flat.weights]
        value = xp.asarray(xp.dot(w, w)) * self.l2 if self.l2 else 0.0
        return value + xp.asarray(xp.sum(xp.abs(w))) * self.l1 if self.l1 else value

    def add_gradient(self, flat: FlatParameters) -> None:
        """Add the gradient: one kernel over the weights."""
        w, g = flat.data[flat.weights], flat.grad[flat.weights]
        flat.backend.launch(PENALTY_GRAD, w, self.l1, self.l2, out=g)


class L2(ElasticNet):
    """lambda * sum(W**2), without 1/2 (lecture 001). Gradient: 2 lambda W."""

    def __init__(self, strength: float) -> None:
        super().__init__(strength, 1.0)
        self.l1, self.l2 = 0.0, self.l1


class L1(ElasticNet):
    """lambda * sum(|W|) (lecture 001). Gradient: lambda sign(W), with sign(0) = 0."""

    def __init__(self, strength: float) -> None:
        super().__init__(strength, 0.0)


class MaxNorm(Regularizer):
    """After every update, the weights into each unit are scaled to a norm of at most `limit`.

    Args:
        limit: above 0.

    Reference:
        Srivastava et al. (2014), section 5.1.
    """

    def __init__(self, limit: float) -> None:
        self.limit = in_range("limit", limit, float(np.finfo(np.float32).tiny))

    def constrain(self, flat: FlatParameters) -> None:
        """Scale the columns of every 2-D weight."""
        xp = flat.backend.xp
        for tensor in flat.tensors:
            if tensor.ndim == 2 and getattr(tensor, "regularize", True):
                w = tensor.data  # (D, H): column h holds the weights into unit h
                norms = xp.sqrt(xp.sum(w * w, axis=0))
                w *= self.limit / xp.maximum(norms, self.limit)
