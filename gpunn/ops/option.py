"""Numbers in a formula that a caller may choose."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from gpunn.errors import ArgumentError, lookup


class Option(NamedTuple):
    """A number in a formula: its default and the open interval it must lie in."""

    default: float
    low: float = 0.0
    high: float = float("inf")


def chosen(
    name: str, options: Mapping[str, Option], given: Mapping[str, float]
) -> tuple[float, ...]:
    """The numbers of a formula, in the order of its signature.

    Args:
        name: what messages call the formula.
        options: those that it has.
        given: those that a caller chose.

    Raises:
        UnknownNameError: no such option.
        ArgumentError: a number outside its interval.
    """
    for option, number in given.items():
        _, low, high = lookup(f"option of {name}", option, options)
        if not low < number < high:
            raise ArgumentError(
                f"got {option}={number!r} in {name}; expected {low} < {option} < {high}"
            )
    return tuple(given.get(option, limit.default) for option, limit in options.items())
