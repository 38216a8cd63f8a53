"""Arithmetic with broadcasting, between tensors, arrays of the same device and numbers."""

from __future__ import annotations

from math import inf
from typing import Any

import numpy as np

from gpunn.arguments import is_number
from gpunn.autograd import op, product_of
from gpunn.autograd.engine import Backward
from gpunn.backends import Backend
from gpunn.errors import ArgumentError, DTypeError, ShapeError
from gpunn.ops.elementwise import check_floats
from gpunn.ops.reductions import summed
from gpunn.typing import Array, Shape


def unbroadcast(b: Backend, g: Array, shape: Shape) -> Array:
    """Sum a gradient over the axes that broadcasting added or stretched."""
    if g.shape == shape:
        return g
    added = g.ndim - len(shape)
    stretched = (a for a in range(added, g.ndim) if shape[a - added] == 1 and g.shape[a] != 1)
    return b.cast(summed(b, g, (*range(added), *stretched)).reshape(shape), g.dtype)


def _check(name: str, x: Any, y: Any) -> None:
    for number, other in ((x, y), (y, x)):
        if not hasattr(number, "dtype"):
            _check_number(name, number, other.dtype)
    dtypes = [value.dtype for value in (x, y) if hasattr(value, "dtype")]
    if len(dtypes) == 2 and dtypes[0] != dtypes[1]:
        raise DTypeError(
            f"got {dtypes[0]} and {dtypes[1]} in {name}; expected one dtype: convert one of them "
            "with astype; gpunn promotes no dtype by itself"
        )
    shapes = [tuple(getattr(value, "shape", ())) for value in (x, y)]
    try:
        np.broadcast_shapes(*shapes)
    except ValueError as error:
        raise ShapeError(
            f"got shapes {shapes[0]} and {shapes[1]} in {name}; expected shapes that broadcast: "
            "reshape one of them"
        ) from error


def _check_number(name: str, number: Any, dtype: Any) -> None:
    """Check that a number can be combined with an array of a dtype.

    Raises:
        DTypeError: it is no number, or a finite number that the dtype does not have.
    """
    if not is_number(number):
        raise DTypeError(
            f"got {number!r} in {name}; expected a tensor, an array or a number: convert it"
        )
    kind = np.dtype(dtype)
    if kind.kind in "iu":
        limits = np.iinfo(kind)
        fits = not isinstance(number, int) or limits.min <= number <= limits.max
    else:
        fits = kind.kind != "f" or not float(np.finfo(kind).max) < abs(number) < inf
    if not fits:
        raise DTypeError(
            f"got the number {number!r} beside {kind} in {name}; expected one that {kind} can "
            "represent: convert the array with astype"
        )


@op
def add(b: Backend, x: Any, y: Any) -> tuple[Array, Backward]:
    """x + y, element by element.

    Gradient:
        g for x and for y, summed over broadcast axes.
    """
    _check("add", x, y)

    def backward(g: Array, needs: Any) -> tuple[Any, ...]:
        return (
            unbroadcast(b, g, x.shape) if needs[0] else None,
            unbroadcast(b, g, y.shape) if needs[1] else None,
        )

    return b.xp.add(x, y), backward


@op
def subtract(b: Backend, x: Any, y: Any) -> tuple[Array, Backward]:
    """x - y, element by element.

    Gradient:
        g for x and -g for y, summed over broadcast axes.
    """
    _check("subtract", x, y)

    def backward(g: Array, needs: Any) -> tuple[Any, ...]:
        return (
            unbroadcast(b, g, x.shape) if needs[0] else None,
            unbroadcast(b, b.xp.negative(g), y.shape) if needs[1] else None,
        )

    return b.xp.subtract(x, y), backward


@op
def multiply(b: Backend, x: Any, y: Any) -> tuple[Array, Backward]:
    """x * y, element by element.

    Gradient:
        g y for x and g x for y, summed over broadcast axes.
    """
    _check("multiply", x, y)

    def backward(g: Array, needs: Any) -> tuple[Any, ...]:
        return (
            unbroadcast(b, b.xp.multiply(g, y), x.shape) if needs[0] else None,
            unbroadcast(b, b.xp.multiply(g, x), y.shape) if needs[1] else None,
        )

    return b.xp.multiply(x, y), backward


