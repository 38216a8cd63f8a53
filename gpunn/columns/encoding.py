"""The encoding of the columns of a table as numbers, as it was found in the training data."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from math import isfinite
from typing import Any

import numpy as np

from gpunn.columns.cells import numbers_in
from gpunn.columns.kinds import KINDS, Column, as_texts, days_of, find_columns
from gpunn.columns.raw import RawTable
from gpunn.errors import DataError, ModelFileError, listed

Array = np.ndarray[Any, Any]

PARTS = ("day", "year", "month", "day of month", "day of week", "hour")
"""The numbers that a date becomes; the first counts the days from the first date."""

MAX_TEXT = 1 << 20  # characters of the names of columns and levels


class Encoding:
    """A function that encodes the columns of a table as numbers.

    The encoded columns are first the numbers and the parts of dates, then the categories, as codes
    from 0 to their number of levels - 1. A missing number or date is the median of the training
    data, and a category of two levels marks it, if the training data has missing ones. A missing
    cell of a category is a level of its own in the same case. A level that the training data
    doesn't have is the level of the rare ones, or else the code -1.

    Args:
        columns: what the columns are, in the order of the training data.
    """

    def __init__(self, columns: Sequence[Column]) -> None:
        self.columns = tuple(columns)
        self.used = tuple(column for column in columns if column.kind != "left out")

    @classmethod
    def fit(
        cls, table: RawTable, kinds: Mapping[str, str] | None = None, decimal: str | None = None
    ) -> Encoding:
        """Find the encoding of the columns of the training data.

        Args:
            table: the training data.
            kinds: what some columns are, by name: "number", "category", "date" or "left out".
            decimal: the character before the decimals of numbers in text; None to recognise it.

        Raises:
            DataError: no column can be used.
            UnknownNameError, ArgumentError: as for `find_columns`.
        """
        found = cls(find_columns(table, kinds, decimal))
        if not found.used:
            raise DataError(
                f"got columns {listed(table.names)}, none of which can be used "
                f"({found.describe()}); expected numbers, categories or dates"
            )
        texts = sum(
            len(text or "") for column in found.columns for text in (column.name, *column.levels)
        )
        if texts > MAX_TEXT:
            raise DataError(
                f"got {texts} characters in the names of columns and levels; expected at most "
                f"{MAX_TEXT}: shorten them, or leave out columns of text"
            )
        return found

    @classmethod
    def of(cls, values: Any) -> Encoding:
        """Build an encoding from the values in a model file.

        Raises:
            ModelFileError: the values are not those of an encoding.
        """
        try:
            if not isinstance(values, list) or not values:
                raise ValueError("no list of columns")
            columns = [_column(each) for each in values]
            names = [column.name for column in columns]
            if len(set(names)) < len(names):
                raise ValueError("a name occurs twice")
            if all(column.kind == "left out" for column in columns):
                raise ValueError("no column is used")
        except (TypeError, ValueError) as error:
            raise ModelFileError(
                f"got an encoding that cannot be read from the model file ({error}); expected the "
                "one that gpunn writes: train it again"
            ) from error
        return cls(columns)

    def values(self) -> list[dict[str, Any]]:
        """Return the encoding as values that JSON can hold."""
        return [asdict(column) | {"levels": list(column.levels)} for column in self.columns]

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the columns that are used."""
        return tuple(column.name for column in self.used)

    @property
    def levels(self) -> tuple[int, ...]:
        """For each encoded column 0 for numbers, or the number of levels of a category."""
        return tuple(levels for _, levels in self._encoded())

    @property
    def encoded_names(self) -> tuple[str, ...]:
        """The names of the encoded columns."""
        return tuple(name for name, _ in self._encoded())

    @property
    def width(self) -> int:
        """The number of encoded columns."""
        return len(self._encoded())

    def _encoded(self) -> list[tuple[str, int]]:
        numbers, categories = list[tuple[str, int]](), list[tuple[str, int]]()
        for column in self.used:
            if column.kind == "category":
                categories.append((column.name, len(column.levels)))
                continue
            if column.kind == "date":
                numbers += [(f"{column.name} ({part})", 0) for part in PARTS]
            else:
                numbers.append((column.name, 0))
            if column.missing:
                categories.append((f"{column.name} is missing", 2))
        return numbers + categories

    @property
    def sources(self) -> tuple[str, ...]:
        """For each encoded column the name of the column that it comes from."""
        numbers, categories = list[str](), list[str]()
        for column in self.used:
            if column.kind == "category":
                categories.append(column.name)
                continue
            numbers += [column.name] * (len(PARTS) if column.kind == "date" else 1)
            categories += [column.name] * column.missing
        return (*numbers, *categories)

    @property
    def neutral(self) -> Array:
        """The (width,) float32 codes of a row of which nothing is known."""
        numbers, categories = list[float](), list[float]()
        for column in self.used:
            if column.kind == "category":
                categories.append(-1.0)
                continue
            middle = np.array([column.middle])
            parts = _parts(column, middle) if column.kind == "date" else [middle]
            numbers += [float(part[0]) for part in parts]
            categories += [0.0] * column.missing
        return np.array([*numbers, *categories], np.float32)

    def describe(self) -> str:
        """Return one line that tells what each column was taken for."""
        parts = list[str]()
        for column in self.columns:
            what = column.kind
            if what == "category":
                what += f" of {len(column.levels) - column.missing}"  # "" is no level to a reader
            notes = [what, "with missing cells" * column.missing, column.why]
            parts.append(f"{column.name} ({', '.join(filter(None, notes))})")
        return listed(parts)

    def __call__(
        self, data: Any, source: str = "the table", odd: Counter[str] | None = None
    ) -> Array:
        """Encode N rows as (N, width) float32.

        Args:
            data: a table with all columns that are used, in any order; see `RawTable.of`.
            source: the name of the table in messages.
            odd: what counts, for each column, the cells that count as missing or as a rare level
                though something is in them: levels that the training data doesn't have, and texts
                that are no number or date.

        Raises:
            DataError: a column is missing, or a number is beyond the range of float32.
        """
        table = data if isinstance(data, RawTable) else RawTable.of(data)
        table = table.select(self.names, source)
        numbers, categories = list[Array](), list[Array]()
        for column in self.used:
            cells = table.columns[column.name]
            if column.kind == "category":
                codes, strange = codes_of(column, cells)
                categories.append(codes)
            elif column.kind == "date":
                values = days_of(column, cells)
                strange = np.isnan(values) & ~_are_missing(cells)
            else:
                values, strange = _values(column, cells)
            if odd is not None and strange.any():
                odd[column.name] += int(strange.sum())
            if column.kind == "category":
                continue
            gone = np.isnan(values)
            values = np.where(gone, column.middle, values)
            numbers += _parts(column, values) if column.kind == "date" else [values]
            if column.missing:
                categories.append(gone.astype(np.float64))
        found = (
            np.column_stack([*numbers, *categories]) if len(table) else np.empty((0, self.width))
        )
        beyond = np.abs(found) > np.finfo(np.float32).max
        if beyond.any():
            row, place = np.argwhere(beyond)[0]
            raise DataError(
                f"got {found[row, place]:g} in row {row}, column {self.encoded_names[place]!r} of "
                f"{source}; expected numbers that float32 can hold: scale the column"
            )
        return found.astype(np.float32)

    def unseen(self, data: Any) -> dict[str, int]:
        """Count the cells of each column that the training data doesn't explain; see `__call__`."""
        odd = Counter[str]()
        self(data, odd=odd)
        return dict(odd)


