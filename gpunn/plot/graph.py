"""Draw the computation graph with values, error signals and shapes."""

from __future__ import annotations

import re
import shutil
import subprocess
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from gpunn.errors import OutputError
from gpunn.explain import Quantity, Steps
from gpunn.plot.style import SIGNAL, VALUE, figure, save

COLUMN, LINE = 2.1, 0.17  # the distance between columns and the height of a line, in inches
BOX = 1.5  # the width of a box, in inches


def computation_graph(
    steps: Steps,
    ax: Any = None,
    *,
    values: bool = True,
    gradients: bool = True,
    shapes: bool = True,
    title: str = "",
) -> Any:
    """Draw the graph of a computation, from the inputs on the left to the loss on the right.

    Each box holds the name, the value in blue and the error signal in orange. If a quantity has
    several consumers, each edge shows the part of the error signal that comes back along it.

    Args:
        steps: the result of `gpunn.explain.function` or `gpunn.explain.network`.
        ax: matplotlib axes; None for the axes of a new figure of a fitting size.
        values: whether to write values.
        gradients: whether to write error signals.
        shapes: whether to write the shapes of arrays.
        title: the title above the picture.

    Returns:
        The axes.

    Raises:
        MissingExtraError: matplotlib is not installed.

    Reference:
        Lecture 003, "computation graph", "fan-out"; lecture 004.
    """
    texts = {q.name: _lines(q, values, gradients, shapes) for q in steps.values()}
    columns, paths = _layout(steps)
    row = LINE * (max(len(lines) for lines in texts.values()) + 2.2)
    tallest = max(len(column) for column in columns)
    if ax is None:
        height = row * tallest + 0.4 * bool(title)
        _, ax = figure(width=COLUMN * len(columns), height=height)
    places = {
        name: (COLUMN * i, row * ((tallest - len(column)) / 2 + j + 0.5))
        for i, column in enumerate(columns)
        for j, name in enumerate(column)
    }
    for path in paths:
        _draw_edge(ax, [places[name] for name in path], _message(steps, path, gradients))
    for q in steps.values():
        _draw_box(ax, *places[q.name], texts[q.name], filled=not q.formula)
    _to_scale(ax, COLUMN * len(columns), row * tallest)
    ax.set_title(title)
    ax.set_axis_off()
    return ax


def computation_graph_svg(steps: Steps, path: str | Path) -> str:
    """Write the graph as SVG, by Graphviz if its program `dot` is installed, else by matplotlib.

    Args:
        steps: the result of `gpunn.explain.function` or `gpunn.explain.network`.
        path: the file.

    Returns:
        The name of the program that drew it, "graphviz" or "matplotlib".

    Raises:
        OutputError: the file cannot be written, or `dot` failed.
        MissingExtraError: neither Graphviz nor matplotlib is installed.
    """
    program = shutil.which("dot")
    if program is None:
        ax = computation_graph(steps)
        save(ax.figure, path)
        return "matplotlib"
    done = subprocess.run(
        [program, "-Tsvg"], input=steps.dot().encode(), capture_output=True, check=False
    )
    if done.returncode:
        raise OutputError(
            f"got an error of {program}: {done.stderr.decode(errors='replace')}; expected a "
            "picture: check the installation of Graphviz"
        )
    try:
        Path(path).write_bytes(done.stdout)
    except OSError as error:
        raise OutputError(
            f"got {path} for the picture, which cannot be written ({error}); expected a writable "
            "place: choose another one"
        ) from error
    return "graphviz"


def _to_scale(ax: Any, width: float, height: float) -> None:
    """Set the limits of the axes so that a unit is an inch, or less if the axes are too small."""
    place, inches = ax.get_position(), ax.figure.get_size_inches()
    x, y = (width - COLUMN) / 2, height / 2  # the middle of the columns and of the rows
    wide, high = max(width, place.width * inches[0]), max(height, place.height * inches[1])
    ax.set_xlim(x - wide / 2, x + wide / 2)
    ax.set_ylim(y + high / 2, y - high / 2)


def _layout(steps: Steps) -> tuple[list[list[Any]], list[list[Any]]]:
    """Return columns of names, top to bottom, and the path of each edge with its way-points."""
    depth: dict[str, int] = {}
    for q in steps.values():
        depth[q.name] = 1 + max((depth[p] for p in q.parents), default=-1) if q.formula else 0
    edges = [(p, q.name) for q in steps.values() for p in dict.fromkeys(q.parents)]
    for q in steps.values():
        if not q.formula:  # place an input in the column before its first use
            depth[q.name] = min((depth[c] for p, c in edges if p == q.name), default=1) - 1
    columns: list[list[Any]] = [[] for _ in range(max(depth.values()) + 1)]
    for name, column in depth.items():
        columns[column].append(name)
    paths: list[list[Any]] = []
    for parent, child in edges:
        between = range(depth[parent] + 1, depth[child])
        points = [(parent, child, column) for column in between]
        for point in points:
            columns[point[2]].append(point)
        paths.append([parent, *points, child])
    _untangle(columns, paths)
    return columns, paths


