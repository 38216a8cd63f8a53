"""Write expressions and functions in another language. Each target language has a subclass."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar, NamedTuple

from gpunn.errors import ArgumentError
from gpunn.interop.source.language import (
    LEVELS,
    Binary,
    Call,
    Cast,
    Choice,
    Expression,
    Function,
    Name,
    Number,
    Statement,
    Unary,
)

MATHEMATICS = (
    *("abs", "cos", "erf", "erfc", "exp", "expm1", "floor", "fma", "hypot", "log", "log1p"),
    *("max", "min", "pow", "sin", "sqrt", "tanh"),
)
"""The functions of C's mathematics that every target language has."""

CHOICE, UNARY, ATOM = 0, len(LEVELS) + 1, len(LEVELS) + 2
LEVEL_OF = {sign: level for level, signs in enumerate(LEVELS, 1) for sign in signs}
COMPARISONS = ("==", "!=", "<", ">", "<=", ">=")


class Written(NamedTuple):
    """An expression in a target language.

    Attributes:
        text: the expression.
        level: how strongly it binds; operands that bind less get parentheses.
        type: "T", "double", "int" or "bool".
    """

    text: str
    level: int
    type: str


class Language(ABC):
    """The words of a target language.

    Args:
        functions: the functions that expressions may call beside `MATHEMATICS`.
    """

    signs: ClassVar[Mapping[str, str]] = {}
    """The signs that the language writes in another way."""

    def __init__(self, functions: Mapping[str, Function]) -> None:
        self.functions = functions
        self.used: dict[str, None] = {}

    @abstractmethod
    def number(self, text: str, kind: str) -> str:
        """Return a number of a type, "T", "double" or "int"."""

    @abstractmethod
    def cast(self, inner: Written, kind: str) -> Written:
        """Return a conversion to a type, "T" or "double"."""

    @abstractmethod
    def choice(self, condition: str, yes: str, no: str) -> str:
        """Return the choice between two values."""

    @abstractmethod
    def mathematics(self, name: str, given: list[str], kind: str) -> str:
        """Return the call of a function of C's mathematics."""

    @abstractmethod
    def function(self, function: Function) -> str:
        """Return the definition of a function."""

    @abstractmethod
    def own(self, name: str) -> str:
        """Return the name that a function of a program gets. No variable has it."""

    def variable(self, name: str) -> str:
        """Return the name that a variable gets."""
        return name

    def rounded(self, inner: Written) -> Written:
        """Return a result of arithmetic as a number of its type. By default it is one already."""
        return inner

    def divided(self, left: str, right: str) -> Written:
        """Return a quotient; both operands are whole."""
        return Written(f"{left} / {right}", LEVEL_OF["/"], "T")

    def expression(self, value: Expression, types: Mapping[str, str]) -> Written:
        """Write an expression.

        Args:
            value: the expression.
            types: the types of the variables.

        Raises:
            ArgumentError: a function or a variable is unknown, or two whole numbers are divided.
        """
        if isinstance(value, Number):
            kind = "T" if value.text.endswith("f") else "int" if value.text.isdigit() else "double"
            return Written(self.number(value.text.rstrip("f"), kind), ATOM, kind)
        if isinstance(value, Name):
            if value.name not in types:
                raise _unknown("variable", value.name)
            return Written(self.variable(value.name), ATOM, types[value.name])
        if isinstance(value, Cast):
            return self._cast(value, types)
        if isinstance(value, Unary):
            inner = self.expression(value.of, types)
            sign = self.signs.get(value.sign, value.sign)
            kind = "bool" if value.sign == "!" else _wider(inner.type, "bool")
            return Written(f"{sign}{_inside(inner, ATOM)}", UNARY, kind)
        if isinstance(value, Choice):
            condition = _inside(self.expression(value.condition, types), CHOICE + 1)
            yes, no = (self.expression(each, types) for each in (value.yes, value.no))
            text = self.choice(condition, _inside(yes, CHOICE + 1), _inside(no, CHOICE))
            return Written(text, CHOICE, _wider(yes.type, no.type))
        if isinstance(value, Call):
            return self._call(value, types)
        return self._binary(value, types)

    def _cast(self, value: Cast, types: Mapping[str, str]) -> Written:
        if isinstance(value.of, Number):
            return Written(self.number(value.of.text.rstrip("f"), value.type), ATOM, value.type)
        if isinstance(value.of, Unary) and isinstance(value.of.of, Number):
            inner = self._cast(Cast(value.type, value.of.of), types)
            return Written(f"{value.of.sign}{inner.text}", UNARY, value.type)
        return self.cast(self.expression(value.of, types), value.type)

    def _converted(self, value: Expression, kind: str, types: Mapping[str, str]) -> Written:
        """Write an expression whose value C++ would convert to a type."""
        found = self.expression(value, types)
        if found.type == kind:
            return found
        if kind == "bool":
            return self.expression(Binary("!=", value, Number("0")), types)
        return self._cast(Cast(kind, value), types)

    def _call(self, value: Call, types: Mapping[str, str]) -> Written:
        if value.name not in MATHEMATICS:  # a kernel may have the name of a function that it calls
            if value.name not in self.functions:
                raise _unknown("function", value.name)
            pairs = zip(value.given, self.functions[value.name].parameters, strict=True)
            texts = [self._converted(each, kind, types).text for each, (kind, _) in pairs]
            return Written(f"{self.own(value.name)}({', '.join(texts)})", ATOM, "T")
        given = [self.expression(each, types) for each in value.given]
        given = [self.cast(e, "T") if e.type in ("bool", "int") else e for e in given]
        self.used[value.name] = None
        kind = "double" if any(each.type == "double" for each in given) else "T"
        text = self.mathematics(value.name, [each.text for each in given], kind)
        return self.rounded(Written(text, ATOM, kind))

    def _binary(self, value: Binary, types: Mapping[str, str]) -> Written:
        level = LEVEL_OF[value.sign]
        left, right = (self.expression(each, types) for each in (value.left, value.right))
        both = _wider(left.type, right.type)
        if value.sign == "/":
            if both == "int":
                raise ArgumentError(
                    f"got the quotient of whole numbers {left.text} / {right.text} in a CUDA body; "
                    "expected floats: write T(...) around them"
                )
            text, own, _ = self.divided(_inside(left, level), _inside(right, level + 1))
            return self.rounded(Written(text, own, both))
        compares, least = value.sign in COMPARISONS, level
        if compares and left.type != right.type:  # a truth value is compared as a number
            left, right = (self.cast(e, "T") if e.type == "bool" else e for e in (left, right))
        if compares:  # Python chains comparisons, and compilers warn of them
            least = LEVEL_OF["+"]
        if value.sign == "||":  # compilers warn of && inside || without parentheses
            least = level + 2
        first, second = _inside(left, least), _inside(right, max(least, level + 1))
        sign = self.signs.get(value.sign, value.sign)
        if compares or value.sign in ("&&", "||"):
            return Written(f"{first} {sign} {second}", level, "bool")
        return self.rounded(Written(f"{first} {sign} {second}", level, both))

    def statements(self, function: Function) -> tuple[list[tuple[Statement, str]], str]:
        """Write the statements of a function.

        Returns:
            Each statement with the text of its value, and the text of the result.
        """
        types, found = {name: kind for kind, name in function.parameters}, []
        for each in function.body:
            kind = each.type or types.get(each.name, "")
            if not kind:
                raise _unknown("variable", each.name)
            found.append((each, self._converted(each.value, kind, types).text))
            types[each.name] = kind
        return found, self._converted(function.result, "T", types).text


def _inside(value: Written, level: int) -> str:
    """Return the text of an operand, in parentheses if it binds less than `level`."""
    return value.text if value.level >= level else f"({value.text})"


def _wider(one: str, other: str) -> str:
    order = ("bool", "int", "T", "double")
    kind = max(one, other, key=order.index)
    return "int" if kind == "bool" else kind


def _unknown(what: str, name: str) -> ArgumentError:
    return ArgumentError(
        f"got the {what} {name!r} in a CUDA body; expected {what}s that the body declares, or "
        f"{', '.join(MATHEMATICS)}: write the formula with them"
    )
