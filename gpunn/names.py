"""Registration of names, with one rule for operations, kernels, optimizers and modules."""

from __future__ import annotations

from collections.abc import Callable
from inspect import Parameter, signature
from typing import Any, TypeVar

from gpunn.errors import ArgumentError

Function = TypeVar("Function", bound=Callable[..., Any])

_HOMES: dict[tuple[str, str], str] = {}
"""The module that declared each kind and name."""


def register(registry: dict[str, Any], kind: str, name: str, value: Any, home: str | None) -> None:
    """Register a value under a name.

    The module that declared a name may declare it again, because a notebook cell may run twice. The
    new value replaces the old one. Names of gpunn itself can be declared only once.

    Args:
        registry: the values by name.
        kind: the kind of value, for messages.
        name: the name.
        value: the value.
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


def is_own(kind: str, name: str) -> bool:
    """Return whether gpunn itself declared a name."""
    return _HOMES.get((kind, name), "").partition(".")[0] == "gpunn"


def at_home_of(body: Any) -> Callable[[Function], Function]:
    """Make a decorator that sets a function's module to that of `body`."""

    def mark(function: Function) -> Function:
        function.__module__ = home_of(body) or function.__module__
        return function

    return mark


def home_of(function: Any) -> str | None:
    """Return the name of the module that defines a function or class; None if it is unknown."""
    return getattr(function, "__module__", None)


def constructed(made: Any) -> str:
    """Return the text of an object: its class, with the arguments of its constructor.

    An argument is shown if the object has an attribute of that name. Positional
    arguments `*parts` stand one by one.
    """
    shown = []
    for name, parameter in signature(type(made).__init__).parameters.items():
        if parameter.kind is Parameter.VAR_POSITIONAL:
            shown += [repr(part) for part in getattr(made, name, ())]
        elif hasattr(made, name) and name != "self":
            shown.append(f"{name}={getattr(made, name)!r}")
    return f"{type(made).__name__}({', '.join(shown)})"


def named(value: Any) -> str:
    """Return the name of a function or operation, or the text of another value."""
    name = getattr(value, "name", None) or getattr(value, "__name__", None)
    return name if isinstance(name, str) else str(value)
