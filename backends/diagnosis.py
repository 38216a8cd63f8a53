"""Why a kind of device can or cannot be used: a ladder of checks, each tried if the last holds."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NamedTuple


class Rung(NamedTuple):
    """One check: what was tried, whether it held, what was seen, and what would mend it."""

    name: str
    ok: bool
    detail: str
    remedy: str = ""


class RungError(Exception):
    """Raised by a check that does not hold; never leaves this module's `climb`."""

    def __init__(self, detail: str, remedy: str) -> None:
        super().__init__(detail)
        self.detail, self.remedy = detail, remedy


@dataclass(frozen=True)
class Diagnosis:
    """The rungs that were tried; usable when all of them hold.

    `untried` names the checks above the one that failed.
    """

    rungs: tuple[Rung, ...]
    untried: tuple[str, ...] = ()

    @property
    def usable(self) -> bool:
        """Whether every rung holds."""
        return all(rung.ok for rung in self.rungs)

    @property
    def reason(self) -> str:
        """What the last rung that was tried saw: the cause of a failure, or the device's name."""
        return self.rungs[-1].detail

    @property
    def remedy(self) -> str:
        """What would mend the failure, empty when there is none."""
        return self.rungs[-1].remedy


def climb(checks: Iterable[tuple[str, Callable[[], str]]]) -> Diagnosis:
    """Run named checks in order and stop at the first that fails; no exception leaves."""
    checks = tuple(checks)
    rungs: list[Rung] = []
    for position, (name, check) in enumerate(checks):
        try:
            rungs.append(Rung(name, True, check()))
        except Exception as error:
            detail = getattr(error, "detail", None) or f"{type(error).__name__}: {error}"
            rungs.append(Rung(name, False, detail, getattr(error, "remedy", "")))
            return Diagnosis(tuple(rungs), tuple(later for later, _ in checks[position + 1 :]))
    return Diagnosis(tuple(rungs))
