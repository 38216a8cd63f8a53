"""How everything is timed: in turn, in one run."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

Work = Callable[[], Any]
Rounds = dict[str, list[float]]
"""Seconds of one call of each piece of work, in every round."""


def _at_once(result: Any) -> None:
    """What is there when a call returns needs no wait."""


def in_turn(
    works: Mapping[str, Work],
    rounds: int,
    share_s: float = 0.02,
    wait: Callable[[Any], Any] = _at_once,
    warm_s: float = 0.0,
) -> Rounds:
    """Time all pieces of work in turn (A B C A B C ...).

    Args:
        works: that are warm already.
        rounds: of all.
        share_s: for about how long a piece runs before it is the next one's turn.
        wait: called with the last result before the clock is read.
        warm_s: what takes less than this is done once at every turn before the clock is read: the
            caches are full of what the one before it worked on.
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
    """Seconds of one call, as the mean of several."""
    result = None
    start = time.perf_counter()
    for _ in range(repeats):
        result = work()
    wait(result)
    return (time.perf_counter() - start) / repeats


def spread(values: Sequence[float]) -> tuple[float, float]:
    """The quartiles."""
    if len(values) < 2:
        return values[0], values[0]
    low, _, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, high


def times_faster(times: Rounds, fast: str, slow: str) -> float:
    """The median over the rounds of how many times faster one was than the other."""
    return statistics.median(s / f for f, s in zip(times[fast], times[slow], strict=True))


def summary(times: Rounds, floor: str, yardstick: str = "") -> dict[str, dict[str, Any]]:
    """Microseconds, their quartiles, and the paired ratios.

    Args:
        times: of all contenders.
        floor: what `to_floor` is the ratio to.
        yardstick: what `times_faster` compares with, where it ran.
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
