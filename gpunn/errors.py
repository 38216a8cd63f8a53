"""Every exception that gpunn raises on purpose.

Each one is a `GpunnError` and also the builtin that a caller would expect, so both
`except GpunnError` and `except ValueError` work. A message has three parts: what was got,
what was expected, what to do.
"""

from __future__ import annotations

from collections.abc import Iterable


class GpunnError(Exception):
    """Base of every exception that gpunn raises on purpose."""


class ShapeError(GpunnError, ValueError):
    """Array shapes that do not fit each other."""


class DTypeError(GpunnError, TypeError):
    """A dtype that is not supported, or two that would have to be mixed in silence."""


class ArgumentError(GpunnError, ValueError):
    """An argument outside its range."""


class UnknownNameError(GpunnError, ValueError):
    """A name that no registry knows; the message lists the known ones."""

    def __init__(self, what: str, got: object, known: Iterable[str]) -> None:
        super().__init__(f"unknown {what} {got!r}: expected one of {', '.join(sorted(known))}")


class DataError(GpunnError, ValueError):
    """Data that cannot be trained on: empty, NaN, labels out of range, a broken file."""


class DeviceUnavailableError(GpunnError, RuntimeError):
    """A device that was asked for by name cannot be used; the message says why."""


class DeviceMismatchError(GpunnError, ValueError):
    """Arrays that live on different devices, or a host array where a device array belongs."""


class OutOfMemoryError(GpunnError, MemoryError):
    """The device has no memory left."""


class CaptureError(GpunnError, RuntimeError):
    """A training step that cannot be captured as a graph; the message says why."""


class GraphFreedError(GpunnError, RuntimeError):
    """`backward()` ran a second time over a graph whose saved arrays are gone."""


class GradientError(GpunnError, RuntimeError):
    """A gradient was asked for where none can flow."""


class GradcheckError(GpunnError, AssertionError):
    """An analytic gradient disagrees with the numerical one."""


class DivergenceError(GpunnError, FloatingPointError):
    """The loss became NaN or infinite; the message names the layer where it began."""


class ModelFileError(GpunnError, ValueError):
    """A model file that is truncated, foreign, of another version, or does not fit the model."""


class OutputError(GpunnError, OSError):
    """A folder or file that cannot be written."""


class MissingExtraError(GpunnError, ImportError):
    """An optional package is not installed; the message names the pip extra that brings it."""

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        super().__init__(
            f"{purpose} needs {package}, which is not installed: "
            f'pip install "gpunn[{extra}]" (or pip install {package})'
        )
