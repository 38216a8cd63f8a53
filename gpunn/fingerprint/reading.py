"""Helpers of the fingerprint's walk: comparable values, names in code, and library files."""

from __future__ import annotations

import functools
import hashlib
import sys
import sysconfig
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from gpunn.beside import FOLDERS

MISSING: Any = object()
_PATHS = sysconfig.get_paths()
_LIBRARIES = {
    Path(path).resolve()
    for path in (
        *(_PATHS[name] for name in ("stdlib", "platstdlib", "purelib", "platlib")),
        *FOLDERS,
    )
}


def is_itself(value: Any) -> bool:
    """Return whether a value is equal only to itself."""
    kind: Any = type(value)
    base: Any = object
    return kind.__eq__ is base.__eq__


def still(value: Any, name: str, known: Any) -> bool:
    """Return whether an attribute is still the object `known`."""
    return getattr(value, name, MISSING) is known


def content_of(array: np.ndarray[Any, Any] | np.generic) -> tuple[str, tuple[int, ...], bytes]:
    """Return the dtype, the shape and the bytes of an array; a digest for more than 64 bytes."""
    content = array.tobytes()
    if len(content) > 64:
        content = hashlib.blake2b(content, digest_size=16).digest()
    return array.dtype.str, array.shape, content


def slots_of(kind: type[Any]) -> Iterator[str]:
    """Yield the names of a class's attributes that are slots, not entries of `__dict__`."""
    for base in kind.__mro__:
        names = vars(base).get("__slots__", ())
        for name in (names,) if isinstance(names, str) else names:
            if name not in ("__dict__", "__weakref__"):
                hidden = name.startswith("__") and not name.endswith("__")
                yield f"_{base.__name__.lstrip('_')}{name}" if hidden else name


def names_in(code: types.CodeType) -> Iterator[str]:
    """Yield the names that a function, and the functions inside it, may look up in their module."""
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from names_in(constant)


@functools.lru_cache(maxsize=4096)
def is_library(filename: str) -> bool:
    """Return whether a file belongs to Python, to an installed package or to gpunn."""
    found = Path(filename).resolve().parents
    return filename.startswith("<frozen") or not _LIBRARIES.isdisjoint(found)


@functools.lru_cache(maxsize=4096)
def is_library_module(name: str) -> bool:
    """Return whether a module belongs to Python, to an installed package or to gpunn."""
    module = sys.modules.get(name)
    filename = getattr(module, "__file__", None)
    if module is None or name == "__main__":
        return False
    return filename is None or is_library(filename)


def reduces(value: Any) -> bool:
    """Return whether an object's class defines how to pickle it, and so may have hidden state."""
    kind: Any = type(value)
    base: Any = object
    return bool(
        kind.__reduce__ is not base.__reduce__ or kind.__reduce_ex__ is not base.__reduce_ex__
    )


def of_number(value: Any) -> tuple[str, Any]:
    """Return a value with the name of its type, so that 1 differs from True."""
    return type(value).__name__, value


def of_float(value: float) -> tuple[str, str]:
    """Return a float as text of its bits: 0.0 differs from -0.0, and NaN equals NaN."""
    return "float", value.hex()


def itself(value: Any) -> Any:
    """Return the value unchanged."""
    return value


def of_complex(value: complex) -> tuple[str, str, str]:
    """Return a complex number as text of its bits."""
    return "complex", value.real.hex(), value.imag.hex()
