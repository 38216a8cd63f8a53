"""Time all contenders in turn, in one run."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

Work = Callable[[], Any]
Rounds = dict[str, list[float]]
"""The seconds of one call of each piece of work, in every round."""


def _at_once(result: Any) -> None:
    """Do not wait, because the result is complete when the call returns."""


def in_turn(
    works: Mapping[str, Work],
    rounds: int,
    share_s: float = 0.02,
    wait: Callable[[Any], Any] = _at_once,
    warm_s: float = 0.0,
) -> Rounds:
    """Time all pieces of work in turn (A B C A B C ...).

    Args:
        works: the pieces of work, which have already run.
        rounds: the number of rounds.
        share_s: the seconds that a piece runs, about, before the turn of the next one.
        wait: a function that is called with the last result before the clock is read.
        warm_s: a piece that takes fewer seconds runs once before its clock starts, because the
            piece before it has filled the caches.
    """
    once = {name: seconds(work, 1, wait) for name, work in works.items()}
    repeats = {name: max(1, int(share_s / max(1e-7, once[name]))) for name in works}
    times: Rounds = {name: [] for name in works}
    for _ in range(rounds):
        for name, work in works.items():
            if once[name] < warm_s:
                wait(work())
            times[name].append(seconds(work, repeats[name], wait))
    return times


def seconds(work: Work, repeats: int, wait: Callable[[Any], Any] = _at_once) -> float:
    """Return the seconds of one call, as the mean of several calls."""
    result = None
    start = time.perf_counter()
    for _ in range(repeats):
        result = work()
    wait(result)
    return (time.perf_counter() - start) / repeats


def spread(values: Sequence[float]) -> tuple[float, float]:
    """Return the lower and the upper quartile."""
    if len(values) < 2:
        return values[0], values[0]
    low, _, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, high


def times_faster(times: Rounds, fast: str, slow: str) -> float:
    """Return the median over the rounds of the ratio of the slow time to the fast time."""
    return statistics.median(s / f for f, s in zip(times[fast], times[slow], strict=True))


def summary(times: Rounds, floor: str, yardstick: str = "") -> dict[str, dict[str, Any]]:
    """Return the microseconds of each contender, their quartiles and the paired ratios.

    Args:
        times: the times of all contenders.
        floor: the contender that `to_floor` is the ratio to.
        yardstick: the contender that `times_faster` compares with, if it ran.
    """
    found: dict[str, dict[str, Any]] = {}
    for name, values in times.items():
        low, high = spread(values)
        found[name] = {
            "us": 1e6 * statistics.median(values),
            "quartiles_us": [1e6 * low, 1e6 * high],
            "to_floor": 1 / times_faster(times, name, floor),
        }
        if yardstick in times:
            found[name]["times_faster"] = times_faster(times, name, yardstick)
    return found
