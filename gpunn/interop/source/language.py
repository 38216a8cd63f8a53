"""Read CUDA bodies of elementwise kernels, so that they can be written in another language.

The part of C++ that bodies are made of is small: declarations, assignments, and expressions of
arithmetic, comparisons, choices, casts and calls.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TypeAlias

from gpunn.backends import Elementwise
from gpunn.backends.kernel import EXACT
from gpunn.errors import ArgumentError

Expression: TypeAlias = "Number | Name | Unary | Binary | Choice | Call | Cast"


@dataclass(frozen=True)
class Number:
    """A number: "2" is an int, and "0.5" a double."""

    text: str


@dataclass(frozen=True)
class Name:
    """A variable."""

    name: str


@dataclass(frozen=True)
class Unary:
    """A sign, or "!"."""

    sign: str
    of: Expression


@dataclass(frozen=True)
class Binary:
    """Two operands and the sign between them."""

    sign: str
    left: Expression
    right: Expression


@dataclass(frozen=True)
class Choice:
    """`condition ? yes : no`."""

    condition: Expression
    yes: Expression
    no: Expression


@dataclass(frozen=True)
class Call:
    """A call of a function of C's mathematics, or of a `Function`."""

    name: str
    given: tuple[Expression, ...]


@dataclass(frozen=True)
class Cast:
    """A conversion to a type: "T" or "double"."""

    type: str
    of: Expression


@dataclass(frozen=True)
class Statement:
    """`name = value`. It declares the variable if it has a type."""

    type: str
    name: str
    value: Expression


@dataclass(frozen=True)
class Function:
    """A function of numbers.

    Attributes:
        name: its name.
        parameters: a type, "T" or "double", and a name for each.
        body: the statements before the result.
        result: the value that it returns, of the type T.
    """

    name: str
    parameters: tuple[tuple[str, str], ...]
    body: tuple[Statement, ...]
    result: Expression

    def calls(self) -> list[str]:
        """Return the names of the functions that it calls, each once, in order."""
        found = dict[str, None]()
        for value in (*(each.value for each in self.body), self.result):
            _collect(value, found)
        return list(found)


def _collect(value: Expression, found: dict[str, None]) -> None:
    if isinstance(value, Call):
        found[value.name] = None
    for part in vars(value).values():
        for each in part if isinstance(part, tuple) else (part,):
            if not isinstance(each, str):
                _collect(each, found)


TYPES = {"T": "T", "V": "T", "S": "T", "float": "T", "double": "double", "bool": "bool"}
LEVELS = (("||",), ("&&",), ("==", "!="), ("<", ">", "<=", ">="), ("+", "-"), ("*", "/"))
"""The signs between two operands, from those that bind least."""

_TOKEN = re.compile(
    r"\s*(?:(?P<number>(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?f?)|(?P<name>[A-Za-z_]\w*)"
    r"|(?P<sign>\|\||&&|[=!<>]=|[-+*/<>!?:=,;()]))"
)
_FUNCTION = re.compile(r"inline [VT] (\w+)\(([^)]*)\) \{(.*?)\n\}", re.DOTALL)
_CONSTANT = re.compile(r"constexpr double (\w+) = ([^;]+);")


class _Reader:
    """Read statements and expressions, token by token.

    Args:
        text: the text.
        place: what the text belongs to, for messages.
    """

    def __init__(self, text: str, place: str) -> None:
        self.place, self.tokens, at = place, list[str](), 0
        text = re.sub(r"//[^\n]*", "", text).rstrip()
        while at < len(text):
            match = _TOKEN.match(text, at)
            if match is None:
                raise self.refused(text[at : at + 20])
            self.tokens.append(match.group().strip())
            at = match.end()
        self.tokens.append("")
        self.at = 0

    def refused(self, found: str) -> ArgumentError:
        """Return the error for a text that is not read."""
        return ArgumentError(
            f"got {found!r} in the CUDA body of {self.place}; expected declarations, assignments, "
            "arithmetic, comparisons, choices, casts and calls: write the formula with them, or "
            "export a model without it"
        )

    @property
    def next(self) -> str:
        """The next token."""
        return self.tokens[self.at]

    def take(self, *wanted: str) -> str:
        """Return the next token and step over it. It must be one of those wanted, if any are."""
        found = self.next
        if not found or (wanted and found not in wanted):
            raise self.refused(found or "the end")
        self.at += 1
        return found

    def name(self) -> str:
        """Return the next token, which must be a name."""
        found = self.take()
        if not re.match(r"[A-Za-z_]", found):
            raise self.refused(found)
        return found

    def statements(self) -> list[Statement]:
        """Read statements up to `return` or to the end."""
        found = list[Statement]()
        while self.next not in ("", "return"):
            if self.next == ";":
                self.take()
                continue
            if self.next == "const":
                self.take()
            kind = ""
            if self.next in TYPES and self.tokens[self.at + 1] != "(":
                kind = TYPES[self.take()]
            while True:
                name = self.name()
                if kind and self.next in (";", ","):  # `T y;` declares a variable for later
                    found.append(Statement(kind, name, Number("0")))
                else:
                    self.take("=")
                    found.append(Statement(kind, name, self.expression()))
                if self.take(";", ",") == ";":
                    break
        return found

    def expression(self) -> Expression:
        """Read a whole expression."""
        condition = self.binary(0)
        if self.next != "?":
            return condition
        self.take()
        yes = self.expression()
        self.take(":")
        return Choice(condition, yes, self.expression())

    def binary(self, level: int) -> Expression:
        """Read operands of a level and the signs between them."""
        if level == len(LEVELS):
            return self.unary()
        left = self.binary(level + 1)
        while self.next in LEVELS[level]:
            left = Binary(self.take(), left, self.binary(level + 1))
        return left

    def unary(self) -> Expression:
        """Read an operand with its signs and casts."""
        if self.next in ("-", "+", "!"):
            return Unary(self.take(), self.unary())
        if self.next == "(":
            self.take()
            if self.next in TYPES and self.tokens[self.at + 1] == ")":
                kind = TYPES[self.take()]
                self.take(")")
                return Cast(kind, self.unary())
            inner = self.expression()
            self.take(")")
            return inner
        found = self.take()
        if re.match(r"[\d.]", found):
            return Number(found)
        if not re.match(r"[A-Za-z_]", found):
            raise self.refused(found)
        if self.next != "(":
            return Name(found)
        self.take()
        given = list[Expression]()
        while self.next != ")":
            given.append(self.expression())
            if self.next == ",":
                self.take()
        self.take(")")
        return Cast(TYPES[found], given[0]) if found in TYPES else Call(found, tuple(given))


