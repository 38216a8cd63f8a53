"""Add a table model to an ONNX graph, with the encoding of its columns inside."""

from __future__ import annotations

from typing import Any

import numpy as np

from gpunn.columns import Column, Encoding
from gpunn.columns.cells import MISSING
from gpunn.errors import ArgumentError, listed
from gpunn.interop.onnx_answers import Answer, largest_of
from gpunn.interop.onnx_draft import Draft, Value
from gpunn.interop.onnx_layers import convert
from gpunn.nn import Module

ML = "ai.onnx.ml"
CELL = 1  # the width of an input: one column


def encoded(draft: Draft, encoding: Encoding) -> Value:
    """Add an input for each column that is used, and return the encoded columns.

    Raises:
        ArgumentError: a column has dates, which ONNX cannot read.
    """
    dates = [column.name for column in encoding.used if column.kind == "date"]
    if dates:
        raise ArgumentError(
            f"got a model with dates in {listed(dates)}; expected numbers and categories, because "
            "ONNX cannot read dates: train on their parts, or without them, with "
            f'kinds={{"{dates[0]}": "left out"}} (gpunn train --kind "{dates[0]}=left out")'
        )
    numbers, categories = list[Value](), list[Value]()
    for column in encoding.used:
        name = column.name
        if column.kind == "category":
            categories.append(_codes(draft, column, draft.input(name, np.object_, CELL)))
            continue
        cells = draft.input(name, draft.dtype, CELL)
        gone = draft.apply("IsNaN", cells, place=name)
        middle = draft.floats(column.middle, f"{name}.middle")
        numbers.append(draft.apply("Where", gone, middle, cells, place=name, width=CELL))
        if column.missing:
            one, zero = (draft.floats(n, f"{name}.{n}") for n in (1, 0))
            categories.append(draft.apply("Where", gone, one, zero, place=name, width=CELL))
    both = [*numbers, *categories]
    if len(both) == 1:
        return both[0]
    return draft.apply("Concat", *both, place="encoding", width=encoding.width, axis=1)


def _codes(draft: Draft, column: Column, cells: Value) -> Value:
    codes: dict[Any, int] = {level: place for place, level in enumerate(column.levels)}
    other = codes.pop(None, -1)
    missing = codes.pop("", -1)
    for word in sorted(MISSING):
        for spelling in (word, word.upper(), word.capitalize()):
            codes.setdefault(spelling, missing)
    found = draft.apply(
        "LabelEncoder",
        cells,
        place=column.name,
        domain=ML,
        keys_strings=list(codes),
        values_floats=[float(code) for code in codes.values()],
        default_float=float(other),
    )
    if draft.dtype == np.float32:
        return found
    return draft.cast(found, place=column.name)


def answers(
    draft: Draft,
    encoding: Encoding,
    network: Module,
    names: np.ndarray[Any, Any] | None,
    limits: tuple[float, float] | None,
) -> dict[str, Answer]:
    """Add the model to a draft, and return its outputs by name.

    Args:
        draft: the draft.
        encoding: what encodes the columns.
        network: what takes the encoded columns.
        names: (C,) texts or integers, the classes; None for a regression.
        limits: the smallest and the largest answer of a regression, else None.
    """
    y = convert(draft, network, "", encoded(draft, encoding))
    if names is None:
        assert limits is not None
        ends = (draft.floats(end, f"limit_{k}") for k, end in enumerate(limits))
        return {"output": Answer(draft.apply("Clip", y, *ends, place="output"), draft.dtype, 1)}
    known = draft.constant(names, "classes")
    label = draft.apply("Gather", known, largest_of(draft, y), place="label", axis=0)
    chances = draft.apply("Softmax", y, place="probabilities", axis=-1)
    return {
        "label": Answer(label, names.dtype, None),
        "probabilities": Answer(chances, draft.dtype, len(names)),
    }
