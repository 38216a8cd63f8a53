"""Recognise, in the graph of a file, what the export writes for a module.

A candidate is exported, and its operators and constants are compared with those of the file. So
the formula of a module stands in the export alone.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from gpunn.interop.onnx_activations import ACTIVATIONS
from gpunn.interop.onnx_draft import AS_INPUT, INPUT, UNKNOWN, Draft, Operator, Value
from gpunn.interop.onnx_layers import convert
from gpunn.interop.onnx_source import Node, Source
from gpunn.nn import Module
from gpunn.ops import ACTIVATIONS as REGISTERED
from gpunn.ops import get_activation

COMMUTATIVE = {"Add", "Mul", "Equal", "Max"}
SMALL = 16  # operators; larger patterns are compared in the order of the export only

DEFAULTS: dict[str, dict[str, Any]] = {
    "Elu": {"alpha": 1.0},
    "LeakyRelu": {"alpha": 0.01},
    "Selu": {"alpha": 1.67326319217681884765625, "gamma": 1.05070102214813232421875},
    "HardSigmoid": {"alpha": 0.2, "beta": 0.5},
    "Gelu": {"approximate": "none"},
    "Swish": {"alpha": 1.0},
    "Softmax": {"axis": -1},
    "LogSoftmax": {"axis": -1},
    "LayerNormalization": {"axis": -1, "epsilon": 1e-5},
    "RMSNormalization": {"axis": -1, "epsilon": 1e-5},
    "BatchNormalization": {"epsilon": 1e-5, "momentum": 0.9, "training_mode": 0},
    "Gemm": {"alpha": 1.0, "beta": 1.0, "transA": 0, "transB": 0},
    "Flatten": {"axis": 1},
    "Dropout": {"ratio": 0.5},
    "ai.onnx.ml.Scaler": {"offset": [0.0], "scale": [1.0]},
    "Gather": {"axis": 0},
}
"""The attributes that a file may leave out."""

LAST_AXIS = {"Softmax", "LogSoftmax", "LayerNormalization", "RMSNormalization", "Concat"}
"""The operators whose axis 1 is the last one, because the values of a network have two axes."""


class Spelling(NamedTuple):
    """Operators that compute an activation.

    Attributes:
        activation: its registered name.
        draft: draws the operators behind the input of a draft.
        option: the name of the number that is the attribute alpha of the only operator; "" if the
            activation has none.
    """

    activation: str
    draft: Callable[..., Value]
    option: str = ""


def attributes_of(kind: str, given: dict[str, Any]) -> dict[str, Any]:
    """Return the attributes of an operator, with those that were left out.

    Raises:
        ValueError: one is of another type than ONNX says, or not finite.
    """
    defaults = DEFAULTS.get(kind, {})
    found = {**defaults, **given}
    for name, value in defaults.items():
        if type(found[name]) is not type(value):
            raise ValueError(f"its attribute {name} is no {type(value).__name__}")
        if isinstance(value, float) and not np.isfinite(found[name]):
            raise ValueError(f"its attribute {name} is not finite")
    if kind in LAST_AXIS and found.get("axis") == 1:
        found["axis"] = -1
    found.pop("stash_type", None)  # the dtype in which a runtime adds up
    return found


def one(kind: str, **attributes: Any) -> Callable[..., Value]:
    """Return the drawing of a single operator."""
    return lambda draft, x, place: draft.apply(kind, x, place=place, **attributes)


def _clipped(draft: Draft, x: Value, place: str) -> Value:
    return draft.apply("Clip", x, draft.floats(0, "zero"), place=place)


def _at_least_zero(draft: Draft, x: Value, place: str) -> Value:
    return draft.apply("Max", x, draft.floats(0, "zero"), place=place)


def _softplus_above(draft: Draft, x: Value, place: str) -> Value:
    """PyTorch's, which is x above 20."""
    above = draft.apply("Greater", x, draft.floats(20, "threshold"), place=place)
    return draft.apply("Where", above, x, draft.apply("Softplus", x, place=place), place=place)


def _error(draft: Draft, x: Value, place: str, divided: bool) -> Value:
    """Draw 1 + erf(x / sqrt(2))."""
    number = draft.floats(2**0.5 if divided else 0.5**0.5, "number")
    scaled = draft.apply("Div" if divided else "Mul", x, number, place=place)
    error = draft.apply("Erf", scaled, place=place)
    return draft.apply("Add", error, draft.floats(1, "one"), place=place)


def _gelu(divided: bool, half_first: int) -> Callable[..., Value]:
    """Draw GELU in an order of its factors x, 1/2 and 1 + erf(x / sqrt(2)) that others use."""

    def draw(draft: Draft, x: Value, place: str) -> Value:
        raised, half = _error(draft, x, place, divided), draft.floats(0.5, "half")
        if half_first == 0:
            product = draft.apply("Mul", x, raised, place=place)
            return draft.apply("Mul", product, half, place=place)
        first, last = (x, raised) if half_first == 1 else (raised, x)
        return draft.apply("Mul", draft.apply("Mul", first, half, place=place), last, place=place)

    return draw


