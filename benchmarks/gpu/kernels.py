"""Measure every kernel on the GPU in GB/s."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from gpunn.benchmarks.kernels import bandwidths


def kernels(device: str, tiny: bool) -> Iterator[tuple[str, Any]]:
    """Yield the speed of elementwise kernels, updates and row kernels, and that of a copy."""
    yield from bandwidths(device, tiny).items()
