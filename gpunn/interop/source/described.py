"""The description of a model for source text: its program, its columns and its classes."""

from __future__ import annotations

import keyword
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from gpunn.columns import Encoding
from gpunn.errors import ArgumentError, listed
from gpunn.interop.source.activations import MULTIPLY, softmax_of
from gpunn.interop.source.int8 import to_int8
from gpunn.interop.source.language import Function, formula
from gpunn.interop.source.layers import convert
from gpunn.interop.source.program import UNKNOWN, Map, Program, WidthFoundError
from gpunn.nn import Module
from gpunn.typing import Array

MINUS = formula("minus", "x", "y = -x;")
CLIPPED = formula("clipped", "x, low, high", "y = x < low ? low : x > high ? high : x;")
REST = formula("rest_of_one", "x", "y = T(1) - x;")

TAKEN = frozenset(
    (
        *("abstract", "arguments", "await", "boolean", "byte", "case", "catch", "char", "chrome"),
        *("const", "debugger", "default", "delete", "do", "double", "document", "enum"),
        *("eval", "export", "exports", "extends", "final", "float", "function", "history"),
        *("implements", "in", "instanceof", "int", "interface", "let", "location", "long"),
        *("module", "name", "navigator", "new", "null", "package", "parent", "private"),
        *("protected", "public", "require", "screen", "self", "short", "static", "status"),
        *("super", "switch", "this", "throw", "throws", "top", "transient", "true"),
        *("false", "typeof", "undefined", "var", "void", "volatile", "window"),
    )
)
"""Names that are no names of variables in every place of every target language."""


class Cell(NamedTuple):
    """The codes of the cells of one column.

    Attributes:
        name: the name of the column.
        levels: the code of each text, "" for a missing one; None for a column of numbers.
        other: the code of other texts.
        middle: the number that stands for a missing one.
        marked: whether a further code marks missing numbers.
    """

    name: str
    levels: dict[str, int] | None
    other: int
    middle: float
    marked: bool


def cells_of(encoding: Encoding) -> tuple[Cell, ...]:
    """Return how the cells of the columns that are used become codes.

    Raises:
        ArgumentError: a column has dates.
    """
    dates = [column.name for column in encoding.used if column.kind == "date"]
    if dates:
        raise ArgumentError(
            f"got a model with dates in {listed(dates)}; expected numbers and categories: train "
            'with kinds={"...": "left out"}, or on their parts'
        )
    found = list[Cell]()
    for column in encoding.used:
        if column.kind != "category":
            middle = float(np.float32(column.middle))
            found.append(Cell(column.name, None, -1, middle, column.missing))
            continue
        codes: dict[Any, int] = {level: place for place, level in enumerate(column.levels)}
        other = codes.pop(None, -1)
        found.append(Cell(column.name, {"": -1, **codes}, other, 0.0, False))
    return tuple(found)


@dataclass(frozen=True)
class Described:
    """A model that can be written in every target language.

    Attributes:
        name: an identifier, by which the file calls the model.
        program: from the input to the outputs, which are those of `Module.predict`.
        scores: from the outputs to a score for each class; None if the outputs are these scores.
        chances: from the outputs to the probability of each class; None without classes, and where
            the scores are the probabilities.
        classes: the names of the classes; None for a model of numbers.
        features: the names of the columns, or None.
        cells: what the columns of a table are, whose cells the program takes encoded; None for a
            model that takes numbers.
        int8: whether the weights of linear layers are written in eight bits.
    """

    name: str
    program: Program
    scores: Program | None = None
    chances: Program | None = None
    classes: tuple[str, ...] | None = None
    features: tuple[str, ...] | None = None
    cells: tuple[Cell, ...] | None = None
    int8: bool = False

    @property
    def inputs(self) -> int:
        """D, the number of inputs."""
        return self.program.input.width if self.cells is None else len(self.cells)

    @property
    def outputs(self) -> int:
        """K, the number of outputs."""
        return self.program.output.width

    def in_int8(self, program: Program, constant: str) -> tuple[Array, Array] | None:
        """Return the codes and scales of a constant; None if it is written in floats."""
        if not self.int8 or constant not in program.linear:
            return None
        return to_int8(program.constants[constant].reshape(program.linear[constant]))

    def programs(self) -> dict[str, Program]:
        """Return the programs by what they compute."""
        all_of_them = {"predict": self.program, "scores": self.scores, "chances": self.chances}
        return {name: each for name, each in all_of_them.items() if each is not None}

    def functions(self) -> dict[str, Function]:
        """Return the functions that the programs call, each behind those that it calls itself."""
        return {
            k: each for program in self.programs().values() for k, each in program.functions.items()
        }


