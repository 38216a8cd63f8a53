"""Schedules: a factor of the learning rate, or another number of an optimizer, at each step."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from math import cos, log2, pi

from gpunn.arguments import count, in_range, lookup
from gpunn.errors import ArgumentError
from gpunn.guesses import answers
from gpunn.names import constructed


class Schedule(ABC):
    """The base class of schedules. A subclass defines `factor`."""

    __repr__ = constructed

    @abstractmethod
    def factor(self, step: int, total: int) -> float:
        """Return the factor of the base learning rate; for another number, that number itself.

        Args:
            step: the number of the step, counted from 0.
            total: the number of steps of the whole run.
        """


class Constant(Schedule):
    """A constant rate: the factor is 1."""

    def factor(self, step: int, total: int) -> float:
        """Return 1."""
        return 1.0


class Step(Schedule):
    """A rate that is multiplied by `gamma` after every `every` steps.

    Args:
        every: the number of steps; by default a third of the run.
        gamma: the factor, at least 0.
    """

    @answers
    def __init__(self, every: int | None = None, gamma: float = 0.1) -> None:
        self.every = None if every is None else count("every", every)
        self.gamma = in_range("gamma", gamma, 0.0)

    def factor(self, step: int, total: int) -> float:
        """Return gamma ** (step // every)."""
        return self.gamma ** (step // (self.every or max(1, -(-total // 3))))


class Cosine(Schedule):
    """A factor that falls from 1 to `end` along half a cosine, then stays at `end`.

    Args:
        steps: the steps of the fall; by default the whole run.
        end: the last factor, at least 0.

    Reference:
        Loshchilov and Hutter (2017).
    """

    @answers
    def __init__(self, steps: int | None = None, end: float = 0.0) -> None:
        self.steps = None if steps is None else count("steps", steps)
        self.end = in_range("end", end, 0.0)

    def factor(self, step: int, total: int) -> float:
        """Return end + (1 - end) * (1 + cos(pi * step / steps)) / 2."""
        part = min(1.0, step / (self.steps or max(1, total)))
        return self.end + (1.0 - self.end) * 0.5 * (1.0 + cos(pi * part))


class Linear(Cosine):
    """A factor that goes from `start` to `end` along a line, then stays at `end`.

    Args:
        steps: the steps on the line; by default the whole run.
        end: the last factor, at least 0.
        start: the first factor, at least 0.
    """

    def __init__(self, steps: int | None = None, end: float = 0.0, start: float = 1.0) -> None:
        super().__init__(steps, end)
        self.start = in_range("start", start, 0.0)

    def factor(self, step: int, total: int) -> float:
        """Return start - (start - end) * step / steps."""
        part = min(1.0, step / (self.steps or max(1, total)))
        return self.start - (self.start - self.end) * part


class CosLog(Schedule):
    """Waves that grow longer: the factor rises from 0 to 1 and falls to 0 in every cycle.

    The cycles are equally long on a logarithmic scale of time, so each is about twice as long as
    the one before.

    Args:
        cycles: the number of cycles, at least 1.

    Reference:
        Holzmüller et al. (2024), arXiv 2407.04491.
    """

    def __init__(self, cycles: int = 4) -> None:
        self.cycles = count("cycles", cycles)

    def factor(self, step: int, total: int) -> float:
        """Return (1 - cos(2 pi log2(1 + (2 ** cycles - 1) * step / total))) / 2."""
        part = min(1.0, step / max(1, total))
        return 0.5 * (1.0 - cos(2.0 * pi * log2(1.0 + (2.0**self.cycles - 1.0) * part)))


class FlatCosine(Schedule):
    """A factor of 1 for half of the run, which then falls to 0 along half a cosine.

    Reference:
        Holzmüller et al. (2024), arXiv 2407.04491.
    """

    def factor(self, step: int, total: int) -> float:
        """Return 1 up to t = step / total = 1/2, then (1 + cos(pi (2 t - 1))) / 2."""
        part = min(1.0, step / max(1, total))
        return 1.0 if part < 0.5 else 0.5 * (1.0 + cos(pi * (2.0 * part - 1.0)))


class Exponential(Schedule):
    """A factor that falls by `gamma` in every `every` steps, a little in each.

    Args:
        every: the number of steps; by default the whole run.
        gamma: the factor, at least 0.
    """

    def __init__(self, every: int | None = None, gamma: float = 0.1) -> None:
        self.every = None if every is None else count("every", every)
        self.gamma = in_range("gamma", gamma, 0.0)

    def factor(self, step: int, total: int) -> float:
        """Return gamma ** (step / every)."""
        return float(self.gamma ** (step / (self.every or max(1, total))))


class MultiStep(Schedule):
    """A rate that is multiplied by `gamma` at each milestone.

    Args:
        milestones: where the rate changes: whole numbers of steps, or fractions of the run between
            0 and 1.
        gamma: the factor, at least 0.
    """

    def __init__(self, milestones: Sequence[float] = (0.5, 0.75), gamma: float = 0.1) -> None:
        given = list(milestones)
        whole = all(isinstance(m, int) and not isinstance(m, bool) for m in given)
        if not given or not (whole or all(isinstance(m, float) and 0 < m < 1 for m in given)):
            raise ArgumentError(
                f"got milestones={milestones!r}; expected whole numbers of steps, or fractions of "
                "the run between 0 and 1, such as (0.5, 0.75)"
            )
        self.milestones = [count("milestones", m) if whole else m for m in given]
        self.gamma = in_range("gamma", gamma, 0.0)

    def factor(self, step: int, total: int) -> float:
        """Return gamma ** (the number of milestones that have passed)."""
        at = [m if isinstance(m, int) else m * total for m in self.milestones]
        return float(self.gamma ** sum(step >= m for m in at))


class Polynomial(Cosine):
    """A factor that falls from 1 to `end` along a power of the rest of the run.

    Args:
        steps: the steps of the fall; by default the whole run.
        end: the last factor, at least 0.
        power: the exponent, at least 0; 1 for a line.
    """

    def __init__(self, steps: int | None = None, end: float = 0.0, power: float = 2.0) -> None:
        super().__init__(steps, end)
        self.power = in_range("power", power, 0.0)

    def factor(self, step: int, total: int) -> float:
        """Return end + (1 - end) * (1 - step / steps) ** power."""
        left = max(0.0, 1.0 - step / (self.steps or max(1, total)))
        return float(self.end + (1.0 - self.end) * left**self.power)


class CosineRestarts(Schedule):
    """A factor that falls from 1 to `end` along half a cosine, and starts at 1 again and again.

    Args:
        steps: the steps of the first fall; by default a quarter of the run.
        growth: how many times longer each fall is than the one before, at least 1.
        end: the last factor, at least 0.

    Reference:
        Loshchilov and Hutter (2017).
    """

    def __init__(self, steps: int | None = None, growth: int = 1, end: float = 0.0) -> None:
        self.steps = None if steps is None else count("steps", steps)
        self.growth, self.end = count("growth", growth), in_range("end", end, 0.0)

    def factor(self, step: int, total: int) -> float:
        """Return end + (1 - end) * (1 + cos(pi * part)) / 2, with the part of the present fall."""
        length = self.steps or max(1, total // 4)
        while step >= length and self.growth > 1:
            step, length = step - length, length * self.growth
        part = step % length / length
        return self.end + (1.0 - self.end) * 0.5 * (1.0 + cos(pi * part))


class OneCycle(Schedule):
    """A factor that rises from `start` to 1 and falls to `end`, along half cosines.

    Args:
        rise: the fraction of the run in which it rises, between 0 and 1.
        start: the first factor, at least 0.
        end: the last factor, at least 0.

    Reference:
        Smith and Topin (2018), "Super-convergence"; the defaults are PyTorch's.
    """

    @answers
    def __init__(self, rise: float = 0.3, start: float = 0.04, end: float = 4e-6) -> None:
        self.rise = in_range("rise", rise, 0.0, 1.0)
        self.start, self.end = in_range("start", start, 0.0), in_range("end", end, 0.0)

    def factor(self, step: int, total: int) -> float:
        """Return low + (high - low) * (1 - cos(pi * part)) / 2 in each of the two parts."""
        last = max(1, total - 1)
        top = self.rise * total - 1.0
        if step <= top:
            part, low, high = step / top, self.start, 1.0
        else:
            top = max(0.0, top)
            part, low, high = min(1.0, (step - top) / max(1e-9, last - top)), 1.0, self.end
        return low + (high - low) * 0.5 * (1.0 - cos(pi * part))


class Inverse(Schedule):
    """An inverse decay: the factor is (1 + decay * step) ** -power.

    Args:
        decay: the decay per step, at least 0.
        power: the exponent, at least 0: 1 for inverse time, 0.5 for the inverse square root.
    """

    def __init__(self, decay: float = 1e-4, power: float = 1.0) -> None:
        self.decay, self.power = in_range("decay", decay, 0.0), in_range("power", power, 0.0)

    def factor(self, step: int, total: int) -> float:
        """Return (1 + decay * step) ** -power."""
        return float((1.0 + self.decay * step) ** -self.power)


class WarmUp(Schedule):
    """A warm-up to the base rate along a line, then another schedule.

    Args:
        steps: the steps of the warm-up; by default a twentieth of the run.
        then: the schedule after the warm-up. It counts steps from the end of the warm-up.
    """

    def __init__(self, steps: int | None = None, then: Schedule | str = "constant") -> None:
        self.steps = None if steps is None else count("steps", steps)
        self.then = get_schedule(then)

    def factor(self, step: int, total: int) -> float:
        """Return (step + 1) / steps during the warm-up, then the factor of the next schedule."""
        steps = self.steps or max(1, total // 20)
        if step < steps:
            return (step + 1) / steps
        return self.then.factor(step - steps, max(1, total - steps))


SCHEDULES: dict[str, type[Schedule]] = {
    "constant": Constant,
    "step": Step,
    "cosine": Cosine,
    "linear": Linear,
    "inverse": Inverse,
    "warmup": WarmUp,
    "exponential": Exponential,
    "multistep": MultiStep,
    "polynomial": Polynomial,
    "restarts": CosineRestarts,
    "onecycle": OneCycle,
    "coslog": CosLog,
    "flatcosine": FlatCosine,
}
"""The schedules that a string can name; `gpunn.guesses.SAME` has other words for them."""


def get_schedule(schedule: str | Schedule) -> Schedule:
    """Return the schedule with a registered name and default options. A schedule is returned as is.

    Raises:
        UnknownNameError: the name is unknown; the message lists the known names.
    """
    if isinstance(schedule, Schedule):
        return schedule
    return lookup("schedule", schedule, SCHEDULES)()
