"""How the values of a fingerprint are told from each other."""

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

MISSING: Any = object()
_PATHS = sysconfig.get_paths()
_LIBRARIES = tuple(
    str(Path(path).resolve())
    for path in (
        *(_PATHS[name] for name in ("stdlib", "platstdlib", "purelib", "platlib")),
        str(Path(__file__).parents[1]),
        str(Path(__file__).parents[1] / "backends"),  # a link, in a checkout
    )
)


def is_itself(value: Any) -> bool:
    """Whether a value is equal to no other object."""
    kind: Any = type(value)
    base: Any = object
    return kind.__eq__ is base.__eq__


def still(value: Any, name: str, known: Any) -> bool:
    """Whether an attribute is still the same object."""
    return getattr(value, name, MISSING) is known


def content_of(array: np.ndarray[Any, Any]) -> tuple[str, tuple[int, ...], bytes]:
    """The dtype, the shape and the bytes of an array, or a digest of them."""
    content = array.tobytes()
    if len(content) > 64:
        content = hashlib.blake2b(content, digest_size=16).digest()
    return array.dtype.str, array.shape, content


def slots_of(kind: type[Any]) -> Iterator[str]:
    """The attributes of a class that are no entries of a dict."""
    for base in kind.__mro__:
        names = vars(base).get("__slots__", ())
        for name in (names,) if isinstance(names, str) else names:
            if name not in ("__dict__", "__weakref__"):
                hidden = name.startswith("__") and not name.endswith("__")
                yield f"_{base.__name__.lstrip('_')}{name}" if hidden else name


def names_in(code: types.CodeType) -> Iterator[str]:
    """Names that a function, and the functions defined in it, may look up in their module."""
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from names_in(constant)


@functools.lru_cache(maxsize=4096)
def is_library(filename: str) -> bool:
    """Whether a file belongs to Python, to an installed package or to gpunn."""
    return filename.startswith("<frozen") or str(Path(filename).resolve()).startswith(_LIBRARIES)


@functools.lru_cache(maxsize=4096)
def is_library_module(name: str) -> bool:
    """Whether a module does."""
    module = sys.modules.get(name)
    filename = getattr(module, "__file__", None)
    if module is None or name == "__main__":
        return False
    return filename is None or is_library(filename)


def reduces(value: Any) -> bool:
    """Whether an object says itself what it consists of besides attributes."""
    kind: Any = type(value)
    base: Any = object
    return bool(
        kind.__reduce__ is not base.__reduce__ or kind.__reduce_ex__ is not base.__reduce_ex__
    )


def of_number(value: Any) -> tuple[str, Any]:
    """A value that is compared with its type: 1 is not True."""
    return type(value).__name__, value


def of_float(value: float) -> tuple[str, str]:
    """A float by its bits: 0.0 is not -0.0, and NaN is NaN."""
    return "float", value.hex()


def itself(value: Any) -> Any:
    """The value."""
    return value


def of_complex(value: complex) -> tuple[str, str, str]:
    """A complex number by its bits."""
    return "complex", value.real.hex(), value.imag.hex()
