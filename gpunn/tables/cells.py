"""The meaning of single cells."""

from __future__ import annotations

from math import isfinite

MISSING = frozenset(
    ["", "?", "na", "n/a", "#n/a", "#na", "<na>", "nan", "-nan", "nat", "none", "null", "nil"]
)
"""What other programs write for a missing value, in lower case."""


def is_missing(cell: str) -> bool:
    """Return whether a cell stands for a missing value."""
    return cell.strip().lower() in MISSING


def number_in(cell: str) -> float | None:
    """Return the finite number in a cell, or None if there is none."""
    try:
        value = float(cell)
    except ValueError:
        return None
    # Python reads 1_000 as a number, but other programs do not
    return value if isfinite(value) and "_" not in cell else None