def describe(
    model: Module,
    name: str,
    classes: Sequence[str] | None,
    features: Sequence[str] | None,
    columns: int | None,
    encoding: Encoding | None = None,
    limits: tuple[float, float] | None = None,
) -> Described:
    """Convert a module to its programs.

    Args:
        model: the module.
        name: an identifier.
        classes: the names of the classes, or None.
        features: the names of the columns, or None.
        columns: D, the number of columns; None if the layers tell it.
        encoding: what encodes the columns of a table, whose names are then the features.
        limits: the smallest and the largest output, or None.

    Raises:
        ArgumentError: a part of the model has no form here, or an argument does not fit the model.
        ShapeError: the layers do not fit each other.
    """
    if encoding is not None:
        found = describe(model, name, classes, None, encoding.width, limits=limits)
        return replace(found, features=encoding.names, cells=cells_of(encoding))
    columns_of = None if features is None else names_in(features)
    width = len(columns_of) if columns_of and columns is None else columns
    program = _whole(model, width, limits)
    if columns_of is not None and len(columns_of) != program.input.width:
        raise ArgumentError(
            f"got {len(columns_of)} names of columns for a model of {program.input.width}; "
            "expected a name for each column: pass as many"
        )
    if classes is None:
        return Described(name, program, features=columns_of)
    names, outputs = names_in(classes), program.output.width
    fits = all(isinstance(each, str) for each in classes) and len(set(names)) == len(names)
    if not fits or len(names) != max(outputs, 2):
        raise ArgumentError(
            f"got classes={classes!r} for {outputs} outputs; expected a different name for each "
            "output, or two names for a single output: pass their names"
        )
    scores, chances = _answers(program)
    return Described(name, program, scores, chances, names, columns_of)


def names_in(names: Sequence[str]) -> tuple[str, ...]:
    """Return names as plain texts, also those of an array or of one text alone."""
    return (names,) if isinstance(names, str) else tuple(map(str, names))


def _whole(
    model: Module, columns: int | None, limits: tuple[float, float] | None = None
) -> Program:
    arrays = [each for _, each in model.state()]
    wide = any(each.dtype == np.float64 for each in arrays)
    dtype = np.float64 if wide else np.float32
    program = Program(dtype, columns or UNKNOWN)
    try:
        output = convert(program, model, "", program.input)
    except WidthFoundError as found:
        return _whole(model, found.width, limits)
    if program.input.width == UNKNOWN:
        raise ArgumentError(
            "got a model that takes any number of columns; expected a known number: pass columns="
        )
    if limits is not None:
        output = program.call(CLIPPED, output, *map(float, limits))
    return program.finish(output)


def _answers(program: Program) -> tuple[Program | None, Program | None]:
    """Return the programs from the outputs to scores and to probabilities of classes."""
    last = program.steps[-1]
    function = last.function if isinstance(last, Map) else ""
    outputs = program.output.width
    if outputs > 1:
        if program.output.number in program.chances:
            return None, None
        chances = Program(program.dtype, outputs)
        return None, chances.finish(softmax_of(chances, chances.input))
    scores = Program(program.dtype, 1)
    if function == "sigmoid":
        first = scores.call(REST, scores.input)
        return scores.finish(scores.join([first, scores.input])), None
    chances = Program(program.dtype, 1)
    for each in (scores, chances):
        half = each.call(MULTIPLY, each.input, 0.5)
        pair = each.join([each.call(MINUS, half), half])
        each.finish(pair if each is scores else softmax_of(each, pair))
    return scores, chances


def identifier(name: str) -> str:
    """Return a name that every target language takes for a variable."""
    found = re.sub(r"\W", "_", name, flags=re.ASCII).strip("_").lower()
    taken = not found or found[0].isdigit() or found in TAKEN or keyword.iskeyword(found)
    return f"model_{found}".rstrip("_") if taken else found


def shown(value: Any) -> str:
    """Return a text that may stand in a comment of every target language."""
    text = "".join(c if c.isprintable() else " " for c in str(value))
    for ends in ("\\", "*/", "/*", "//", "??", "</", '""'):  # of comments, pages and strings
        while ends in text:
            text = text.replace(ends, " ".join(ends) if len(ends) > 1 else "/ ")
    return text
