"""Initial weights, drawn on the host from counter-based bits: the same numbers on every device."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from math import sqrt
from typing import Any

import numpy as np

from gpunn.arguments import lookup
from gpunn.backends import Backend
from gpunn.backends.random import Draw, normal, seeds_kept, uniform
from gpunn.ops.elementwise import trait
from gpunn.typing import Array, DType, Shape

Initializer = Callable[[Shape, Draw], "np.ndarray[Any, Any]"]
"""A function of the shape (D, H) of a weight and a draw of random bits; returns float64 weights."""

_undrawn: ContextVar[bool] = ContextVar("gpunn_undrawn", default=False)


@contextmanager
def undrawn() -> Iterator[None]:
    """Leave the weights of new layers 0 inside the block, because a file will give them.

    This saves time and memory: drawing takes several times the memory of the weights. New layers
    inside the block use up no seeds of `manual_seed`.
    """
    token = _undrawn.set(True)
    try:
        with seeds_kept():
            yield
    finally:
        _undrawn.reset(token)


def initial(initializer: Initializer, shape: Shape, draw: Draw, b: Backend, dtype: DType) -> Array:
    """Return new weights on a device; zeros inside `undrawn`."""
    if _undrawn.get():
        return b.upload(np.broadcast_to(np.zeros((), dtype), shape))
    return b.upload(initializer(shape, draw).astype(dtype))


def _normal(shape: Shape, draw: Draw, deviation: float) -> np.ndarray[Any, Any]:
    return deviation * normal(shape, *draw.key, draw.call)


def _uniform(shape: Shape, draw: Draw, bound: float) -> np.ndarray[Any, Any]:
    return bound * (2.0 * uniform(shape, *draw.key, draw.call) - 1.0)


def he_normal(shape: Shape, draw: Draw) -> np.ndarray[Any, Any]:
    """Return normal weights of variance 2 / D, for rectifiers (He et al. 2015)."""
    return _normal(shape, draw, sqrt(2.0 / shape[0]))


def he_uniform(shape: Shape, draw: Draw) -> np.ndarray[Any, Any]:
    """Return uniform weights of variance 2 / D, for rectifiers (He et al. 2015)."""
    return _uniform(shape, draw, sqrt(6.0 / shape[0]))


def glorot_normal(shape: Shape, draw: Draw) -> np.ndarray[Any, Any]:
    """Return normal weights of variance 2 / (D + H), for tanh, sigmoid (Glorot, Bengio 2010)."""
    return _normal(shape, draw, sqrt(2.0 / sum(shape)))


def glorot_uniform(shape: Shape, draw: Draw) -> np.ndarray[Any, Any]:
    """Return uniform weights of variance 2 / (D + H), for tanh, sigmoid (Glorot, Bengio 2010)."""
    return _uniform(shape, draw, sqrt(6.0 / sum(shape)))


def lecun_normal(shape: Shape, draw: Draw) -> np.ndarray[Any, Any]:
    """Return normal weights of variance 1 / D (LeCun et al. 1998)."""
    return _normal(shape, draw, sqrt(1.0 / shape[0]))


def lecun_uniform(shape: Shape, draw: Draw) -> np.ndarray[Any, Any]:
    """Return uniform weights of variance 1 / D (LeCun et al. 1998)."""
    return _uniform(shape, draw, sqrt(3.0 / shape[0]))


def zeros(shape: Shape, draw: Draw) -> np.ndarray[Any, Any]:
    """Return zeros, for biases. Hidden units that start with equal weights stay equal."""
    return np.zeros(shape)


INITIALIZERS: dict[str, Initializer] = {
    f.__name__: f
    for f in (
        he_normal,
        he_uniform,
        glorot_normal,
        glorot_uniform,
        lecun_normal,
        lecun_uniform,
        zeros,
    )
}

GAINS: dict[str, Initializer] = {"he": he_normal, "glorot": glorot_uniform}


def get_initializer(init: str | Initializer | None, activation: Callable[..., Any]) -> Initializer:
    """Return the initialiser of a name; for None, the one that suits the activation.

    The attribute `gain` of an activation is "he" (rectifiers) or "glorot". A function without the
    attribute gets Glorot's initialiser.

    Raises:
        UnknownNameError: there is no such name; the message lists the known ones.
    """
    if init is None:
        return lookup("gain", trait(activation, "gain", "glorot"), GAINS)
    if callable(init):
        return init
    return lookup("initializer", init, INITIALIZERS)
