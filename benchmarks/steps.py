"""Time whole training steps of every contender, and their matrix products alone."""

from __future__ import annotations

import traceback
import warnings
from typing import Any

from gpunn.benchmarks.contenders import CONTENDERS, FLOOR
from gpunn.benchmarks.networks import NETWORKS, RULES, Network
from gpunn.benchmarks.settings import Settings
from gpunn.benchmarks.timing import Work, in_turn, seconds, summary

YARDSTICK = "PyTorch"
ROW_S, LONGEST_ROW_S = 6.0, 300.0  # seconds per row that add rounds, or take rounds away
FEWEST_ROUNDS, MOST_ROUNDS = 5, 100
WARM_S = 0.1  # seconds; a longer step works on more memory than a cache holds
SHARE_S = 0.02  # seconds per contender and round: many steps, so that cold caches weigh little


def steps(settings: Settings) -> dict[str, Any]:
    """Measure every network with every rule, and print each row when it is measured."""
    found = {}
    for network in NETWORKS.values():
        if not settings.wants("steps", network.name):
            continue
        for rule in RULES:
            row = measure(network, rule, settings)
            found[f"{network.name}, {rule}"] = row
            print(table(f"{network.name}, {rule}, {settings.threads} thread(s)", row), flush=True)
    return found


def measure(network: Network, rule: str, settings: Settings) -> dict[str, Any]:
    """Measure one row: the times of the contenders that run, and the reason for the others."""
    works, skipped = {}, {}
    for name, contender in CONTENDERS.items():
        why = contender.why_not(network)
        if name == "torch.compile" and not settings.compile:
            why = "it takes minutes to compile: pass --compile"
        if not why:
            try:
                works[name] = ready(contender.make(network, rule))
            except Exception:
                why = traceback.format_exc(limit=2)
        if why:
            skipped[name] = why
    times = in_turn(works, _rounds(works, settings), SHARE_S, wait, WARM_S)
    return {
        "network": network.name,
        "rule": rule,
        "rounds": len(times[FLOOR]),
        "contenders": summary(times, FLOOR, YARDSTICK),
        "skipped": skipped,
        "seconds": times,
    }


def _rounds(works: dict[str, Work], settings: Settings) -> int:
    if settings.quick:
        return 3
    one_s = sum(max(SHARE_S, seconds(work, 1, wait)) for work in works.values())
    wanted = min(MOST_ROUNDS, max(settings.rounds, int(ROW_S / one_s)))
    return max(FEWEST_ROUNDS, min(wanted, int(LONGEST_ROW_S / one_s)))


def ready(step: Work) -> Work:
    """Run a step until everything is compiled and recorded, and return it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # compilers warn about what is measured anyway
        for _ in range(3):
            wait(step())
    return step


def wait(result: Any) -> None:
    """Wait for a result of JAX, which computes in its own threads."""
    if hasattr(result, "block_until_ready"):
        result.block_until_ready()


def table(title: str, row: dict[str, Any]) -> str:
    """Return a row of the record as text."""
    lines = [f"\n{title}, {row['rounds']} rounds"]
    lines.append(f"{'':20}{'us':>12}{'quartiles':>24}{'to floor':>10}{'x PyTorch':>11}")
    for name, numbers in row["contenders"].items():
        low, high = numbers["quartiles_us"]
        times = f"{numbers['times_faster']:11.2f}" if "times_faster" in numbers else ""
        lines.append(
            f"{name:20}{numbers['us']:12.1f}{f'{low:.1f} - {high:.1f}':>24}"
            f"{numbers['to_floor']:10.2f}{times}"
        )
    lines += [f"{name:20}  {why.splitlines()[-1]}" for name, why in row["skipped"].items()]
    return "\n".join(lines)
