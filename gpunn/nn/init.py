"""Initial weights. Drawn on the host from counter-based bits, so every device starts the same."""

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
"""Takes the shape (D, H) of a weight and a draw of random bits; returns float64 weights."""

_undrawn: ContextVar[bool] = ContextVar("gpunn_undrawn", default=False)


@contextmanager
def undrawn() -> Iterator[None]:
    """Leave the weights of new layers 0 inside the block: a file is about to give them.

    Drawing takes several times the memory of the weights. No seed is used up.
    """
    token = _undrawn.set(True)
    try:
        with seeds_kept():
            yield
    finally:
        _undrawn.reset(token)


def initial(initializer: Initializer, shape: Shape, draw: Draw, b: Backend, dtype: DType) -> Array:
    """New weights on a device; zeros inside `undrawn`."""
    if _undrawn.get():
        return b.upload(np.broadcast_to(np.zeros((), dtype), shape))
    return b.upload(initializer(shape, draw).astype(dtype))


def _normal(shape: Shape, draw: Draw, deviation: float) -> np.ndarray[Any, Any]:
    return deviation * normal(shape, *draw.key, draw.call)


def _uniform(shape: Shape, draw: Draw, bound: float) -> np.ndarray[Any, Any]:
    return bound * (2.0 * uniform(shape, *draw.key, draw.call) - 1.0)


def he_normal(shape: Shape, draw: Draw) -> np.ndarray[Any, Any]:
    """Normal with variance 2 / D, for rectifiers (He et al. 2015)."""
    return _normal(shape, draw, sqrt(2.0 / shape[0]))


def he_uniform(shape: Shape, draw: Draw) -> np.ndarray[Any, Any]:
    """Uniform with variance 2 / D, for rectifiers (He et al. 2015)."""
    return _uniform(shape, draw, sqrt(6.0 / shape[0]))


def glorot_normal(shape: Shape, draw: Draw) -> np.ndarray[Any, Any]:
    """Normal with variance 2 / (D + H), for tanh and sigmoid (Glorot and Bengio 2010)."""
    return _normal(shape, draw, sqrt(2.0 / sum(shape)))


def glorot_uniform(shape: Shape, draw: Draw) -> np.ndarray[Any, Any]:
    """Uniform with variance 2 / (D + H), for tanh and sigmoid (Glorot and Bengio 2010)."""
    return _uniform(shape, draw, sqrt(6.0 / sum(shape)))


def lecun_normal(shape: Shape, draw: Draw) -> np.ndarray[Any, Any]:
    """Normal with variance 1 / D (LeCun et al. 1998)."""
    return _normal(shape, draw, sqrt(1.0 / shape[0]))


def lecun_uniform(shape: Shape, draw: Draw) -> np.ndarray[Any, Any]:
    """Uniform with variance 1 / D (LeCun et al. 1998)."""
    return _uniform(shape, draw, sqrt(3.0 / shape[0]))


def zeros(shape: Shape, draw: Draw) -> np.ndarray[Any, Any]:
    """All zeros, for biases; hidden weights that start equal stay equal."""
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
    """The initialiser of a name; for None, the one that suits the activation.

    An activation says it by its attribute `gain`: "he" (rectifiers) or "glorot". Functions without
    the attribute get Glorot's.

    Raises:
        UnknownNameError: no such name; the message lists the known ones.
    """
    if init is None:
        return lookup("gain", trait(activation, "gain", "glorot"), GAINS)
    if callable(init):
        return init
    return lookup("initializer", init, INITIALIZERS)
