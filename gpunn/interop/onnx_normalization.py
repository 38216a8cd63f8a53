"""Convert the layers that normalise to ONNX operators."""

from __future__ import annotations

from typing import Any

import numpy as np

from gpunn.errors import ArgumentError
from gpunn.interop.onnx_columns import part
from gpunn.interop.onnx_draft import Draft, Value
from gpunn.ops.rms_norm import default_eps


def standardize(draft: Draft, layer: Any, place: str, x: Value) -> Value:
    """Subtract and divide, or multiply and add."""
    draft.demand(x, layer.mean.size, place)
    mean = draft.floats(layer.mean.numpy(), f"{place}.mean", layer.mean)
    scale = draft.floats(layer.scale.numpy(), f"{place}.scale", layer.scale)
    if layer.inverse:
        return draft.apply("Add", draft.apply("Mul", x, scale, place=place), mean, place=place)
    if not draft.constants[scale].all():
        raise ArgumentError(
            f"got a scale at {place} that {draft.dtype} rounds to 0; expected larger scales: "
            "export without float16"
        )
    return draft.apply("Div", draft.apply("Sub", x, mean, place=place), scale, place=place)


def layer_norm(draft: Draft, layer: Any, place: str, x: Value) -> Value:
    """Use ONNX's own operator."""
    draft.demand(x, layer.features, place)
    gamma = draft.floats(layer.gamma.numpy(), f"{place}.gamma", layer.gamma)
    beta = draft.floats(layer.beta.numpy(), f"{place}.beta", layer.beta)
    options = {"axis": -1, "epsilon": layer.eps}
    return draft.apply("LayerNormalization", x, gamma, beta, place=place, **options)


def rms_norm(draft: Draft, layer: Any, place: str, x: Value) -> Value:
    """Use the layer norm of (x, -x), whose mean is 0, and take the first half.

    It has the same mean square. ONNX has an operator of its own from opset 23 on only.
    """
    draft.demand(x, layer.features, place)
    eps = default_eps(layer.gamma.dtype) if layer.eps is None else layer.eps
    both = np.tile(layer.gamma.numpy(), 2)
    gamma = draft.floats(both, f"{place}.gamma", layer.gamma)
    mirrored = draft.apply("Neg", x, place=place)
    pair = draft.apply("Concat", x, mirrored, place=place, width=2 * layer.features, axis=-1)
    y = draft.apply("LayerNormalization", pair, gamma, place=place, axis=-1, epsilon=eps)
    return part(draft, y, 0, layer.features, place)


def batch_norm(draft: Draft, layer: Any, place: str, x: Value) -> Value:
    """Subtract the mean first: as one product and one sum, a large mean would cost digits."""
    draft.demand(x, layer.features, place)
    mean, variance = layer.running_mean.numpy(), layer.running_variance.numpy()
    shift = draft.floats(mean, f"{place}.mean", layer.running_mean)
    gamma = draft.floats(layer.gamma.numpy(), f"{place}.gamma", layer.gamma)
    beta = draft.floats(layer.beta.numpy(), f"{place}.beta", layer.beta)
    wide = np.promote_types(draft.dtype, np.float32)  # float16 has neither large nor small ones
    zero = draft.constant(np.zeros_like(mean, wide), f"{place}.zero")
    spread = draft.constant(variance.astype(wide), f"{place}.variance")
    centred = draft.apply("Sub", x, shift, place=place)
    options = {"epsilon": layer.eps, "momentum": 1 - layer.momentum}
    inputs = (centred, gamma, beta, zero, spread)
    return draft.apply("BatchNormalization", *inputs, place=place, **options)


def robust_scale(draft: Draft, layer: Any, place: str, x: Value) -> Value:
    """Scale, then divide by the root."""
    draft.demand(x, layer.center.size, place)
    center = draft.floats(layer.center.numpy(), f"{place}.center", layer.center)
    scale = draft.floats(layer.scale.numpy(), f"{place}.scale", layer.scale)
    u = draft.apply("Mul", draft.apply("Sub", x, center, place=place), scale, place=place)
    part = draft.apply("Div", u, draft.floats(layer.limit, f"{place}.limit"), place=place)
    square = draft.apply("Mul", part, part, place=place)
    more = draft.apply("Add", square, draft.floats(1, f"{place}.one"), place=place)
    return draft.apply("Div", u, draft.apply("Sqrt", more, place=place), place=place)
