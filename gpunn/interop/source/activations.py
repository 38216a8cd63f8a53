"""The formulas of activations as steps of a program: the CUDA bodies of their kernels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gpunn.backends import Elementwise
from gpunn.errors import ArgumentError
from gpunn.interop.source.language import formula, formula_of
from gpunn.interop.source.program import Program, Value
from gpunn.ops import exp, get_activation, log_softmax, softmax
from gpunn.ops.elementwise import Activation, opened

SUBTRACT = formula("subtract", "a, c", "y = a - c;")
MULTIPLY = formula("multiply", "a, c", "y = a * c;")
EXP = formula("exp_of", "x", "y = exp(x);")
LARGER = formula("larger", "a, c", "y = c > a || c != c ? c : a;")
"""The larger of two numbers. NaN stays."""
POWER = formula("power_of", "x, top", "y = exp_of_difference(x, top);")
INVERSE = formula("inverse", "x", "y = T(1) / x;")
HIT = formula("is_largest", "below", "y = T(below == T(0));")
OTHER = formula("other_power", "x, top", "y = x - top == T(0) ? T(0) : exp_of_difference(x, top);")
REST_OF_SUM = formula("rest_of_powers", "others, hits", "y = others + (hits - T(1));")
LOG_SHARE = formula("log_share", "below, rest", "y = below - log1p(rest);")


def softmax_of(program: Program, x: Value, place: str = "") -> Value:
    """Add the softmax of all elements, in the steps of its kernel."""
    top = program.fold(x, LARGER)
    powers = program.call(POWER, x, top)
    share = program.call(INVERSE, program.fold(powers))
    y = program.call(MULTIPLY, powers, share)
    program.chances.add(y.number)
    return y


def _log_softmax(program: Program, x: Value, place: str) -> Value:
    """Leave out one of the largest powers, which is 1, as the NumPy body does."""
    top = program.fold(x, LARGER)
    below = program.call(SUBTRACT, x, top)
    others = program.fold(program.call(OTHER, x, top))
    rest = program.call(REST_OF_SUM, others, program.fold(program.call(HIT, below)))
    return program.call(LOG_SHARE, below, rest)


ROWS: dict[Callable[..., Any], Callable[..., Value]] = {
    softmax: softmax_of,
    log_softmax: _log_softmax,
    exp: lambda program, x, place: program.call(EXP, x),
}
"""The conversions of functions that are no elementwise activations."""


def activated(
    program: Program, activation: str | Callable[..., Any], x: Value, place: str
) -> Value:
    """Add an activation, with the formula of its kernel.

    Raises:
        ArgumentError: the function is not an activation of gpunn's form.
    """
    function, options = opened(get_activation(activation))
    if function in ROWS:
        return ROWS[function](program, x, place)
    if not isinstance(function, Activation):
        raise ArgumentError(
            f"got the activation {activation!r} at {place or 'the top'}, which has no formula; "
            "expected a registered activation, or one of your own declared with "
            "gpunn.ops.Activation: use one of them"
        )
    if function.name == "identity":
        return x
    return element(program, function.kernel, x, {**function.options, **options})


def element(program: Program, kernel: Elementwise, x: Value, options: dict[str, float]) -> Value:
    """Add the formula of an elementwise kernel of one array, with the numbers of its options."""
    order = [p.name for p in kernel.inputs[1:]]
    return program.call(formula_of(kernel), x, *(float(options[name]) for name in order))
