"""The table of standings: ranks and normalised scores over sets."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np

Rows = Sequence[dict[str, Any]]
COLUMNS = (
    ("error", True, 8, "error"),
    ("log_loss", True, 9, "logloss"),
    ("auc", True, 7, "AUC"),
    ("error", False, 8, "nRMSE"),
)


class Results:
    """The scores of the contenders on the sets and seeds that all of them have.

    Contenders with scores for fewer than half of the splits are left out.

    Attributes:
        names: the contenders.
        sets: the sets.
        classes: for each set, whether its target is a class.
        splits: the number of splits.
    """

    def __init__(self, rows: Rows) -> None:
        cases: dict[tuple[str, int], dict[str, dict[str, Any]]] = defaultdict(dict)
        for row in rows:
            if "failed" not in row:
                cases[row["set"], row["seed"]][row["contender"]] = row
        every = [name for case in cases.values() for name in case]
        self.names = [n for n in dict.fromkeys(every) if 2 * every.count(n) >= len(cases)]
        whole = {key: case for key, case in cases.items() if set(self.names) <= set(case)}
        self.splits = len(whole)
        self.sets = sorted({name for name, _ in whole})
        self._by_set = {
            s: [case for (name, _), case in whole.items() if name == s] for s in self.sets
        }
        self.classes = np.array([c[0][self.names[0]]["classes"] for c in self._by_set.values()])

    def table(self, quantity: str, chosen: Sequence[str] | None = None) -> np.ndarray[Any, Any]:
        """Return (sets, contenders) means of a quantity over seeds."""
        sets = self.sets if chosen is None else chosen
        return np.array(
            [[np.mean([c[n][quantity] for c in self._by_set[s]]) for n in self.names] for s in sets]
        )


def standings(rows: Rows) -> str:
    """Return a table of ranks, normalised scores, errors and seconds, and the errors of every set.

    The normalised score of a set is (worst - error) / (worst - best) over the contenders. The
    error is the share of wrong classes, or the root of the mean squared error divided by the
    deviation of the target.
    """
    found = Results(rows)
    if not found.sets:
        return "no set has a result of every contender"
    errors = found.table("error")
    ranks = np.array(
        [[(row < x).sum() + ((row == x).sum() + 1) / 2 for x in row] for row in errors]
    )
    worst, best = errors.max(axis=1, keepdims=True), errors.min(axis=1, keepdims=True)
    scores = (worst - errors) / np.maximum(worst - best, 1e-12)
    head = "".join(f"{title:>{width}}" for _, _, width, title in COLUMNS)
    lines = [
        f"{len(found.sets)} sets ({found.classes.sum()} of classes), {found.splits} splits",
        f"{'':22}{'rank':>6}{'score':>7}{head}{'CPU s':>8}",
    ]
    seconds = found.table("cpu").mean(axis=0)
    for place in np.argsort(ranks.mean(axis=0)):
        parts = [
            f"{found.names[place]:22}{ranks[:, place].mean():6.2f}{scores[:, place].mean():7.3f}"
        ]
        for quantity, classes, width, _ in COLUMNS:
            sets = [
                s
                for s, is_class in zip(found.sets, found.classes, strict=True)
                if is_class == classes
            ]
            mean = found.table(quantity, sets).mean(axis=0)[place] if sets else np.nan
            parts.append(f"{mean:{width}.4f}")
        lines.append("".join(parts) + f"{seconds[place]:8.1f}")
    lines += _differences(found.names, scores)
    lines.append("\n" + f"{'set':14}" + "".join(f"{name[:12]:>13}" for name in found.names))
    for each, row in zip(found.sets, errors, strict=True):
        lines.append(f"{each:14}" + "".join(f"{x:13.4f}" for x in row))
    return "\n".join(lines)


def _differences(names: list[str], scores: np.ndarray[Any, Any]) -> list[str]:
    """Return lines with the differences of gpunn's scores to the others', with intervals."""
    lines = ["differences of normalised scores, mean and 95 % bootstrap interval over sets:"]
    rng = np.random.default_rng(0)
    for own in (name for name in names if name.startswith("gpunn")):
        for name in names:
            gap = scores[:, names.index(own)] - scores[:, names.index(name)]
            drawn = rng.choice(gap, (2000, len(gap))).mean(axis=1)
            low, high = np.quantile(drawn, [0.025, 0.975])
            lines.append(f"  {own} - {name:22}{gap.mean():+.3f}  [{low:+.3f}, {high:+.3f}]")
    return lines