def _untangle(columns: list[list[Any]], paths: list[list[Any]]) -> None:
    """Order each column by the mean position of its neighbours, so that fewer edges cross.

    The sweeps go back and forth, as in Sugiyama, Tagawa and Toda (1981).
    """
    pairs = [pair for path in paths for pair in pairwise(path)]
    for sweep in range(12):
        ahead = sweep % 2 == 0
        for column in columns if ahead else reversed(columns):
            ranks = {name: _rank(name, columns) for name in {n for pair in pairs for n in pair}}
            near: dict[Any, list[float]] = {name: [] for name in column}
            for left, right in pairs:
                name, other = (right, left) if ahead else (left, right)
                if name in near:
                    near[name].append(ranks[other])
            order = {
                name: sum(found) / len(found) if found else ranks.get(name, 0.0)
                for name, found in near.items()
            }
            column.sort(key=order.__getitem__)


def _rank(name: Any, columns: list[list[Any]]) -> float:
    """Return the distance of a name from the middle of its column."""
    column = next(column for column in columns if name in column)
    return column.index(name) - (len(column) - 1) / 2


def mathematical(name: str, bar: bool = False) -> str:
    """Return a name in mathematical notation: z1 with an index, an error signal with a bar."""
    match = re.fullmatch(r"([A-Za-z]+)(\d+)?", name)
    if match is None:
        return name
    letters, index = match.groups()
    letters = letters if len(letters) == 1 else rf"\mathrm{{{letters}}}"
    letters = rf"\bar{{{letters}}}" if bar else letters
    return f"${letters}_{{{index}}}$" if index else f"${letters}$"


def _short(value: Any) -> str:
    if value.size > 3:
        return f"norm {np.linalg.norm(value):.3g}"
    digits = 3 if value.size < 3 else 2
    text = ", ".join(f"{number + 0.0:.{digits}g}" for number in value.ravel())  # no -0
    return f"[{text}]" if value.ndim else text


def _lines(q: Quantity, values: bool, gradients: bool, shapes: bool) -> list[tuple[str, str]]:
    """Return the lines of text of a box with their colours."""
    lines = [(mathematical(q.name) + (f"  {q.shape}" if shapes and q.shape else ""), "black")]
    if values:
        lines.append((_short(q.value), VALUE))
    if gradients and q.grad is not None:
        lines.append((f"{mathematical(q.name, bar=True)} = {_short(q.grad)}", SIGNAL))
    return lines


def _message(steps: Steps, path: list[Any], gradients: bool) -> str:
    parent = steps[path[0]]
    part = parent.messages.get(path[-1])
    if not gradients or part is None or part.size != 1 or len(parent.messages) < 2:
        return ""
    return f"{part.item() + 0.0:.3g}"


def _draw_edge(ax: Any, points: list[tuple[float, float]], message: str) -> None:
    xs, ys = [points[0][0]], [points[0][1]]
    for number, ((x0, y0), (x1, y1)) in enumerate(pairwise(points)):
        first, last = x0 + BOX / 2, x1 - BOX / 2 - 0.06 * (number == len(points) - 2)
        share = np.linspace(0, 1, 30)
        xs += (first + (last - first) * share).tolist()
        ys += (y0 + (y1 - y0) * (1 - np.cos(np.pi * share)) / 2).tolist()
    ax.plot(xs, ys, color="#777777", linewidth=1.1, zorder=1, solid_capstyle="butt")
    end = (points[-1][0] - BOX / 2, points[-1][1])
    arrow = {"arrowstyle": "-|>", "color": "#777777", "shrinkA": 0, "shrinkB": 0}
    ax.annotate("", end, (xs[-1] - 0.02, ys[-1]), arrowprops=arrow, zorder=1)
    if message:
        white = {"facecolor": "white", "edgecolor": "none", "pad": 0.5}
        ax.text(
            xs[17], ys[17], message, color=SIGNAL, fontsize=7, bbox=white, ha="center", va="center"
        )


def _draw_box(ax: Any, x: float, y: float, lines: list[tuple[str, str]], filled: bool) -> None:
    height = LINE * (len(lines) + 0.7)
    face = "#e8eef7" if filled else "white"
    ax.barh(y, BOX, height, x - BOX / 2, color=face, edgecolor="#444444", linewidth=0.8, zorder=2)
    for number, (text, color) in enumerate(lines):
        at = y + LINE * (number - (len(lines) - 1) / 2)
        size = 9 if number == 0 else 7.5
        ax.text(x, at, text, color=color, fontsize=size, ha="center", va="center", zorder=3)
