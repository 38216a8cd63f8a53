"""A day of a service: does it stay as small and as fast as in its first minutes?

Batches of random sizes are predicted one after another. Every tenth of the calls has the same sizes
in the same order, so its time can be compared with that of any other tenth.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import gpunn as gn
from gpunn.benchmarks.settings import Settings
from gpunn.typing import Array

CALLS, QUICK_CALLS = 100_000, 2_000
LARGEST = 1000  # rows of a batch
KEPT = 4000  # the latest results that a caller holds


def service(settings: Settings) -> dict[str, Any]:
    """Measure the growth of memory and of the time of a call, with and without kept results.

    Returns:
        For each kind of caller the number of calls; the MiB that the process grew by after the
        first hundredth of them (None where the system does not tell), less the kept results; and
        the time of the last tenth of the calls divided by that of the second tenth.
    """
    calls = QUICK_CALLS if settings.quick else CALLS
    net = gn.nn.Sequential(
        gn.nn.Linear(20, 256, "relu", seed=0),
        gn.nn.Linear(256, 256, "relu", seed=1),
        gn.nn.Linear(256, 3, seed=2),
    )
    return {
        "results dropped": _day(net.predict, calls, 0),
        "results kept": _day(net.predict, calls, KEPT),
    }


def _day(predict: Callable[[Array], Array], calls: int, keep: int) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((LARGEST, 20), dtype=np.float32)
    sizes = rng.integers(1, LARGEST + 1, calls // 10).tolist()
    results = deque((predict(x[: sizes[k % len(sizes)]]) for k in range(keep)), maxlen=keep)
    tenths: list[float] = []
    start: float | None = None
    for tenth in range(10):
        begun = time.process_time()
        for number, size in enumerate(sizes):
            results.append(predict(x[:size]))
            if not tenth and number == calls // 100:
                start = _resident_mib(results)
        tenths.append(time.process_time() - begun)
    end = _resident_mib(results)
    return {
        "calls": calls,
        "growth_mib": None if start is None or end is None else end - start,
        "last_to_second_tenth": tenths[-1] / tenths[1],
    }


def _resident_mib(results: deque[Array]) -> float | None:
    """Return the memory of this process without the kept results; None if it is unknown."""
    statm = Path("/proc/self/statm")
    if not statm.exists():
        return None
    pages = int(statm.read_text(encoding="ascii").split()[1])
    kept = sum(y.nbytes for y in results)
    found: float = (pages * os.sysconf("SC_PAGE_SIZE") - kept) / 2**20
    return found
