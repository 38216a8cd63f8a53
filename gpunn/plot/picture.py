"""Figures of matplotlib that a notebook shows, and logarithmic axes."""

from __future__ import annotations

from io import BytesIO
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

SHOWN = 90  # pixels an inch in a notebook


class Picture(Figure):
    """A figure that shows itself in a notebook."""

    def _repr_png_(self) -> bytes:
        file = BytesIO()
        self.savefig(file, format="png", dpi=SHOWN)
        return file.getvalue()


class PictureAxes(Axes):
    """Axes that show their figure in a notebook."""

    def _repr_png_(self) -> bytes | None:
        return self.figure._repr_png_() if isinstance(self.figure, Picture) else None


class PlainLocator(LogLocator):
    """Ticks of a logarithmic axis: powers of ten, and numbers between them on a short axis."""

    def tick_values(self, vmin: float, vmax: float) -> Any:
        """Return the ticks from one number to another."""
        low, high = sorted((vmin, vmax))
        if 0 < low < high < 3 * low:
            return MaxNLocator(4).tick_values(low, high)
        self.set_params(subs=(1, 2, 5) if high < 300 * low else (1,))
        return super().tick_values(vmin, vmax)


def plain(number: float, place: int | None = None) -> str:
    """Return the label of a tick: powers of ten below 0.001 and above 10,000 as 10^k."""
    power = np.log10(number) if number > 0 else 0.0
    is_far = not -3 <= power <= 4 and power == np.rint(power)
    return f"$10^{{{power:g}}}$" if is_far else f"{number:.6g}"


def logarithmic(axis: Any) -> None:
    """Give an axis a logarithmic scale with plain numbers beside it."""
    scale = axis.axes.set_yscale if axis.axis_name == "y" else axis.axes.set_xscale
    scale("log")
    axis.set_major_locator(PlainLocator())
    axis.set_major_formatter(FuncFormatter(plain))
    axis.set_minor_formatter(NullFormatter())
