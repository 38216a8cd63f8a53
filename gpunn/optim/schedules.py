"""Learning-rate schedules: the factor on the base rate at each step of training."""

from __future__ import annotations

from abc import ABC, abstractmethod
from math import cos, pi

from gpunn.arguments import count, lookup


class Schedule(ABC):
    """A function of the step, counted from 0. `total` is the number of steps of the whole run."""

    @abstractmethod
    def factor(self, step: int, total: int) -> float:
        """What the base learning rate is multiplied by at this step."""


class Constant(Schedule):
    """The base rate throughout."""

    def factor(self, step: int, total: int) -> float:
        """1."""
        return 1.0


class Step(Schedule):
    """The rate is multiplied by `gamma` after every `every` steps.

    Args:
        every: steps; by default a third of the run.
        gamma: the factor.
    """

    def __init__(self, every: int | None = None, gamma: float = 0.1) -> None:
        self.every = None if every is None else count("every", every)
        self.gamma = gamma

    def factor(self, step: int, total: int) -> float:
        """Gamma ** (step // every)."""
        return self.gamma ** (step // (self.every or max(1, -(-total // 3))))


class Cosine(Schedule):
    """From 1 to `end` along half a cosine (Loshchilov and Hutter 2017).

    Args:
        steps: by default the whole run.
        end: the last factor.
    """

    def __init__(self, steps: int | None = None, end: float = 0.0) -> None:
        self.steps = None if steps is None else count("steps", steps)
        self.end = end

    def factor(self, step: int, total: int) -> float:
        """Factor end + (1 - end) (1 + cos(pi step / steps)) / 2."""
        part = min(1.0, step / (self.steps or max(1, total)))
        return self.end + (1.0 - self.end) * 0.5 * (1.0 + cos(pi * part))


class Linear(Cosine):
    """From 1 to `end` along a line.

    Args:
        steps: by default the whole run.
        end: the last factor.
    """

    def factor(self, step: int, total: int) -> float:
        """1 - (1 - end) step / steps."""
        return 1.0 - (1.0 - self.end) * min(1.0, step / (self.steps or max(1, total)))


class Inverse(Schedule):
    """Decay with the step, (1 + decay step) ** -power.

    Args:
        decay: per step.
        power: 1 for inverse time, 0.5 for the inverse square root.
    """

    def __init__(self, decay: float = 1e-4, power: float = 1.0) -> None:
        self.decay, self.power = decay, power

    def factor(self, step: int, total: int) -> float:
        """(1 + decay step) ** -power."""
        return float((1.0 + self.decay * step) ** -self.power)


class WarmUp(Schedule):
    """Up to the base rate along a line, then another schedule.

    Args:
        steps: of the warm-up; by default a twentieth of the run.
        then: what follows, counted from the end of the warm-up.
    """

    def __init__(self, steps: int | None = None, then: Schedule | str = "constant") -> None:
        self.steps = None if steps is None else count("steps", steps)
        self.then = get_schedule(then)

    def factor(self, step: int, total: int) -> float:
        """(step + 1) / steps during the warm-up."""
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
}


def get_schedule(schedule: str | Schedule) -> Schedule:
    """The schedule of a registered name with its defaults; a schedule is returned as it is.

    Raises:
        UnknownNameError: no such name; the message lists the known ones.
    """
    if isinstance(schedule, Schedule):
        return schedule
    return lookup("schedule", schedule, SCHEDULES)()
