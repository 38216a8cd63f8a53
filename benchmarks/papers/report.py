"""Report results: a table of means, standard errors and published numbers, and a picture."""

from __future__ import annotations

import json
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

import gpunn as gn
from gpunn.benchmarks.papers.recipes import RECIPES

Rows = list[dict[str, Any]]
ERRORS = (1, 2, 5, 10, 20, 50, 100)
"""The test errors in percent that the picture of the rates names."""


def results(folder: Path) -> list[Rows]:
    """Return the rows of each file of a folder, in the order of the recipes."""
    texts = [path.read_text(encoding="utf-8") for path in sorted(folder.glob("*.jsonl"))]
    found = [[json.loads(line) for line in text.splitlines()] for text in texts]
    order = list(RECIPES)
    return sorted(found, key=lambda rows: order.index(rows[0]["recipe"]))


def percents(rows: Rows) -> list[float]:
    """Return the test errors of the seeds, in percent."""
    return [row["test_percent"] for row in rows]


def mean_and_error(values: list[float]) -> tuple[float, float]:
    """Return the mean of the seeds and its standard error, which is NaN for one seed."""
    count = len(values)
    error = np.std(values, ddof=1) / count**0.5 if count > 1 else np.nan
    return float(np.mean(values)), float(error)


def summary(rows: Rows) -> str:
    """Return a line of the table: mean, standard error, published number, and whether they agree.

    They agree if the published number is within two standard errors or 0.1 percent points. A
    shorter run is not compared.
    """
    recipe = RECIPES[rows[0]["recipe"]]
    found = percents(rows)
    mean, error = mean_and_error(found)
    counts = sorted({row["epochs"] for row in rows})
    known = not np.isnan(recipe.published)
    agrees = "yes" if abs(mean - recipe.published) <= max(0.1, 2 * error) else "no"
    if not known or ("by" not in rows[0] and counts != [recipe.epochs]):
        agrees = "-"
    by = f", {rows[0]['by']}" if "by" in rows[0] else ""
    epochs = f"{counts[0]} to {counts[-1]}" if len(counts) > 1 else str(counts[0])
    published = f"{recipe.published:.2f}" if known else "-"
    each = ", ".join(f"{value:.2f}" for value in found)
    minutes = np.mean([row["seconds"] for row in rows]) / 60
    return (
        f"| {rows[0]['recipe']}{by} | {epochs} | {len(found)} | {mean:.3f} | {_digits(error)} | "
        f"{published} | {agrees} | {each} | {minutes:.1f} |"
    )


def _digits(error: float) -> str:
    """Return a standard error with three decimals; "-" for that of one seed."""
    return "-" if np.isnan(error) else f"{error:.3f}"


def table(found: list[Rows]) -> str:
    """Return the tables: all results, the order of table 9's rows, means of drawn networks."""
    lines = [
        "| recipe | epochs | seeds | test error % | standard error | published % | agree | each | "
        "minutes a seed |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
        *(summary(rows) for rows in found),
    ]
    lines += order([rows for rows in found if rows[0]["recipe"].startswith("table9")])
    for rows in found:
        if "averages" in rows[0]:
            lines += ["", *drawn_networks(rows)]
    return "\n".join(lines)


def order(found: list[Rows]) -> list[str]:
    """Return the table of the differences of rows of table 9 that had the same budget.

    The intervals are Welch's, in which two rows may have different variances.
    """
    from scipy.stats import ttest_ind

    several = [rows for rows in found if len(rows) > 1]
    lines = ["", "| difference | epochs | percent points | 95 % interval | published |"]
    lines.append("| --- | --- | --- | --- | --- |")
    for rows, others in combinations(several, 2):
        (name, epochs), (other, same) = [(r[0]["recipe"], r[0]["epochs"]) for r in (rows, others)]
        if epochs != same:
            continue
        a, b = percents(rows), percents(others)
        low, high = ttest_ind(a, b, equal_var=False).confidence_interval(0.95)
        published = RECIPES[name].published - RECIPES[other].published
        said = "-" if np.isnan(published) else f"{published:.2f}"
        pair = f"{name} - {other.removeprefix('table9-')}"
        lines.append(
            f"| {pair} | {epochs} | {np.mean(a) - np.mean(b):.3f} | {low:.2f} to {high:.2f} | "
            f"{said} |"
        )
    return lines if len(lines) > 3 else []