OTHERS = (
    Spelling("gelu", one("Gelu", approximate="none")),
    *(Spelling("gelu", _gelu(divided, k)) for divided in (True, False) for k in (0, 1, 2)),
    Spelling("gelu_tanh", one("Gelu", approximate="tanh")),
    Spelling("mish", one("Mish")),
    Spelling("silu", one("Swish", alpha=1.0)),
    Spelling("softplus", _softplus_above),
    Spelling("relu", _clipped),
    Spelling("relu", _at_least_zero),
)
"""How the exporters of other libraries write activations, where ours writes something else."""


@lru_cache(maxsize=1)
def spellings() -> dict[str, list[Spelling]]:
    """Return the spellings of all registered activations, by the kind of their last operator."""
    found: dict[str, list[Spelling]] = {}
    own = [
        Spelling(name, ACTIVATIONS[function], next(iter(getattr(function, "options", ())), ""))
        for name, function in REGISTERED.items()
        if function in ACTIVATIONS
    ]
    for each in (*own, *OTHERS):
        draft, top = _drawn(each, np.dtype(np.float32))
        if draft.operators:  # the identity has none
            found.setdefault(draft.producer(top), []).append(each)
    return found


def _drawn(spelling: Spelling, dtype: Any, **options: float) -> tuple[Draft, Value]:
    draft = Draft(dtype)
    return draft, spelling.draft(draft, Value(INPUT, UNKNOWN), "", **options)


def activation_at(source: Source, node: Node, dtype: Any) -> tuple[Any, str] | None:
    """Return the activation that ends at an operator, and the name of its input."""
    for each in spellings().get(node.kind, ()):
        options = {}
        if each.option:
            options[each.option] = attributes_of(node.kind, node.attributes)["alpha"]
        start = same(source, node.output, *_drawn(each, dtype, **options))
        if start:
            default = getattr(get_activation(each.activation), "options", {})
            if all(default[name] == value for name, value in options.items()):
                return each.activation, start
            return get_activation(each.activation, **options), start
    return None


def input_of(source: Source, node: Node, module: Module, dtype: Any) -> str:
    """Compare the operators that end at one with those that the export writes for a module.

    Returns:
        The name of their input in the file; "" if they differ.
    """
    draft = Draft(dtype)
    return same(source, node.output, draft, convert(draft, module, "", Value(INPUT, UNKNOWN)))


def columns_of(module: Module, width: int, dtype: Any) -> int:
    """Return the number of columns that a module makes of others; UNKNOWN if nothing tells.

    Raises:
        ShapeError: it does not take so many.
    """
    draft = Draft(dtype)
    return draft.width_of(convert(draft, module, "its columns", Value(INPUT, width or AS_INPUT)))


def same(source: Source, name: str, draft: Draft, top: Value) -> str:
    """Return the name of the value that is the input of a draft in the file; "" if they differ."""
    pattern = {each.output: each for each in draft.operators}
    bound = _bound(source, pattern, draft, [(top.name, name)], {})
    return (bound or {}).get(INPUT, "")


def _bound(
    source: Source,
    pattern: dict[str, Operator],
    draft: Draft,
    pending: list[tuple[str, str]],
    bound: dict[str, str],
) -> dict[str, str] | None:
    """Return the names in the file of the values of a draft; None if they differ."""
    while pending:
        drawn, found = pending.pop()
        if drawn in bound:
            if bound[drawn] != found:
                return None
            continue
        bound[drawn] = found
        if drawn in draft.constants:
            if not _equal(draft.constants[drawn], source.constant(found)):
                return None
        elif drawn == INPUT:
            if source.is_constant(found):
                return None
        else:
            operator, node = pattern[drawn], source.nodes.get(found)
            if node is None or not _alike(operator, node):
                return None
            pairs = list(zip(operator.inputs, node.inputs, strict=True))
            if operator.kind in COMMUTATIVE and len(pattern) <= SMALL:
                turned = list(zip(operator.inputs, node.inputs[::-1], strict=True))
                straight = _bound(source, pattern, draft, pending + pairs, dict(bound))
                return straight or _bound(source, pattern, draft, pending + turned, dict(bound))
            pending = pending + pairs
    return bound


def _alike(operator: Operator, node: Node) -> bool:
    """Return whether two operators compute the same from the same inputs."""
    if operator.kind != node.kind or len(operator.inputs) != len(node.inputs):
        return False
    one, other = (attributes_of(each.kind, each.attributes) for each in (operator, node))
    return one.keys() == other.keys() and all(
        bool(np.isclose(one[key], other[key], rtol=1e-6, atol=0))
        if isinstance(one[key], float) and isinstance(other[key], int | float)
        else one[key] == other[key]
        for key in one
    )


def _equal(one: Any, other: Any) -> bool:
    """Return whether two constants are equal to rounding.

    Of floats, leading axes of length 1 do not count if a result keeps its two axes. Numbers of
    columns must have the same axes, because they decide those of the result.
    """
    if other is None or one.size != other.size or _trimmed(one) != _trimmed(other):
        return False
    if one.dtype.kind != "f":
        return bool(np.array_equal(one, other))
    if other.ndim > max(2, one.ndim):
        return False
    given = np.asarray(other).reshape(one.shape)
    with np.errstate(over="ignore"):
        rounded = given.astype(one.dtype)
    return bool(np.allclose(one, rounded, rtol=4 * np.finfo(one.dtype).eps, atol=0))


def _trimmed(array: Any) -> tuple[int, ...]:
    shape = list(array.shape)
    while shape and shape[0] == 1:
        shape.pop(0)
    return tuple(shape)
