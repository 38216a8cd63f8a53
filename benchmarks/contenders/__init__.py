"""One training step of gpunn and of each library that it is compared with."""

from gpunn.benchmarks.contenders.table import CONTENDERS, FLOOR, Contender

__all__ = ["CONTENDERS", "FLOOR", "Contender"]
