"""Observe the outputs of the modules of a network."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeAlias

from gpunn.autograd import Tensor

Observer: TypeAlias = Callable[[Any, Tensor], None]

observed: ContextVar[Observer | None] = ContextVar("gpunn_observer", default=None)
"""The observer of the open block, or None."""


@contextmanager
def observe(observer: Observer) -> Iterator[None]:
    """Call `observer(module, output)` after every module that runs inside the block."""
    token = observed.set(observer)
    try:
        yield
    finally:
        observed.reset(token)
