"""Arrays that let nobody but a backend compute with them, and a backend that does."""

from __future__ import annotations

from types import ModuleType

import numpy as np

VIEWS = frozenset(
    (
        *("shape", "dtype", "ndim", "size", "T", "flags", "itemsize", "nbytes", "strides", "base"),
        *("reshape", "transpose", "swapaxes", "ravel", "squeeze", "view", "data"),
        *("__class__", "__array_finalize__", "__len__", "__dict__", "__array_interface__"),
    )
)
"""What an operation may ask of an array: numbers that describe it, and views."""


class Computed(Exception):
    """An operation computed something without its backend."""


class Spy(np.ndarray):
    """An array that refuses operators, methods that compute, and reading."""

    def __getattribute__(self, name):
        if name not in VIEWS:
            raise Computed(f".{name} of an array is asked for")
        return super().__getattribute__(name)

    def __array_ufunc__(self, ufunc, method, *inputs, **options):
        raise Computed(f"{ufunc.__name__} is computed")

    def __array_function__(self, function, types, args, options):
        raise Computed(f"{function.__name__} is computed")

    def __getitem__(self, key):
        part = plain(self)[key]
        if not isinstance(part, np.ndarray):
            raise Computed("a number is read")
        return part.view(Spy)

    def __setitem__(self, key, value):
        raise Computed("elements are written")

    def _read(self, *rest):
        raise Computed("a number is read")

    __bool__ = __float__ = __int__ = __index__ = __iter__ = _read


def plain(value):
    """A value without spies in it."""
    if isinstance(value, Spy):
        return np.ndarray.view(value, np.ndarray)
    if type(value) in (tuple, list):
        return type(value)(map(plain, value))
    return value


def spied(value):
    """A value in which every array is a spy."""
    if isinstance(value, np.ndarray | np.generic):
        return np.asarray(value).view(Spy)
    if type(value) in (tuple, list):
        return type(value)(map(spied, value))
    return value


class Through:
    """A backend, or its functions, that computes with spies and answers with spies."""

    def __init__(self, behind):
        self._behind = behind

    @property
    def synchronous(self):
        """An operation that reads its arguments to check them must not do so on a GPU."""
        return False

    def __getattr__(self, name):
        found = getattr(self._behind, name)
        if isinstance(found, ModuleType):
            return Through(found)
        if not callable(found) or isinstance(found, type):
            return found

        def call(*args, **options):
            options = {key: plain(value) for key, value in options.items()}
            return spied(found(*map(plain, args), **options))

        return call


def through_the_backend(vjp):
    """A function of a backend and arrays that is given spies."""

    def watched(b, *arrays, **options):
        y, backward = vjp(Through(b), *map(spied, arrays), **options)
        return plain(y), lambda gy, needs: plain(backward(spied(gy), needs))

    return watched
