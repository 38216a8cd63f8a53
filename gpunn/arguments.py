"""Checks of single arguments. Each returns the value or raises an error that says what to pass."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

import numpy as np

from gpunn.errors import ArgumentError, UnknownNameError

Found = TypeVar("Found")


def lookup(what: str, name: object, registry: Mapping[str, Found]) -> Found:
    """Look up a name in a registry.

    Args:
        what: the kind of name, for the message.
        name: the name.
        registry: the values by name.

    Raises:
        UnknownNameError: the name is unknown; the message lists the known names.
    """
    if not isinstance(name, str) or name not in registry:
        raise UnknownNameError(what, name, registry)
    return registry[name]


def check_kind(name: str, value: object, kind: type, remedy: str) -> None:
    """Check that an argument is an instance of a class.

    Raises:
        ArgumentError: the value is something else, or the class itself.
    """
    if not isinstance(value, kind):
        given = f"the class {value.__name__}" if isinstance(value, type) else repr(value)[:60]
        raise ArgumentError(f"got {name}={given}; expected a {kind.__name__}: pass {remedy}")


def is_number(value: object) -> bool:
    """Return whether a value is a real number of Python or NumPy, and neither True nor False."""
    kinds = int | float | np.integer | np.floating
    return isinstance(value, kinds) and not isinstance(value, bool)


def in_range(name: str, value: object, low: float, high: float = float("inf")) -> float:
    """Check that a value is a number in [low, high), and return it as a float.

    Raises:
        ArgumentError: the value is not such a number.
    """
    if not is_number(value):
        raise ArgumentError(f"got {name}={value!r}; expected a number")
    try:
        number = float(value)  # type: ignore[arg-type]
    except OverflowError:  # an integer of more than 308 digits
        number = float("inf")
    if not low <= number < high:
        raise ArgumentError(f"got {name}={value!r}; expected {low} <= {name} < {high}")
    return number


def count(name: str, value: object, least: int = 1) -> int:
    """Check that a value is an integer of at least `least`, and return it as an int.

    Raises:
        ArgumentError: the value is not such an integer.
    """
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
        raise ArgumentError(
            f"got {name}={value!r}; expected an integer of at least {least}: "
            f"pass e.g. {name}={max(least, 1)}"
        )
    return int(value)


def flag(name: str, value: object) -> bool:
    """Check that a value is True or False, and return it as a bool.

    Raises:
        ArgumentError: the value is neither.
    """
    if not isinstance(value, bool | np.bool_):
        raise ArgumentError(f"got {name}={value!r}; expected True or False")
    return bool(value)
