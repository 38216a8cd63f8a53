"""One rule for every table of names: operations, kernels, update rules, optimizers, modules."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from gpunn.errors import ArgumentError

Function = TypeVar("Function", bound=Callable[..., Any])

_HOMES: dict[tuple[str, str], str] = {}
"""Kind and name -> the module that declared it."""


def register(registry: dict[str, Any], kind: str, name: str, value: Any, home: str | None) -> None:
    """Enter a value into a table of names.

    The module that declared a name may declare it again, as a cell of a notebook does that runs
    twice; the new value replaces the old one. Names of gpunn itself are declared once.

    Args:
        registry: the table.
        kind: what messages call its values.
        name: of the value.
        value: what the name stands for.
        home: the module that declares it.

    Raises:
        ArgumentError: another module, or gpunn, has declared the name.
    """
    home = home or "an unknown module"
    known = _HOMES.get((kind, name)) if name in registry else None
    if known is not None and (known != home or home.partition(".")[0] == "gpunn"):
        raise ArgumentError(
            f"got a second {kind} named {name!r}, from {home}; expected another name: the first is "
            f"from {known}"
        )
    _HOMES[kind, name] = home
    registry[name] = value


def at_home_of(body: Any) -> Callable[[Function], Function]:
    """Decorate a function that is made of `body`: it counts as written in the same module."""

    def mark(function: Function) -> Function:
        function.__module__ = home_of(body) or function.__module__
        return function

    return mark


def home_of(function: Any) -> str | None:
    """The module that a function or class was written in."""
    return getattr(function, "__module__", None)
