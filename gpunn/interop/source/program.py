"""A model as a short list of steps on the numbers of one row, for every target language."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from gpunn.errors import ArgumentError, ShapeError
from gpunn.interop.source.language import Function, exact_functions
from gpunn.typing import Array, DType

UNKNOWN = 0  # stands for a width that no layer has determined yet
DEPTH = 256  # products that are added up at a time, as in gpunn's own product of matrices


class Value(NamedTuple):
    """Some numbers of the row.

    Attributes:
        number: which value of the program it is; 0 is the input.
        width: how many numbers it has.
        raw: whether it has as many as the input.
    """

    number: int
    width: int
    raw: bool = False


class Constant(NamedTuple):
    """Fixed numbers, by the name of their array."""

    name: str
    width: int


Operand: TypeAlias = Value | Constant | float


class Product(NamedTuple):
    """The products of row vectors with matrices, `groups` of them side by side.

    `weight` has (groups, depth, columns) numbers, and x has groups * depth.
    """

    x: Value
    weight: Constant
    groups: int
    depth: int
    columns: int
    out: Value


class Map(NamedTuple):
    """A function of each element. Operands with one number are repeated."""

    function: str
    operands: tuple[Operand, ...]
    out: Value


class Fold(NamedTuple):
    """One number of all elements: "sum", or the name of a function of two numbers."""

    kind: str
    x: Value
    out: Value


class Pick(NamedTuple):
    """Chosen elements, by their numbers."""

    x: Value
    chosen: tuple[int, ...]
    out: Value


class Join(NamedTuple):
    """Several values side by side."""

    parts: tuple[Value, ...]
    out: Value


Step: TypeAlias = Product | Map | Fold | Pick | Join


def read_by(step: Step) -> list[Value]:
    """Return the values that a step reads."""
    if isinstance(step, Map):
        return [each for each in step.operands if isinstance(each, Value)]
    return list(step.parts) if isinstance(step, Join) else [step.x]


class WidthFoundError(Exception):
    """Ends a first look at a model, with the number of columns that a layer takes."""

    def __init__(self, width: int) -> None:
        super().__init__(width)
        self.width = width


class Program:
    """The steps from the input to the output, the functions that they call and the constants.

    Args:
        dtype: float32 or float64, the dtype that it computes in.
        columns: D, the width of the input; `UNKNOWN` to look for it.

    Attributes:
        input: the input.
        output: the output; the input until there is another one.
        steps: the steps, in order.
        functions: the functions that the steps call, each behind those that it calls itself.
        constants: the arrays, by name.
        chances: the numbers of the values that are probabilities, as a softmax makes them.
        linear: the shapes (D, H) of the constants that are weights of linear layers, by name.
    """

    def __init__(self, dtype: DType, columns: int = UNKNOWN) -> None:
        self.dtype = np.dtype(dtype)
        self.input = self.output = Value(0, columns, True)
        self.steps: list[Step] = []
        self.functions: dict[str, Function] = {}
        self.constants: dict[str, Array] = {}
        self.chances: set[int] = set()
        self.linear: dict[str, tuple[int, int]] = {}
        self._values = 1
        self._shared: dict[int, tuple[Any, Constant]] = {}  # with the owner, which keeps its id

    def _value(self, width: int, raw: bool = False) -> Value:
        self._values += 1
        return Value(self._values - 1, width, raw)

    def constant(self, numbers: Any, name: str, owner: Any = None) -> Constant:
        """Add fixed numbers. The same owner gets the same constant each time.

        Raises:
            ArgumentError: a number is not finite in the dtype of the program.
        """
        if id(owner) in self._shared:
            return self._shared[id(owner)][1]
        with np.errstate(over="ignore"):
            rounded = np.asarray(numbers).astype(self.dtype)
        if not np.isfinite(rounded).all():
            raise ArgumentError(
                f"got {name} with a number that is not finite in {self.dtype}; expected finite "
                "numbers: check the weights"
            )
        known = f"c{len(self.constants)}"
        self.constants[known] = rounded.ravel()
        found = Constant(known, rounded.size)
        if owner is not None:
            self._shared[id(owner)] = owner, found
        return found

    def demand(self, value: Value, width: int, place: str) -> None:
        """Check that a layer gets as many columns as it takes.

        Raises:
            ShapeError: the value has another number of columns.
        """
        if value.width == UNKNOWN and value.raw:
            raise WidthFoundError(width)
        if value.width not in (width, UNKNOWN):
            raise ShapeError(
                f"got {value.width} columns at {place or 'the top'}, which takes {width}; expected "
                "layers that fit each other: check their sizes"
            )

    def call(self, function: Function, *operands: Operand, place: str = "") -> Value:
        """Add a function of each element, and return its result.

        Raises:
            ShapeError: the operands have different numbers of columns.
            ArgumentError: a number is not finite in the dtype of the program.
        """
        function = self._own(function)
        pairs = zip(operands, function.parameters, strict=True)
        operands = tuple(self._number(each, function.name, *known) for each, known in pairs)
        wide = {each.width for each in operands if not isinstance(each, float)} - {1}
        raw = any(isinstance(each, Value) and each.raw for each in operands)
        if len(wide - {UNKNOWN}) > 1:
            raise ShapeError(
                f"got {' and '.join(map(str, sorted(wide)))} columns at {place or 'the top'}; "
                "expected the same number: check the sizes of the layers"
            )
        if UNKNOWN in wide:
            wide = wide - {UNKNOWN} if not raw else {UNKNOWN}
        out = self._value(wide.pop() if wide else 1, raw)
        self.steps.append(Map(function.name, operands, out))
        return out

    def _own(self, function: Function) -> Function:
        """Declare a function; under another name if the name belongs to another function."""
        name, count = function.name, 2
        while {**exact_functions(), **self.functions}.get(function.name, function) != function:
            function = replace(function, name=f"{name}_{count}")
            count += 1
        self._declare(function, {})
        return function

    def _number(self, operand: Operand, function: str, kind: str, name: str) -> Operand:
        """Return an operand; a number as the dtype of the program holds it."""
        if not isinstance(operand, float):
            return operand
        with np.errstate(over="ignore"):
            rounded = float(self.dtype.type(operand)) if kind == "T" else operand
        if not np.isfinite(rounded):
            raise ArgumentError(
                f"got {name}={operand} for {function}; expected a number that is finite in "
                f"{self.dtype}: choose another"
            )
        return rounded

    def _declare(self, function: Function, known: Mapping[str, Function]) -> None:
        known = {**exact_functions(), **known}
        for name in function.calls():
            if name in known:
                self._declare(known[name], known)
        if self.functions.setdefault(function.name, function) != function:
            raise ArgumentError(
                f"got two functions named {function.name!r} to export; expected different names: "
                "rename one of the kernels"
            )

    def declare(self, functions: Mapping[str, Function]) -> None:
        """Add functions that the functions of later steps call."""
        for function in functions.values():
            self._declare(function, functions)

    def product(
        self, x: Value, weight: Constant, depth: int, columns: int, groups: int = 1
    ) -> Value:
        """Add products of row vectors with matrices; see `Product`."""
        out = self._value(groups * columns)
        self.steps.append(Product(x, weight, groups, depth, columns, out))
        return out

    def fold(self, x: Value, by: Function | None = None) -> Value:
        """Add the sum of all elements, or what is left of them when a function takes two of them.

        The function must not depend on the order of its arguments.
        """
        if by is not None:
            by = self._own(by)
        out = self._value(1)
        self.steps.append(Fold("sum" if by is None else by.name, x, out))
        return out

    def pick(self, x: Value, index: Iterable[int]) -> Value:
        """Add chosen elements."""
        numbers = tuple(int(each) for each in index)
        if numbers == tuple(range(x.width)):
            return x
        out = self._value(len(numbers))
        self.steps.append(Pick(x, numbers, out))
        return out

    def join(self, parts: Sequence[Value]) -> Value:
        """Add several values side by side. Empty ones must not be among them."""
        if len(parts) == 1:
            return parts[0]
        widths = [each.width for each in parts]
        out = self._value(UNKNOWN if UNKNOWN in widths else sum(widths))
        self.steps.append(Join(tuple(parts), out))
        return out

    def finish(self, output: Value) -> Program:
        """Set the output, and remove all steps, functions and constants that it does not need."""
        if output.number == 0:
            output = self.pick_all(output)
        needed, kept = {output.number}, list[Step]()
        for step in reversed(self.steps):
            if step.out.number in needed:
                needed |= {each.number for each in read_by(step)}
                kept.append(step)
        self.steps, self.output = kept[::-1], output
        called = {step.function for step in kept if isinstance(step, Map)}
        called |= {step.kind for step in kept if isinstance(step, Fold)}
        for name, function in reversed(self.functions.items()):
            called |= set(function.calls()) if name in called else set()
        self.functions = {k: each for k, each in self.functions.items() if k in called}
        weights = {step.weight.name for step in kept if isinstance(step, Product)}
        operands = [each for step in kept if isinstance(step, Map) for each in step.operands]
        weights |= {each.name for each in operands if isinstance(each, Constant)}
        self.constants = {k: each for k, each in self.constants.items() if k in weights}
        return self

    def pick_all(self, x: Value) -> Value:
        """Add a copy of a value."""
        out = self._value(x.width)
        self.steps.append(Pick(x, tuple(range(x.width)), out))
        return out


def places_of(program: Program) -> tuple[dict[int, int], int]:
    """Return where in one block of memory each value stands, and the size of the block.

    The input and the output have places of their own, outside the block. Values that are never
    needed at the same time share a place.

    Returns:
        The offset of each value by its number, in elements; and the number of elements.
    """
    own = {program.input.number, program.output.number}
    last = dict[int, int]()
    for k, step in enumerate(program.steps):
        for each in (*read_by(step), step.out):
            last[each.number] = k
    busy, places, size = list[tuple[int, int, int]](), dict[int, int](), 0
    for k, step in enumerate(program.steps):
        out = step.out
        if out.number not in own:
            start = 0
            for first, end, _ in sorted(busy):
                if start + out.width <= first:
                    break
                start = max(start, end)
            places[out.number] = start
            busy.append((start, start + out.width, last[out.number]))
            size = max(size, start + out.width)
        busy = [each for each in busy if each[2] > k]
    return places, size
