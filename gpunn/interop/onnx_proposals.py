"""Propose the module that a part of an ONNX graph may be the export of.

A proposal takes its sizes and numbers from the constants of the file. `onnx_patterns` then
compares the export of the proposed module with the file, so a wrong proposal does no harm.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from math import comb, pi
from typing import Any

import numpy as np

from gpunn.interop.onnx_patterns import activation_at, attributes_of
from gpunn.interop.onnx_source import Array, Node, Source
from gpunn.nn import (
    DifferenceFeature,
    Embedding,
    Module,
    OneHot,
    ParametricActivation,
    PeriodicEmbedding,
    PolynomialFeatures,
    QuadraticFeatures,
    RMSNorm,
    RobustScale,
)
from gpunn.nn.init import undrawn

MAX_NUMBERS = 2**16  # columns in front of categories, for which a file needs no bytes


def chain(source: Source, name: str, *kinds: str) -> list[Node]:
    """Return the operators of these kinds that a value comes from; an empty list for others.

    Each computes the first input of the one before it.
    """
    found = []
    for kind in kinds:
        node = source.nodes.get(name)
        if node is None or node.kind != kind or not node.inputs:
            return []
        found.append(node)
        name = node.inputs[0]
    return found


def second(source: Source, node: Node) -> Array | None:
    """Return the second input of an operator if it is a constant with numbers in it."""
    found = source.constant(node.inputs[1]) if len(node.inputs) > 1 else None
    return found if found is not None and found.size else None


def robust_scale(source: Source, node: Node, dtype: Any) -> Iterator[Module]:
    """Propose the layer of u / sqrt(1 + (u / limit)**2)."""
    top = chain(source, node.inputs[0], "Mul", "Sub")
    root = chain(source, node.inputs[-1], "Sqrt", "Add", "Mul", "Div")
    if top and root:
        scale, center, limit = (second(source, each) for each in (*top, root[-1]))
        if center is not None and scale is not None and limit is not None:
            yield RobustScale(center.ravel(), scale.ravel(), float(limit.flat[0]), dtype=dtype)


def rms_norm(source: Source, node: Node, dtype: Any) -> Iterator[Module]:
    """Propose the first half of the layer norm of (x, -x)."""
    parts = chain(source, node.output, "Slice", "LayerNormalization", "Concat")
    gamma = second(source, parts[1]) if parts else None
    if gamma is not None and gamma.size % 2 == 0:
        eps = attributes_of(parts[1].kind, parts[1].attributes)["epsilon"]
        layer = RMSNorm(gamma.size // 2, eps=eps, dtype=dtype)
        layer.load_state_dict({"gamma": gamma.ravel()[: gamma.size // 2]})
        yield layer


def embedding(source: Source, node: Node, dtype: Any) -> Iterator[Module]:
    """Propose the rows of a weight, side by side."""
    parts = chain(source, node.output, "Reshape", "Gather")
    weight = source.constant(parts[1].inputs[0]) if parts else None
    if weight is not None and weight.ndim == 2 and chain(source, parts[1].inputs[-1], "Cast"):
        with undrawn():
            layer = Embedding(*weight.shape, flatten=True, dtype=dtype)
        layer.load_state_dict({"weight": weight})
        yield layer


def parametric(source: Source, node: Node, dtype: Any) -> Iterator[Module]:
    """Propose the layer of x + (f(x) - x) * share."""
    for name in node.inputs:
        parts = chain(source, name, "Mul", "Sub")
        share = second(source, parts[0]) if parts else None
        if share is None:
            continue
        bent = source.nodes.get(parts[1].inputs[0])
        found = activation_at(source, bent, dtype) if bent else None
        function = found[0] if found else "identity"
        layer = ParametricActivation(share.size, function, dtype=dtype)
        layer.load_state_dict({"share": share.ravel()})
        yield layer


def one_hot(source: Source, node: Node, dtype: Any) -> Iterator[Module]:
    """Propose the layer of columns of 0 and 1 behind columns of numbers."""
    names = list(node.inputs) if node.kind == "Concat" else [node.output]
    numbers, levels = 0, list[int]()
    part = chain(source, names[0], "Slice")
    if part and len(part[0].inputs) == 4:
        last = source.constant(part[0].inputs[2])
        numbers = int(last.flat[0]) if last is not None and last.size else 0
    marks = chain(source, names[-1], "Sub", "Where", "Equal", "Gather")
    if marks:
        index = second(source, marks[-1])
        if index is None or index.dtype.kind != "i":
            return
        counts = np.unique(index, return_counts=True)[1].tolist()
        levels = [2 if count == 1 else count for count in counts]
    if 0 <= numbers <= MAX_NUMBERS and numbers + len(levels):
        yield OneHot([0] * numbers + levels)


def periodic(source: Source, node: Node, dtype: Any) -> Iterator[Module]:
    """Propose the layer of sums of waves."""
    parts = chain(source, node.inputs[-1], "Reshape", "Transpose", "Add", "MatMul", "Cos", "Add")
    turned = chain(source, parts[-1].inputs[0], "Mul") if parts else []
    if not turned:
        return
    bias, weight, phase, turns = (
        second(source, each) for each in (parts[2], parts[3], parts[5], turned[0])
    )
    if bias is None or weight is None or phase is None or turns is None or weight.ndim != 3:
        return
    numbers, frequencies, sums = weight.shape
    waves = numbers * frequencies
    if (turns.size, phase.size, bias.size) == (waves, waves, numbers * sums):
        layer = PeriodicEmbedding(numbers, sums, frequencies, dtype=dtype)
        state = {"frequency": turns / (2 * pi), "phase": phase, "weight": weight, "bias": bias}
        shapes = {name: tensor.shape for name, tensor in layer.state()}
        layer.load_state_dict({name: v.reshape(shapes[name]) for name, v in state.items()})
        yield layer


def polynomial(source: Source, node: Node, dtype: Any) -> Iterator[Module]:
    """Propose the layer of products of columns, if each size has as many as there are."""
    sizes = []
    for name in node.inputs:
        last = source.nodes.get(name)
        if last is not None and last.kind == "Mul":
            last = source.nodes.get(last.inputs[-1])
        index = second(source, last) if last is not None and last.kind == "Gather" else None
        if index is None:
            return
        sizes.append(index.size)
    width, degree = sizes[0], len(sizes)
    if degree**2 >= len(source.nodes):  # the export has at least 2 k - 1 operators for k factors
        return
    for once in (False, True):
        wanted = (comb(width if once else width + k - 1, k) for k in range(1, degree + 1))
        if all(size == count for size, count in zip(sizes, wanted, strict=True)):
            yield PolynomialFeatures(width, degree, interaction_only=once)


def quadratic(source: Source, node: Node, dtype: Any) -> Iterator[Module]:
    """Propose the products of any number of columns."""
    if chain(source, node.inputs[-1], "Mul", "Gather"):
        yield QuadraticFeatures()
        yield QuadraticFeatures(squares=False)


def difference(source: Source, node: Node, dtype: Any) -> Iterator[Module]:
    """Propose the distance of two columns."""
    if chain(source, node.inputs[-1], "Abs"):
        yield DifferenceFeature()


PROPOSALS: dict[str, tuple[Callable[[Source, Node, Any], Iterator[Module]], ...]] = {
    "Div": (robust_scale,),
    "Add": (parametric,),
    "Slice": (rms_norm, one_hot),  # a slice alone is a table of numbers only
    "Reshape": (embedding,),
    "Sub": (one_hot,),
    "Concat": (one_hot, periodic, polynomial, quadratic, difference),
}
"""The proposals by the kind of the last operator of the export."""
