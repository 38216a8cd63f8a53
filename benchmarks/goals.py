"""The goals that the figures must reach, and a check whether they do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from gpunn.benchmarks.networks import NETWORKS, RULES
from gpunn.benchmarks.timing import times_faster

ALONE, COMPILED = "gpunn NumPy alone", "gpunn compiled"
TIMES_FASTER = {  # than PyTorch eager with its default optimizers: NumPy alone, compiled
    "tiny": (5.0, 12.0),
    "lecture": (2.1, 2.3),
    "mnist-small": (2.8, 4.0),
    "mnist-mid": (1.25, 1.5),
    "mnist-mid + dropout": (1.7, 2.3),
    "dropout-paper": (1.15, 1.35),
    "wide": (0.95, 1.0),
}
TO_FLOOR = {  # SGD and Adam: NumPy alone, compiled
    "mnist-small": ((1.65, 2.0), (1.3, 1.45)),
    "mnist-mid": ((1.3, 1.5), (1.1, 1.2)),
    "mnist-mid + dropout": ((1.35, 1.6), (1.15, 1.25)),
    "dropout-paper": ((1.22, 1.35), (1.08, 1.15)),
    "wide": ((1.2, 1.2), (1.1, 1.1)),
}


class Goal(NamedTuple):
    """A bound on a paired ratio of two contenders' times, on one thread.

    Attributes:
        number: the group: 1 against PyTorch, 2 against the floor, 3 against the others.
        network: the name of the network.
        rule: the update rule.
        above: the contender whose time is the numerator of the ratio.
        below: the contender whose time is the denominator.
        need: the bound.
        at_most: True if the ratio must not exceed the bound, False if it must reach it.
    """

    number: int
    network: str
    rule: str
    above: str
    below: str
    need: float
    at_most: bool = False


def goals() -> list[Goal]:
    """Return all goals."""
    found = []
    for name in NETWORKS:
        for k, rule in enumerate(RULES):
            for ours, need in zip((ALONE, COMPILED), TIMES_FASTER[name], strict=True):
                found.append(Goal(1, name, rule, "PyTorch", ours, need))
            for ours, pair in zip((ALONE, COMPILED), TO_FLOOR.get(name, ()), strict=False):
                found.append(Goal(2, name, rule, ours, "matrix products", pair[k], True))
            found.append(Goal(3, name, rule, "scikit-learn", ALONE, 1.0))
            found.append(Goal(3, name, rule, "JAX jit", COMPILED, 1.0))
            if name != "wide":
                found.append(Goal(3, name, rule, "PyTorch fused", COMPILED, 1.0))
    return found


def judged(runs: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return each goal whose contenders ran, with the ratio of each run and whether all met it."""
    found = []
    for goal in goals():
        got = []
        for rows in runs:
            times = rows.get(f"{goal.network}, {goal.rule}", {}).get("seconds", {})
            if goal.above in times and goal.below in times:
                got.append(times_faster(times, goal.below, goal.above))
        if got:
            met = [one <= goal.need if goal.at_most else one >= goal.need for one in got]
            found.append(goal._asdict() | {"got": got, "met": all(met)})
    return found


def table(found: list[dict[str, Any]]) -> str:
    """Return the goals as text, with the missed ones marked."""
    missed = sum(not goal["met"] for goal in found)
    lines = [
        f"\nGoals: {len(found) - missed} of {len(found)} met, on one BLAS thread, in every run"
    ]
    for goal in found:
        what = f"{goal['above']} / {goal['below']}"
        sign = "<=" if goal["at_most"] else ">="
        lines.append(
            f"{'met   ' if goal['met'] else 'MISSED'} {goal['number']} {goal['network']:20}"
            f"{goal['rule']:5}{what:36}{''.join(f'{got:7.2f}' for got in goal['got'])}"
            f" {sign} {goal['need']:.2f}"
        )
    return "\n".join(lines)
