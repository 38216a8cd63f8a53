"""Convert modules and activations to the steps of a program, as they compute in evaluation."""

from __future__ import annotations

from collections.abc import Callable
from math import sqrt
from typing import Any

import numpy as np

from gpunn.errors import ArgumentError
from gpunn.interop.source.activations import (
    LARGER,
    MULTIPLY,
    SUBTRACT,
    activated,
    element,
    softmax_of,
)
from gpunn.interop.source.language import formula, functions_in
from gpunn.interop.source.program import UNKNOWN, Constant, Program, Value
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
from gpunn.ops.columns import SMOOTH_CLIP, WAVES
from gpunn.ops.dropout import Rate
from gpunn.ops.rms_norm import default_eps

# formulas of one element ------------------------------------------------------------------------

ADD = formula("add", "a, c", "y = a + c;")
DIVIDE = formula("divide", "a, c", "y = a / c;")
LOG = formula("log_of", "x", "y = log(x);")
ONE = formula("one", "x", "y = T(1);")
ABSOLUTE = formula("absolute", "x", "y = abs(x);")
SQUARE = formula("square", "x", "y = x * x;")
FOUR_OVER = formula("four_over", "top", "y = T(4) / top;")
RMS_SPREAD = formula(
    "inverse_root", "sum, count, floor", "y = T(1) / sqrt(sum / count + floor * floor);"
)
STRETCHED = formula("stretched", "x, scale, gamma", "y = x * scale * gamma;")
SPREAD = formula("inverse_deviation", "sum, count, eps", "y = T(1) / sqrt(sum / count + eps);")
NORMAL = formula("scaled", "x, scale, gamma, beta", "y = x * scale * gamma + beta;")
SAME = formula("same", "code, wanted", "y = T(code == wanted);")
LEVEL = formula("level", "code, high, low", "y = T(code == high) - T(code == low);")
WAVE = formula("wave", "x, frequency, phase", "y = cos(angle_of(x, frequency, phase));")

# layers -----------------------------------------------------------------------------------------


def _weighted(program: Program, layer: Any, place: str, x: Value) -> Value:
    depth, width = layer.weight.shape
    program.demand(x, depth, place)
    weight = program.constant(layer.weight.numpy(), f"{place}.weight", layer.weight)
    if isinstance(layer, Linear):
        program.linear[weight.name] = depth, width
    return program.product(x, weight, depth, width)


def _linear(program: Program, layer: Any, place: str, x: Value) -> Value:
    y = _weighted(program, layer, place, x)
    if layer.bias is not None:
        bias = program.constant(layer.bias.numpy(), f"{place}.bias", layer.bias)
        y = program.call(ADD, y, bias)
    return activated(program, layer.activation, y, place)


def _random_features(program: Program, layer: Any, place: str, x: Value) -> Value:
    return activated(program, layer.activation, _weighted(program, layer, place, x), place)


def _activate(program: Program, layer: Any, place: str, x: Value) -> Value:
    return activated(program, layer.activation, x, place)


def _per_column(program: Program, layer: Any, name: str, place: str, x: Value) -> Constant:
    """Return an array of a layer that has a number for each column of x."""
    numbers = getattr(layer, name)
    program.demand(x, numbers.size, place)
    return program.constant(numbers.numpy(), f"{place}.{name}", numbers)


def _parametric(program: Program, layer: Any, place: str, x: Value) -> Value:
    share = _per_column(program, layer, "share", place, x)
    bend = program.call(SUBTRACT, activated(program, layer.activation, x, place), x)
    return program.call(ADD, x, program.call(MULTIPLY, bend, share))


def _dropout(program: Program, layer: Any, place: str, x: Value) -> Value:
    return x


def _vanilla_dropout(program: Program, layer: Any, place: str, x: Value) -> Value:
    return program.call(MULTIPLY, x, 1.0 - Rate.of(layer.rate).realised)


def _standardize(program: Program, layer: Any, place: str, x: Value) -> Value:
    mean, scale = (_per_column(program, layer, name, place, x) for name in ("mean", "scale"))
    if layer.inverse:
        return program.call(ADD, program.call(MULTIPLY, x, scale), mean)
    return program.call(DIVIDE, program.call(SUBTRACT, x, mean), scale)


def _robust_scale(program: Program, layer: Any, place: str, x: Value) -> Value:
    center, scale = (_per_column(program, layer, name, place, x) for name in ("center", "scale"))
    u = program.call(MULTIPLY, program.call(SUBTRACT, x, center), scale)
    return element(program, SMOOTH_CLIP, u, {"limit": layer.limit})


