"""Clipping of gradients by their norm over all parameters."""

from __future__ import annotations

import numpy as np

from gpunn.backends import Elementwise
from gpunn.optim.flat import FlatParameters
from gpunn.optim.optimizer import in_range
from gpunn.typing import Array

SHRINK = Elementwise(
    "shrink",
    "norm, T limit -> g",
    numpy=lambda norm, limit, g: np.multiply(g, min(1.0, limit / max(float(norm), limit)), out=g),
    cuda="g = norm > limit ? T(g * (limit / norm)) : g;",
)


def global_norm(flat: FlatParameters) -> Array:
    """The Euclidean norm of all gradients together, a 0-d array of the device."""
    xp = flat.backend.xp
    return xp.sqrt(xp.asarray(xp.dot(flat.grad, flat.grad)))


def clip_by_global_norm(flat: FlatParameters, max_norm: float) -> Array:
    """Scale all gradients by one factor so that their global norm is at most `max_norm`.

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
    limit = in_range("max_norm", max_norm, float(np.finfo(np.float32).tiny))
    norm = global_norm(flat)
    flat.backend.launch(SHRINK, norm, limit, out=flat.grad)
    return norm
