"""The checks whether a kind of device can be used, in order, up to the first that fails."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NamedTuple


class Rung(NamedTuple):
    """One check.

    Attributes:
        name: what was checked.
        ok: whether the check passed.
        detail: what the check found: the cause of a failure, or a version or a name.
        remedy: what the user can do about a failure; empty if there is nothing.
    """

    name: str
    ok: bool
    detail: str
    remedy: str = ""


class RungError(Exception):
    """The failure of a check. `climb` catches it."""

    def __init__(self, detail: str, remedy: str) -> None:
        super().__init__(detail)
        self.detail, self.remedy = detail, remedy


@dataclass(frozen=True)
class Diagnosis:
    """The results of the checks of one kind of device.

    Attributes:
        rungs: the checks that were tried, in order.
        untried: the names of the checks that come after a failed one.
    """

    rungs: tuple[Rung, ...]
    untried: tuple[str, ...] = ()

    @property
    def usable(self) -> bool:
        """Whether every check passed."""
        return all(rung.ok for rung in self.rungs)

    @property
    def reason(self) -> str:
        """The finding of the last check that was tried: the cause of a failure, or the device."""
        return self.rungs[-1].detail

    @property
    def remedy(self) -> str:
        """The remedy for the failure; empty if nothing failed."""
        return self.rungs[-1].remedy


def climb(checks: Iterable[tuple[str, Callable[[], str]]]) -> Diagnosis:
    """Run named checks in order and stop at the first that fails. Every exception is a failure."""
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
