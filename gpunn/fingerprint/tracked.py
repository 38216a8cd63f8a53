"""Objects whose changed attributes are counted, and values that are equal to themselves alone."""

from __future__ import annotations

import itertools
from typing import Any, ClassVar

_MISSING: Any = object()
_numbers = itertools.count(1)


class Latest:
    """Holds the number of the latest change of any tracked object."""

    number = 0


class Tracked:
    """An object whose changed attributes are counted, so that nobody has to compare them.

    Attributes:
        untracked: names whose changes don't count; a fingerprint leaves them out.
    """

    __slots__ = ()
    untracked: ClassVar[frozenset[str]] = frozenset()

    def __setattr__(self, name: str, value: Any) -> None:
        if name not in self.untracked and getattr(self, name, _MISSING) is not value:
            Latest.number = next(_numbers)
        super().__setattr__(name, value)

    def __delattr__(self, name: str) -> None:
        Latest.number = next(_numbers)
        super().__delattr__(name)


class Same:
    """A value of a fingerprint that is equal to nothing but the same object."""

    __slots__ = ("it",)

    def __init__(self, it: Any) -> None:
        self.it = it

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Same) and other.it is self.it

    def __hash__(self) -> int:
        return id(self.it)

    def __repr__(self) -> str:
        return f"<{getattr(self.it, '__name__', type(self.it).__name__)}>"
