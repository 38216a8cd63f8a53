"""A graph of ONNX operators that is being built. This module does not need the onnx package."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from gpunn.errors import ArgumentError, ShapeError
from gpunn.typing import Array, DType

INPUT = "input"
AS_INPUT, UNKNOWN = -1, 0  # stand for widths that no layer has determined yet


class Value(NamedTuple):
    """The values along an edge of the graph: (N, width) numbers."""

    name: str
    width: int


class Operator(NamedTuple):
    """One node of the graph."""

    kind: str
    inputs: list[str]
    output: str
    attributes: dict[str, Any]


class Draft:
    """The operators and constants of a graph, in the order of computation.

    Args:
        dtype: the dtype of all constants and values that are floats.

    Attributes:
        input_width: D, the width of the input; None until a layer determines it.
        inputs: the names, dtypes and widths of the inputs of a model that has several; empty for a
            model whose only input is `INPUT`.
    """

    def __init__(self, dtype: DType) -> None:
        self.dtype = np.dtype(dtype)
        self.operators: list[Operator] = []
        self.constants: dict[str, np.ndarray[Any, Any]] = {}
        self.input_width: int | None = None
        self.inputs: list[tuple[str, Any, int]] = []
        self._names = {INPUT}
        self._shared: dict[int, str] = {}

    def input(self, name: str, dtype: DType, width: int) -> Value:
        """Add an input, (N, width), which has the name that users of the model see.

        Raises:
            ArgumentError: something else has the name.
        """
        if name in self._names and name != INPUT:
            raise ArgumentError(
                f"got an input named {name!r}, which the graph has already; expected another name: "
                "rename the column"
            )
        self._names.add(name)
        self.inputs.append((name, np.dtype(dtype), width))
        return Value(name, width)

    def cast(self, value: Value, *, place: str) -> Value:
        """Convert a value to the dtype of the graph."""
        number = {"float16": 10, "float32": 1, "float64": 11}[self.dtype.name]  # ONNX's numbers
        return self.apply("Cast", value, place=place, to=number)

    def apply(
        self,
        kind: str,
        *inputs: Value | str,
        place: str,
        width: int | None = None,
        **attributes: Any,
    ) -> Value:
        """Add an operator on values and constants, and return its result.

        The result is as wide as the first input by default.
        """
        first = inputs[0]
        if width is None:
            width = first.width if isinstance(first, Value) else UNKNOWN
        names = [i.name if isinstance(i, Value) else i for i in inputs]
        output = self._unique(f"{place}/{kind}")
        self.operators.append(Operator(kind, names, output, attributes))
        return Value(output, width)

    def floats(self, numbers: Any, name: str, owner: Any = None) -> str:
        """Add a constant in the dtype of the graph, and return its name.

        The same owner gets the same constant each time.

        Raises:
            ArgumentError: the dtype cannot hold a number.
        """
        if id(owner) in self._shared:
            return self._shared[id(owner)]
        with np.errstate(over="ignore"):
            rounded = np.asarray(numbers, self.dtype)
        if not np.isfinite(rounded).all():
            raise ArgumentError(
                f"got {name} with a number that {self.dtype} does not hold; expected finite numbers"
                f": {'export without float16' if self.dtype == np.float16 else 'check the weights'}"
            )
        name = self.constant(rounded, name)
        if owner is not None:
            self._shared[id(owner)] = name
        return name

    def constant(self, array: Array, name: str) -> str:
        """Add a constant in its own dtype, and return its name."""
        name = self._unique(name)
        self.constants[name] = np.asarray(array, order="C")
        return name

    def width_of(self, value: Value) -> int:
        """Return the number of columns of a value; `UNKNOWN` if no layer determines it."""
        return (self.input_width or UNKNOWN) if value.width == AS_INPUT else value.width

    def demand(self, value: Value, width: int, place: str) -> None:
        """Note that a layer takes `width` columns, and check the width of the value.

        Raises:
            ShapeError: the value has another number of columns.
        """
        if value.width == AS_INPUT and self.input_width is None:
            self.input_width = width
        found = self.width_of(value)
        if found not in (width, UNKNOWN):
            raise ShapeError(
                f"got {found} columns at {place}, which takes {width}; expected layers that fit "
                "each other: check their sizes"
            )

    def producer(self, value: Value) -> str:
        """Return the kind of the operator that computes a value; "" for the input."""
        return next((o.kind for o in self.operators if o.output == value.name), "")

    def rename(self, value: Value, name: str) -> None:
        """Rename a value to the name that users of the exported model see."""
        if value.name == INPUT:
            value = self.apply("Identity", value, place="")
        self.operators = [
            o._replace(
                inputs=[name if i == value.name else i for i in o.inputs],
                output=name if o.output == value.name else o.output,
            )
            for o in self.operators
        ]

    def _unique(self, name: str) -> str:
        found, count = name, 0
        while found in self._names:
            count += 1
            found = f"{name}_{count}"
        self._names.add(found)
        return found