def functions_in(text: str, place: str) -> dict[str, Function]:
    """Return the functions that a text of CUDA declares, by name.

    Args:
        text: declarations of `__device__ inline` functions, with `constexpr double` numbers.
        place: what the text belongs to, for messages.

    Raises:
        ArgumentError: a function has more than bodies are made of.
    """
    text = re.sub(r"//[^\n]*", "", text)
    numbers = {name: Number(value) for name, value in _CONSTANT.findall(text)}
    found = dict[str, Function]()
    for name, parameters, body in _FUNCTION.findall(text):
        pairs = tuple(each.split()[-2:] for each in parameters.split(","))
        if any(kind not in TYPES for kind, _ in pairs) or "[" in body or "for (" in body:
            continue  # a function of arrays, which no elementwise body calls
        reader = _Reader(body, f"{place}, {name}")
        used = [Statement("double", each, value) for each, value in numbers.items() if each in body]
        statements = reader.statements()
        reader.take("return")
        result = reader.expression()
        kinds = tuple((TYPES[kind], each) for kind, each in pairs)
        found[name] = Function(name, kinds, (*used, *statements), result)
    return found


@lru_cache(maxsize=1)
def exact_functions() -> dict[str, Function]:
    """Return the functions of `exact.h`, which every body may call."""
    return functions_in(EXACT, "exact.h")


def formula(name: str, parameters: str, body: str, place: str = "") -> Function:
    """Return a function whose body assigns its result to `y`.

    Args:
        name: the name of the function.
        parameters: names with commas between them. A type may stand before a name.
        body: the CUDA body.
        place: what the body belongs to, for messages; the name by default.

    Raises:
        ArgumentError: the body has more than the bodies of kernels are made of.

    Example:
        >>> formula("twice", "x", "y = x + x;").result
        Binary(sign='+', left=Name(name='x'), right=Name(name='x'))
    """
    reader = _Reader(body, place or name)
    statements = reader.statements()
    reader_end = reader.next
    if reader_end or not statements or statements[-1].name != "y":
        raise reader.refused(reader_end or "no last assignment to y")
    kinds = list[tuple[str, str]]()
    for each in filter(None, (part.strip() for part in parameters.split(","))):
        *kind, own = each.split()
        kinds.append(("double" if kind == ["float64"] else "T", own))
    *before, last = statements
    first = next((k for k, each in enumerate(before) if each.name == "y"), None)
    if first is not None:  # the output is assigned more than once
        before[first] = replace(before[first], type="T")
    return Function(name, tuple(kinds), tuple(before), last.value)


def formula_of(kernel: Elementwise) -> Function:
    """Return the function of an elementwise kernel with one output, from its CUDA body.

    Raises:
        ArgumentError: as for `formula`; or the kernel indexes arrays, or has several outputs.
    """
    plain = all(p.role == "each" for p in (*kernel.inputs, *kernel.outputs))
    if not plain or len(kernel.outputs) != 1 or kernel.once:
        raise ArgumentError(
            f"got the kernel {kernel.name!r} with {kernel.signature!r}; expected a formula of one "
            "element with one output: export a model without it"
        )
    parameters = ", ".join(f"{p.type} {p.name}" for p in kernel.inputs)
    (output,) = kernel.outputs
    body = re.sub(rf"\b{output.name}\b", "y", kernel.cuda)
    return formula(kernel.name, parameters, body, f"the kernel {kernel.name!r}")
