"""Convert modules to ONNX operators, as they compute in evaluation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from gpunn.errors import ArgumentError, ShapeError
from gpunn.interop import onnx_columns, onnx_normalization
from gpunn.interop.onnx_activations import activated
from gpunn.interop.onnx_draft import AS_INPUT, UNKNOWN, Draft, Value
from gpunn.nn import (
    Activate,
    BatchNorm,
    Concatenate,
    DifferenceFeature,
    Dropout,
    Embedding,
    Ensemble,
    FeedbackLinear,
    Graph,
    LayerNorm,
    Linear,
    Module,
    OneHot,
    ParametricActivation,
    PeriodicEmbedding,
    PolynomialFeatures,
    QuadraticFeatures,
    RandomFeatures,
    Residual,
    RMSNorm,
    RobustScale,
    Scale,
    Sequential,
    Standardize,
    Sum,
    VanillaDropout,
)
from gpunn.nn.ensemble import LEAST
from gpunn.ops.dropout import Rate

# layers ----------------------------------------------------------------------------------------


def _linear(draft: Draft, layer: Any, place: str, x: Value) -> Value:
    draft.demand(x, layer.in_features, place)
    width = layer.out_features
    weight = draft.floats(layer.weight.numpy(), f"{place}.weight", layer.weight)
    if layer.bias is None:
        y = draft.apply("MatMul", x, weight, place=place, width=width)
    else:
        bias = draft.floats(layer.bias.numpy(), f"{place}.bias", layer.bias)
        y = draft.apply("Gemm", x, weight, bias, place=place, width=width)
    return activated(draft, layer.activation, y, place)


def _activate(draft: Draft, layer: Any, place: str, x: Value) -> Value:
    return activated(draft, layer.activation, x, place)


def _parametric(draft: Draft, layer: Any, place: str, x: Value) -> Value:
    draft.demand(x, layer.share.size, place)
    share = draft.floats(layer.share.numpy(), f"{place}.share", layer.share)
    bend = draft.apply("Sub", activated(draft, layer.activation, x, place), x, place=place)
    return draft.apply("Add", x, draft.apply("Mul", bend, share, place=place), place=place)


def _dropout(draft: Draft, layer: Any, place: str, x: Value) -> Value:
    return x


def _vanilla_dropout(draft: Draft, layer: Any, place: str, x: Value) -> Value:
    kept = draft.floats(1 - Rate.of(layer.rate).realised, f"{place}.kept")
    return draft.apply("Mul", x, kept, place=place)


# feature maps ----------------------------------------------------------------------------------


def _random_features(draft: Draft, layer: Any, place: str, x: Value) -> Value:
    rows, width = layer.weight.shape
    draft.demand(x, rows, place)
    weight = draft.floats(layer.weight.numpy(), f"{place}.weight", layer.weight)
    y = draft.apply("MatMul", x, weight, place=place, width=width)
    return activated(draft, layer.activation, y, place)


def _quadratic_features(draft: Draft, layer: Any, place: str, x: Value) -> Value:
    """Multiply the pairs of columns (i, j) with i <= j, or i < j, for any number of columns."""
    zero, one = (draft.constant(np.int64(n), f"{place}.int_{n}") for n in (0, 1))
    first, second = (draft.constant(np.array([n]), f"{place}.axis_{n}") for n in (0, 1))
    count = draft.apply("Gather", draft.apply("Shape", x, place=place), one, place=place)
    numbers = draft.apply("Range", zero, count, one, place=place)
    i = draft.apply("Unsqueeze", numbers, second, place=place)
    j = draft.apply("Unsqueeze", numbers, first, place=place)
    chosen = draft.apply("GreaterOrEqual" if layer.squares else "Greater", j, i, place=place)
    pairs = draft.apply("NonZero", chosen, place=place)
    known = draft.width_of(x)
    products = known * (known + (1 if layer.squares else -1)) // 2
    factors = [
        draft.apply(
            "Gather", x, draft.apply("Gather", pairs, row, place=place), place=place, axis=1
        )
        for row in (zero, one)
    ]
    product = draft.apply("Mul", *factors, place=place)
    width = known + products if known else UNKNOWN
    return draft.apply("Concat", x, product, place=place, width=width, axis=1)


def _polynomial_features(draft: Draft, layer: Any, place: str, x: Value) -> Value:
    draft.demand(x, layer.in_features, place)
    factors, blocks = layer.factors(), []
    for size in range(1, layer.degree + 1):
        columns = np.array([each for each in factors if len(each) == size], np.int64)
        block = None
        for k in range(size if len(columns) else 0):
            index = draft.constant(columns[:, k].copy(), f"{place}.factor_{k}")
            factor = draft.apply("Gather", x, index, place=place, axis=1)
            block = factor if block is None else draft.apply("Mul", block, factor, place=place)
        blocks += [] if block is None else [block]
    return draft.apply("Concat", *blocks, place=place, width=len(factors), axis=1)


def _difference_feature(draft: Draft, layer: Any, place: str, x: Value) -> Value:
    draft.demand(x, 2, place)
    columns = (draft.constant(np.array([n]), f"{place}.column_{n}") for n in (0, 1))
    first, second = (draft.apply("Gather", x, n, place=place, axis=1) for n in columns)
    gap = draft.apply("Abs", draft.apply("Sub", first, second, place=place), place=place)
    shape = draft.apply("Shape", gap, place=place)
    one = draft.apply("Expand", draft.floats([[1]], f"{place}.one"), shape, place=place)
    return draft.apply("Concat", one, gap, place=place, width=2, axis=1)


# containers ------------------------------------------------------------------------------------


def _sequential(draft: Draft, container: Any, place: str, x: Value) -> Value:
    for name, layer in container.children():
        x = convert(draft, layer, f"{place}.{name}" if place else name, x)
    return x


def _sum(draft: Draft, layer: Any, place: str, *xs: Value) -> Value:
    total = xs[0]
    for x in xs[1:]:
        widths = {draft.width_of(total), draft.width_of(x)} - {UNKNOWN, 1}
        if len(widths) > 1:
            raise ShapeError(
                f"got {draft.width_of(total)} and {draft.width_of(x)} columns to add at {place}; "
                "expected the same number: check the sizes of the layers"
            )
        wide = x if draft.width_of(total) == 1 else total
        total = draft.apply("Add", total, x, place=place, width=wide.width)
    return total


def _residual(draft: Draft, container: Any, place: str, x: Value) -> Value:
    inner = convert(draft, container.inner, f"{place}.inner" if place else "inner", x)
    return _sum(draft, container, place, inner, x)


def _concatenate(draft: Draft, layer: Any, place: str, *xs: Value) -> Value:
    widths = [draft.width_of(x) for x in xs]
    width = UNKNOWN if UNKNOWN in widths else sum(widths)
    return draft.apply("Concat", *xs, place=place, width=width, axis=-1)


def _graph(draft: Draft, container: Any, place: str, x: Value) -> Value:
    values = {"x": x}
    for name, node in container.nodes.items():
        inputs = (values[i] for i in container.inputs[name])
        values[name] = convert(draft, node, f"{place}.{name}" if place else name, *inputs)
    return values[container.output]


def _ensemble(draft: Draft, container: Any, place: str, x: Value) -> Value:
    answers = [
        convert(draft, member, f"{place}.{name}" if place else name, x)
        for name, member in container.children()
    ]
    chances = container.average == "probabilities"
    if chances:
        answers = [draft.apply("Softmax", each, place=place, axis=-1) for each in answers]
    total = _sum(draft, container, place, *answers)
    count = draft.floats(1.0 / len(answers), f"{place}.share")
    mean = draft.apply("Mul", total, count, place=place)
    if not chances:
        return mean
    least = draft.floats(LEAST, f"{place}.least")
    scores = draft.apply("Log", draft.apply("Add", mean, least, place=place), place=place)
    cooled = draft.floats(1.0 / container.temperature, f"{place}.cooled")
    return draft.apply("Mul", scores, cooled, place=place)


LAYERS: dict[Callable[..., Any], Callable[..., Value]] = {
    Linear.forward: _linear,
    FeedbackLinear.forward: _linear,
    Activate.forward: _activate,
    Dropout.forward: _dropout,
    VanillaDropout.forward: _vanilla_dropout,
    Standardize.forward: onnx_normalization.standardize,
    LayerNorm.forward: onnx_normalization.layer_norm,
    BatchNorm.forward: onnx_normalization.batch_norm,
    RandomFeatures.forward: _random_features,
    QuadraticFeatures.forward: _quadratic_features,
    PolynomialFeatures.forward: _polynomial_features,
    DifferenceFeature.forward: _difference_feature,
    Sequential.forward: _sequential,
    Residual.forward: _residual,
    Sum.forward: _sum,
    Concatenate.forward: _concatenate,
    Graph.forward: _graph,
    Ensemble.forward: _ensemble,
    OneHot.forward: onnx_columns.one_hot,
    Embedding.forward: onnx_columns.embedding,
    RobustScale.forward: onnx_normalization.robust_scale,
    RMSNorm.forward: onnx_normalization.rms_norm,
    PeriodicEmbedding.forward: onnx_columns.periodic_embedding,
    Scale.forward: onnx_columns.scale,
    ParametricActivation.forward: _parametric,
}
"""The conversions of modules, by their `forward` method."""


def convert(draft: Draft, module: Module, place: str, *inputs: Value) -> Value:
    """Add the operators of a module to a draft.

    Raises:
        ArgumentError: a module or a function has no formula in ONNX.
        ShapeError: the layers do not fit each other.
    """
    forward = type(module).forward
    if forward not in LAYERS:
        raise ArgumentError(
            f"got a {type(module).__name__} at {place or 'the top'}, which has no formula in ONNX; "
            "expected modules of gpunn.nn: build the model from them, or export the part that "
            "consists of them"
        )
    return LAYERS[forward](draft, module, place, *inputs)


def whole(draft: Draft, module: Module, name: str) -> Value:
    """Add the operators of a whole model to a draft, and return its output."""
    return convert(draft, module, "", Value(name, AS_INPUT))
