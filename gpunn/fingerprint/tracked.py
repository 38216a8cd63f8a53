"""Objects that count the changes of their attributes, and values that compare by identity."""

from __future__ import annotations

import itertools
from typing import Any, ClassVar

_MISSING: Any = object()
_numbers = itertools.count(1)


class Latest:
    """The number of the latest change of any tracked object."""

    number = 0

    @classmethod
    def count(cls) -> None:
        """Count a change."""
        cls.number = next(_numbers)


class Tracked:
    """An object that counts the changes of its attributes, so that they need not be compared.

    Attributes:
        untracked: names of attributes whose changes are not counted. Fingerprints skip them.
    """

    __slots__ = ()
    untracked: ClassVar[frozenset[str]] = frozenset()

    def __setattr__(self, name: str, value: Any) -> None:
        if name not in self.untracked and getattr(self, name, _MISSING) is not value:
            Latest.count()
        super().__setattr__(name, value)

    def __delattr__(self, name: str) -> None:
        Latest.count()
        super().__delattr__(name)


class Same:
    """A value in a fingerprint that stands for an object and compares by its identity."""

    __slots__ = ("it",)

    def __init__(self, it: Any) -> None:
        self.it = it

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Same) and other.it is self.it

    def __hash__(self) -> int:
        return id(self.it)

    def __repr__(self) -> str:
        return f"<{getattr(self.it, '__name__', type(self.it).__name__)}>"
