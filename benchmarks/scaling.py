"""Measure the growth of the time of a step with the width and the depth of the network."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

import numpy as np

from gpunn.benchmarks.contenders import CONTENDERS, FLOOR
from gpunn.benchmarks.networks import Network
from gpunn.benchmarks.settings import Settings
from gpunn.benchmarks.steps import ready, wait
from gpunn.benchmarks.timing import Rounds, in_turn, spread

WIDTHS = (64, 128, 256, 512, 1024, 2048, 4096)
DEPTHS = (1, 2, 4, 8, 16, 32, 64)
WHO = (FLOOR, "gpunn compiled", "gpunn NumPy alone", "PyTorch")
UPPER = 3  # the slope is that of the largest sizes, because small steps are mostly overhead


def scaling(settings: Settings) -> dict[str, Any]:
    """Measure a step with Adam and batch 128 in microseconds, and the slope of the logarithms."""
    widths = WIDTHS[:3] if settings.quick else WIDTHS
    depths = DEPTHS[:3] if settings.quick else DEPTHS
    return {
        "width of 2 hidden layers": _series(
            [Network(f"width {w}", (w, w, w, 10), 128) for w in widths], widths, settings
        ),
        "depth of 256 wide layers": _series(
            [Network(f"depth {n}", (*[256] * (n + 1), 10), 128) for n in depths], depths, settings
        ),
    }


def _series(networks: list[Network], sizes: tuple[int, ...], settings: Settings) -> dict[str, Any]:
    """Time all sizes of all contenders in turn.

    If another process slows the machine, it then affects a round and not a size.
    """
    there = [name for name in WHO if not CONTENDERS[name].why_not(networks[0])]
    works = {
        _key(name, size): ready(CONTENDERS[name].make(network, "adam"))
        for network, size in zip(networks, sizes, strict=True)
        for name in there
    }
    times = in_turn(works, 3 if settings.quick else settings.rounds, wait=wait)
    return {"sizes": sizes, "contenders": {name: _growth(name, sizes, times) for name in there}}


def _growth(name: str, sizes: tuple[int, ...], times: Rounds) -> dict[str, Any]:
    """Return the microseconds of every size, and the median of the slopes of single rounds."""
    rounds = list(zip(*(times[_key(name, size)] for size in sizes), strict=True))
    slopes = [slope(sizes, values) for values in rounds]
    return {
        "us": [1e6 * statistics.median(values) for values in zip(*rounds, strict=True)],
        "slope": statistics.median(slopes),
        "quartiles": spread(slopes),
    }


def _key(name: str, size: int) -> str:
    return f"{name}, {size}"


def slope(sizes: Sequence[int], values: Sequence[float]) -> float:
    """Return the exponent with which the largest sizes grow."""
    return float(np.polyfit(np.log(sizes[-UPPER:]), np.log(values[-UPPER:]), 1)[0])
