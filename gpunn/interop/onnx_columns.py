"""Convert the layers for columns of tables to ONNX operators."""

from __future__ import annotations

from math import pi
from typing import Any

import numpy as np

from gpunn.errors import ArgumentError
from gpunn.interop.onnx_draft import UNKNOWN, Draft, Value
from gpunn.ops.embedding import told_apart

INT64 = 7  # ONNX's number of the dtype


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


def embedding(draft: Draft, layer: Any, place: str, x: Value) -> Value:
    """Gather rows of the weight. A code that is none becomes one that runtimes refuse."""
    rows, columns = layer.weight.shape
    if rows > told_apart(draft.dtype):
        raise ArgumentError(
            f"got {rows} codes at {place}, which {draft.dtype} cannot tell apart; expected at most "
            f"{told_apart(draft.dtype)}: "
            + ("export without float16" if draft.dtype == np.float16 else "leave out rare codes")
        )
    if not layer.flatten:
        draft.demand(x, 1, place)
    whole = draft.apply("Abs", draft.apply("Floor", x, place=place), place=place)
    known = draft.apply("Equal", x, whole, place=place)
    beyond = draft.floats(rows, f"{place}.rows")
    number = draft.apply("Where", known, x, beyond, place=place, width=x.width)
    number = draft.apply("Cast", number, place=place, to=INT64)
    weight = draft.floats(layer.weight.numpy(), f"{place}.weight", layer.weight)
    vectors = draft.apply("Gather", weight, number, place=place, axis=0)
    shape = draft.constant(np.array([0, -1]), f"{place}.shape")
    width = draft.width_of(x) * columns or UNKNOWN
    return draft.apply("Reshape", vectors, shape, place=place, width=width)


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
