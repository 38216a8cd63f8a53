"""Rules for ONNX operators that add, multiply or divide."""

from __future__ import annotations

import numpy as np

from gpunn.interop.onnx_match import (
    Layer,
    Match,
    RefusedError,
    Rules,
    added,
    known,
    rows_of,
    unchanged,
)
from gpunn.interop.onnx_patterns import attributes_of
from gpunn.interop.onnx_source import Array, Node
from gpunn.interop.onnx_weights import linear
from gpunn.nn import Module, Scale, Standardize


def add(rules: Rules, node: Node) -> Match | None:
    """Return a bias, a shift, or the sum of two values."""
    for place in (1, 0):
        shift = rules.constant(node, place, 1)
        if shift is None or rules.source.is_constant(node.inputs[1 - place]):
            continue
        inner = node.inputs[1 - place]
        product = rules.alone(inner, "MatMul") or rules.alone(inner, "Gemm")
        if (
            product
            and len(product[0].inputs) == 2
            and rules.source.is_constant(product[0].inputs[1])
        ):
            given = attributes_of(product[0].kind, product[0].attributes)
            if not given.get("transA"):
                factors, turned = (given.get("alpha", 1.0), 1.0), bool(given.get("transB"))
                return linear(rules, product[0], factors, turned, node, place)
        scaled = rules.alone(inner, "Mul")
        for k in (1, 0) if scaled else ():
            scale = rules.constant(scaled[0], k, 1)
            if scale is not None:
                return fixed(rules, scaled[0].inputs[1 - k], shift, scale, inverse=True)
        if not shift.any():
            return unchanged(inner)
        return fixed(rules, inner, shift, np.ones(1), inverse=True)
    return total(rules, node)


def subtract(rules: Rules, node: Node) -> Match | None:
    """Return a shift by a constant."""
    shift, start = rules.constant(node, 1, 1), rules.constant(node, 0, 1)
    if shift is not None:
        return fixed(rules, node.inputs[0], shift, np.ones(1))
    return None if start is None else fixed(rules, node.inputs[1], start, -np.ones(1), inverse=True)


def multiply(rules: Rules, node: Node) -> Match | None:
    """Return fixed scales for one number, and learned ones for a number for each column."""
    for place in (1, 0):
        scale, start = rules.constant(node, place, 1), node.inputs[1 - place]
        if scale is None:
            continue
        if scale.size == 1:
            one = bool(scale.ravel()[0] == 1)
            return (
                unchanged(start) if one else fixed(rules, start, np.zeros(1), scale, inverse=True)
            )

        def layer(*widths: int, found: Array = scale) -> Layer:
            size = rows_of(widths, found.size)
            make = lambda: Scale(size, dtype=rules.dtype)  # noqa: E731
            return Layer(make, size, lambda: {"scale": found}, size)

        return Match((start,), layer)
    return None


def divide(rules: Rules, node: Node) -> Match | None:
    """Return fixed scales, with the shift before them."""
    scale = rules.constant(node, 1, 1)
    if scale is None:
        return None
    before = rules.alone(node.inputs[0], "Sub")
    shift = rules.constant(before[0], 1, 1) if before else None
    if shift is not None:
        return fixed(rules, before[0].inputs[0], shift, scale)
    return fixed(rules, node.inputs[0], np.zeros(1), scale)


def scaler(rules: Rules, node: Node) -> Match | None:
    """Return scikit-learn's standard scaler, (x - offset) * scale."""
    given = attributes_of(node.kind, node.attributes)
    offset, scale = (np.array(given[name]) for name in ("offset", "scale"))
    if not scale.all():
        raise RefusedError("it multiplies by 0")
    return fixed(rules, node.inputs[0], offset, 1 / scale)


def fixed(rules: Rules, start: str, mean: Array, scale: Array, *, inverse: bool = False) -> Match:
    """Return a layer of fixed numbers, (x - mean) / scale or its inverse."""
    sizes = {mean.size, scale.size} - {1}
    if len(sizes) > 1:
        raise RefusedError(f"its constants have {' and '.join(map(str, sizes))} numbers")

    def layer(*widths: int) -> Layer:
        size = rows_of(widths, *sizes) if sizes else known(widths[0])

        def make() -> Module:
            both = (np.broadcast_to(each.ravel(), (size,)) for each in (mean, scale))
            return Standardize(*both, inverse=inverse, dtype=rules.dtype)

        return Layer(make, size, numbers=2 * size)

    return Match((start,), layer)


def total(rules: Rules, node: Node) -> Match | None:
    """Return the sum of values."""
    return Match(tuple(node.inputs), lambda *widths: added(widths))
