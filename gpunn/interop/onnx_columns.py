"""Convert the layers for columns of tables to ONNX operators."""

from __future__ import annotations

from math import pi
from typing import Any

import numpy as np

from gpunn.interop.onnx_draft import UNKNOWN, Draft, Value


def part(draft: Draft, x: Value, first: int, last: int, place: str) -> Value:
    """Return the columns from first up to last of x."""
    bounds = [
        draft.constant(np.array([n]), f"{place}.{name}_{n}")
        for name, n in (("from", first), ("to", last), ("axis", 1))
    ]
    return draft.apply("Slice", x, *bounds, place=place, width=last - first)


def one_hot(draft: Draft, layer: Any, place: str, x: Value) -> Value:
    """Compare the gathered codes with the levels."""
    draft.demand(x, len(layer.levels), place)
    numbers, width = layer.numbers, layer.out_features
    found = [part(draft, x, 0, numbers, place)] if numbers else []
    if width > numbers:
        column, *codes = layer.places()
        index = draft.constant(np.array(column), f"{place}.column")
        picked = draft.apply("Gather", x, index, place=place, axis=1)
        one, zero = (draft.floats(n, f"{place}.{n}") for n in (1, 0))
        marks = []
        for name, wanted in zip(("high", "low"), codes, strict=True):
            level = draft.floats(wanted, f"{place}.{name}")
            same = draft.apply("Equal", picked, level, place=place)
            marks.append(draft.apply("Where", same, one, zero, place=place))
        found.append(draft.apply("Sub", *marks, place=place, width=width - numbers))
    if len(found) == 1:
        return found[0]
    return draft.apply("Concat", *found, place=place, width=width, axis=1)


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


def periodic_embedding(draft: Draft, layer: Any, place: str, x: Value) -> Value:
    """Multiply (n, N, F) cosines by (n, F, K) weights."""
    numbers, frequencies, outputs = layer.weight.shape
    columns = part(draft, x, 0, numbers, place)
    tall = draft.apply("Transpose", columns, place=place, perm=[1, 0])
    last = draft.constant(np.array([2]), f"{place}.last")
    tall = draft.apply("Unsqueeze", tall, last, place=place)
    turns = (layer.frequency.numpy() * 2 * pi).reshape(numbers, 1, frequencies)
    phase = layer.phase.numpy().reshape(numbers, 1, frequencies)
    angle = draft.apply("Mul", tall, draft.floats(turns, f"{place}.turns"), place=place)
    angle = draft.apply("Add", angle, draft.floats(phase, f"{place}.phase"), place=place)
    waves = draft.apply("Cos", angle, place=place)
    weight = draft.floats(layer.weight.numpy(), f"{place}.weight", layer.weight)
    bias = draft.floats(layer.bias.numpy().reshape(numbers, 1, outputs), f"{place}.bias")
    sums = draft.apply("Add", draft.apply("MatMul", waves, weight, place=place), bias, place=place)
    wide = draft.apply("Transpose", sums, place=place, perm=[1, 0, 2])
    shape = draft.constant(np.array([-1, numbers * outputs]), f"{place}.shape")
    flat = draft.apply("Reshape", wide, shape, place=place, width=numbers * outputs)
    known = draft.width_of(x)
    width = known + numbers * outputs if known != UNKNOWN else UNKNOWN
    return draft.apply("Concat", x, flat, place=place, width=width, axis=1)


def scale(draft: Draft, layer: Any, place: str, x: Value) -> Value:
    """Multiply each column by its number."""
    draft.demand(x, layer.scale.size, place)
    return draft.apply(
        "Mul", x, draft.floats(layer.scale.numpy(), f"{place}.scale", layer.scale), place=place
    )
