"""The style of all pictures: figures without a display, and colours for all kinds of vision."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gpunn.errors import MissingExtraError, OutputError

PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#999999", "#000000")
"""The colours of Okabe and Ito (2008), which remain distinct with common colour blindness."""

MARKERS = "osD^vPX*"
TRAINING, VALIDATION = PALETTE[0], PALETTE[1]
VALUE, SIGNAL = PALETTE[0], PALETTE[1]


def figure(
    rows: int = 1, columns: int = 1, *, width: float = 5.0, height: float = 3.8, title: str = ""
) -> tuple[Any, Any]:
    """Create a figure that needs no display, and its axes.

    Args:
        rows: the number of rows of axes.
        columns: the number of columns of axes.
        width: the width of each axes, in inches.
        height: the height of each axes, in inches.
        title: the title above the figure.

    Returns:
        The matplotlib `Figure`, and its `Axes`: one, or a list of them row by row. A notebook shows
        both as pictures.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    try:
        from gpunn.plot.picture import Picture, PictureAxes
    except ImportError as error:
        raise MissingExtraError("matplotlib", "plot", "a picture") from error

    made = Picture(figsize=(width * columns, height * rows), layout="constrained")
    if title:
        made.suptitle(title)
    kind = {"axes_class": PictureAxes}
    found = made.subplots(rows, columns, squeeze=False, subplot_kw=kind).ravel().tolist()
    return made, found[0] if len(found) == 1 else found


def save(figure: Any, path: str | Path, *, dpi: int = 150) -> None:
    """Write a figure to a file.

    Args:
        figure: a matplotlib `Figure`.
        path: the file; its suffix chooses the format (.png, .pdf, .svg).
        dpi: the resolution in pixels per inch.

    Raises:
        OutputError: the file cannot be written.
    """
    try:
        figure.savefig(path, dpi=dpi)
    except OSError as error:
        raise OutputError(
            f"got {path} for the picture, which cannot be written ({error}); expected a writable "
            "place: choose another one"
        ) from error


def given(ax: Any) -> Any:
    """Return the given axes, or those of a new figure for None."""
    return figure()[1] if ax is None else ax


def tidy(ax: Any, **labels: str) -> Any:
    """Set the labels, add a faint grid, and remove the frame at the top and on the right."""
    ax.set(**labels)
    ax.grid(alpha=0.3)
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)
    return ax


def logarithmic(axis: Any) -> None:
    """Give an axis a logarithmic scale with plain numbers, such as 0.02, beside it."""
    from gpunn.plot import picture

    picture.logarithmic(axis)
