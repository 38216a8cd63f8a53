"""Small data sets computed by formulas, for lectures and tests, the same on every machine."""

from __future__ import annotations

import numpy as np

from gpunn.arguments import count, in_range, is_number
from gpunn.backends.random import RandomStream, normal, uniform
from gpunn.data.dataset import Dataset
from gpunn.errors import ArgumentError

NOISE_STREAM, CENTER_STREAM, ANGLE_STREAM = 2**62 + 1, 2**62 + 2, 2**62 + 3
FEATURES = ("x", "y")


def xor() -> Dataset:
    """Return the four points of exclusive or, whose two classes no straight line separates.

    Returns:
        x (4, 2) of 0 and 1; y (4,).

    Reference:
        Minsky and Papert (1969), "Perceptrons".

    Example:
        >>> xor().y
        array([0, 1, 1, 0])
    """
    x = np.array([[0, 0], [0, 1], [1, 0], [1, 1]], np.float32)
    return Dataset(x, np.array([0, 1, 1, 0]), ("0", "1"), FEATURES, "xor")


PATTERNS = ("1111000000000000", "1010101000000000")


def shifted_patterns() -> Dataset:
    """Return two patterns of 16 pixels, four of them on, in all their 16 cyclic shifts.

    The mean over the shifts of a pattern is 1/4 in every pixel, for both patterns. Therefore no
    linear model can classify all 32 correctly. The lecture shows its two patterns only as a
    picture. Here pattern A has four neighbouring pixels on, and pattern B every second of seven.

    Returns:
        x (32, 16) of 0 and 1, the shifts of A and then those of B; y (32,), 0 for A and 1 for B.

    Reference:
        Lecture 003, "a more troubling example".

    Example:
        >>> shifted_patterns()
        Dataset('shifted patterns': 32 examples, 16 features, 2 classes)
    """
    rows = [np.roll([int(c) for c in pattern], k) for pattern in PATTERNS for k in range(16)]
    y = np.repeat(np.arange(2, dtype=np.int64), 16)
    return Dataset(np.array(rows, np.float32), y, ("A", "B"), name="shifted patterns")


def spirals(n: int = 300, classes: int = 3, noise: float = 0.2, seed: int = 0) -> Dataset:
    """Generate interleaved spiral arms in the plane, one for each class.

    Args:
        n: the number of points, at least one for each class.
        classes: C, the number of arms, at least 2.
        noise: the standard deviation of the angle, in radians.
        seed: 64-bit seed.

    Returns:
        x (n, 2) within the unit circle; y (n,), the classes in turn.

    Raises:
        ArgumentError: an argument is outside its range.

    Reference:
        Lang and Witbrock (1988), "Learning to tell two spirals apart"; with three arms in the
        course CS231n, "Putting it together: minimal neural network case study".

    Example:
        >>> spirals(90)
        Dataset('spirals': 90 examples, 2 features, 3 classes)
    """
    classes = count("classes", classes, 2)
    y = _labels(n, classes)
    radius = (np.arange(n) // classes + 1) / -(-n // classes)  # the same for each arm, up to 1
    angle = 2 * np.pi * y / classes + 4 * radius + _noise(noise, (n,), seed)
    x = radius[:, np.newaxis] * np.stack((np.sin(angle), np.cos(angle)), axis=1)
    return Dataset(x, y, _names(classes), FEATURES, "spirals")


def blobs(
    n: int = 300, classes: int = 3, features: int = 2, spread: float = 1.0, seed: int = 0
) -> Dataset:
    """Generate round clouds of normally distributed points around random centers.

    Args:
        n: the number of points, at least one for each class.
        classes: C, the number of clouds, at least 2.
        features: D, the number of dimensions, at least 1.
        spread: the standard deviation of a cloud along each dimension; centers lie in [-10, 10).
        seed: 64-bit seed.

    Returns:
        x (n, D); y (n,), the classes in turn.

    Raises:
        ArgumentError: an argument is outside its range.

    Example:
        >>> blobs(100, classes=4, features=5)
        Dataset('blobs': 100 examples, 5 features, 4 classes)
    """
    classes, features = count("classes", classes, 2), count("features", features)
    y = _labels(n, classes)
    centers = 20 * uniform((classes, features), RandomStream(seed).seed, CENTER_STREAM) - 10
    x = centers[y] + _noise(spread, (n, features), seed, "spread")
    return Dataset(x, y, _names(classes), name="blobs")


def circles(n: int = 300, noise: float = 0.05, factor: float = 0.5, seed: int = 0) -> Dataset:
    """Generate a circle inside another: the outer one is class 0, the inner one class 1.

    Args:
        n: the number of points, at least 2.
        noise: the standard deviation of the noise on each coordinate.
        factor: the radius of the inner circle, 0 < factor < 1; the outer one has radius 1.
        seed: 64-bit seed.

    Returns:
        x (n, 2); y (n,), the classes in turn.

    Raises:
        ArgumentError: an argument is outside its range.

    Example:
        >>> circles(50, noise=0)
        Dataset('circles': 50 examples, 2 features, 2 classes)
    """
    y = _labels(n, 2)
    if not is_number(factor) or not 0 < factor < 1:
        raise ArgumentError(f"got factor={factor!r}; expected 0 < factor < 1: pass e.g. factor=0.5")
    angle = 2 * np.pi * uniform((n,), RandomStream(seed).seed, ANGLE_STREAM)
    radius = np.where(y == 0, 1.0, factor)[:, np.newaxis]
    x = radius * np.stack((np.cos(angle), np.sin(angle)), axis=1) + _noise(noise, (n, 2), seed)
    return Dataset(x, y, ("outer", "inner"), FEATURES, "circles")


def _labels(n: int, classes: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Return the classes in turn, 0, 1, ..., C-1, 0, 1, ..., so that any prefix is balanced."""
    return np.arange(count("n", n, classes), dtype=np.int64) % classes


def _names(classes: int) -> tuple[str, ...]:
    return tuple(map(str, range(classes)))


def _noise(
    scale: float, shape: tuple[int, ...], seed: int, name: str = "noise"
) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    scale = in_range(name, scale, 0.0)
    return scale * normal(shape, RandomStream(seed).seed, NOISE_STREAM)
