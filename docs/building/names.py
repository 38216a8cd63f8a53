"""The public names, each with its page and its example. The site and the tests read this list."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
from functools import cache
from itertools import pairwise
from pathlib import Path
from types import GenericAlias
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
    "gpunn.playground",
    "gpunn.distributed",
    "gpunn.accel",
    "gpunn.nn.init",
    "gpunn.nn.constructed",
    "gpunn.nn.wiring",
    "gpunn.autograd",
    "gpunn.backends",
    "gpunn.errors",
    "gpunn.columns",
    "gpunn.fingerprint",
    "gpunn.train.callbacks",
    "gpunn.interop.source",
    "gpunn.accel.running",
    "gpunn.sklearn.compat",
    "gpunn.backends.cpu.compiled",
    "gpunn.benchmarks.contenders",
)
"""The modules whose names are public, in the order of the site: all that have an `__all__`, and
three of functions that are used with the module's name."""

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
    def kind(self) -> str:
        """The kind of the name: "class", "function" or "data"."""
        if is_constant(self.value):
            return "data"
        return "class" if inspect.isclass(self.value) else "function"

    @property
    def page(self) -> str:
        """The file of its page."""
        return f"api/{files()[self.path]}.md"

    @property
    def doc(self) -> str:
        """Its docstring, or the string below the assignment of a constant."""
        if is_constant(self.value):
            return string_below(self.module, self.name)
        return inspect.getdoc(self.value) or ""

    @property
    def summary(self) -> str:
        """The first sentence of its docstring."""
        paragraph = " ".join(self.doc.partition("\n\n")[0].split())
        return paragraph.partition(". ")[0].rstrip(".") + "."


def is_constant(value: Any) -> bool:
    """Return whether a value is no function, class or operation, so that it has no docstring."""
    return not callable(value) or isinstance(value, GenericAlias)


@cache
def string_below(module: str, name: str) -> str:
    """Return the string below the assignment of a constant, which another module may have."""
    path = importlib.import_module(module).__file__
    body = ast.parse(Path(str(path)).read_text("utf-8")).body
    for assignment, below in pairwise(body):
        targets = getattr(assignment, "targets", [getattr(assignment, "target", None)])
        is_named = isinstance(targets[0], ast.Name) and targets[0].id == name
        if is_named and isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant):
            return inspect.cleandoc(str(below.value.value))
    for node in body:
        if isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                if (alias.asname or alias.name) == name:
                    return string_below(node.module, alias.name)
    return ""


def names_of(module: str) -> list[Name]:
    """Return the public names of a module: those of its `__all__`, or those that it defines."""
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


@cache
def public() -> tuple[Name, ...]:
    """Return every public name once, in the first module that has it."""
    found: dict[tuple[str, int], Name] = {}
    for module in MODULES:
        for each in names_of(module):
            found.setdefault((each.name, id(each.value)), each)
    return tuple(found.values())


def home(each: Name) -> Name:
    """Return a name as it is in the first module that has it."""
    return next(e for e in public() if e.name == each.name and e.value is each.value)


@cache
def files() -> dict[str, str]:
    """Return the files of names, which differ where a file system ignores upper and lower case."""
    taken, found = {module.lower() for module in MODULES}, {}
    for each in public():
        file = each.path if each.path.lower() not in taken else f"{each.path}-{each.kind}"
        taken.add(file.lower())
        found[each.path] = file
    return found


def examples() -> dict[str, str]:
    """Return the examples of names whose docstrings have none, by the path of the name."""
    parts = re.split(r"^## (\S+)\n", EXAMPLES.read_text("utf-8"), flags=re.M)
    return {name: text.strip() + "\n" for name, text in zip(parts[1::2], parts[2::2], strict=True)}


def has_example(each: Name) -> bool:
    """Return whether the docstring of a name has an example."""
    return ">>>" in each.doc
