"""Fingerprints: lists of everything that a computation depends on. They show any change of it.

A recorded step repeats the calls that were made when it was recorded. `Fingerprint` walks through
everything that the step can reach, and lists it as path -> value: attributes, containers, closures
and defaults of functions, globals that a user's function reads, and the content of NumPy arrays.
Parameters and other arrays of a device are listed by identity, because a repetition reads their
present content.
"""

from __future__ import annotations

import functools
import itertools
import types
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from enum import Enum
from functools import partial
from logging import Logger
from operator import is_
from pathlib import PurePath
from typing import Any

import numpy as np

from gpunn.fingerprint.reading import (
    MISSING,
    content_of,
    is_itself,
    is_library,
    is_library_module,
    itself,
    names_in,
    of_complex,
    of_float,
    of_number,
    reduces,
    slots_of,
    still,
)
from gpunn.fingerprint.tracked import Latest, Same, Tracked

MOST = 20_000  # the most values in one fingerprint; the walk stops there


class Fingerprint:
    """A list of what a computation reads, with a quick check whether it has changed.

    A class may define `__fingerprint__`. It returns the parts to look at, by name, or None for an
    object that never changes.

    Args:
        roots: the objects that the walk starts from, by name.
        collect: classes whose instances are collected in `found`.

    Attributes:
        values: the values by their paths. Two fingerprints have equal values if nothing changed.
        opaque: the first path whose content cannot be inspected; empty if there is none.
        restless: the first path that changes when it is read, such as an iterator; or empty.
        found: the instances of `collect`, in the order in which they were met.
    """

    def __init__(self, roots: dict[str, Any], collect: tuple[type[Any], ...] = ()) -> None:
        self.values: dict[str, Any] = {}
        self.opaque = self.restless = ""
        self.found: list[Any] = []
        self._collect = collect
        self._seen: dict[int, str] = {}
        self._alive: list[Any] = []  # keeps objects made during the walk, so that ids stay unique
        self._lists: list[Any] = []  # lists whose elements are each equal only to themselves
        self._copies: list[Any] = []
        self._live: list[Iterable[Any]] = []  # other containers
        self._known: list[Any] = []
        self._probes: list[Callable[[], bool]] = []
        self._tracked: list[tuple[dict[str, Any], int, list[str], list[int]]] = []
        self._number = Latest.number
        for name, value in roots.items():
            self._walk(name, value)
        if self._live:
            self._live.append((MISSING,))  # a mark for the end, which no container contains
            self._known.append(MISSING)
        self._is_plain = not self._live and not self._probes
        del self._seen, self._alive

    def unchanged(self) -> bool:
        """Check quickly that nothing has changed. False if only a new fingerprint could tell."""
        return (
            Latest.number == self._number
            and self._lists == self._copies
            and (self._is_plain or self._is_same())
        )

    def unchanged_throughout(self) -> bool:
        """Check as `unchanged` does, and compare the attributes of `Tracked` objects, too.

        This also sees what is written to `vars(layer)`, which nothing counts. It takes about 1 us
        for each object.
        """
        return self.unchanged() and all(
            len(now) == size and list(map(id, map(now.get, names))) == ids
            for now, size, names, ids in self._tracked
        )

    def _is_same(self) -> bool:
        live = itertools.chain.from_iterable(self._live)
        return all(map(is_, live, self._known)) and all(probe() for probe in self._probes)

    def difference(self, other: Fingerprint) -> str:
        """Return the first path at which two fingerprints differ; empty if there is none."""
        if self.values == other.values:
            return ""
        for path in itertools.chain(self.values, other.values):
            if self.values.get(path, MISSING) != other.values.get(path, MISSING):
                return path
        return "the order of its parts"

    # the walk --------------------------------------------------------------------------------

    def _walk(self, path: str, value: Any) -> None:
        kind = type(value)
        leaf = _LEAVES.get(kind)
        if leaf is not None:
            self.values[path] = leaf(value)
            return
        if id(value) in self._seen:
            self.values[path] = ("again", self._seen[id(value)])
            return
        if len(self.values) >= MOST:
            self.opaque = self.opaque or path
            return
        self._seen[id(value)] = path
        self._alive.append(value)
        if isinstance(value, self._collect):
            self.found.append(value)
        step = next((step for kinds, step in _STEPS if isinstance(value, kinds)), None)
        if step is not None:
            getattr(self, step)(path, value)
        else:
            self._object(path, value)

    def _watch(self, live: Iterable[Any], known: Iterable[Any]) -> None:
        self._live.append(live)
        self._known.extend(known)

    def _items(self, path: str, items: Iterable[tuple[Any, Any]]) -> None:
        for name, value in items:
            self._walk(f"{path}.{name}", value)

    def _mapping(self, path: str, value: dict[Any, Any], watched: bool = True) -> None:
        self.values[path] = (type(value).__qualname__, tuple(map(repr, value)))
        if watched:
            self._watch(value.values(), value.values())
        self._items(path, list(value.items()))
        self._attributes(path, value)

    def _fixed(self, path: str, value: Any) -> None:
        self._mapping(path, dict(value), watched=False)

    def _sequence(self, path: str, value: Any) -> None:
        self.values[path] = (type(value).__qualname__, len(value))
        if type(value) is list and all(map(is_itself, value)):
            self._lists.append(value)
            self._copies.append(list(value))
        elif not isinstance(value, tuple):
            self._watch(value, list(value))
        self._items(path, enumerate(list(value)))
        self._attributes(path, value)

    def _set(self, path: str, value: Any) -> None:
        self.values[path] = (type(value).__qualname__, tuple(sorted(map(repr, value))))
        if not isinstance(value, frozenset):
            before = set(value)
            self._probes.append(lambda: value == before)
        self._attributes(path, value)

    def _array(self, path: str, value: np.ndarray[Any, Any]) -> None:
        if value.dtype.hasobject:
            self._walk(path, value.tolist())
            self._probes.append(lambda: False)
            return
        self.values[path] = before = content_of(value)
        self._probes.append(lambda: content_of(value) == before)

    def _function(self, path: str, value: types.FunctionType) -> None:
        code, defaults, named = value.__code__, value.__defaults__, value.__kwdefaults__
        self.values[path] = Same(code)
        self._items(path, [("defaults", defaults), ("keywords", named), ("vars", vars(value))])
        cells = value.__closure__ or ()
        for name, cell in zip(code.co_freevars, cells, strict=True):
            self._cell(f"{path}.{name}", cell)
        if is_library(code.co_filename):
            return
        self._probes.append(
            lambda: (
                value.__code__ is code
                and value.__defaults__ is defaults
                and value.__kwdefaults__ is named
            )
        )
        spaces = value.__globals__
        read = [(name, spaces[name]) for name in names_in(code) if name in spaces]
        read = [(n, v) for n, v in read if not isinstance(v, types.ModuleType)]
        self._probes.append(lambda: all(spaces.get(name, MISSING) is v for name, v in read))
        for name, known in read:
            self._walk(f"{path}.{name}", known)

    def _cell(self, path: str, cell: types.CellType) -> None:
        def content() -> Any:
            try:
                return cell.cell_contents
            except ValueError:  # not filled yet
                return MISSING

        known = content()
        self._probes.append(lambda: content() is known)
        if known is not MISSING:
            self._walk(path, known)

    def _partial(self, path: str, value: functools.partial[Any]) -> None:
        parts = {"func": value.func, "args": value.args, "keywords": value.keywords}
        self._items(path, parts.items())
        self._attributes(path, value)

    def _method(self, path: str, value: Any) -> None:
        self.values[path] = value.__name__
        self._walk(f"{path}.self", value.__self__)
        if isinstance(value, types.MethodType):
            self._walk(f"{path}.function", value.__func__)

    def _class(self, path: str, value: type[Any]) -> None:
        self.values[path] = Same(value)
        if value.__module__ == "builtins" or is_library_module(value.__module__):
            return
        attributes = vars(value)
        self._watch(attributes.values(), attributes.values())
        for name, member in list(attributes.items()):
            if isinstance(member, staticmethod | classmethod):
                member = member.__func__
            elif isinstance(member, property):
                self._items(f"{path}.{name}", [("get", member.fget), ("set", member.fset)])
                continue
            if name not in _CLASS_NAMES and not isinstance(member, _DESCRIPTORS):
                self._walk(f"{path}.{name}", member)
        for base in value.__bases__:
            self._walk(f"{path}.{base.__name__}", base)

    def _scalar(self, path: str, value: np.generic) -> None:
        self.values[path] = content_of(value)

    def _dtype(self, path: str, value: np.dtype[Any]) -> None:
        self.values[path] = value.str

    def _path(self, path: str, value: PurePath) -> None:
        self.values[path] = str(value)

    def _same(self, path: str, value: Any) -> None:
        self.values[path] = Same(value)

    def _weak(self, path: str, value: Any) -> None:
        self.values[path] = Same(value())

    def _restless(self, path: str, value: Any) -> None:
        self.values[path] = Same(value)
        self.restless = self.restless or path

    def _object(self, path: str, value: Any) -> None:
        if hasattr(type(value), "__cuda_array_interface__"):
            self.values[path] = Same(value)  # an array of a device; a repetition reads its content
            return
        described = getattr(type(value), "__fingerprint__", None)
        self._walk(f"{path}.class", type(value))
        if described is not None:
            parts = described(value)
            if parts is None:
                self.values[path] = Same(value)
                return
            if isinstance(value, Tracked):
                self._track(value)
            else:
                known = list(parts.values())
                self._probes.append(lambda: all(map(is_, described(value).values(), known)))
            self._items(path, parts.items())
            return
        if self._attributes(path, value) and not reduces(value):
            return
        try:
            state = value.__reduce_ex__(4)
        except Exception:  # a class may refuse in any way
            self.values[path] = Same(value)
            self.opaque = self.opaque or path
            return
        self._probes.append(lambda: False)  # only a new fingerprint shows a change of such state
        self._walk(f"{path}.state", state if isinstance(state, tuple) else (state,))

    def _track(self, value: Tracked) -> None:
        """Remember the attributes by their ids, so that a fingerprint keeps no module alive."""
        now = getattr(value, "__dict__", {})
        names = [name for name in now if name not in value.untracked]
        self._tracked.append((now, len(now), names, [id(now[name]) for name in names]))

    def _attributes(self, path: str, value: Any) -> bool:
        """Walk through an object's attributes, and return whether it can have any."""
        tracked = isinstance(value, Tracked)
        found = False
        attributes = getattr(value, "__dict__", None)
        if isinstance(attributes, dict):
            found = True
            if not tracked:
                self._watch(attributes.values(), attributes.values())
            left = value.untracked if tracked else ()
            items = [item for item in list(attributes.items()) if item[0] not in left]
            if tracked:
                self._track(value)
            self._items(path, items)
        for name in slots_of(type(value)):
            found = True
            known = getattr(value, name, MISSING)
            if not tracked:
                self._probes.append(partial(still, value, name, known))
            if known is not MISSING:
                self._walk(f"{path}.{name}", known)
        return found


