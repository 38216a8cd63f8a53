"""Convert activations to ONNX operators."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from gpunn.errors import ArgumentError
from gpunn.interop.onnx_draft import Draft, Value
from gpunn.ops import (
    elu,
    exp,
    gelu,
    gelu_sigmoid,
    gelu_tanh,
    get_activation,
    hard_threshold,
    hardswish,
    identity,
    leaky_relu,
    log_softmax,
    mish,
    relu,
    relu6,
    relu_right,
    selu,
    sigmoid,
    silu,
    softmax,
    softplus,
    tanh,
)
from gpunn.ops.elementwise import Activation, opened


def _one(kind: str, **attributes: Any) -> Callable[..., Value]:
    """Return the conversion of an activation that is one ONNX operator."""
    return lambda draft, x, place: draft.apply(kind, x, place=place, **attributes)


def _with_alpha(kind: str, activation: Activation) -> Callable[..., Value]:
    """Return the conversion of an activation that is one operator with the option alpha."""

    def draw(draft: Draft, x: Value, place: str, **chosen: float) -> Value:
        (alpha,) = {**activation.options, **chosen}.values()
        return draft.apply(kind, x, place=place, alpha=alpha)

    return draw


def _gelu(draft: Draft, x: Value, place: str) -> Value:
    """x * (1 + erf(x / sqrt(2))) / 2, in the order of operators that runtimes recognise."""
    scaled = draft.apply("Div", x, draft.floats(2**0.5, f"{place}.sqrt_2"), place=place)
    error = draft.apply("Erf", scaled, place=place)
    raised = draft.apply("Add", error, draft.floats(1, f"{place}.one"), place=place)
    product = draft.apply("Mul", x, raised, place=place)
    return draft.apply("Mul", product, draft.floats(0.5, f"{place}.half"), place=place)


def _gelu_sigmoid(draft: Draft, x: Value, place: str) -> Value:
    scaled = draft.apply("Mul", x, draft.floats(1.702, f"{place}.factor"), place=place)
    return draft.apply("Mul", x, draft.apply("Sigmoid", scaled, place=place), place=place)


def _gelu_tanh(draft: Draft, x: Value, place: str) -> Value:
    """x * (1 + tanh(u)) / 2 with u = sqrt(2 / pi) * (x + 0.044715 * x**3), in PyTorch's order."""
    names = {"bend": 0.044715, "slope": (2 / np.pi) ** 0.5, "one": 1, "half": 0.5}
    bend, slope, one, half = (draft.floats(n, f"{place}.{name}") for name, n in names.items())
    cube = draft.apply("Mul", draft.apply("Mul", x, x, place=place), x, place=place)
    bent = draft.apply("Add", x, draft.apply("Mul", cube, bend, place=place), place=place)
    gate = draft.apply("Tanh", draft.apply("Mul", bent, slope, place=place), place=place)
    product = draft.apply("Mul", x, draft.apply("Add", gate, one, place=place), place=place)
    return draft.apply("Mul", product, half, place=place)


def _relu6(draft: Draft, x: Value, place: str) -> Value:
    ends = draft.floats(0, f"{place}.zero"), draft.floats(6, f"{place}.six")
    return draft.apply("Clip", x, *ends, place=place)


def _silu(draft: Draft, x: Value, place: str) -> Value:
    return draft.apply("Mul", x, draft.apply("Sigmoid", x, place=place), place=place)


def _mish(draft: Draft, x: Value, place: str) -> Value:
    bent = draft.apply("Tanh", draft.apply("Softplus", x, place=place), place=place)
    return draft.apply("Mul", x, bent, place=place)


def _hard_threshold(draft: Draft, x: Value, place: str) -> Value:
    zero = draft.floats(0, f"{place}.zero")
    above = draft.apply("Greater", x, zero, place=place)
    return draft.apply("Where", above, draft.floats(1, f"{place}.one"), zero, place=place)


ACTIVATIONS: dict[Callable[..., Any], Callable[..., Value]] = {
    sigmoid: _one("Sigmoid"),
    tanh: _one("Tanh"),
    exp: _one("Exp"),
    relu: _one("Relu"),
    relu_right: _one("Relu"),
    relu6: _relu6,
    hardswish: _one("HardSwish"),
    leaky_relu: _with_alpha("LeakyRelu", leaky_relu),
    elu: _with_alpha("Elu", elu),
    gelu: _gelu,
    gelu_sigmoid: _gelu_sigmoid,
    gelu_tanh: _gelu_tanh,
    selu: _one("Selu", alpha=1.6732632423543772, gamma=1.0507009873554805),
    silu: _silu,
    softplus: _one("Softplus"),
    mish: _mish,
    hard_threshold: _hard_threshold,
    identity: lambda draft, x, place: x,
    softmax: _one("Softmax", axis=-1),
    log_softmax: _one("LogSoftmax", axis=-1),
}


def activated(draft: Draft, activation: str | Callable[..., Any], x: Value, place: str) -> Value:
    """Add the operators of an activation to a draft, and return its output.

    Raises:
        ArgumentError: the activation has no formula in ONNX.
    """
    function, options = opened(get_activation(activation))
    function = getattr(function, "same_as", None) or function
    if function not in ACTIVATIONS:
        raise ArgumentError(
            f"got the activation {activation!r} at {place}, which has no formula in ONNX; expected "
            "a registered activation: use one of "
            f"{', '.join(sorted(known.__name__ for known in ACTIVATIONS))}"
        )
    return ACTIVATIONS[function](draft, x, place, **options)
