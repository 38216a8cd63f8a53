"""Read docstrings for the API pages, and what the source text of an operation does not show.

An activation or a loss is an assignment whose docstring is an argument. An operation is a function
whose first argument, the backend, callers never pass. Formulas are not Markdown. Modules of public
names have been imported by `names.public`; others, which may need more packages, are only read.
"""

from __future__ import annotations

import inspect
import re
import sys
from typing import Any

import griffe

from gpunn.autograd import Op

EXAMPLE = re.compile(r"^( *)Example:$", re.MULTILINE)
CODE = re.compile(r"(`+[^`]+`+)")
SPECIAL = re.compile(r"(?<!    )[*\[\]]")  # at the start of a line, * is a part of *layers


class Docstrings(griffe.Extension):
    """Take operations as their callers see them, and formulas as they are."""

    def on_object(self, *, obj: Any, **_: Any) -> None:
        """Prepare the docstring of one object."""
        if obj.docstring is not None:
            obj.docstring.value = prepared(obj.docstring.value)

    def on_package(self, *, pkg: griffe.Module, loader: griffe.GriffeLoader, **_: Any) -> None:
        """Replace operations, and let a name of a module and a function be the function."""
        for module in inner_modules(pkg):
            replace_operations(module)
        loader.resolve_aliases(implicit=True, external=False)
        found = []
        for module in inner_modules(pkg):
            for name, member in list(module.members.items()):
                if (member.is_alias and not member.resolved) or not member.is_module:
                    continue
                value = getattr(sys.modules.get(module.path), name, None)
                if callable(value):
                    home = member.canonical_path if isinstance(value, Op) else value.__module__
                    target = pkg[f"{home.removeprefix('gpunn.')}.{value.__name__}"]
                    found.append((module, name, target))
        for module, name, target in found:  # at the end, because a path may lead through a module
            module.members[name] = griffe.Alias(name, target, parent=module)


def inner_modules(package: griffe.Module) -> list[griffe.Module]:
    """Return a package and all modules in it."""
    found = [package]
    for module in found:
        found += [m for m in module.members.values() if not m.is_alias and m.is_module]
    return found


def replace_operations(module: griffe.Module) -> None:
    """Replace each operation that a module declares by the function that callers see."""
    for name, member in list(module.members.items()):
        if member.is_alias:
            continue
        is_call = member.is_attribute and isinstance(member.value, griffe.ExprCall)
        is_op = member.is_function and any(str(d.value) == "op" for d in member.decorators)
        if is_call or is_op:
            value = getattr(sys.modules.get(module.path), name, None)
            if isinstance(value, Op):
                module.set_member(name, as_function(value, name, member))


def as_function(operation: Op, name: str, member: Any) -> griffe.Function:
    """Return an operation as the function that its callers see."""
    parameters = [
        griffe.Parameter(
            each.name,
            kind=griffe.ParameterKind[each.kind.name.lower()],
            default=None if each.default is each.empty else repr(each.default),
        )
        for each in inspect.signature(operation).parameters.values()
    ]
    function = griffe.Function(
        name,
        parameters=griffe.Parameters(*parameters),
        returns="Tensor",
        lineno=member.lineno,
        endlineno=member.endlineno,
    )
    text = inspect.getdoc(operation) or ""
    function.docstring = griffe.Docstring(text, lineno=member.lineno, parent=function)
    return function


def prepared(doc: str) -> str:
    """Return a docstring with the title that Griffe gives to examples, and formulas as they are."""
    doc, _, examples = EXAMPLE.sub(r"\1Examples:", doc).partition("Examples:\n")
    return prose(doc) + (f"Examples:\n{examples}" if examples else "")


def prose(text: str) -> str:
    """Return text whose formulas are not taken for Markdown."""
    return "".join(
        part if part.startswith("`") else SPECIAL.sub(r"\\\g<0>", part).replace("<", "&lt;")
        for part in CODE.split(text)
    )
