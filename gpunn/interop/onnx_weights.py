"""Rules for ONNX operators with weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from gpunn.interop.onnx_match import Layer, Match, RefusedError, Rules, known, rows_of
from gpunn.interop.onnx_patterns import attributes_of
from gpunn.interop.onnx_source import Array, Node, as_written
from gpunn.nn import BatchNorm, LayerNorm, Linear, ParametricActivation, RMSNorm


def gemm(rules: Rules, node: Node) -> Match | None:
    """Return a linear layer with the weight alpha * B and the bias beta * C."""
    given = attributes_of(node.kind, node.attributes)
    if given["transA"]:
        raise RefusedError("transA=1 would exchange rows and columns")
    factors = (given["alpha"], given["beta"]) if len(node.inputs) > 2 else (given["alpha"], 0.0)
    return linear(rules, node, factors, bool(given["transB"]), node if factors[1] else None, 2)


def matmul(rules: Rules, node: Node) -> Match | None:
    """Return a linear layer without a bias."""
    return linear(rules, node, (1.0, 0.0), False, None, 0)


def linear(
    rules: Rules,
    node: Node,
    factors: tuple[float, float],
    turned: bool,
    added: Node | None,
    place: int,
) -> Match | None:
    """Return a linear layer; its bias is the input at `place` of the operator `added`."""
    found = rules.constant(node, 1, 2)
    if found is None or found.ndim != 2:
        raise RefusedError("its weights are no (D, H) constant of numbers")
    inputs, outputs = found.shape[::-1] if turned else found.shape
    bias = None if added is None else rules.constant(added, place, 1)
    if added is not None and (bias is None or bias.size not in (1, outputs)):
        raise RefusedError(f"its bias is no constant of {outputs} numbers")

    def state() -> dict[str, Array]:
        weight = rules.constant(node, 1, 2)
        assert weight is not None
        scaled = weight * np.float64(factors[0]) if factors[0] != 1 else weight
        arrays = {"weight": scaled.T if turned else scaled}
        if added is not None:
            shift = rules.constant(added, place, 1)
            assert shift is not None
            scaled = shift * np.float64(factors[1]) if factors[1] != 1 else shift
            arrays["bias"] = np.broadcast_to(scaled, (outputs,))
        return arrays

    def layer(*widths: int) -> Layer:
        rows_of(widths, inputs)
        shift = "" if added is None else added.inputs[place]
        return Layer(
            lambda: Linear(inputs, outputs, bias=added is not None, dtype=rules.dtype),
            outputs,
            state,
            inputs * outputs + outputs,
            (node.inputs[1], shift, *factors, turned),
        )

    return Match((node.inputs[0],), layer)


def batch_norm(rules: Rules, node: Node) -> Match | None:
    """Return a batch norm; its mean may be subtracted by an operator before it."""
    given = attributes_of(node.kind, node.attributes)
    if given["training_mode"]:
        raise RefusedError("training_mode=1 takes the mean of the batch")
    names = ("gamma", "beta", "running_mean", "running_variance")
    start, mean = node.inputs[0], rules.constant(node, 3, 1)
    before = rules.alone(start, "Sub")
    shift = rules.constant(before[0], 1, 1) if before else None
    if shift is not None and mean is not None and shift.shape == mean.shape and not mean.any():
        start = before[0].inputs[0]
    else:
        shift = None

    def state() -> dict[str, Array]:
        found = {name: _vector(rules, node, k, "") for k, name in enumerate(names, 1)}
        return found if shift is None else found | {"running_mean": shift}

    return _normalized(
        rules, node, start, state, BatchNorm, momentum=as_written(1 - given["momentum"])
    )


def layer_norm(rules: Rules, node: Node) -> Match | None:
    """Return a layer norm; one without a bias gets a beta of 0."""
    _check_last_axis(node)

    def state() -> dict[str, Array]:
        gamma = _vector(rules, node, 1, "")
        given = len(node.inputs) > 2
        return {
            "gamma": gamma,
            "beta": _vector(rules, node, 2, "") if given else np.zeros_like(gamma),
        }

    return _normalized(rules, node, node.inputs[0], state, LayerNorm)


def rms_norm(rules: Rules, node: Node) -> Match | None:
    """Return an RMS norm; the operator is that of opset 23."""
    _check_last_axis(node)
    return _normalized(
        rules, node, node.inputs[0], lambda: {"gamma": _vector(rules, node, 1, "")}, RMSNorm
    )


def _check_last_axis(node: Node) -> None:
    if attributes_of(node.kind, node.attributes)["axis"] != -1:
        raise RefusedError("its axis is not the last one")


def _vector(rules: Rules, node: Node, place: int, what: str) -> Array:
    found = rules.constant(node, place, 1)
    if found is None or found.ndim != 1:
        raise RefusedError("its parameters are no (D,) constants of numbers")
    return found


def _normalized(
    rules: Rules,
    node: Node,
    start: str,
    state: Callable[[], dict[str, Array]],
    kind: type[LayerNorm | RMSNorm],
    **options: Any,
) -> Match:
    sizes = {len(array) for array in state().values()}
    if len(sizes) != 1:
        raise RefusedError("its parameters have different lengths")
    (size,) = sizes
    eps = attributes_of(node.kind, node.attributes)["epsilon"]

    def layer(*widths: int) -> Layer:
        rows_of(widths, size)
        make = lambda: kind(size, eps=eps, dtype=rules.dtype, **options)  # noqa: E731
        return Layer(make, size, state, 4 * size)  # exporters join equal constants: share none

    return Match((start,), layer)


def slopes(rules: Rules, node: Node) -> Match | None:
    """Return a rectifier with a slope below 0 for each column."""
    slope = rules.constant(node, 1, 1)
    if slope is None:
        return None

    def layer(*widths: int) -> Layer:
        size = rows_of(widths, slope.size) if slope.size > 1 else known(widths[0])
        return Layer(
            lambda: ParametricActivation(size, "relu", dtype=rules.dtype),
            size,
            lambda: {"share": 1 - np.broadcast_to(slope.ravel(), (size,))},
            size,
        )

    return Match((node.inputs[0],), layer)
