"""The public names, each with its page and its example. The site and the tests read this list."""

from __future__ import annotations

import importlib
import inspect
import re
from pathlib import Path
from typing import Any, NamedTuple

MODULES = (
    "gpunn",
    "gpunn.nn",
    "gpunn.ops",
    "gpunn.optim",
    "gpunn.optim.schedules",
    "gpunn.train",
    "gpunn.data",
    "gpunn.tables",
    "gpunn.sklearn",
    "gpunn.plot",
    "gpunn.explain",
    "gpunn.interop",
    "gpunn.distributed",
    "gpunn.accel",
    "gpunn.nn.init",
    "gpunn.nn.constructed",
    "gpunn.nn.wiring",
    "gpunn.autograd",
    "gpunn.backends",
    "gpunn.errors",
)
"""The modules whose names are public, in the order of the site."""

EXAMPLES = Path(__file__).with_name("examples.txt")


class Name(NamedTuple):
    """A public name."""

    module: str
    name: str
    value: Any

    @property
    def path(self) -> str:
        """The name with its module."""
        return f"{self.module}.{self.name}"

    @property
    def page(self) -> str:
        """The file of its page."""
        return f"api/{self.path}.md"

    @property
    def summary(self) -> str:
        """The first sentence of its docstring."""
        text = inspect.getdoc(self.value) if not is_constant(self.value) else ""
        return (text or "").partition("\n")[0]


def is_constant(value: Any) -> bool:
    """Return whether a value is no function, class or operation, so that it has no docstring."""
    return not (callable(value) or inspect.isclass(value))


def names_of(module: str) -> list[Name]:
    """Return the public names of a module: those of its `__all__`, or those that it defines.

    A name that an earlier module has already is left out.
    """
    found = importlib.import_module(module)
    listed = getattr(found, "__all__", None)
    if listed is None:
        listed = [
            name
            for name, value in vars(found).items()
            if not name.startswith("_") and getattr(value, "__module__", None) == module
        ]
    every = [Name(module, name, getattr(found, name)) for name in listed]
    return [each for each in every if not inspect.ismodule(each.value)]


def public() -> list[Name]:
    """Return every public name once, in the first module that has it."""
    seen: set[int] = set()
    found = []
    for module in MODULES:
        for each in names_of(module):
            if is_constant(each.value) or id(each.value) not in seen:
                seen.add(id(each.value))
                found.append(each)
    return found


def examples() -> dict[str, str]:
    """Return the examples of names whose docstrings have none, by the path of the name."""
    parts = re.split(r"^## (\S+)\n", EXAMPLES.read_text("utf-8"), flags=re.M)
    return {name: text.strip() + "\n" for name, text in zip(parts[1::2], parts[2::2], strict=True)}


def has_example(value: Any) -> bool:
    """Return whether the docstring of a value has an example."""
    return ">>>" in (inspect.getdoc(value) or "")
