"""The quantities of a computation, and the views of them: text, a table, a graph."""

from __future__ import annotations

import html
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from gpunn.errors import UnknownNameError
from gpunn.typing import Shape

Values = np.ndarray[Any, Any]
MACRON = "\u0304"


def barred(name: str) -> str:
    """The name of an error signal: a bar above the first letter, as lecture 003 writes it."""
    return unicodedata.normalize("NFKC", name[:1] + MACRON + name[1:])


@dataclass
class Quantity:
    """One quantity of a computation.

    Attributes:
        name: what it is called.
        value: a host copy.
        formula: the expression that it was computed by; empty for an input.
        parents: the names of what it was computed from.
        grad: dloss/dvalue, of value's shape; None where none arrived.
        grad_formula: the expression of it, a sum over the consumers; empty where none arrived.
        messages: consumer -> the part of `grad` that came from it.
    """

    name: str
    value: Values
    formula: str = ""
    parents: tuple[str, ...] = ()
    grad: Values | None = None
    grad_formula: str = ""
    messages: dict[str, Values] = field(default_factory=dict)

    @property
    def shape(self) -> Shape:
        """The value's shape."""
        return tuple(self.value.shape)


class Steps(Mapping[str, Quantity]):
    """Every quantity of one forward and backward pass, by name, in the order of the forward pass.

    Print it for the text; in a notebook it shows as a table.
    """

    def __init__(self, quantities: dict[str, Quantity], backward: list[str]) -> None:
        self._quantities, self._backward = quantities, backward

    def __getitem__(self, name: str) -> Quantity:
        if name not in self._quantities:
            raise UnknownNameError("quantity", name, self._quantities)
        return self._quantities[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._quantities)

    def __len__(self) -> int:
        return len(self._quantities)

    def __contains__(self, name: object) -> bool:
        return name in self._quantities

    def text(self) -> str:
        """Two lists of `name = formula = value`: the forward pass, then the backward pass."""
        forward = [(q.name, q.formula, numbers(q.value)) for q in self.values()]
        signals = [self[name] for name in self._backward]
        backward = [(barred(q.name), q.grad_formula, numbers(q.grad)) for q in signals]
        return "\n".join(["forward", *_lines(forward), "backward", *_lines(backward)])

    __str__ = text

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {', '.join(self)}>"

    def _repr_html_(self) -> str:
        """A table: a row for each quantity; read the right half from the bottom up."""
        head = ("quantity", "forward", "value", "backward", "error signal")
        rows = ["".join(f"<th>{title}</th>" for title in head)]
        for q in self.values():
            signal = f"{barred(q.name)} = {q.grad_formula}" if q.grad is not None else ""
            rows.append(
                f"<td><b>{html.escape(q.name)}</b> {html.escape(str(q.shape))}</td>"
                + _code(f"{q.name} = {q.formula}" if q.formula else "input")
                + _code(numbers(q.value))
                + _code(signal)
                + _code("" if q.grad is None else numbers(q.grad))
            )
        return "<table>" + "".join(f"<tr>{row}</tr>" for row in rows) + "</table>"

    def dot(self) -> str:
        """The computation graph in Graphviz's language: values, error signals and shapes."""
        lines = ["digraph {", '  rankdir="LR"; node [shape="box", fontname="Helvetica"];']
        for q in self.values():
            label = [f"{q.name} {q.shape or ''}".rstrip(), numbers(q.value)]
            if q.grad is not None:
                label.append(f"{barred(q.name)} = {numbers(q.grad)}")
            style = "" if q.formula else ', style="filled", fillcolor="#e8eef7"'
            lines.append(f"  {_quoted(q.name)} [label={_quoted(chr(10).join(label))}{style}];")
            lines += [f"  {_quoted(p)} -> {_quoted(q.name)};" for p in dict.fromkeys(q.parents)]
        return "\n".join([*lines, "}"]) + "\n"


def numbers(value: Values | None, digits: int = 4) -> str:
    """The numbers of an array on one line, abbreviated where there are many."""
    array = np.asarray(value)
    text = np.array2string(
        array, precision=digits, suppress_small=True, threshold=12, edgeitems=2, separator=", "
    )
    return " ".join(text.split())


def _lines(rows: list[tuple[str, str, str]]) -> list[str]:
    left = [f"{name} = {formula}" if formula else name for name, formula, _ in rows]
    width = max(map(_width, left), default=0)
    return [
        f"  {text}{' ' * (width - _width(text))}   {value}"
        for text, (_, _, value) in zip(left, rows, strict=True)
    ]


def _width(text: str) -> int:
    """How many columns a terminal takes for a text; a bar above a letter takes none."""
    return sum(not unicodedata.combining(letter) for letter in text)


def _code(text: str) -> str:
    return f"<td><code>{html.escape(text)}</code></td>"


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'