def _column(values: Any) -> Column:
    """Return the column of a dict from a model file."""
    kinds: dict[str, Any] = {
        **dict.fromkeys(("name", "kind", "why", "decimal"), str),
        **dict.fromkeys(("middle", "first"), float),
        **{"missing": bool, "levels": list, "form": (str, type(None))},
    }
    if not isinstance(values, dict) or values.keys() != {f.name for f in fields(Column)}:
        raise ValueError("a column with other names")
    for name, value in values.items():
        if not isinstance(value, kinds[name]) or (type(value) is float and not isfinite(value)):
            raise ValueError(f"a column with {name}={value!r:.60}")
    levels = values["levels"]
    if not all(isinstance(each, str) for each in levels[:-1]) or not (
        not levels or levels[-1] is None or isinstance(levels[-1], str)
    ):
        raise ValueError("levels that are no texts")
    if values["kind"] not in KINDS or values["decimal"] not in (".", ","):
        raise ValueError("a column of another kind")
    wanted = 2 if values["kind"] == "category" else 0
    if len(set(levels)) < len(levels) or (len(levels) < 2 if wanted else levels):
        raise ValueError("levels that do not fit")
    return Column(**{**values, "levels": tuple(levels)})


def _are_missing(cells: Array) -> Array:
    if cells.dtype.kind in "fM":
        return np.isnan(cells) if cells.dtype.kind == "f" else np.isnat(cells)
    return np.array([cell is None for cell in cells], bool)


def codes_of(column: Column, cells: Array) -> tuple[Array, Array]:
    """Return (N,) codes of the levels of a category, and which cells have another level.

    Another level has the code of the rare ones, or else -1.
    """
    codes: dict[str | None, int] = {level: place for place, level in enumerate(column.levels)}
    other = codes.pop(None, -1)
    codes[None] = codes.pop("", -1)
    texts = as_texts(cells)
    strange = np.array([cell not in codes for cell in texts], bool)
    return np.array([codes.get(cell, other) for cell in texts], np.float64), strange


def _values(column: Column, cells: Array) -> tuple[Array, Array]:
    """Return the numbers of a column, NaN where there is none, and which cells are texts."""
    if cells.dtype.kind == "f":
        return cells, np.zeros(len(cells), bool)
    return numbers_in(as_texts(cells), column.decimal)


def _parts(column: Column, days: Array) -> list[Array]:
    moments = np.datetime64("1970-01-01", "us") + (days * 86_400_000_000).astype("timedelta64[us]")
    dates, months = moments.astype("datetime64[D]"), moments.astype("datetime64[M]")
    day = dates.astype(np.int64)
    return [
        days - column.first,
        moments.astype("datetime64[Y]").astype(np.float64) + 1970.0,
        months.astype(np.float64) % 12 + 1,
        (dates - months).astype(np.float64) + 1,
        (day + 3) % 7.0,
        (days - day) * 24.0,
    ]
