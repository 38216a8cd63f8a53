"""The quantities of a computation, shown as text, as a table or as a graph."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from gpunn import html
from gpunn.errors import UnknownNameError
from gpunn.html import Html, code
from gpunn.typing import Shape

Values = np.ndarray[Any, Any]
MACRON = "\u0304"


def barred(name: str) -> str:
    """Return the name of an error signal, with a bar above the first letter as in lecture 003."""
    return unicodedata.normalize("NFKC", name[:1] + MACRON + name[1:])


@dataclass
class Quantity:
    """One quantity of a computation.

    Attributes:
        name: its name.
        value: a host copy of its value.
        formula: the expression that computed it; empty for an input.
        parents: the names of the quantities that it was computed from.
        grad: dloss/dvalue, in the shape of the value; None if no gradient arrived.
        grad_formula: the expression of `grad`, a sum over the consumers; empty without a gradient.
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
        """The shape of the value."""
        return tuple(self.value.shape)


class Steps(Mapping[str, Quantity]):
    """All quantities of one forward and backward pass, by name, in the order of the forward pass.

    `print` shows them as text, and a notebook shows them as a table.
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
        """Return the forward pass and the backward pass as lists of names, formulas and values."""
        forward = [(q.name, q.formula, numbers(q.value)) for q in self.values()]
        signals = [self[name] for name in self._backward]
        backward = [(barred(q.name), q.grad_formula, numbers(q.grad)) for q in signals]
        return "\n".join(["forward", *_lines(forward), "backward", *_lines(backward)])

    __str__ = text

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {', '.join(self)}>"

    def _repr_html_(self) -> str:
        """Return a table with a row for each quantity; the backward pass runs upwards."""
        rows = []
        for q in self.values():
            signal = f"{barred(q.name)} = {q.grad_formula}" if q.grad is not None else ""
            rows.append(
                (
                    Html(f"<b>{html.text(q.name)}</b> {html.text(q.shape)}"),
                    code(f"{q.name} = {q.formula}" if q.formula else "input"),
                    code(numbers(q.value)),
                    code(signal),
                    code("" if q.grad is None else numbers(q.grad)),
                )
            )
        return html.table(("quantity", "forward", "value", "backward", "error signal"), rows)

    def dot(self) -> str:
        """Return the computation graph for Graphviz, with values, error signals and shapes."""
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
    """Return the numbers of an array on one line, abbreviated if there are many."""
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
    """Return the width of a text in columns of a terminal; a bar above a letter takes none."""
    return sum(not unicodedata.combining(letter) for letter in text)


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'
