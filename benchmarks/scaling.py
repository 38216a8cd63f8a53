"""How the time of a step grows with the width and the depth of the network."""

from __future__ import annotations

import statistics
from typing import Any

import numpy as np

from gpunn.benchmarks.contenders import CONTENDERS, FLOOR
from gpunn.benchmarks.networks import Network
from gpunn.benchmarks.settings import Settings
from gpunn.benchmarks.steps import ready, wait
from gpunn.benchmarks.timing import in_turn

WIDTHS = (64, 128, 256, 512, 1024, 2048, 4096)
DEPTHS = (1, 2, 4, 8, 16, 32, 64)
WHO = (FLOOR, "gpunn compiled", "gpunn NumPy alone", "PyTorch")
UPPER = 3  # sizes, the largest, from which the slope is taken: below, a step is mostly overhead


def scaling(settings: Settings) -> dict[str, Any]:
    """Microseconds of a step with Adam, batch 128, and the slope of their logarithms."""
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
    us: dict[str, list[float]] = {}
    for network in networks:
        chosen = {name: CONTENDERS[name] for name in WHO if not CONTENDERS[name].why_not(network)}
        works = {name: ready(one.make(network, "adam")) for name, one in chosen.items()}
        times = in_turn(works, 3 if settings.quick else 9, wait=wait)
        for name, values in times.items():
            us.setdefault(name, []).append(1e6 * statistics.median(values))
    return {
        "sizes": sizes,
        "contenders": {
            name: {"us": values, "slope": _slope(sizes, values)} for name, values in us.items()
        },
    }


def _slope(sizes: tuple[int, ...], values: list[float]) -> float:
    """The exponent with which the largest sizes grow."""
    return float(np.polyfit(np.log(sizes[-UPPER:]), np.log(values[-UPPER:]), 1)[0])