def _scale(program: Program, layer: Any, place: str, x: Value) -> Value:
    return program.call(MULTIPLY, x, _per_column(program, layer, "scale", place, x))


def _layer_norm(program: Program, layer: Any, place: str, x: Value) -> Value:
    """Subtract the mean in two parts, as the kernel does."""
    gamma, beta = (_per_column(program, layer, name, place, x) for name in ("gamma", "beta"))
    count = float(layer.features)
    share = float(program.dtype.type(1) / program.dtype.type(count))
    middle = program.fold(program.call(MULTIPLY, x, share))
    centred = program.call(SUBTRACT, x, middle)
    shift = program.call(DIVIDE, program.fold(centred), count)
    centred = program.call(SUBTRACT, centred, shift)
    squares = program.fold(program.call(SQUARE, centred))
    scale = program.call(SPREAD, squares, count, float(layer.eps))
    return program.call(NORMAL, centred, scale, gamma, beta)


def _rms_norm(program: Program, layer: Any, place: str, x: Value) -> Value:
    """Multiply by a factor that makes the largest number 4 first, as the kernel does."""
    gamma = _per_column(program, layer, "gamma", place, x)
    root = sqrt(default_eps(program.dtype) if layer.eps is None else layer.eps)
    least = max(root, 2 * float(np.finfo(program.dtype).tiny))
    top = program.call(LARGER, program.fold(program.call(ABSOLUTE, x), LARGER), least)
    by = program.call(FOUR_OVER, top)
    scaled = program.call(MULTIPLY, x, by)
    squares = program.fold(program.call(SQUARE, scaled))
    floor = program.call(MULTIPLY, by, root)
    scale = program.call(RMS_SPREAD, squares, float(layer.features), floor)
    return program.call(STRETCHED, scaled, scale, gamma)


def _batch_norm(program: Program, layer: Any, place: str, x: Value) -> Value:
    mean = _per_column(program, layer, "running_mean", place, x)
    spread = (layer.running_variance.numpy() + layer.eps) ** 0.5
    deviation = program.constant(spread, f"{place}.deviation", layer.running_variance)
    gamma, beta = (_per_column(program, layer, name, place, x) for name in ("gamma", "beta"))
    normal = program.call(DIVIDE, program.call(SUBTRACT, x, mean), deviation)
    return program.call(ADD, program.call(MULTIPLY, normal, gamma), beta)


# columns and feature maps -----------------------------------------------------------------------


def _one_hot(program: Program, layer: Any, place: str, x: Value) -> Value:
    program.demand(x, len(layer.levels), place)
    parts = [program.pick(x, range(layer.numbers))] if layer.numbers else []
    column, *codes = layer.places()
    if column:
        high, low = (program.constant(each, f"{place}.codes") for each in codes)
        parts.append(program.call(LEVEL, program.pick(x, column), high, low))
    return program.join(parts)


def _embedding(program: Program, layer: Any, place: str, x: Value) -> Value:
    """Multiply a one for each code by the vectors. A code that is none becomes zeros."""
    if not layer.flatten:
        raise ArgumentError(
            f"got an Embedding at {place or 'the top'} whose vectors are not side by side; "
            "expected one row of numbers: use flatten=True"
        )
    _known(x, place)
    rows, width = layer.weight.shape
    codes = program.constant(np.tile(np.arange(rows), x.width), f"{place}.codes")
    weight = program.constant(np.tile(layer.weight.numpy(), (x.width, 1)), f"{place}.weight")
    spread = program.pick(x, np.repeat(np.arange(x.width), rows))
    return program.product(program.call(SAME, spread, codes), weight, rows, width, x.width)


def _periodic_embedding(program: Program, layer: Any, place: str, x: Value) -> Value:
    numbers, count, outputs = layer.weight.shape
    _known(x, place)
    if x.width < numbers:
        program.demand(x, numbers, place)
    program.declare(functions_in(WAVES.cuda_file.read_text(encoding="utf-8"), "waves.cu"))
    frequency, phase, weight, bias = (
        program.constant(each.numpy(), f"{place}.waves", each)
        for each in (layer.frequency, layer.phase, layer.weight, layer.bias)
    )
    spread = program.pick(x, np.repeat(np.arange(numbers), count))
    waves = program.call(WAVE, spread, frequency, phase)
    sums = program.product(waves, weight, count, outputs, groups=numbers)
    return program.join([x, program.call(ADD, sums, bias)])


