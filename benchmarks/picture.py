"""Draw the record as a picture, in colours that colour-blind people can distinguish."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gpunn.errors import MissingExtraError

COLOURS = {
    "matrix products": "#000000",
    "gpunn compiled": "#0072B2",
    "gpunn NumPy alone": "#56B4E9",
    "gpunn eager": "#999999",
    "naive NumPy": "#F0E442",
    "PyTorch": "#D55E00",
    "PyTorch fused": "#E69F00",
    "torch.compile": "#CC79A7",
    "JAX jit": "#009E73",
    "scikit-learn": "#6A4C93",
}
MARKS = dict(zip(COLOURS, ("|", "o", "s", "D", "v", "^", "<", ">", "P", "X"), strict=True))


def draw(record: dict[str, Any], path: Path) -> None:
    """Draw the first run of the steps on one thread, and the growth of the time with the size.

    Parts that the record does not have are left out.

    Args:
        record: the record of `gpunn bench`.
        path: the file; its suffix chooses the format.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtraError("matplotlib", "plot", "the picture of a benchmark") from error
    runs = [run["rows"] for run in record.get("steps", ()) if run["threads"] == 1]
    rows = {} if not runs or "failed" in runs[0] else runs[0]
    scaling = record.get("scaling", {})
    scaling = {} if "failed" in scaling else scaling
    widths = [8] * bool(rows) + [5] * bool(scaling)
    figure = Figure(
        figsize=(sum(widths) or 1, 0.34 * max(14, len(rows)) + 1.2), layout="constrained"
    )
    parts = iter(
        figure.subfigures(1, len(widths) or 1, squeeze=False, width_ratios=widths or [1]).flat
    )
    if rows:
        _rows(next(parts).subplots(), rows)
    if scaling:
        axes = next(parts).subplots(2, 1)
        for axis, (what, series) in zip(axes.flat, scaling.items(), strict=True):
            _curve(axis, what, series)
    figure.savefig(path, dpi=110)


def _rows(axis: Any, rows: dict[str, Any]) -> None:
    """Draw the contenders of every row by their ratio to the matrix products alone."""
    for k, row in enumerate(rows.values()):
        for name, numbers in row["contenders"].items():
            marks = {"color": COLOURS[name], "marker": MARKS[name], "linestyle": ""}
            axis.plot(numbers["to_floor"], -k, label=None if k else name, markersize=7, **marks)
    axis.set_yticks([-k for k in range(len(rows))], list(rows))
    axis.set_xscale("log")
    axis.set_xlabel("time / time of the matrix products alone (one thread; left is better)")
    axis.grid(alpha=0.3, which="both")
    axis.spines[["top", "right"]].set_visible(False)
    if rows:
        axis.legend(frameon=False, fontsize="small", loc="lower right")


def _curve(axis: Any, what: str, series: dict[str, Any]) -> None:
    """Draw the time of a step against the width or the depth."""
    for name, numbers in series["contenders"].items():
        label = f"{name}, slope {numbers['slope']:.2f}"
        marks = {"color": COLOURS[name], "marker": MARKS[name], "label": label}
        axis.loglog(series["sizes"], numbers["us"], **marks)
    axis.set(xlabel=what, ylabel="step (us)")
    axis.grid(alpha=0.3, which="both")
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(frameon=False, fontsize="small")
