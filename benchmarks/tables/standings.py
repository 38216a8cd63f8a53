"""The table of standings: ranks and normalised scores over sets."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np


def standings(rows: Sequence[dict[str, Any]]) -> str:
    """Return a table of the contenders that have every set and seed that counts.

    A set and seed count if every contender of the table has a score there; contenders with scores
    for fewer than half of the sets are left out. The normalised score of a set is
    (worst - error) / (worst - best) over the contenders; 1 is the best.
    """
    good = [row for row in rows if "failed" not in row]
    by_case: dict[tuple[str, int], dict[str, dict[str, Any]]] = defaultdict(dict)
    for row in good:
        by_case[row["set"], row["seed"]][row["contender"]] = row
    counts: dict[str, int] = defaultdict(int)
    for case in by_case.values():
        for name in case:
            counts[name] += 1
    names = [name for name, n in counts.items() if 2 * n >= len(by_case)]
    cases = {key: case for key, case in by_case.items() if all(n in case for n in names)}
    if not cases:
        return "no set has a result of every contender"
    sets = sorted({name for name, _ in cases})

    def mean(quantity: str, name: str, only: Sequence[str]) -> float:
        per_set = [
            np.mean([case[name][quantity] for (s, _), case in cases.items() if s == each])
            for each in only
        ]
        return float(np.mean(per_set))

    errors = np.array(
        [
            [np.mean([c[n]["error"] for (s, _), c in cases.items() if s == each]) for n in names]
            for each in sets
        ]
    )
    ranks = np.array(
        [[(row < x).sum() + ((row == x).sum() + 1) / 2 for x in row] for row in errors]
    )
    worst, best = errors.max(axis=1, keepdims=True), errors.min(axis=1, keepdims=True)
    scores = (worst - errors) / np.maximum(worst - best, 1e-12)
    classes = [
        s for s in sets if next(c for (n, _), c in cases.items() if n == s)[names[0]]["classes"]
    ]
    numbers = [s for s in sets if s not in classes]
    lines = [
        f"{len(sets)} sets ({len(classes)} of classes), {len(cases)} splits",
        f"{'':22}{'rank':>6}{'score':>7}{'error':>8}{'logloss':>9}{'AUC':>7}{'nRMSE':>8}{'s':>8}",
    ]
    for place in np.argsort(ranks.mean(axis=0)):
        name = names[place]
        parts = [f"{name:22}{ranks[:, place].mean():6.2f}{scores[:, place].mean():7.3f}"]
        for quantity, only, width in (
            ("error", classes, 8),
            ("log_loss", classes, 9),
            ("auc", classes, 7),
            ("error", numbers, 8),
        ):
            parts.append(f"{mean(quantity, name, only):{width}.4f}" if only else " " * width)
        parts.append(f"{mean('seconds', name, sets):8.1f}")
        lines.append("".join(parts))
    rng = np.random.default_rng(0)
    if "gpunn" in names:
        lines.append("normalised difference to gpunn, mean and 95 % interval over sets:")
        ours = {
            base: scores[:, names.index(base)]
            for base in ("gpunn", "gpunn single")
            if base in names
        }
        for base, own in ours.items():
            for name in names:
                gap = own - scores[:, names.index(name)]
                drawn = rng.choice(gap, (2000, len(gap))).mean(axis=1)
                low, high = np.quantile(drawn, [0.025, 0.975])
                lines.append(f"  {base} - {name:22}{gap.mean():+.3f}  [{low:+.3f}, {high:+.3f}]")
    lines.append("\n" + f"{'set':14}" + "".join(f"{name[:12]:>13}" for name in names))
    for each, row in zip(sets, errors, strict=True):
        lines.append(f"{each:14}" + "".join(f"{x:13.4f}" for x in row))
    return "\n".join(lines)