def _polynomial_features(program: Program, layer: Any, place: str, x: Value) -> Value:
    program.demand(x, layer.in_features, place)
    factors, blocks = layer.factors(), [x]
    for size in range(2, layer.degree + 1):
        columns = [each for each in factors if len(each) == size]
        if not columns:
            break
        *before, last = zip(*columns, strict=True)
        block = program.pick(x, last)
        for factor in reversed(before):  # x_i times the product of the later factors
            block = program.call(MULTIPLY, program.pick(x, factor), block)
        blocks.append(block)
    return program.join(blocks)


def _quadratic_features(program: Program, layer: Any, place: str, x: Value) -> Value:
    _known(x, place)
    same = PolynomialFeatures(x.width, interaction_only=not layer.squares)
    return _polynomial_features(program, same, place, x)


def _difference_feature(program: Program, layer: Any, place: str, x: Value) -> Value:
    program.demand(x, 2, place)
    gap = program.call(SUBTRACT, program.pick(x, [0]), program.pick(x, [1]))
    gap = program.call(ABSOLUTE, gap)
    return program.join([program.call(ONE, gap), gap])


def _known(x: Value, place: str) -> None:
    if x.width == UNKNOWN:
        raise ArgumentError(
            f"got a model whose layer at {place or 'the top'} takes any number of columns; "
            "expected a known number: pass columns="
        )


# containers -------------------------------------------------------------------------------------


def _inside(place: str, name: str) -> str:
    return f"{place}.{name}" if place else name


def _sequential(program: Program, container: Any, place: str, x: Value) -> Value:
    for name, layer in container.children():
        x = convert(program, layer, _inside(place, name), x)
    return x


def _sum(program: Program, layer: Any, place: str, *xs: Value) -> Value:
    total = xs[0]
    for x in xs[1:]:
        total = program.call(ADD, total, x, place=place)
    return total


def _residual(program: Program, container: Any, place: str, x: Value) -> Value:
    return _sum(
        program, container, place, convert(program, container.inner, _inside(place, "inner"), x), x
    )


def _concatenate(program: Program, layer: Any, place: str, *xs: Value) -> Value:
    return program.join(xs)


def _graph(program: Program, container: Any, place: str, x: Value) -> Value:
    values = {"x": x}
    for name, node in container.nodes.items():
        inputs = (values[each] for each in container.inputs[name])
        values[name] = convert(program, node, _inside(place, name), *inputs)
    return values[container.output]


def _ensemble(program: Program, container: Any, place: str, x: Value) -> Value:
    answers = [
        convert(program, member, _inside(place, name), x) for name, member in container.children()
    ]
    chances = container.average == "probabilities"
    if chances:
        answers = [softmax_of(program, each, place) for each in answers]
    mean = program.call(MULTIPLY, _sum(program, container, place, *answers), 1.0 / len(answers))
    if not chances:
        return mean
    scores = program.call(LOG, program.call(ADD, mean, LEAST))
    return program.call(MULTIPLY, scores, 1.0 / container.temperature)


LAYERS: dict[Callable[..., Any], Callable[..., Value]] = {
    Linear.forward: _linear,
    FeedbackLinear.forward: _linear,
    Activate.forward: _activate,
    Dropout.forward: _dropout,
    VanillaDropout.forward: _vanilla_dropout,
    Standardize.forward: _standardize,
    LayerNorm.forward: _layer_norm,
    RMSNorm.forward: _rms_norm,
    Embedding.forward: _embedding,
    BatchNorm.forward: _batch_norm,
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
    OneHot.forward: _one_hot,
    RobustScale.forward: _robust_scale,
    PeriodicEmbedding.forward: _periodic_embedding,
    Scale.forward: _scale,
    ParametricActivation.forward: _parametric,
}
"""The conversions of modules, by their `forward` method."""


def convert(program: Program, module: Module, place: str, *inputs: Value) -> Value:
    """Add the steps of a module to a program.

    Raises:
        ArgumentError: a module or a function has no form here.
        ShapeError: the layers do not fit each other.
    """
    forward = type(module).forward
    if forward not in LAYERS:
        raise ArgumentError(
            f"got a {type(module).__name__} at {place or 'the top'}, which has no form as source; "
            "expected modules of gpunn.nn: build the model from them, or export the part that "
            "consists of them"
        )
    return LAYERS[forward](program, module, place, *inputs)
