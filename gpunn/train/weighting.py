"""Means of losses in which examples count differently."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from gpunn.autograd import Tensor
from gpunn.typing import Array


def weighted(loss: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """The mean of a loss by the weights of its examples, sum_n w_n l_n / sum_n w_n.

    Args:
        loss: takes `reduction="none"`, as every registered loss does; or one with an attribute
            `takes_weights`, which is returned as it is.

    Returns:
        A function of outputs, targets and (N,) weights. Where all weights of a batch are 0, so is
        its loss.
    """
    if getattr(loss, "takes_weights", False):
        return loss

    def mean(outputs: Tensor, targets: Array, weights: Array) -> Tensor:
        losses = loss(outputs, targets, reduction="none")  # (N,), or (N, K)
        each = losses.size // len(weights)
        weights = weights.astype(losses.dtype, copy=False)
        mass = outputs.backend.xp.maximum(weights.sum(), np.finfo(losses.dtype).tiny)
        shares = (weights / (mass * each)).reshape(len(weights), *[1] * (losses.ndim - 1))
        total_loss: Tensor = (losses * shares).sum()
        return total_loss

    return mean
