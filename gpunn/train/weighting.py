"""Means of losses in which examples count differently."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from gpunn.autograd import Tensor
from gpunn.typing import Array


def weighted_mean(
    loss: Callable[..., Tensor], outputs: Tensor, targets: Array, weights: Array
) -> Tensor:
    """The mean of a loss by the weights of its examples, sum_n w_n l_n / sum_n w_n.

    Args:
        loss: takes `reduction="none"`, as every registered loss does.
        outputs: (N, ...) outputs of a network.
        targets: what the loss compares them with.
        weights: (N,) weights. Where all of them are 0, so is the result.
    """
    losses = loss(outputs, targets, reduction="none")  # (N,), or (N, K)
    each = losses.size // len(weights)
    b = outputs.backend
    weights, xp = b.cast(weights, losses.dtype), b.xp
    mass = xp.maximum(xp.sum(weights), np.finfo(losses.dtype).tiny)
    shares = xp.divide(weights, xp.multiply(mass, each))
    shares = shares.reshape(len(weights), *[1] * (losses.ndim - 1))
    total_loss: Tensor = (losses * shares).sum()
    return total_loss
