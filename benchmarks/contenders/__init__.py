"""One training step, in gpunn and in everything that it is compared with."""

from gpunn.benchmarks.contenders.table import CONTENDERS, FLOOR, Contender

__all__ = ["CONTENDERS", "FLOOR", "Contender"]
