"""The input and the results of the rules that read ONNX graphs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np

from gpunn.errors import GpunnError
from gpunn.interop.onnx_draft import UNKNOWN
from gpunn.interop.onnx_proposals import chain
from gpunn.interop.onnx_source import Array, Node, Source
from gpunn.nn import Module, Sum


class RefusedError(Exception):
    """A reason why an operator cannot become a module."""


class Refused(NamedTuple):
    """An operator that cannot become a module, and why."""

    node: Node
    why: str


class RefusedNodesError(Exception):
    """The operators of a graph that cannot become modules."""

    def __init__(self, nodes: list[Refused]) -> None:
        super().__init__(nodes)
        self.nodes = nodes


@contextmanager
def about(node: Node) -> Iterator[None]:
    """Name the operator in the errors that are raised inside the block."""
    try:
        yield
    except (RefusedError, GpunnError) as error:
        raise RefusedNodesError([Refused(node, str(error))]) from error


class Layer(NamedTuple):
    """A module that is not built yet.

    Attributes:
        make: builds it; None for one that returns its input.
        width: the number of its outputs; UNKNOWN if nothing tells.
        state: reads its weights from the file; None if `make` gives them.
        numbers: how many numbers it has.
        key: for a linear layer, what is the same for those with the same weights in the file; None
            for others.
        activation: the activation that it is, or that a linear layer gets; None for others.
    """

    make: Callable[[], Module] | None
    width: int
    state: Callable[[], dict[str, Array]] | None = None
    numbers: int = 0
    key: tuple[Any, ...] | None = None
    activation: Any = None


class Match(NamedTuple):
    """Operators that one module stands for.

    Attributes:
        inputs: the names of the values that it takes.
        layer: returns the layer for the widths of the inputs.
        mean: for the mean of several networks, the options of `Ensemble`; None for others.
    """

    inputs: tuple[str, ...]
    layer: Callable[..., Layer]
    mean: dict[str, Any] | None = None


class Rules(NamedTuple):
    """A graph, as the rules see it.

    Attributes:
        source: the graph.
        dtype: the dtype of the network.
        uses: how many operators take each value, of those that the output needs.
    """

    source: Source
    dtype: np.dtype[Any]
    uses: dict[str, int]

    def constant(self, node: Node, place: int, axes: int) -> Array | None:
        """Return an input of an operator if it is a constant of at most so many axes.

        Axes of length 1 in front do not count.
        """
        name = node.inputs[place] if len(node.inputs) > place else ""
        found = self.source.constant(name) if name else None
        if found is not None and found.ndim > 2:
            return None  # values would get more axes than rows have
        while found is not None and found.ndim > axes:
            if found.shape[0] != 1:
                return None
            found = found[0]
        return found

    def alone(self, name: str, *kinds: str) -> list[Node]:
        """Return the operators that a value comes from, as `chain`, if nothing else takes it."""
        return chain(self.source, name, *kinds) if self.uses.get(name) == 1 else []


def rows_of(widths: tuple[int, ...], wanted: int) -> int:
    """Check that the first input has as many columns as an operator takes, and return them.

    Raises:
        RefusedError: it has others.
    """
    if widths[0] not in (wanted, UNKNOWN):
        raise RefusedError(f"it takes {wanted} columns, and its input has {widths[0]}")
    return wanted


def known(width: int) -> int:
    """Check that a width is known, and return it.

    Raises:
        RefusedError: it is not.
    """
    if width == UNKNOWN:
        raise RefusedError("nothing in the file says how many columns its input has")
    return width


def added(widths: tuple[int, ...]) -> Layer:
    """Return the sum of values of the same width, or of one column."""
    found = {*widths} - {UNKNOWN, 1}
    if len(found) > 1:
        raise RefusedError(f"its inputs have {' and '.join(map(str, widths))} columns")
    return Layer(Sum, UNKNOWN if UNKNOWN in widths else max(widths))


def unchanged(start: str) -> Match:
    """Return what stands for an operator that returns its input."""
    return Match((start,), lambda width: Layer(None, width))
