"""Clipping of gradients by their norm over all parameters."""

from __future__ import annotations

import numpy as np

from gpunn.arguments import in_range
from gpunn.backends import Elementwise
from gpunn.ops.elementwise_losses import SCALED
from gpunn.optim.flat import FlatParameters
from gpunn.typing import Array


def _norm_body(x: Array, norm: Array) -> None:
    flat = x.reshape(-1)
    norm += np.dot(flat, flat)


NORM = Elementwise(
    "norm",
    "x -> sum norm",
    numpy=_norm_body,
    cuda="norm = x * x;",
    once="norm = sqrt(norm);",
    numpy_once=lambda x, norm: np.sqrt(norm, out=norm),
)


def clip_factor(norm: float, limit: float) -> float:
    """What gradients of a norm are multiplied by; NaN where the norm is infinite or NaN."""
    return 1.0 + (norm - norm) if norm <= limit else limit / norm + (norm - norm)


CLIP_FACTOR_CUDA = """
__device__ inline T clip_factor(T norm, T limit) {  // NaN where the norm is not finite
  return (norm > limit ? limit / norm : T(1)) + (norm - norm);
}
"""


CLIP_FACTOR = Elementwise(
    "clip_factor",
    "norm, T limit -> factor",
    numpy=lambda norm, limit, factor: factor.fill(clip_factor(float(norm), limit)),
    cuda="factor = clip_factor(norm, limit);",
    preamble=CLIP_FACTOR_CUDA,
)


def global_norm(flat: FlatParameters) -> Array:
    """The Euclidean norm of all gradients together, a 0-d array of the device."""
    return flat.backend.launch(NORM, flat.grad)


def clip_by_global_norm(flat: FlatParameters, max_norm: float) -> Array:
    """Scale all gradients by one factor so that their global norm is at most `max_norm`.

    A norm that is not finite makes every gradient NaN, so that it does not pass unnoticed.

    Args:
        flat: the parameters, `optimizer.bound`.
        max_norm: above 0.

    Returns:
        The norm before clipping, a 0-d array of the device.

    Raises:
        ArgumentError: max_norm is not above 0.

    Reference:
        Pascanu et al. (2013).
    """
    b, norm = flat.backend, global_norm(flat)
    factor = b.launch(CLIP_FACTOR, norm, check_max_norm(max_norm))
    b.launch(SCALED, factor, flat.grad, 1.0, out=flat.grad)
    return norm


def check_max_norm(max_norm: float) -> float:
    """A limit on a norm, above 0.

    Raises:
        ArgumentError: it is none.
    """
    return in_range("max_norm", max_norm, float(np.finfo(np.float32).tiny))
