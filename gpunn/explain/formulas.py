"""The formulas of operations and of their backward passes, as Python expressions.

In a formula {0}, {1}, ... are the names of the inputs, {y} is the name of the result and {g} the
name of its error signal. The functions are those of NumPy or of this library; `f_prime` is the
derivative of an activation f.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from gpunn.autograd import Op
from gpunn.ops import ACTIVATIONS, identity
from gpunn.ops.loss_reduction import REDUCTIONS
from gpunn.typing import Shape


class Formula(NamedTuple):
    """The expression of a result, and for each input the expression of its error signal."""

    forward: str
    backward: tuple[str, ...]


FORMULAS = {
    "add": Formula("{0} + {1}", ("{g}", "{g}")),
    "subtract": Formula("{0} - {1}", ("{g}", "-{g}")),
    "multiply": Formula("{0} * {1}", ("{g} * {1}", "{g} * {0}")),
    "divide": Formula("{0} / {1}", ("{g} / {1}", "-{g} * {y} / {1}")),
    "negative": Formula("-{0}", ("-{g}",)),
    "power": Formula("{0}**{1}", ("{g} * {1} * {0}**({1} - 1)",)),
    "exp": Formula("exp({0})", ("{g} * {y}",)),
    "sin": Formula("sin({0})", ("{g} * cos({0})",)),
    "cos": Formula("cos({0})", ("-{g} * sin({0})",)),
    "log": Formula("log({0})", ("{g} / {0}",)),
    "sqrt": Formula("sqrt({0})", ("{g} / (2 * {y})",)),
    "abs": Formula("abs({0})", ("{g} * sign({0})",)),
    "matmul": Formula("{0} @ {1}", ("{g} @ {1}.T", "{0}.T @ {g}")),
    "transpose": Formula("{0}.T", ("{g}.T",)),
    "linear": Formula("{0} @ {1} + {2}", ("{g} @ {1}.T", "{0}.T @ {g}", "sum({g}, 0)")),
    "sum": Formula("sum({0})", ("{g}",)),
    "sigmoid": Formula("sigmoid({0})", ("{g} * {y} * (1 - {y})",)),
    "tanh": Formula("tanh({0})", ("{g} * (1 - {y}**2)",)),
    "relu": Formula("maximum({0}, 0)", ("{g} * ({0} > 0)",)),
    "relu6": Formula("minimum(maximum({0}, 0), 6)", ("{g} * ({0} > 0) * ({0} < 6)",)),
    "hardswish": Formula(
        "{0} * minimum(maximum({0} + 3, 0), 6) / 6",
        ("{g} * ((abs({0}) < 3) * ({0} / 3 + 1 / 2) + ({0} >= 3))",),
    ),
    "relu_right": Formula("maximum({0}, 0)", ("{g} * ({0} >= 0)",)),
    "log_softmax": Formula("log(softmax({0}))", ("{g} - exp({y}) * sum({g}, -1, keepdims=True)",)),
    "softmax": Formula("softmax({0})", ("{y} * ({g} - sum({g} * {y}, -1, keepdims=True))",)),
}

INDIVIDUAL = {
    "squared_error": Formula("({0} - {1})**2", ("2 * ({0} - {1})",)),
    "half_squared_error": Formula("({0} - {1})**2 / 2", ("({0} - {1})",)),
    "perceptron": Formula("maximum(0, -{0} * {1})", ("(-{0} * {1} > 0) * -{1}",)),
    "binary_cross_entropy": Formula(
        "-({1} * log({0}) + (1 - {1}) * log(1 - {0}))", ("({0} - {1}) / ({0} * (1 - {0}))",)
    ),
    "binary_cross_entropy_with_logits": Formula(
        "-({1} * log(sigmoid({0})) + (1 - {1}) * log(1 - sigmoid({0})))", ("(sigmoid({0}) - {1})",)
    ),
    "kullback_leibler": Formula("{1} * (log({1}) - {0})", ("(-{1})",)),
    "softmax_cross_entropy": Formula(
        "-sum(one_hot({1}) * log(softmax({0})), -1)", ("(softmax({0}) - one_hot({1}))",)
    ),
}
"""The formulas of losses: an individual loss, and its derivative by the prediction."""


def formula(op: str, options: dict[str, Any], shapes: list[Shape], y: Shape) -> Formula:
    """Return the formula of one call of an operation.

    Args:
        op: the name of the operation.
        options: the keyword arguments of the call.
        shapes: the shapes of the inputs.
        y: the shape of the result. If an input was broadcast, its error signal is summed.
    """
    options = {name: value for name, value in options.items() if value is not None}
    reduction = options.get("reduction", "mean")
    if op in INDIVIDUAL and options.keys() <= {"reduction"} and reduction in REDUCTIONS:
        return _reduced(op, reduction, shapes[0])
    if op == "linear":
        return _linear(options, len(shapes))
    if op == "reshape":
        return Formula("{0}.reshape({1})", (f"{{g}}.reshape({shapes[0]})",))
    if op == "getitem":
        return Formula("{0}[{1}]", (f"put({{g}}, {{1}}, {shapes[0]})",))
    if op in FORMULAS and not any(options.values()):
        forward, backward = FORMULAS[op]
        parts = zip(backward, shapes, strict=False)
        whole = op not in BROADCASTING
        return Formula(
            forward,
            tuple(g if whole or shape == y else f"sum_to({g}, {shape})" for g, shape in parts),
        )
    return _general(op, options, len(shapes))


BROADCASTING = ("add", "subtract", "multiply", "divide")


def _linear(options: dict[str, Any], inputs: int) -> Formula:
    if options.get("activation", identity) is not identity or "dropout" in options:
        return _general("linear", options, inputs)
    forward, (gx, gw, gb) = FORMULAS["linear"]
    if "feedback" in options:
        gx = "{g} @ feedback.T"
    return Formula(forward, (gx, gw, gb)) if inputs == 3 else Formula("{0} @ {1}", (gx, gw))


def _reduced(op: str, reduction: str, shape: Shape) -> Formula:
    """Return the formula of a loss: the sum or the mean of the individual losses."""
    value, (slope,) = INDIVIDUAL[op]
    losses = math.prod(shape[:-1] if op == "softmax_cross_entropy" else shape)
    if losses == 1 and op != "softmax_cross_entropy":
        reduction = "sum" if reduction == "mean" else reduction
    if reduction == "none":
        spread = "{g}[..., None]" if op == "softmax_cross_entropy" else "{g}"
        return Formula(value, (f"{spread} * {slope}",))
    share = f" / {losses}" if reduction == "mean" and losses > 1 else ""
    name = "mean" if reduction == "mean" else "sum"
    return Formula(f"{name}({value})" if shape else value, (f"{{g}} * {slope}{share}",))


def _general(op: str, options: dict[str, Any], inputs: int) -> Formula:
    """Return a formula for an operation without one in the tables, from its name."""
    given = "".join(f", {name}={_brief(value)}" for name, value in options.items())
    names = ", ".join(f"{{{i}}}" for i in range(inputs))
    if op in ACTIVATIONS:
        return Formula(f"{op}({names}{given})", (f"{{g}} * {op}_prime({names}{given})",))
    back = tuple(f"{op}_vjp({{g}}, {names}{given})[{i}]" for i in range(inputs))
    return Formula(f"{op}({names}{given})", back)


def _brief(value: Any) -> str:
    return (
        value.name if isinstance(value, Op) else "..." if hasattr(value, "shape") else repr(value)
    )
