"""The reaction of NumPy to overflows inside gpunn's own loops: none, or an error.

gpunn finds losses and parameters that are not finite by itself, and reports them in one place.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import numpy as np

_modes: ContextVar[dict[str, Any] | None] = ContextVar("modes", default=None)


def unwarned() -> np.errstate:
    """Return a context in which NumPy does not warn; inside `overflow_raises` it raises errors."""
    return np.errstate(**(_modes.get() or {"all": "ignore"}))


@contextmanager
def overflow_raises() -> Iterator[None]:
    """Raise a FloatingPointError in the block where NumPy, as it is set now, would warn.

    The block is to be left then: steps that were being recorded are not whole. Compiled kernels
    raise no such errors.
    """
    modes: dict[str, Any] = {
        kind: "ignore" if mode == "ignore" else "raise" for kind, mode in np.geterr().items()
    }
    token = _modes.set(modes)
    try:
        with np.errstate(**modes):
            yield
    finally:
        _modes.reset(token)
