"""GB/s of every kernel on the GPU."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from gpunn.benchmarks.kernels import bandwidths


def kernels(device: str, tiny: bool) -> Iterator[tuple[str, Any]]:
    """Elementwise kernels, updates and row kernels, beside a copy of the same size."""
    yield from bandwidths(device, tiny).items()
