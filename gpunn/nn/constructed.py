"""Networks whose weights are written down, not learned: what networks can express.

Every function returns a `Sequential`; its weights can be trained on, like any others.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from gpunn.errors import ArgumentError
from gpunn.nn.containers import Sequential
from gpunn.nn.linear import Linear
from gpunn.typing import DeviceLike, DType


def _layer(weight: Any, bias: Any, activation: str, dtype: DType, device: DeviceLike) -> Linear:
    weight, bias = np.atleast_2d(np.asarray(weight, float)), np.atleast_1d(np.asarray(bias, float))
    features, units = weight.shape
    layer = Linear(features, units, activation, dtype=dtype, device=device)
    layer.load_state_dict({"weight": weight, "bias": bias})
    return layer


def _net(
    first: tuple[Any, Any, str],
    second: tuple[Any, Any, str],
    dtype: DType,
    device: DeviceLike,
) -> Sequential:
    return Sequential(_layer(*first, dtype, device), _layer(*second, dtype, device))


def xor(dtype: DType = "float64", device: DeviceLike = None) -> Sequential:
    """XOR of two bits by hard thresholds: h1 = x1 OR x2, h2 = x1 AND x2, y = h1 AND NOT h2.

    Reference:
        Lecture 003, "designing a network to classify XOR".

    Example:
        >>> xor().predict([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]]).ravel()
        array([0., 1., 1., 0.])
    """
    step = "hard_threshold"
    hidden = ([[1, 1], [1, 1]], [-0.5, -1.5], step)
    return _net(hidden, ([[1], [-1]], [-0.5], step), dtype, device)


def boolean(
    function: Callable[..., bool] | Sequence[bool],
    inputs: int,
    dtype: DType = "float64",
    device: DeviceLike = None,
) -> Sequential:
    """Any function of D bits, by 2**D hard-threshold units, one for each configuration.

    Unit c has weights +1 where its configuration has a 1 and -1 where it has a 0, so only that
    configuration exceeds its threshold; the linear output adds the function's values.

    Args:
        function: of D bits; or its 2**D values, the first bit being the highest.
        inputs: D, from 1 to 16.

    Raises:
        ArgumentError: D outside its range, or another number of values than 2**D.

    Reference:
        Lecture 003, "universality for binary inputs and targets".

    Example:
        >>> majority = boolean(lambda a, b, c: a + b + c >= 2, 3)
        >>> majority.predict([[1.0, 0.0, 1.0], [0.0, 0.0, 1.0]]).ravel()
        array([1., 0.])
    """
    if not 1 <= inputs <= 16:
        raise ArgumentError(f"got inputs={inputs!r}; expected 1 to 16: the network has 2**D units")
    bits = np.array(list(itertools.product((0, 1), repeat=inputs)))  # (2**D, D)
    values = [function(*row) for row in bits.tolist()] if callable(function) else list(function)
    if len(values) != len(bits):
        raise ArgumentError(
            f"got {len(values)} values of a function of {inputs} bits; expected {len(bits)}"
        )
    hidden = ((2 * bits - 1).T, 0.5 - bits.sum(axis=1), "hard_threshold")
    return _net(hidden, (np.array(values, float)[:, None], [0], "identity"), dtype, device)


def threshold_indicator(
    a: float, b: float, dtype: DType = "float64", device: DeviceLike = None
) -> Sequential:
    """1 for a < x <= b and 0 elsewhere, by two hard thresholds: phi(x - a) - phi(x - b).

    Raises:
        ArgumentError: not a < b.

    Reference:
        Lecture 003, "expressive power", with [1, 2].

    Example:
        >>> threshold_indicator(1, 2).predict([[0.9], [1.5], [2.1]]).ravel()
        array([0., 1., 0.])
    """
    if not a < b:
        raise ArgumentError(f"got a={a!r}, b={b!r}; expected a < b")
    hidden = ([[1, 1]], [-a, -b], "hard_threshold")
    return _net(hidden, ([[1], [-1]], [0], "identity"), dtype, device)


def relu_bump(
    a: float,
    b: float,
    eps: float,
    height: float = 1.0,
    dtype: DType = "float64",
    device: DeviceLike = None,
) -> Sequential:
    """A bump of four ReLUs: `height` on [a, b], 0 outside (a - eps, b + eps), linear between.

    Args:
        a: where the bump's top begins.
        b: where it ends, b >= a.
        eps: width of each ramp, above 0.
        height: of the top.

    Raises:
        ArgumentError: not a <= b, or not eps > 0.

    Reference:
        Lecture 001, "neural networks as universal approximation".

    Example:
        >>> relu_bump(1, 2, 0.5).predict([[0.5], [0.75], [1.5], [2.5]]).ravel()
        array([0. , 0.5, 1. , 0. ])
    """
    return relu_bumps([(a, b, height)], eps, dtype, device)


def relu_bumps(
    bumps: Sequence[tuple[float, float, float]],
    eps: float,
    dtype: DType = "float64",
    device: DeviceLike = None,
) -> Sequential:
    """A sum of bumps (a, b, height) with ramps of width eps: four ReLUs each.

    Raises:
        ArgumentError: no bumps, one with b < a, or not eps > 0.
    """
    if not bumps or any(a > b for a, b, _ in bumps) or not eps > 0:
        raise ArgumentError(f"got bumps {bumps!r}, eps={eps!r}; expected a <= b and eps > 0")
    kinks = np.array([(a - eps, a, b, b + eps) for a, b, _ in bumps]).ravel()
    slopes = np.array([np.array([1, -1, -1, 1]) * height / eps for *_, height in bumps]).ravel()
    hidden = (np.ones((1, len(kinks))), -kinks, "relu")
    return _net(hidden, (slopes[:, None], [0], "identity"), dtype, device)


def approximation(
    function: Callable[[np.ndarray[Any, Any]], Any],
    low: float,
    high: float,
    bumps: int,
    dtype: DType = "float64",
    device: DeviceLike = None,
) -> Sequential:
    """A continuous function on [low, high] as a sum of K bumps, each a K-th of the interval wide.

    Bump k has the function's value in the middle of its part of the interval. Between two tops the
    ramps, a tenth of a part wide, cross over: they add up to a straight line from one to the next.
    The error falls like 1 / K for a function with a bounded slope.

    Args:
        function: of an array of points.
        low: the interval's lower end.
        high: its upper end.
        bumps: K, at least 1; the network has 4 K hidden units.

    Raises:
        ArgumentError: not low < high, or K below 1.

    Reference:
        Lectures 001 and 003: f(x) = sum of K bumps.
    """
    if not low < high or bumps < 1:
        raise ArgumentError(f"got [{low}, {high}], bumps={bumps}; expected low < high, K >= 1")
    edges = np.linspace(low, high, bumps + 1)
    ramp = (high - low) / bumps / 10
    heights = np.asarray(function((edges[:-1] + edges[1:]) / 2), float)
    tops = [
        (a + ramp / 2, b - ramp / 2, h)
        for a, b, h in zip(edges[:-1], edges[1:], heights, strict=True)
    ]
    tops[0] = (low, *tops[0][1:])
    tops[-1] = (tops[-1][0], high, tops[-1][2])
    return relu_bumps(tops, ramp, dtype, device)
