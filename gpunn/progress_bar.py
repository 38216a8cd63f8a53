"""A progress bar on stderr, or nothing in its place."""

from __future__ import annotations

from typing import Any


class NoBar:
    """Takes the place of a bar that nobody wants, since the import of tqdm takes 10 ms."""

    def __enter__(self) -> NoBar:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def update(self, count: int) -> None:
        """Ignore that units were done."""

    def set_description(self, words: str, refresh: bool) -> None:
        """Ignore the words before the bar."""

    def set_postfix(self, numbers: dict[str, str], refresh: bool) -> None:
        """Ignore the numbers behind the bar."""


def progress_bar(total: int | None, unit: str, *, shown: bool, scaled: bool = False) -> Any:
    """A context manager that shows how much has been done.

    Args:
        total: how many units there are; None where that is unknown.
        unit: the name of a unit.
        shown: whether anybody wants to see it.
        scaled: whether large counts are written as 12.3k and 4.5M.
    """
    if not shown:
        return NoBar()
    from tqdm import tqdm

    return tqdm(total=total, unit=unit, unit_scale=scaled, dynamic_ncols=True)