_LEAVES: dict[type[Any], Callable[[Any], Any]] = {
    **dict.fromkeys((type(None), bool, int, str, bytes), of_number),
    float: of_float,
    complex: of_complex,
    type(...): str,
    Same: itself,
    slice: repr,
    range: repr,
}
_CLASS_NAMES = frozenset(
    (
        *("__dict__", "__weakref__", "__doc__", "__module__", "__qualname__", "__annotations__"),
        *("__firstlineno__", "__static_attributes__", "__abstractmethods__", "_abc_impl"),
        *("__dataclass_fields__", "__dataclass_params__", "__match_args__", "__slots__"),
    )
)
_DESCRIPTORS = (types.GetSetDescriptorType, types.MemberDescriptorType)
_STEPS: tuple[tuple[Any, str], ...] = (
    (type, "_class"),
    (types.FunctionType, "_function"),
    (types.MethodType, "_method"),
    (functools.partial, "_partial"),
    (dict, "_mapping"),
    (types.MappingProxyType, "_fixed"),
    ((list, tuple, deque), "_sequence"),
    ((set, frozenset), "_set"),
    (np.ndarray, "_array"),
    (np.generic, "_scalar"),
    (np.dtype, "_dtype"),
    (PurePath, "_path"),
    ((types.ModuleType, np.ufunc, types.CodeType, Enum, Logger), "_same"),
    (weakref.ref, "_weak"),
    ((types.BuiltinFunctionType, types.MethodWrapperType), "_method"),
    (Iterator, "_restless"),
)
