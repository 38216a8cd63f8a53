"""Checks of single arguments: each returns the value or says what was expected."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

import numpy as np

from gpunn.errors import ArgumentError, UnknownNameError

Found = TypeVar("Found")


def lookup(what: str, name: object, registry: Mapping[str, Found]) -> Found:
    """The value that a table holds under a name.

    Raises:
        UnknownNameError: nothing; the message lists the known names.
    """
    if not isinstance(name, str) or name not in registry:
        raise UnknownNameError(what, name, registry)
    return registry[name]


def check_kind(name: str, value: object, kind: type, remedy: str) -> None:
    """Check that an argument is an instance of a class.

    Raises:
        ArgumentError: it is something else, or the class itself.
    """
    if not isinstance(value, kind):
        given = f"the class {value.__name__}" if isinstance(value, type) else repr(value)[:60]
        raise ArgumentError(f"got {name}={given}; expected a {kind.__name__}: pass {remedy}")


def in_range(name: str, value: object, low: float, high: float = float("inf")) -> float:
    """`value` as a number in [low, high).

    Raises:
        ArgumentError: it is none.
    """
    if isinstance(value, bool) or not isinstance(value, int | float | np.number):
        raise ArgumentError(f"got {name}={value!r}; expected a number")
    if not low <= value < high:
        raise ArgumentError(f"got {name}={value!r}; expected {low} <= {name} < {high}")
    return float(value)


def count(name: str, value: object, least: int = 1) -> int:
    """`value` as an integer of at least `least`.

    Raises:
        ArgumentError: it is none.
    """
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
        raise ArgumentError(
            f"got {name}={value!r}; expected an integer of at least {least}: "
            f"pass e.g. {name}={max(least, 1)}"
        )
    return int(value)


def flag(name: str, value: object) -> bool:
    """`value` as True or False.

    Raises:
        ArgumentError: it is neither.
    """
    if not isinstance(value, bool | np.bool_):
        raise ArgumentError(f"got {name}={value!r}; expected True or False")
    return bool(value)
