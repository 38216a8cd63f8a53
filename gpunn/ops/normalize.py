"""Layer and batch normalisation."""

from __future__ import annotations

from typing import Any

from gpunn.autograd import op
from gpunn.autograd.engine import Backward
from gpunn.backends import Backend
from gpunn.errors import ShapeError
from gpunn.typing import Array


def _check(name: str, x: Array, gamma: Array, beta: Array) -> None:
    if x.ndim != 2 or gamma.shape != x.shape[1:] or beta.shape != x.shape[1:]:
        raise ShapeError(
            f"got x of shape {x.shape}, gamma {gamma.shape} and beta {beta.shape} in {name}; "
            "expected (N, D), (D,) and (D,): check the number of features"
        )


def _normalized(
    b: Backend, x: Array, gamma: Array, beta: Array, axis: int, eps: float
) -> tuple[Array, Array, Array, Backward]:
    """Take off the mean over `axis`, divide by the deviation, then scale and shift the features."""
    xp = b.xp
    mean = xp.mean(x, axis=axis, keepdims=True)
    centred = x - mean
    variance = xp.mean(centred * centred, axis=axis, keepdims=True)
    inverse = 1 / xp.sqrt(variance + eps)
    normal = centred * inverse

    def backward(gy: Array, needs: Any) -> tuple[Array, ...]:
        gn = gy * gamma
        along = xp.mean(gn * normal, axis=axis, keepdims=True)
        gx = (gn - xp.mean(gn, axis=axis, keepdims=True) - normal * along) * inverse
        return gx, xp.sum(gy * normal, axis=0), xp.sum(gy, axis=0)

    return normal * gamma + beta, mean, variance, backward


@op
def layer_norm(
    b: Backend, x: Array, gamma: Array, beta: Array, *, eps: float = 1e-5
) -> tuple[Array, Backward]:
    """Normalise every row to mean 0 and variance 1, then y = normal * gamma + beta.

    Args:
        x: (N, D).
        gamma: (D,).
        beta: (D,).
        eps: added to the variance.

    Gradient:
        gx = (gn - mean(gn) - normal mean(gn normal)) / deviation with gn = gy gamma.

    Reference:
        Ba et al. (2016).
    """
    _check("layer_norm", x, gamma, beta)
    y, _, _, backward = _normalized(b, x, gamma, beta, 1, eps)
    return y, backward


@op
def batch_norm(
    b: Backend,
    x: Array,
    gamma: Array,
    beta: Array,
    *,
    running_mean: Array,
    running_variance: Array,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> tuple[Array, Backward]:
    """Normalise every column over the batch, then y = normal * gamma + beta.

    The running mean and the running (unbiased) variance move by `momentum` towards the batch's;
    evaluation uses them in its place.

    Args:
        x: (N, D), N >= 2.
        gamma: (D,).
        beta: (D,).
        running_mean: (D,), changed in place.
        running_variance: (D,), changed in place.
        momentum: weight of this batch in the running values.
        eps: added to the variance.

    Raises:
        ShapeError: fewer than two rows have no variance.

    Gradient:
        As `layer_norm`, over the batch.

    Reference:
        Ioffe and Szegedy (2015).
    """
    _check("batch_norm", x, gamma, beta)
    if x.shape[0] < 2:
        raise ShapeError(
            f"got a batch of {x.shape[0]} rows in batch_norm; expected at least 2 in training: "
            "choose a batch size that leaves no single row over"
        )
    y, mean, variance, backward = _normalized(b, x, gamma, beta, 0, eps)
    running_mean += momentum * (mean[0] - running_mean)
    running_variance += momentum * (variance[0] * (len(x) / (len(x) - 1)) - running_variance)
    return y, backward
