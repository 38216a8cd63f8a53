"""Averages of the parameters over the steps of a training, which often predict better."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from gpunn.arguments import count, in_range
from gpunn.backends import Backend, Elementwise, scratch_like
from gpunn.fingerprint import Same, Tracked
from gpunn.names import constructed
from gpunn.ops import identity
from gpunn.optim.flat import FlatParameters
from gpunn.typing import Array


def _toward(p: Array, mean: Array, share: float) -> None:
    if share == 1:
        np.copyto(mean, p)
    elif share:
        apart = np.subtract(p, mean, out=scratch_like(p))
        np.add(mean, np.multiply(apart, share, out=apart), out=mean)


def _ema(p: Array, factor: Array, keep: float, taken: Array, mean: Array) -> None:
    if float(factor):
        _toward(p, mean, 1 if int(taken) == 1 else 1 - keep)


MOVING = Elementwise(
    "moving_average",
    "p, factor, float64 keep, int64 taken -> mean",
    numpy=_ema,
    cuda="if (factor != T(0)) mean = taken == 1 ? p : mean + (p - mean) * T(1.0 - keep);",
)


def _swa(p: Array, factor: Array, start: int, every: int, taken: Array, mean: Array) -> None:
    since = int(taken) - start
    if float(factor) and (since < 0 or since % every == 0):
        _toward(p, mean, 1 / (max(since, 0) // every + 1))


EQUAL = Elementwise(
    "equal_average",
    "p, factor, int64 start, int64 every, int64 taken -> mean",
    numpy=_swa,
    cuda=(
        "const long long since = taken - start; "
        "if (factor != T(0) && (since < 0 || since % every == 0)) "
        "mean = since <= 0 ? p : mean + (p - mean) * (T(1) / T(since / every + 1));"
    ),
)


class Average(ABC):
    """The base class of averages, which a Trainer takes as `average`."""

    __repr__ = constructed

    def __fingerprint__(self) -> dict[str, float]:
        return dict(vars(self))

    __identity__ = __fingerprint__

    @abstractmethod
    def update(self, b: Backend, p: Array, factor: Array, taken: Array, mean: Array) -> None:
        """Take parameters into their average.

        Args:
            b: the backend of the arrays.
            p: (P,) the parameters after a step.
            factor: the factor of the step's gradients. If it is 0, the step was none.
            taken: the number of steps, a 0-d int64 array.
            mean: (P,) the average, which changes.
        """


class EMA(Average):
    """An exponential moving average: after each step mean = decay * mean + (1 - decay) * p.

    Args:
        decay: the weight of the past, 0 <= decay < 1. The average reaches back about
            1 / (1 - decay) steps.

    Reference:
        Polyak and Juditsky (1992); Tarvainen and Valpola (2017) for networks.
    """

    def __init__(self, decay: float = 0.999) -> None:
        self.decay = in_range("decay", decay, 0.0, 1.0)

    def update(self, b: Backend, p: Array, factor: Array, taken: Array, mean: Array) -> None:
        """Take parameters into their average; see `Average.update`."""
        b.launch(MOVING, p, factor, self.decay, taken, out=mean)


class SWA(Average):
    """The mean of the parameters after step `start` and after every `every` steps from there.

    Before `start`, the average is the parameters themselves.

    Args:
        start: the first step that counts, at least 1.
        every: the steps between two that count; the number of batches for one in each epoch.

    Reference:
        Izmailov et al. (2018).
    """

    def __init__(self, start: int, every: int = 1) -> None:
        self.start, self.every = count("start", start), count("every", every)

    def update(self, b: Backend, p: Array, factor: Array, taken: Array, mean: Array) -> None:
        """Take parameters into their average; see `Average.update`."""
        b.launch(EQUAL, p, factor, self.start, self.every, taken, out=mean)


class Averaged(Tracked):
    """The average of the parameters of an optimizer.

    Args:
        average: the kind of average.
        flat: the parameters. The average begins with their present values.

    Attributes:
        mean: (P,) the average.
    """

    def __init__(self, average: Average, flat: FlatParameters) -> None:
        self.average, self.flat = average, flat
        self.mean = flat.backend.empty_like(flat.data)
        flat.backend.launch(identity.kernel, flat.data, out=self.mean)

    def __fingerprint__(self) -> dict[str, Any]:
        return {"average": self.average, "mean": Same(self.mean)}

    def take(self, factor: Array, taken: Array) -> None:
        """Take the parameters after a step into the average.

        Args:
            factor: the factor that the step had.
            taken: the number of steps, a 0-d int64 array.
        """
        self.average.update(self.flat.backend, self.flat.data, factor, taken, self.mean)

    def use(self) -> None:
        """Give the model the averaged parameters for good."""
        self.flat.backend.launch(identity.kernel, self.mean, out=self.flat.data)

    def swap(self) -> None:
        """Exchange the parameters and their average."""
        b, data = self.flat.backend, self.flat.data
        now = b.launch(identity.kernel, data, out=b.empty_like(data))
        self.use()
        b.launch(identity.kernel, now, out=self.mean)


@contextmanager
def swapped(averaged: Averaged | None) -> Iterator[None]:
    """Let the model have the averaged parameters inside the block, if there are any."""
    if averaged is None:
        yield
        return
    averaged.swap()
    try:
        yield
    finally:
        averaged.swap()
