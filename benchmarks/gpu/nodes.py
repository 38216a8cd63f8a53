"""List the nodes of captured steps, and the epilogues that cuBLASLt refused."""

from __future__ import annotations

import importlib.util
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import gpunn as gn
from gpunn.benchmarks.contenders.own import gpunn_step
from gpunn.benchmarks.gpu.steps import WIDE
from gpunn.benchmarks.networks import NETWORKS

TIMED = 50  # the number of steps that are profiled
CASES = (
    (NETWORKS["mnist-small"], "float32"),
    (NETWORKS["dropout-paper"], "float32"),
    (WIDE, "bfloat16"),
)


class _Refused(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep the message of a log record."""
        self.lines.append(record.getMessage())


def _durations(step: Any) -> dict[str, float]:
    """Return the microseconds of each kernel in one step, from PyTorch's profiler (CUPTI)."""
    import torch

    torch.zeros(1, device="cuda")
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        for _ in range(TIMED):
            step()
        torch.cuda.synchronize()
    found = sorted(profile.key_averages(), key=lambda e: -e.self_device_time_total)
    return {e.key[:100]: e.self_device_time_total / TIMED for e in found}


@contextmanager
def _watched(b: gn.backends.Backend) -> Iterator[tuple[list[Any], list[str]]]:
    """Keep the graphs that a backend records in the block, and the messages of the log."""
    graphs: list[Any] = []
    record, refused = b.record, _Refused()
    log = logging.getLogger("gpunn")
    level = log.level

    def kept(*args: Any, **options: Any) -> Any:
        graphs.append(record(*args, **options))
        return graphs[-1]

    log.setLevel(logging.DEBUG)
    log.addHandler(refused)
    try:
        with mock.patch.object(b, "record", kept):
            yield graphs, refused.lines
    finally:
        log.removeHandler(refused)
        log.setLevel(level)


def nodes(device: str, tiny: bool) -> Iterator[tuple[str, Any]]:
    """Yield the nodes of a recorded step, in order."""
    b = gn.backend(device)
    if why := b.why_no_capture():
        yield "skipped", why
        return
    with _watched(b) as (graphs, refused):
        for network, dtype in CASES[:1] if tiny else CASES:
            step = gpunn_step(network, "adam", device, dtype)
            for _ in range(3):
                step()
            b.synchronize()
            words = getattr(getattr(graphs[-1], "graph", None), "debug_dot_str", lambda: "")()
            names = re.findall(r'label="\d+\s+(\S+)', words)
            found: dict[str, Any] = {"count": len(names), "nodes": names}
            if importlib.util.find_spec("torch") and device.startswith("cuda"):
                found["us"] = _durations(step)
            yield f"{network.name}, {dtype}", found
        yield "refused", refused
