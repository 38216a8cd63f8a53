"""The scores of a table model on rows that it was not trained on."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from gpunn.columns import RawTable
from gpunn.nn.decisions import shares
from gpunn.tables.folds import log_loss
from gpunn.tables.model import TableModel

Array = np.ndarray[Any, Any]

LOOKED_AT, MOST_COLUMNS = 2000, 200
"""The rows that the importance of columns is measured on, and the most columns, the first ones."""


def area_under_curve(scores: Array, positive: Array) -> float:
    """Return the probability that a positive row has a higher score than a negative one.

    Ties count as one half. It is NaN if there are no rows of one kind.

    Args:
        scores: (N,) numbers.
        positive: (N,) booleans.
    """
    _, places, times = np.unique(scores, return_inverse=True, return_counts=True)
    ends = np.cumsum(times)
    ranks = (ends - (times - 1) / 2)[places]
    hits, misses = int(positive.sum()), int((~positive).sum())
    if not hits or not misses:
        return float("nan")
    return float((ranks[positive].sum() - hits * (hits + 1) / 2) / (hits * misses))


def class_scores(scores: Array, y: Array) -> dict[str, float]:
    """Return accuracy, balanced accuracy, log-loss and the mean area under the curve.

    Args:
        scores: (N, C) scores of classes.
        y: (N,) class numbers.
    """
    found = scores.argmax(axis=1)
    present = np.unique(y)
    chances = shares(scores)
    kinds = present if scores.shape[1] > 2 else [1]
    areas = [area_under_curve(chances[:, k], y == k) for k in kinds]
    return {
        "accuracy": float(np.mean(found == y)),
        "balanced accuracy": float(np.mean([np.mean(found[y == k] == k) for k in present])),
        "log-loss": log_loss(scores.astype(np.float64), y),
        "AUC": float(np.mean(areas)),
    }


def number_scores(found: Array, y: Array) -> dict[str, float]:
    """Return R2, the root of the mean squared error and the mean absolute error.

    Args:
        found: (N,) predictions.
        y: (N,) targets.
    """
    errors = found - y
    spread = float(np.sum((y - y.mean()) ** 2))
    return {
        "R2": 1.0 - float(np.sum(errors**2)) / max(spread, 1e-300),
        "RMSE": float(np.sqrt(np.mean(errors**2))),
        "MAE": float(np.mean(np.abs(errors))),
    }


@dataclass(frozen=True)
class Report:
    """The scores of a table model.

    Attributes:
        rows: the number of rows that the scores come from.
        scores: the scores by name.
        trivial: the same scores for the most frequent class, or the mean.
        linear: the same scores for a linear model.
        confusion: (C, C) counts of true classes in rows and predicted ones in columns, or None.
        importance: how much worse the log-loss or the RMSE becomes if a column is shuffled, for up
            to 200 columns.
        classes: the names of the classes, or None.
    """

    rows: int
    scores: dict[str, float]
    trivial: dict[str, float]
    linear: dict[str, float]
    confusion: list[list[int]] | None
    importance: dict[str, float]
    classes: list[str] | None

    def values(self) -> dict[str, Any]:
        """Return the report as values that JSON can hold."""
        return asdict(self)

    def text(self) -> str:
        """Return the report as lines for a person."""
        lines = [
            f"{'on ' + format(self.rows, ',') + ' rows':24}{'model':>12}{'linear':>12}"
            f"{'trivial':>12}"
        ]
        for name, value in self.scores.items():
            others = self.linear[name], self.trivial[name]
            lines.append(f"{name:24}" + "".join(f"{each:12.5g}" for each in (value, *others)))
        if self.confusion is not None and self.classes is not None and len(self.classes) <= 12:
            width = max(8, *(len(name) + 1 for name in self.classes))
            lines.append("true class, and what was predicted:")
            lines.append(" " * width + "".join(f"{name:>{width}}" for name in self.classes))
            for name, row in zip(self.classes, self.confusion, strict=True):
                lines.append(f"{name:>{width}}" + "".join(f"{n:{width}}" for n in row))
        ranked = sorted(self.importance.items(), key=lambda item: -item[1])
        measure = "log-loss" if self.confusion is not None else "RMSE"
        lines.append(f"columns that matter ({measure} if one is shuffled, minus that above):")
        lines += [f"  {name:30}{value:12.5g}" for name, value in ranked[:15]]
        return "\n".join(lines)


def report(
    model: TableModel, table: RawTable, y: Array, *, linear: Array, trivial: Array, seed: int = 0
) -> Report:
    """Score a model on rows that it was not trained on.

    Args:
        model: the model.
        table: N rows.
        y: (N,) class numbers or numbers.
        linear: the outputs of a linear model for these rows.
        trivial: the outputs of a model that answers every row alike.
        seed: the seed of the shuffles.
    """
    classes = model.limits is None
    measure, loss = (class_scores, "log-loss") if classes else (number_scores, "RMSE")

    def scored(outputs: Array) -> dict[str, float]:
        return measure(outputs if classes else outputs[:, 0].astype(np.float64), y)

    outputs = model.outputs(table)
    confusion = None
    if classes:
        counts = np.zeros((outputs.shape[1],) * 2, int)
        np.add.at(counts, (y, outputs.argmax(axis=1)), 1)
        confusion = counts.tolist()
    return Report(
        rows=len(y),
        scores=scored(outputs),
        trivial=scored(trivial),
        linear=scored(linear),
        confusion=confusion,
        importance=_importance(model, table, y, measure, loss, seed),
        classes=model.classes,
    )


def _importance(
    model: TableModel, table: RawTable, y: Array, measure: Any, loss: str, seed: int
) -> dict[str, float]:
    rng = np.random.default_rng(seed)
    chosen = rng.permutation(len(y))[:LOOKED_AT]
    codes, targets = model.encoding(table.rows(chosen)), y[chosen]

    def at(some: Array) -> float:
        outputs = model.of_codes(some)
        return float(measure(outputs if model.limits is None else outputs[:, 0], targets)[loss])

    base, found, sources = at(codes), {}, np.array(model.encoding.sources)
    for name in model.encoding.names[:MOST_COLUMNS]:
        mixed, order = codes.copy(), rng.permutation(len(targets))
        mixed[:, sources == name] = codes[order][:, sources == name]
        found[name] = at(mixed) - base
    return found
