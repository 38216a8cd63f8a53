"""Identities: what decides the numbers of a computation, as text that a file can store.

A `Fingerprint` tells whether the objects of this process have changed. An `Identity` is the same
walk, and it compares two processes: classes and functions by their names and code, parameters by
their shapes.
"""

from __future__ import annotations

import functools
import hashlib
import re
import sys
import types
from collections.abc import Iterator
from enum import Enum
from logging import Logger
from typing import Any

import numpy as np

from gpunn.fingerprint.reading import content_of, is_library, is_library_module
from gpunn.fingerprint.tracked import Same
from gpunn.fingerprint.walk import Fingerprint

CODE = "code of Python "
"""The beginning of each text that stands for code. Other versions of Python compile other code."""

LONGEST = 120  # the characters of a text that is stored as it is
_ADDRESS = re.compile(r"\bat 0x[0-9a-fA-F]+")


class Identity(Fingerprint):
    """A fingerprint as text: path -> text.

    A class may define `__identity__`. It returns the parts that decide what its objects compute, by
    name, or a text that stands for the object. Functions are identified by their code, defaults,
    closures and the globals that they read. Functions and classes of libraries are identified by
    their names.

    Args:
        roots: the objects that the walk starts from, by name.

    Attributes:
        settings: the texts by their paths.
        unknown: the first path that cannot be identified; empty if there is none.
    """

    def __init__(self, roots: dict[str, Any]) -> None:
        self.unknown = ""
        super().__init__(roots)
        self.settings: dict[str, str] = {}
        for path, value in self.values.items():
            text = _text(value)
            if text is None or _ADDRESS.search(text):
                self.unknown = self.unknown or path
            else:
                self.settings[path] = _short(text)
        self.unknown = self.opaque or self.restless or self.unknown

    def _walk(self, path: str, value: Any) -> None:
        if isinstance(value, np.generic):
            value = value.item()
        if type(value) is float:
            self.values[path] = repr(int(value)) if value.is_integer() else repr(value)
        elif value is None or type(value) in (bool, int, str, bytes, complex):
            self.values[path] = repr(value)
        elif isinstance(value, type) and id(value) in self._seen:
            self.values[path] = _class_name(value)
        else:
            if type(value) is tuple:  # Python makes one object of equal constants, or two
                self._seen.pop(id(value), None)
            super()._walk(path, value)

    def _function(self, path: str, value: types.FunctionType) -> None:
        super()._function(path, value)
        code = value.__code__
        library = is_library(code.co_filename)
        self.values[path] = value.__qualname__ if library else _code(code)

    def _class(self, path: str, value: type[Any]) -> None:
        super()._class(path, value)
        self.values[path] = _class_name(value)

    def _array(self, path: str, value: np.ndarray[Any, Any]) -> None:
        if value.dtype.hasobject:
            super()._array(path, value)
        else:
            dtype, shape, content = content_of(value)
            self.values[path] = f"{dtype} {shape} {content.hex()}"

    def _object(self, path: str, value: Any) -> None:
        kind = type(value)
        self.values[path] = name = _class_name(kind)
        described = getattr(kind, "__identity__", None)
        if described is None:
            super()._object(path, value)
            self.values[path] = name
        else:
            parts = described(value)
            if isinstance(parts, str):
                self.values[path] = parts
                return
            self._walk(f"{path}.class", kind)
            self._items(path, parts.items())
        if self.values[f"{path}.class"] == name and _is_known(kind):
            del self.values[f"{path}.class"]


def _is_known(kind: type[Any]) -> bool:
    """Return whether a class belongs to a library, and is identified by its name."""
    return kind.__module__ == "builtins" or is_library_module(kind.__module__)


def _class_name(kind: type[Any]) -> str:
    """Return the name of a class, with its package unless it is gpunn's. Modules may move."""
    package = kind.__module__.partition(".")[0] if _is_known(kind) else ""
    return repr(kind.__qualname__ if package in ("", "gpunn") else f"{package}.{kind.__qualname__}")


def difference(old: dict[str, str], new: dict[str, str], *, whole: bool, code: bool) -> str:
    """Return the first path at which two identities differ; empty if there is none.

    Args:
        old: the texts of one identity.
        new: those of another.
        whole: whether a path that only one of them has is a difference.
        code: whether code is compared.
    """
    for path in {**new, **old}:
        left, right = old.get(path), new.get(path)
        if left == right or (not whole and (left is None or right is None)):
            continue
        if not code and (left or "").startswith(CODE) and (right or "").startswith(CODE):
            continue
        return path
    return ""


def _text(value: Any) -> str | None:
    """Return a value of a fingerprint as text; None if nothing identifies it."""
    if isinstance(value, str):
        return value
    if not isinstance(value, Same):
        return _parts(value)
    it = value.it
    if isinstance(it, np.ufunc | types.ModuleType):
        return str(it.__name__)
    if isinstance(it, Enum):
        return str(it)
    if isinstance(it, Logger):
        return it.name
    if isinstance(it, types.CodeType):
        return _code(it)
    if hasattr(it, "shape") and hasattr(it, "dtype"):
        return f"{tuple(it.shape)} {it.dtype}"
    return None


def _parts(value: Any) -> str:
    """Return the value of a container, or of an object that was met before."""
    if isinstance(value, tuple) and len(value) == 2 and value[0] in ("list", "tuple"):
        return f"{value[1]} parts"
    return repr(value)


def _short(text: str) -> str:
    if len(text) <= LONGEST:
        return text
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
    return f"{text[: LONGEST // 2]}... {digest}"


@functools.lru_cache(maxsize=4096)
def _code(code: types.CodeType) -> str:
    digest = hashlib.blake2b(repr(tuple(_code_parts(code))).encode(), digest_size=8).hexdigest()
    return f"{CODE}{sys.version_info[0]}.{sys.version_info[1]}, {code.co_name} {digest}"


def _code_parts(code: types.CodeType) -> Iterator[Any]:
    """Yield what a function does: its instructions, constants and names, without line numbers."""
    yield code.co_code, code.co_names, code.co_varnames, code.co_freevars, code.co_flags
    yield code.co_argcount, code.co_kwonlyargcount
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield tuple(_code_parts(constant))
        elif isinstance(constant, frozenset):
            yield sorted(map(repr, constant))
        else:
            yield repr(constant)
