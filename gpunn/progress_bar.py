"""A progress bar on stderr, or in a notebook."""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Any

NUMBERS_FIRST = "{desc} {percentage:3.0f}%|{bar}| {elapsed}<{remaining}{postfix}"
"""A bar that leaves the width of a terminal to the numbers after it."""


def progress_bar(
    total: int | None,
    unit: str,
    *,
    shown: bool = True,
    scaled: bool = False,
    form: str | None = None,
) -> Any:
    """Make a bar of tqdm, which takes 10 ms to import and starts a thread.

    Args:
        total: how many units there are; None where that is unknown.
        unit: the name of a unit.
        shown: whether anything is printed.
        scaled: whether large counts are written as 12.3k and 4.5M.
        form: the parts of the bar, in tqdm's notation; None for all of them.
    """
    # tqdm.auto makes the bar of a notebook, if it has widgets
    bars = import_module("tqdm.auto" if "ipykernel" in sys.modules else "tqdm")
    return bars.tqdm(
        total=total,
        unit=unit,
        unit_scale=scaled,
        disable=not shown,
        dynamic_ncols=True,
        bar_format=form,
    )
