"""One HTML page about a trained table model, with its pictures inside."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence
from html import escape
from io import BytesIO
from typing import Any

import numpy as np

from gpunn import plot
from gpunn.columns import Encoding
from gpunn.html import table
from gpunn.plot.answers import counted
from gpunn.tables.report import Report
from gpunn.train import History

Array = np.ndarray[Any, Any]

STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;max-width:60em;margin:2em auto;padding:0 1em;"
    "color:#222}table{border-collapse:collapse;margin:1em 0}td,th{padding:.25em .8em;"
    "border-bottom:1px solid #ddd;text-align:left;font-variant-numeric:tabular-nums}"
    "img{max-width:100%}"
)
MOST_BARS, MOST_CLASSES = 15, 30


def html_page(
    name: str,
    facts: Sequence[str],
    encoding: Encoding,
    report: Report,
    histories: Sequence[History],
    outputs: Array,
    y: Array,
) -> str:
    """Return the page as text, without links to other files.

    Args:
        name: the name of the data, for the title.
        facts: lines that come first.
        encoding: what encodes the columns.
        report: the scores.
        histories: the curves of the members.
        outputs: (N, C) scores or (N, 1) numbers for the rows that were tested.
        y: (N,) their class numbers or numbers.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    parts = [f"<h1>{escape(name)}</h1>", *(f"<p>{escape(fact)}</p>" for fact in facts)]
    rows = [
        [key, *(f"{part[key]:.5g}" for part in (report.scores, report.linear, report.trivial))]
        for key in report.scores
    ]
    parts += [
        f"<h2>Scores on {report.rows:,} rows that no member was trained on</h2>",
        table(["", "model", "linear", "trivial"], rows, numbers=3),
        f"<h2>Predictions</h2>{_image(_answers(report, outputs, y))}",
        f"<h2>Columns that matter</h2>{_image(_importance(report))}",
        f"<h2>Training of {len(histories)} members</h2>{_image(_curves(histories))}",
        "<h2>Columns</h2>",
        table(
            ["column", "taken for", "notes"],
            [
                [column.name, column.kind, column.why or "with missing cells" * column.missing]
                for column in encoding.columns
            ],
        ),
    ]
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{escape(name)}</title>'
        f"<style>{STYLE}</style>{''.join(parts)}</html>\n"
    )


def _image(figure: Any) -> str:
    file = BytesIO()
    figure.savefig(file, format="png", dpi=110, metadata={"Software": None})
    return f'<img alt="" src="data:image/png;base64,{b64encode(file.getvalue()).decode()}">'


def _answers(report: Report, outputs: Array, y: Array) -> Any:
    """Draw the confusion matrix, or predicted against true numbers."""
    if report.confusion is None:
        return plot.prediction_error(y, outputs[:, 0]).figure
    names = report.classes or range(len(report.confusion))
    shown = np.array(report.confusion)[:MOST_CLASSES, :MOST_CLASSES]
    return counted(shown, names=list(map(str, names))[: len(shown)]).figure


def _importance(report: Report) -> Any:
    ranked = sorted(report.importance.items(), key=lambda item: item[1])[-MOST_BARS:]
    figure, ax = plot.figure(width=6, height=0.8 + 0.28 * len(ranked))
    ax.barh([name[:30] for name, _ in ranked], [v for _, v in ranked], color=plot.PALETTE[0])
    ax.set(xlabel=f"added {'RMSE' if report.confusion is None else 'log-loss'} if it is shuffled")
    return figure


def _curves(histories: Sequence[History]) -> Any:
    figure, axes = plot.figure(1, 2, width=4)
    for ax, name in zip(axes, ("loss", "val_loss"), strict=True):
        for history in histories:
            ax.plot(range(1, history.epochs + 1), history[name], linewidth=1)
        ax.set(xlabel="epoch", ylabel="loss" if name == "loss" else "loss of the held-out fold")
    return figure
