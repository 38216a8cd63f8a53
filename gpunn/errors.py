"""The exceptions that gpunn raises.

Each exception is a `GpunnError`, and also the built-in exception that a caller would expect. Both
`except GpunnError` and `except ValueError` work. A message has three parts: what was got, what was
expected, and what to do.
"""

from __future__ import annotations

from collections.abc import Iterable


class GpunnError(Exception):
    """The base class of gpunn's exceptions."""


class ShapeError(GpunnError, ValueError):
    """Array shapes that do not fit together."""


class DTypeError(GpunnError, TypeError):
    """A dtype that is not supported, or two different dtypes in one operation."""


class ArgumentError(GpunnError, ValueError):
    """An argument that is invalid, for example outside its range."""


LISTED = 24  # the number of names that a message lists


def listed(names: Iterable[str]) -> str:
    """Return names for a message, separated by commas; of many or long ones only the start."""
    names = list(names)
    printed = [name if name.isprintable() else ascii(name) for name in names[:LISTED]]
    shown = [name if len(name) <= 60 else f"{name[:57]}..." for name in printed]
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return ", ".join(shown) + more


class UnknownNameError(GpunnError, ValueError):
    """An unknown name; the message lists the known names, and first those that are like it."""

    def __init__(self, what: str, got: object, known: Iterable[str]) -> None:
        names = sorted(known)
        if len(names) > LISTED:
            from difflib import get_close_matches

            alike = get_close_matches(str(got), names)
            names = [*alike, *(name for name in names if name not in alike)]
        expected = f"one of {listed(names)}" if names else "none: leave it out"
        super().__init__(f"unknown {what} {got!r}: expected {expected}")


class DataError(GpunnError, ValueError):
    """Data that cannot be trained on: empty, NaN, labels out of range, a broken file."""


class DeviceUnavailableError(GpunnError, RuntimeError):
    """A device that was named but cannot be used; the message says why."""


class DeviceMismatchError(GpunnError, ValueError):
    """Arrays on different devices, or a host array where a device array is needed."""


class OutOfMemoryError(GpunnError, MemoryError):
    """A device without enough free memory."""


class WorkerError(GpunnError, RuntimeError):
    """A worker of a group that does not answer, or that differs from the others."""


class CaptureError(GpunnError, RuntimeError):
    """A training step that cannot be captured as a graph; the message says why."""


class GraphFreedError(GpunnError, RuntimeError):
    """A second `backward()` through a graph whose saved arrays were freed by the first."""


class GradientError(GpunnError, RuntimeError):
    """A gradient that cannot be computed, because no graph leads to it."""


class GradcheckError(GpunnError, AssertionError):
    """An analytic gradient that disagrees with the numerical one."""


class DivergenceError(GpunnError, FloatingPointError):
    """A loss that became NaN or infinite; the message names the layer where it began."""


class ModelFileError(GpunnError, ValueError):
    """A model file that is damaged, of another format or version, or does not fit the model."""


class OutputError(GpunnError, OSError):
    """A file or folder that cannot be written."""


class MissingExtraError(GpunnError, ImportError):
    """An optional package that is not installed; the message names the pip extra to install."""

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        super().__init__(
            f"{purpose} needs {package}, which is not installed: "
            f'pip install "gpunn[{extra}]" (or pip install {package})'
        )
