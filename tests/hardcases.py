"""Numerically hard inputs for every operation, with exact results of mpmath.

A row has the exact value and the exact slope of an operation, as functions of mpmath numbers. The
error is measured in ulp of the exact result. Where the docstring of an operation says that its
terms cancel, a row has the size of these terms, and the error is measured in ulp of it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import mpmath as mp
import numpy as np

FAR = mp.mpf(10) ** 60
"""What stands for infinity in an exact formula: beyond the largest float32."""

NUMBERS = [0.0, 1e-45, 1e-40, 1.3e-38, 1e-20, 1e-7, 3e-4, 0.1, 0.5, 0.7517916, 1.0, 1.9, 2.3, 4.4]
NUMBERS += [5.0, 7.77, 9.0, 10.4, 12.7, 16.6, 20.0, 37.3, 40.0, 60.1, 80.0, 87.3, 88.9, 95.0, 103.0]
NUMBERS += [1e4, 1e10, 3e19, 3.4e38]


def numbers(dtype: str) -> np.ndarray:
    """Hard numbers of both signs that the dtype has, and random ones."""
    with np.errstate(over="ignore"):
        hard = np.array(NUMBERS).astype(dtype)
    hard = hard[np.isfinite(hard)]
    random = np.random.default_rng(0).standard_normal(60) * np.geomspace(1e-3, 90, 60)
    return np.concatenate([hard, -hard, random.astype(dtype)]).astype(dtype)


@dataclass(frozen=True)
class Elementwise:
    """An operation on single numbers: exact value and slope, and the sizes of terms that cancel."""

    value: Callable[[mp.mpf], mp.mpf]
    slope: Callable[[mp.mpf], mp.mpf] | None
    value_size: Callable[[mp.mpf], mp.mpf] = lambda x: mp.mpf(0)
    slope_size: Callable[[mp.mpf], mp.mpf] = lambda x: mp.mpf(0)
    domain: Callable[[np.ndarray], np.ndarray] = lambda x: np.isfinite(x)
    infinite: bool = True
    """Whether the limits at both infinities are its values there."""


def one(x):
    return mp.mpf(1)


def sigmoid(x):
    return 1 / (1 + mp.exp(-x)) if x > 0 else mp.exp(x) / (1 + mp.exp(x))


def phi(x):
    return mp.exp(-x * x / 2) / mp.sqrt(2 * mp.pi)


def cdf(x):
    return mp.erfc(-x / mp.sqrt(2)) / 2


SLOPE = mp.mpf(1.702)


def gate(x):
    return sigmoid(SLOPE * x)


def bent(x):
    """2 u of the tanh form of GELU, x * sigmoid(2 u)."""
    return 2 * mp.sqrt(2 / mp.pi) * (x + mp.mpf("0.044715") * x**3)


def bent_slope(x):
    return 2 * mp.sqrt(2 / mp.pi) * (1 + 3 * mp.mpf("0.044715") * x**2)


def tail(x):
    """The size of terms in which a subnormal number is multiplied by x."""
    return abs(x) * mp.mpf(float(np.finfo(np.float32).tiny)) if x < -1 else mp.mpf(0)


def softplus(x):
    return mp.log1p(mp.exp(x)) if x < 0 else x + mp.log1p(mp.exp(-x))


LAMBDA, ALPHA = mp.mpf(1.0507009873554805), mp.mpf(1.6732632423543772)


def curve(x):
    return mp.tanh(softplus(x))


def step(x):
    return mp.mpf(x > 0)


SIGMOID = Elementwise(sigmoid, lambda x: sigmoid(x) * sigmoid(-x), slope_size=one)
RELU = Elementwise(lambda x: max(x, mp.mpf(0)), step)

ELEMENTWISE = {
    "sigmoid": SIGMOID,
    "logistic": SIGMOID,
    "tanh": Elementwise(mp.tanh, lambda x: mp.sech(x) ** 2, slope_size=lambda x: mp.mpf(2)),
    "relu": RELU,
    "relu_right": Elementwise(RELU.value, lambda x: mp.mpf(x >= 0)),
    "leaky_relu": Elementwise(
        lambda x: x if x > 0 else x * mp.mpf("0.1"), lambda x: mp.mpf(1 if x > 0 else "0.1")
    ),
    "elu": Elementwise(
        lambda x: x if x > 0 else mp.expm1(x),
        lambda x: mp.mpf(1) if x > 0 else mp.exp(x),
        slope_size=one,
    ),
    "gelu": Elementwise(
        lambda x: x * cdf(x),
        lambda x: cdf(x) + x * phi(x),
        value_size=tail,
        slope_size=lambda x: cdf(x) + abs(x) * phi(x) + tail(x),
    ),
    "gelu_sigmoid": Elementwise(
        lambda x: x * gate(x),
        lambda x: gate(x) * (1 + SLOPE * x * gate(-x)),
        value_size=tail,
        slope_size=lambda x: gate(x) * (1 + SLOPE * abs(x) * gate(-x)) + tail(x),
    ),
    "gelu_tanh": Elementwise(
        lambda x: x * sigmoid(bent(x)),
        lambda x: sigmoid(bent(x)) * (1 + x * bent_slope(x) * sigmoid(-bent(x))),
        value_size=tail,
        slope_size=lambda x: (
            sigmoid(bent(x)) * (1 + abs(x) * bent_slope(x) * sigmoid(-bent(x))) + tail(x)
        ),
    ),
    "relu6": Elementwise(lambda x: min(max(x, mp.mpf(0)), mp.mpf(6)), lambda x: mp.mpf(0 < x < 6)),
    "hardswish": Elementwise(
        lambda x: x * min(max(x + 3, mp.mpf(0)), mp.mpf(6)) / 6,
        lambda x: mp.mpf(0) if x <= -3 else one(x) if x >= 3 else x / 3 + mp.mpf("0.5"),
        slope_size=one,
    ),
    "selu": Elementwise(
        lambda x: LAMBDA * (x if x > 0 else ALPHA * mp.expm1(x)),
        lambda x: LAMBDA * (mp.mpf(1) if x > 0 else ALPHA * mp.exp(x)),
        slope_size=lambda x: 2 * one(x),
    ),
    "softplus": Elementwise(softplus, sigmoid),
    "silu": Elementwise(
        lambda x: x * sigmoid(x),
        lambda x: sigmoid(x) * (1 + x * sigmoid(-x)),
        value_size=tail,
        slope_size=lambda x: sigmoid(x) * (1 + abs(x) * sigmoid(-x)) + tail(x),
    ),
    "mish": Elementwise(
        lambda x: x * curve(x),
        lambda x: curve(x) + x * (1 - curve(x) ** 2) * sigmoid(x),
        value_size=tail,
        slope_size=lambda x: curve(x) + abs(x) * (1 - curve(x) ** 2) * sigmoid(x) + tail(x),
    ),
    "hard_threshold": Elementwise(step, None),
    "identity": Elementwise(lambda x: x, one),
    "negative": Elementwise(lambda x: -x, lambda x: -one(x)),
    "exp": Elementwise(mp.exp, mp.exp),
    "log": Elementwise(mp.log, lambda x: 1 / x, domain=lambda x: x > 0, infinite=False),
    "sin": Elementwise(mp.sin, mp.cos, infinite=False),
    "cos": Elementwise(mp.cos, lambda x: -mp.sin(x), infinite=False),
    "sqrt": Elementwise(
        mp.sqrt, lambda x: 1 / (2 * mp.sqrt(x)), domain=lambda x: x > 0, infinite=False
    ),
    "abs": Elementwise(abs, mp.sign),
    "smooth_clip": Elementwise(
        lambda x: x / mp.sqrt(1 + (x / 3) ** 2), lambda x: (1 + (x / 3) ** 2) ** mp.mpf("-1.5")
    ),
    "power": Elementwise(lambda x: x**3, lambda x: 3 * x**2),
}


@dataclass(frozen=True)
class Pairs:
    """A loss of pairs: exact value and slope, sizes of terms that cancel, and its targets."""

    value: Callable[[mp.mpf, mp.mpf], mp.mpf]
    slope: Callable[[mp.mpf, mp.mpf], mp.mpf]
    targets: tuple[float, ...] = (0.0, 1.0, 0.1, -3.7, 1e4, 1e-3)
    value_size: Callable[[mp.mpf, mp.mpf], mp.mpf] = lambda p, t: mp.mpf(0)
    slope_size: Callable[[mp.mpf, mp.mpf], mp.mpf] = lambda p, t: mp.mpf(0)
    domain: Callable[[np.ndarray], np.ndarray] = lambda p: np.isfinite(p)
    options: tuple[tuple[str, float], ...] = ()


def between(t):
    return mp.mpf(0 < t < 1)


def huber(p, t):
    d = abs(p - t)
    return d * d / 2 if d < 1 else d - mp.mpf("0.5")


def pinball(q):
    return Pairs(
        lambda p, t: q * (t - p) if p < t else (1 - q) * (p - t),
        lambda p, t: -q if p < t else 1 - q if p > t else mp.mpf(0),
        options=(("quantile", float(q)),),
    )


def cut(value):
    """The probability that binary_cross_entropy computes with in float32 and float16."""

    def clipped(p, t):
        tiny = mp.mpf(float(np.finfo(np.float32).eps)) / 2
        return value(min(max(p, tiny), 1 - tiny), t)

    return clipped


UNIT = (0.0, 1.0, 0.25, 0.9)
PAIRS = {
    "squared_error": Pairs(lambda p, t: (p - t) ** 2, lambda p, t: 2 * (p - t)),
    "half_squared_error": Pairs(lambda p, t: (p - t) ** 2 / 2, lambda p, t: p - t),
    "absolute_error": Pairs(lambda p, t: abs(p - t), lambda p, t: mp.sign(p - t)),
    "huber": Pairs(huber, lambda p, t: min(max(p - t, mp.mpf(-1)), mp.mpf(1))),
    "quantile_error": pinball(mp.mpf(0.5)),
    "quantile_error/0.95": pinball(mp.mpf(0.95)),
    "quantile_error/0.001": pinball(mp.mpf(0.001)),
    "perceptron": Pairs(
        lambda p, t: max(-p * t, mp.mpf(0)), lambda p, t: -t if p * t < 0 else mp.mpf(0), (-1, 1)
    ),
    "hinge": Pairs(
        lambda p, t: max(1 - p * t, mp.mpf(0)),
        lambda p, t: -t if p * t < 1 else mp.mpf(0),
        (-1, 1),
    ),
    "binary_cross_entropy_with_logits": Pairs(
        lambda p, t: (1 - t) * softplus(p) + t * softplus(-p),
        lambda p, t: (1 - t) * sigmoid(p) - t * sigmoid(-p),
        UNIT,
        slope_size=lambda p, t: between(t) * ((1 - t) * sigmoid(p) + t * sigmoid(-p)),
    ),
    "binary_cross_entropy": Pairs(
        cut(lambda p, t: -t * mp.log(p) - (1 - t) * mp.log1p(-p)),
        cut(lambda p, t: (p - t) / (p * (1 - p))),
        UNIT,
        slope_size=cut(lambda p, t: between(t) * (p + t) / (p * (1 - p))),
        domain=lambda p: (p >= 0) & (p <= 1),
    ),
    "kullback_leibler": Pairs(
        lambda p, t: t * (mp.log(t) - p) if t else mp.mpf(0),
        lambda p, t: -t,
        UNIT,
        value_size=lambda p, t: t * (abs(mp.log(t)) + abs(p)) if t else mp.mpf(0),
    ),
    "kullback_leibler/log": Pairs(
        lambda p, t: mp.exp(t) * (t - p),
        lambda p, t: -mp.exp(t),
        (0.0, -0.7, -20.0, -1e4),
        value_size=lambda p, t: mp.exp(t) * (1 + abs(t)) * (abs(t) + abs(p)),
        options=(("log_target", True),),
    ),
    "poisson_error": Pairs(
        lambda p, t: mp.exp(p) - t * p + (t * mp.log(t) - t if t else 0),
        lambda p, t: mp.exp(p) - t,
        (0.0, 1.0, 7.0, 1e4),
        value_size=lambda p, t: mp.exp(p) + t * abs(p) + (t * abs(mp.log(t)) + t if t else 0),
        slope_size=lambda p, t: mp.exp(p) + t,
    ),
}

ROWS = {
    "ordinary": [[0.3, -1.2, 2.2, 0.0], [5.5, 5.5, 5.5, 5.5]],
    "one sure class": [[50.0, 35.0, 0.0, -20.0], [84.36084, 80.99874, 0.1234567, -3.3]],
    "a large offset": [[1e4, 9995.0, 9990.0, 9999.0], [1e7, 1e7, 1e7 - 3, 1e7 - 20]],
    "digits that differ": [[0.1234567, 15.678901, -44.44444, 8.7654321], [0.1, -80.3, 3.3, -61.7]],
    "far apart": [[3e38, 3e38, -3e38, 0.0], [-1e30, -1e30, -1e30, 1e5]],
    "subnormal": [[1e-40, -1e-40, 1e-45, 0.0], [-103.0, 0.0, -95.0, -88.0]],
    "infinite": [[0.0, -np.inf, 1.0, -np.inf], [2.0, 2.0, -np.inf, -60.0]],
    "equal": [[100.1] * 4, [-2023.7] * 4],
    "margins": [[0.1, 1.05, 0.25, -3.33], [1000.05, 1001.1, 1000.2, 999.0]],
}
"""Rows of scores or features. Each column is the right class of some row."""

SUMS = {
    "constant": lambda n: np.full(n, 0.1),
    "offset": lambda n: 2023.7 + np.linspace(0, 1, n),
    "cancels": lambda n: np.where(np.arange(n) % 2, -1e4, 1e4) + np.linspace(0, 1, n),
    "one is large": lambda n: np.where(np.arange(n) == 1, 1e4, 0.01),
    "subnormal": lambda n: np.full(n, 3e-41),
    "random": lambda n: np.random.default_rng(n).standard_normal(n),
    "infinite": lambda n: np.where(np.arange(n) == n // 2, np.inf, 1.0),
}
"""Numbers to add up."""


def exact(x) -> mp.mpf:
    """A float as a number of mpmath; an infinite one as one that is beyond all floats."""
    x = float(x)
    return mp.mpf(x) if np.isfinite(x) else mp.sign(mp.mpf(x)) * FAR


def ulps(found, wanted: mp.mpf, size: mp.mpf, dtype: str) -> float:
    """The distance of a result from the exact one, in ulp of it or of the terms that cancel."""
    kind = np.finfo(dtype)
    largest = mp.mpf(float(kind.max)) * (1 + mp.mpf(float(kind.eps)) / 4)
    if abs(wanted) > largest:
        return 0.0 if np.isinf(found) and mp.sign(wanted) == np.sign(found) else np.inf
    if not np.isfinite(found):  # one that rounds to infinity may do so
        near = abs(wanted) > largest * (1 - 4 * mp.mpf(float(kind.eps)))
        return 0.0 if near and mp.sign(wanted) == np.sign(found) else np.inf
    top = min(max(abs(wanted), size), largest)
    exponent = mp.floor(mp.log(top, 2)) if top else mp.mpf(-2000)
    lowest = mp.mpf(float(kind.smallest_subnormal))
    unit = max(mp.mpf(2) ** exponent * mp.mpf(float(kind.eps)), lowest)
    return float(abs(mp.mpf(float(found)) - wanted) / unit)