@op
def divide(b: Backend, x: Any, y: Any) -> tuple[Array, Backward]:
    """x / y, element by element.

    Gradient:
        g / y for x and -g x / y**2 for y, summed over broadcast axes.
    """
    _check("divide", x, y)
    check_floats("divide", x if hasattr(x, "dtype") else y)
    quotient = b.xp.divide(x, y)

    def slope(g: Array) -> Array:
        gy: Array = b.xp.divide(b.xp.multiply(b.xp.negative(g), quotient), y)
        return gy

    def backward(g: Array, needs: Any) -> tuple[Any, ...]:
        return (
            unbroadcast(b, b.xp.divide(g, y), x.shape) if needs[0] else None,
            unbroadcast(b, slope(g), y.shape) if needs[1] else None,
        )

    return quotient, backward


@op
def negative(b: Backend, x: Array) -> tuple[Array, Backward]:
    """-x, element by element.

    Gradient:
        -gy.
    """
    return b.xp.negative(x), lambda gy, needs: (b.xp.negative(gy),)


@op
def power(b: Backend, x: Array, exponent: float) -> tuple[Array, Backward]:
    """x ** exponent, element by element; the exponent is a number.

    Gradient:
        gy * exponent * x ** (exponent - 1).
    """
    if not is_number(exponent):
        raise ArgumentError(
            f"got an exponent of type {type(exponent).__name__}; expected a number: write "
            "exp(y * log(x)) for a tensor"
        )
    if isinstance(exponent, float) or exponent < 0:
        check_floats("power", x)

    def backward(gy: Array, needs: Any) -> tuple[Any, ...]:
        if exponent == 0:  # x ** -1 would be infinite at 0
            return b.zeros(gy.shape, gy.dtype), None
        return b.xp.multiply(gy, b.xp.multiply(exponent, b.xp.power(x, exponent - 1))), None

    return b.xp.power(x, exponent), backward


@op
def exp(b: Backend, x: Array) -> tuple[Array, Backward]:
    """e ** x, element by element.

    Gradient:
        gy * y.
    """
    check_floats("exp", x)
    y = b.xp.exp(x)
    return y, lambda gy, needs: (b.xp.multiply(gy, y),)


@op
def log(b: Backend, x: Array) -> tuple[Array, Backward]:
    """Return the natural logarithm of each element.

    Gradient:
        gy / x.
    """
    check_floats("log", x)
    return b.xp.log(x), lambda gy, needs: (b.xp.divide(gy, x),)


@op
def sin(b: Backend, x: Array) -> tuple[Array, Backward]:
    """Return the sine of each element, an angle in radians.

    Gradient:
        gy * cos(x).
    """
    check_floats("sin", x)
    return b.xp.sin(x), lambda gy, needs: (b.xp.multiply(gy, b.xp.cos(x)),)


@op
def cos(b: Backend, x: Array) -> tuple[Array, Backward]:
    """Return the cosine of each element, an angle in radians.

    Gradient:
        -gy * sin(x).
    """
    check_floats("cos", x)
    return b.xp.cos(x), lambda gy, needs: (b.xp.multiply(b.xp.negative(gy), b.xp.sin(x)),)


@op
def sqrt(b: Backend, x: Array) -> tuple[Array, Backward]:
    """Return the square root of each element.

    Gradient:
        gy / (2 y).
    """
    check_floats("sqrt", x)
    y = b.xp.sqrt(x)
    return y, lambda gy, needs: (b.xp.divide(gy, b.xp.multiply(2, y)),)


@op
def abs_(b: Backend, x: Array) -> tuple[Array, Backward]:
    """|x|, element by element.

    Gradient:
        gy * sign(x), which is 0 at 0.
    """
    return b.xp.abs(x), lambda gy, needs: (b.xp.multiply(gy, b.xp.sign(x)),)


@op
def matmul(b: Backend, x: Array, y: Array) -> tuple[Array, Backward]:
    """x @ y, the matrix product of (N, K) and (K, M).

    Gradient:
        g y' for x and x' g for y. (Lecture 000 prints A' in place of B' for A = B C.)

    Numerics:
        The products of an element are added up in the order of k, or as BLAS adds them: an error is
        up to K eps / 2 times the sum of their sizes.
    """
    if x.ndim != 2 or y.ndim != 2:
        raise ShapeError(
            f"got shapes {x.shape} and {y.shape} in matmul; expected two 2-D arrays: reshape them"
        )
    if x.dtype != y.dtype:
        raise DTypeError(f"got {x.dtype} and {y.dtype} in matmul; expected one dtype: use astype")

    def backward(g: Array, needs: Any) -> tuple[Any, ...]:
        return (
            product_of(b, g, y.T, needs[0]) if needs[0] else None,
            product_of(b, x.T, g, needs[1]) if needs[1] else None,
        )

    return b.matmul(x, y), backward
