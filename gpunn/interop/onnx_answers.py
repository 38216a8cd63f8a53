"""The outputs of an exported graph: the numbers of a model, or labels and probabilities."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from gpunn.interop.onnx_draft import Draft, Value


class Answer(NamedTuple):
    """An output of the graph.

    Attributes:
        value: the edge of the graph.
        dtype: the dtype of the numbers or labels.
        width: the number of columns, or a name for it; None for (N,) labels.
    """

    value: Value
    dtype: Any
    width: int | str | None


def largest_of(draft: Draft, y: Value) -> Value:
    """Add the number of the largest of (N, C) scores, (N,) int64, to the graph."""
    return draft.apply("ArgMax", y, place="label", axis=1, keepdims=0)


def of_two(draft: Draft, y: Value) -> tuple[Value, Value]:
    """Add the class number and the two probabilities of a single output to the graph."""
    place = "probabilities"
    middle = 0.5 if draft.producer(y) == "Sigmoid" else 0.0
    if middle:
        first = draft.apply("Sub", draft.floats(1, "one"), y, place=place)
        both = draft.apply("Concat", first, y, place=place, axis=1)
    else:  # a softmax of (-z/2, z/2) has the same values; 1 - sigmoid(z) would lose small ones
        half = draft.apply("Mul", y, draft.floats(0.5, "half"), place=place)
        minus = draft.apply("Neg", half, place=place)
        scores = draft.apply("Concat", minus, half, place=place, axis=1)
        both = draft.apply("Softmax", scores, place=place, axis=-1)
    above = draft.apply("Greater", y, draft.floats(middle, "middle"), place="label")
    one, zero = (draft.constant(np.int64(n), f"class_{n}") for n in (1, 0))
    column = draft.apply("Where", above, one, zero, place="label")
    number = draft.apply("Squeeze", column, draft.constant(np.array([1]), "axes"), place="label")
    return number, both
