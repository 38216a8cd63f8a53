"""Checks of single arguments. Each returns the value or raises an error that says what to pass."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

import numpy as np

from gpunn.errors import ArgumentError, DataError, DTypeError, UnknownNameError
from gpunn.guesses import meant
from gpunn.typing import DType

Found = TypeVar("Found")


def lookup(what: str, name: object, registry: Mapping[str, Found]) -> Found:
    """Look up a name in a registry.

    Args:
        what: the kind of name, for the message.
        name: the name, or another word for it; see `gpunn.guesses`.
        registry: the values by name.

    Raises:
        UnknownNameError: the name is unknown; the message lists the known names.
    """
    found = name if isinstance(name, str) and name in registry else meant(what, name)
    if not isinstance(found, str) or found not in registry:
        raise UnknownNameError(what, name, registry)
    return registry[found]


def check_kind(name: str, value: object, kind: type, remedy: str) -> None:
    """Check that an argument is an instance of a class.

    Raises:
        ArgumentError: the value is something else, or the class itself.
    """
    if not isinstance(value, kind):
        given = f"the class {value.__name__}" if isinstance(value, type) else repr(value)[:60]
        raise ArgumentError(f"got {name}={given}; expected a {kind.__name__}: pass {remedy}")


def is_number(value: object) -> bool:
    """Return whether a value is a real number of Python or NumPy, and neither True nor False.

    An integer that is beyond all floats is none.
    """
    if isinstance(value, int):
        return not isinstance(value, bool) and abs(value) < 1 << 1023
    return isinstance(value, float | np.integer | np.floating)


def in_range(name: str, value: object, low: float, high: float = float("inf")) -> float:
    """Check that a value is a number in [low, high), and return it as a float.

    Raises:
        ArgumentError: the value is not such a number.
    """
    if not is_number(value):
        raise ArgumentError(f"got {name}={value!r}; expected a number")
    number = float(value)  # type: ignore[arg-type]
    if not low <= number < high:
        raise ArgumentError(f"got {name}={value!r}; expected {low} <= {name} < {high}")
    return number


def count(name: str, value: object, least: int = 1) -> int:
    """Check that a value is an integer of at least `least`, and return it as an int.

    Raises:
        ArgumentError: the value is not such an integer.
    """
    whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
    if not whole or not least <= value < 2**63:  # type: ignore[operator]
        raise ArgumentError(
            f"got {name}={value!r}; expected an integer of at least {least}: "
            f"pass e.g. {name}={max(least, 1)}"
        )
    return int(value)  # type: ignore[call-overload,no-any-return]


def flag(name: str, value: object) -> bool:
    """Check that a value is True or False, and return it as a bool.

    Raises:
        ArgumentError: the value is neither.
    """
    if not isinstance(value, bool | np.bool_):
        raise ArgumentError(f"got {name}={value!r}; expected True or False")
    return bool(value)


def fitting(name: str, values: Any, dtype: DType) -> np.ndarray[Any, Any]:
    """Return host values in a float dtype, rounded to its digits.

    Args:
        name: the name of the values in messages.
        values: a host array of real numbers.
        dtype: the dtype.

    Raises:
        DTypeError: the values are not real numbers.
        DataError: a finite number is beyond the range of the dtype.
    """
    given: np.ndarray[Any, Any] = np.asarray(values)
    kind: np.dtype[Any] = np.dtype(dtype)
    if given.dtype.kind not in "fiub" and given.dtype.name != "bfloat16":
        raise DTypeError(
            f"got {name} of dtype {given.dtype}; expected real numbers: convert with astype"
        )
    if given.dtype == kind:
        return given
    found: np.ndarray[Any, Any]
    with np.errstate(over="ignore"):
        found = given.astype(kind)
    if given.dtype.itemsize > kind.itemsize or given.dtype.kind in "iu":
        lost = np.isinf(found)
        if lost.any() and (lost := lost & np.isfinite(given)).any():
            raise DataError(
                f"got {name} with {given[lost][0]}; expected numbers of at most "
                f"{np.finfo(kind).max}, the largest of {kind}: scale them, or use another dtype"
            )
    return found
