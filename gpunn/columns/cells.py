"""The meaning of single cells: missing values, numbers and dates."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from datetime import datetime, timezone
from math import isfinite, nan
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

MISSING = frozenset(
    ["", "?", "na", "n/a", "#n/a", "#na", "<na>", "nan", "-nan", "nat", "none", "null", "nil"]
)
"""What other programs write for a missing value, in lower case."""


def is_missing(cell: str) -> bool:
    """Return whether a cell stands for a missing value."""
    return cell.strip().lower() in MISSING


def is_placeholder(cell: str) -> bool:
    """Return whether a cell stands for no number among numbers: "-", "..", or Excel's "#DIV/0!"."""
    return cell.startswith("#") or not any(c.isalnum() for c in cell)


def number_in(cell: str) -> float | None:
    """Return the finite number in a cell, or None if there is none."""
    try:
        value = float(cell)
    except ValueError:
        return None
    # Python reads 1_000 as a number, but other programs do not
    return value if isfinite(value) and "_" not in cell else None


_AROUND = re.compile(r"^[\s$€£¥]+|[\s$€£¥%]+$")
_THOUSANDS = {
    ".": re.compile(r"[+-]?\d{1,3}([, '\u00a0\u202f]\d{3})+(\.\d+)?"),
    ",": re.compile(r"[+-]?\d{1,3}([. '\u00a0\u202f]\d{3})+(,\d+)?"),
}
_SEPARATORS = re.compile("[ '\u00a0\u202f]")


def written_number(cell: str, decimal: str) -> float | None:
    """Return the number in a cell with a currency or per cent sign, or groups of thousands.

    Args:
        cell: the text.
        decimal: the character before the decimals, "." or ",".
    """
    bare = _AROUND.sub("", cell)
    if _THOUSANDS[decimal].fullmatch(bare):
        bare = _SEPARATORS.sub("", bare).replace("," if decimal == "." else ".", "")
    if decimal == ",":
        if "." in bare:
            return None
        bare = bare.replace(",", ".")
    return number_in(bare)


def numbers_in(cells: Iterable[str | None], decimal: str = ".") -> tuple[Array, Array]:
    """Return the numbers in cells, and which cells are no numbers.

    Args:
        cells: N texts; None for a missing one.
        decimal: the character before the decimals, "." or ",".

    Returns:
        (N,) float64, NaN where there is no number; and (N,) booleans, True for a text that is no
        number.
    """
    cells = list(cells)
    values, strange = np.full(len(cells), nan), np.zeros(len(cells), bool)
    known: dict[str, float | None] = {}
    for place, cell in enumerate(cells):
        if cell is None:
            continue
        if cell not in known:
            value = number_in(cell) if decimal == "." else None
            known[cell] = written_number(cell, decimal) if value is None else value
        found = known[cell]
        if found is None:
            strange[place] = True
        else:
            values[place] = found
    return values, strange


DATES = (
    *("%Y-%m-%d", "%Y/%m/%d", "%Y.%m.%d", "%Y%m%d"),
    *("%d.%m.%Y", "%d.%m.%y", "%m/%d/%Y", "%d/%m/%Y", "%m/%d/%y", "%d/%m/%y"),
    *("%d-%m-%Y", "%m-%d-%Y", "%d %b %Y", "%d-%b-%Y", "%d %B %Y", "%b %d, %Y", "%B %d, %Y"),
    *("%b %d %Y", "%Y-%m"),
)
TIMES = (
    *("", " %H:%M", " %H:%M:%S", "T%H:%M", "T%H:%M:%S", " %H:%M:%S.%f", "T%H:%M:%S.%f"),
    *(" %I:%M %p", " %I:%M:%S %p", "T%H:%M:%S%z", " %H:%M:%S%z", "T%H:%M:%S.%f%z", "T%H:%M%z"),
)
"""The forms of dates that are recognised, the first ones first, and of times behind them."""


def date_in(cell: str, form: str) -> datetime | None:
    """Return the date in a cell in a form such as "%Y-%m-%d", or None."""
    zoned = form.endswith("%z")
    try:
        found = datetime.strptime(cell if zoned else cell.removesuffix("Z"), form)
    except ValueError:
        return None
    return found.astimezone(timezone.utc).replace(tzinfo=None) if zoned else found


def form_of_dates(cells: Sequence[str]) -> str | None:
    """Return the first form in which all cells are dates, or None.

    Args:
        cells: texts, at least one.
    """
    if not all(any(c.isdigit() for c in cell) and len(cell) >= 6 for cell in cells):
        return None
    for time in TIMES:
        for day in DATES:
            if day == "%Y%m%d" and not time:
                continue  # such numbers may be anything
            if all(date_in(cell, day + time) is not None for cell in cells):
                return day + time
    return None
