"""The kinds of columns: numbers, categories, dates, and those that no network can use."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpunn.arguments import lookup
from gpunn.columns.cells import form_of_dates, is_placeholder, numbers_in
from gpunn.columns.raw import RawTable
from gpunn.errors import ArgumentError, listed

Array = np.ndarray[Any, Any]

KINDS = ("number", "category", "date", "left out")
"""What a user may say that a column is."""

MOSTLY = 0.95  # the part of numbers in a column of numbers with a few words
SEPARATE = 0.5  # the part of different texts from which they are names of rows, or free text
TITLES = re.compile(r"(?i)(^|[^a-z])(id|idx|index|row|row ?num(ber)?|obs|key|unnamed.*)$|^$")
LEVELS = 1000  # the levels of a category; the rarest ones share one


@dataclass(frozen=True)
class Column:
    """A column: its kind, and the numbers that its cells become.

    Attributes:
        name: the name of the column.
        kind: one of `KINDS`.
        why: why it is left out, or what was noticed.
        middle: for numbers and dates, the number that stands for a missing one.
        missing: whether the training data has missing cells. A further category marks them in
            columns of numbers and dates. In a category they are the level "".
        levels: for a category, the texts of its levels, sorted. The last one, None, stands for
            all rare ones, and for those that the training data doesn't have.
        decimal: for numbers in text, the character before the decimals.
        form: for dates in text, their form, as `datetime.strptime` takes it.
        first: for dates, the first day of the training data, in days since 1970.
    """

    name: str
    kind: str
    why: str = ""
    middle: float = 0.0
    missing: bool = False
    levels: tuple[str | None, ...] = ()
    decimal: str = "."
    form: str | None = None
    first: float = 0.0


def find_columns(
    table: RawTable, kinds: Mapping[str, str] | None = None, decimal: str | None = None
) -> list[Column]:
    """Find what every column of the training data is.

    Args:
        table: the columns of the training data.
        kinds: what the user says of some columns, by name.
        decimal: the character before the decimals of numbers in text; None to recognise it.

    Raises:
        UnknownNameError: a kind or a column is unknown.
        ArgumentError: a column cannot be of the kind that the user says.
    """
    kinds = dict(kinds or {})
    for name, kind in kinds.items():
        lookup("column", name, table.columns)
        lookup("kind", kind, dict.fromkeys(KINDS))
    tried = signs(decimal)
    return [_found(name, cells, kinds.get(name), tried) for name, cells in table.columns.items()]


def signs(decimal: str | None) -> tuple[str, ...]:
    """Return the characters before decimals that are tried in turn.

    Args:
        decimal: "." or ","; None for both.

    Raises:
        ArgumentError: it is something else.
    """
    if decimal not in (None, ".", ","):
        raise ArgumentError(
            f"got decimal={decimal!r}; expected '.' or ',', or None to recognise it"
        )
    return (".", ",") if decimal is None else (decimal,)


def _found(name: str, cells: Array, told: str | None, tried: Sequence[str]) -> Column:
    if told == "left out":
        return Column(name, told, "as you said")
    if cells.dtype.kind == "M":
        return _date(name, cells, None) if told in (None, "date") else _wrong(name, told)
    if cells.dtype.kind == "f" and told != "category":
        return _number(name, cells, ".") if told in (None, "number") else _wrong(name, told)
    if cells.dtype.kind == "f":
        cells = texts_of(cells)
    known = [cell for cell in cells if cell is not None]
    if not known:
        return Column(name, "left out", "it has no values")
    if told == "category":
        return _category(name, cells, known)
    if told in (None, "date"):
        form = form_of_dates(sorted(set(known)))
        if form is not None:
            return _date(name, cells, form)
    if told == "date":
        _wrong(name, told)
    for decimal in tried:
        values, strange = numbers_in(cells, decimal)
        counts = Counter(cell for cell, odd in zip(cells, strange, strict=True) if odd)
        odd = sum(times for cell, times in counts.items() if not is_placeholder(cell))
        few = odd <= (1 - MOSTLY) * len(known) and len(counts) <= 5 and not np.isnan(values).all()
        if told == "number" or few:
            return _number(name, values, decimal, set(counts))
    return _category(name, cells, known, told)


def _wrong(name: str, told: str | None) -> Any:
    raise ArgumentError(
        f"got kind {told!r} for column {name!r}, whose cells are of another kind; expected one "
        "that fits: leave it out, or convert the column"
    )


def texts_of(numbers: Array) -> Array:
    """Return numbers as texts, whole ones without a decimal point, and None for NaN."""
    found = np.empty(len(numbers), object)
    found[:] = [
        None if np.isnan(n) else str(int(n)) if n == int(n) and abs(n) < 1e15 else repr(float(n))
        for n in numbers
    ]
    return found


def as_texts(cells: Array) -> Array:
    """Return a column as texts, and None for missing cells."""
    if cells.dtype.kind == "f":
        return texts_of(cells)
    return np.datetime_as_string(cells).astype(object) if cells.dtype.kind == "M" else cells


def _number(name: str, values: Array, decimal: str, words: set[str] | None = None) -> Column:
    known = values[~np.isnan(values)]
    if not len(known):
        return Column(name, "left out", "it has no values")
    if known.min() == known.max() and len(known) == len(values):
        return Column(name, "left out", "it is constant")
    if len(known) == len(values) > 20 and _numbers_rows(name, known):
        return Column(name, "left out", "it numbers the rows")
    why = f"{listed(sorted(words))} counts as missing" if words else ""
    missing = len(known) < len(values)
    return Column(name, "number", why, float(np.median(known)), missing, decimal=decimal)


def _numbers_rows(name: str, values: Array) -> bool:
    """Return whether numbers name rows: they count on, or differ in a column called so."""
    if (np.diff(values) == 1).all():
        return True
    whole = (values == np.floor(values)).all() and len(np.unique(values)) == len(values)
    return bool(whole) and TITLES.search(name) is not None


def _date(name: str, cells: Array, form: str | None) -> Column:
    column = Column(name, "date", "", form=form)
    days = days_of(column, cells)
    known = days[~np.isnan(days)]
    if not len(known):
        return Column(name, "left out", "it has no values")
    if known.min() == known.max():
        return Column(name, "left out", "it is constant")
    return Column(
        name,
        "date",
        "",
        float(np.median(known)),
        len(known) < len(days),
        form=form,
        first=float(np.floor(known.min())),
    )


def days_of(column: Column, cells: Array) -> Array:
    """Return dates as (N,) float64 days since 1970, NaN for missing and for other cells."""
    from gpunn.columns.cells import date_in

    if cells.dtype.kind != "M":
        form = column.form or "%Y-%m-%d"
        known = {cell: date_in(cell, form) for cell in set(cells) if isinstance(cell, str)}
        moments = [known.get(cell) for cell in cells]
        cells = np.array(
            [np.datetime64("NaT") if m is None else np.datetime64(m) for m in moments],
            "datetime64[us]",
        )
    found = (cells - np.datetime64("1970-01-01", "us")) / np.timedelta64(1, "D")
    return np.asarray(found, np.float64)


def _category(name: str, cells: Array, known: list[str], told: str | None = "category") -> Column:
    counts = Counter(known)
    if told is None and len(counts) > max(20, SEPARATE * len(known)):
        spaces = np.mean([" " in cell for cell in counts])
        what = "free text" if spaces > 0.5 else "an identifier"
        return Column(name, "left out", f"it looks like {what}")
    missing = len(known) < len(cells)
    if len(counts) == 1 and not missing:
        return Column(name, "left out", "it is constant")
    least = max(2, len(cells) // 2000)
    frequent = [level for level, times in counts.most_common(LEVELS) if times >= least]
    rare = len(counts) > len(frequent)
    levels: list[str | None] = [*sorted(frequent), *[""] * missing, *[None] * rare]
    if len(levels) < 2:
        return Column(name, "left out", "all its values are rare")
    return Column(name, "category", "", missing=missing, levels=tuple(levels))
