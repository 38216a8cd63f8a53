"""Networks with weights written by hand, which show what networks can express.

Every function returns a `Sequential`. It can be trained further like any other network.
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
    """Build XOR from hard thresholds: h1 = x1 OR x2, h2 = x1 AND x2, y = h1 AND NOT h2.

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
    """Build any function of D bits from 2**D hard-threshold units, one for each configuration.

    Unit c has weights +1 where its configuration has a 1 and -1 where it has a 0, so only that
    configuration exceeds its threshold. The linear output adds the values of the function.

    Args:
        function: a function of D bits; or its 2**D values, the first bit being the highest.
        inputs: D, from 1 to 16.

    Raises:
        ArgumentError: D is outside its range, or the number of values is not 2**D.

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
            f"got {len(values)} values of a function of {inputs} bits; expected {len(bits)}: pass "
            "one for each configuration"
        )
    hidden = ((2 * bits - 1).T, 0.5 - bits.sum(axis=1), "hard_threshold")
    return _net(hidden, (np.array(values, float)[:, None], [0], "identity"), dtype, device)


def threshold_indicator(
    a: float, b: float, dtype: DType = "float64", device: DeviceLike = None
) -> Sequential:
    """Build the function 1 for a < x <= b, 0 elsewhere, as phi(x - a) - phi(x - b).

    phi is the hard threshold.

    Raises:
        ArgumentError: a is not below b.

    Reference:
        Lecture 003, "expressive power", with [1, 2].

    Example:
        >>> threshold_indicator(1, 2).predict([[0.9], [1.5], [2.1]]).ravel()
        array([0., 1., 0.])
    """
    if not a < b:
        raise ArgumentError(f"got a={a!r}, b={b!r}; expected a < b: exchange them")
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
    """Build a bump from four ReLUs: `height` on [a, b], with a linear ramp on either side.

    The bump is 0 outside (a - eps, b + eps).

    Args:
        a: the point where the top begins.
        b: the point where the top ends, b >= a.
        eps: the width of each ramp, above 0.
        height: the height of the top.

    Raises:
        ArgumentError: a is above b, or eps is not above 0.

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
    """Build a sum of bumps (a, b, height) with ramps of width eps, from four ReLUs each.

    Raises:
        ArgumentError: there are no bumps, one has b < a, or eps is not above 0.
    """
    if not bumps or any(a > b for a, b, _ in bumps) or not eps > 0:
        raise ArgumentError(
            f"got bumps {bumps!r}, eps={eps!r}; expected a <= b and eps > 0: pass [(a, b, height)]"
        )
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
    """Approximate a continuous function on [low, high] by a sum of K bumps.

    Each bump covers a K-th of the interval. Its height is the value of the function in the middle
    of its part. The ramps are a tenth of a part wide; between two tops they add up to a straight
    line. For a function with a bounded slope, the error falls like 1 / K.

    Args:
        function: a function of an array of points.
        low: the lower end of the interval.
        high: the upper end of the interval.
        bumps: K, at least 1; the network has 4 K hidden units.

    Raises:
        ArgumentError: low is not below high, or K is below 1.

    Reference:
        Lectures 001 and 003: f(x) = sum of K bumps.
    """
    if not low < high or bumps < 1:
        raise ArgumentError(
            f"got [{low}, {high}], bumps={bumps}; expected low < high and bumps >= 1: check them"
        )
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
