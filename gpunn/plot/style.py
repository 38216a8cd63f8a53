"""What all pictures share: figures without a display, colours that everyone can tell apart."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gpunn.errors import MissingExtraError, OutputError

PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#999999", "#000000")
"""Okabe and Ito's colours (2008), which are told apart with any common colour blindness."""

MARKERS = "osD^vPX*"
TRAINING, VALIDATION = PALETTE[0], PALETTE[1]
VALUE, SIGNAL = PALETTE[0], PALETTE[1]


def figure(
    rows: int = 1, columns: int = 1, *, width: float = 5.0, height: float = 3.8, title: str = ""
) -> tuple[Any, Any]:
    """A figure that needs no display, and its axes.

    Args:
        rows: of axes.
        columns: of axes.
        width: of each of the axes, in inches.
        height: of each of the axes, in inches.
        title: above the figure.

    Returns:
        The matplotlib `Figure`, and its `Axes`: one, or a list of them row by row.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtraError("matplotlib", "plot", "a picture") from error

    made = Figure(figsize=(width * columns, height * rows), layout="constrained")
    if title:
        made.suptitle(title)
    found = made.subplots(rows, columns, squeeze=False).ravel().tolist()
    return made, found[0] if len(found) == 1 else found


def save(figure: Any, path: str | Path, *, dpi: int = 150) -> None:
    """Write a figure into a file.

    Args:
        figure: a matplotlib `Figure`.
        path: its ending chooses the format (.png, .pdf, .svg).
        dpi: pixels per inch.

    Raises:
        OutputError: the file cannot be written.
    """
    try:
        figure.savefig(path, dpi=dpi)
    except OSError as error:
        raise OutputError(f"got {path} for the picture; it cannot be written: {error}") from error


def given(ax: Any) -> Any:
    """The axes that a function was given, or those of a new figure."""
    return figure()[1] if ax is None else ax


def tidy(ax: Any, **labels: str) -> Any:
    """Labels, a faint grid, and no frame on the top and on the right."""
    ax.set(**labels)
    ax.grid(alpha=0.3)
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)
    return ax