def drawn_networks(rows: Rows) -> list[str]:
    """Return the table of the mean predictions of k networks drawn by dropout."""
    lines = [
        f"| {_title(rows[0])}: networks | test error % | standard error |",
        "| --- | --- | --- |",
    ]
    for k in rows[0]["averages"]:
        mean, error = mean_and_error([row["averages"][k] for row in rows])
        lines.append(f"| {k} | {mean:.3f} | {_digits(error)} |")
    mean, error = mean_and_error(percents(rows))
    return [*lines, f"| one without dropout | {mean:.3f} | {_digits(error)} |"]


def draw(found: list[Rows], path: Path) -> None:
    """Draw the test errors of all results, of rates of dropout, and of drawn networks.

    Args:
        found: the results.
        path: the file; its suffix chooses the format.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    single = [rows for rows in found if not rows[0]["recipe"].startswith("figure9")]
    sides = [(_rates, [rows for rows in found if rows[0]["recipe"].startswith("figure9")])]
    sides.append((_drawn_networks, [rows for rows in single if "averages" in rows[0]]))
    sides = [(drawing, mine) for drawing, mine in sides if mine]
    height = max(4.0, 0.32 * len(single) + 1)
    picture, axes = gn.plot.figure(1, 1 + len(sides), width=6.5, height=height)
    left, *others = axes if sides else [axes]
    _rows(left, single)
    for ax, (drawing, mine) in zip(others, sides, strict=True):
        drawing(ax, mine)
    gn.plot.save(picture, path)


def _rates(ax: Any, found: list[Rows]) -> None:
    """Draw the error against the probability of keeping a unit, for both kinds of figure 9."""
    curves: dict[str, tuple[Any, Any]] = {}
    for kind, label in (("fixed", "n units, all as wide"), ("scaled", "n units, pn the same")):
        prefix = f"figure9-{kind}-"
        mine = [rows for rows in found if rows[0]["recipe"].startswith(prefix)]
        kept = [float(rows[0]["recipe"].removeprefix(prefix)) for rows in mine]
        curves[label] = kept, [mean_and_error(percents(rows))[0] for rows in mine]
    words = {"xlabel": "p, the probability of keeping a hidden unit", "ylabel": "test error (%)"}
    gn.plot.series(curves, ax, title="Rates of dropout", **words)
    ax.set_yscale("log")
    ax.set_yticks(ERRORS, map(str, ERRORS))
    ax.minorticks_off()


def _drawn_networks(ax: Any, found: list[Rows]) -> None:
    """Draw the error of the mean of k drawn networks, beside that of the one without dropout."""
    rows = found[0]
    counts = [int(k) for k in rows[0]["averages"]]
    means = [mean_and_error([row["averages"][str(k)] for row in rows])[0] for k in counts]
    whole = [mean_and_error(percents(rows))[0]] * len(counts)
    curves: dict[str, tuple[Any, Any]] = {"mean of k networks": (counts, means)}
    curves["one, without dropout"] = counts, whole
    gn.plot.series(curves, ax, title="Drawn networks", xlabel="k", ylabel="test error (%)")
    ax.set_xscale("log")


def _rows(ax: Any, found: list[Rows]) -> None:
    """Draw each result as a line: its seeds, its mean with two standard errors, the paper's."""
    blue, red, grey = gn.plot.style.PALETTE[0], gn.plot.style.PALETTE[1], "#999999"
    for k, rows in enumerate(found):
        values = percents(rows)
        mean, error = mean_and_error(values)
        published = RECIPES[rows[0]["recipe"]].published
        names = ("a seed", "mean, 2 standard errors", "published") if k == 0 else ("", "", "")
        ax.plot(values, [-k] * len(values), "o", color=grey, markersize=4, label=names[0])
        bar = {"xerr": 2 * np.nan_to_num(error), "capsize": 4, "markersize": 7}
        ax.errorbar([mean], [-k], fmt="s", color=blue, label=names[1], **bar)
        ax.plot([published], [-k], "D", color=red, fillstyle="none", label=names[2])
    ax.set_yticks([-k for k in range(len(found))], [_title(rows[0]) for rows in found])
    ax.legend(frameon=False, fontsize="small")
    gn.plot.style.tidy(ax, xlabel="test error (%)", title="MNIST")


def _title(row: dict[str, Any]) -> str:
    """Return the name of a line: the recipe, and scikit-learn or a shorter budget."""
    name = str(row["recipe"])
    if "by" in row:
        return f"{name}, scikit-learn"
    return name if row["epochs"] == RECIPES[name].epochs else f"{name}, {row['epochs']} epochs"
