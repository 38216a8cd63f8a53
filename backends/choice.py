"""The choice of a device, and the reason for it.

Precedence: an argument, then `with gpunn.device(...)`, then `gpunn.set_default_device`, then the
environment variable `GPUNN_DEVICE`, then the CPU. Only "auto" chooses between devices. A device
that is named and cannot be used raises `DeviceUnavailableError`; gpunn never falls back to another.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import NamedTuple

from gpunn.backends import registry
from gpunn.backends.base import Backend
from gpunn.backends.device import Device
from gpunn.errors import ArgumentError, UnknownNameError
from gpunn.typing import DeviceLike

_NAME = re.compile(r"(?P<kind>[a-z]+)(?::(?P<index>\d+))?")
_stack: ContextVar[tuple[Device, ...]] = ContextVar("gpunn_device_stack", default=())
_default: list[str] = []


class Choice(NamedTuple):
    """A device, and the reason why it was chosen."""

    device: Device
    why: str


def parse(name: str, source: str = "") -> Device:
    """Return the device of a name: "cpu", "cuda" (= "cuda:0"), "cuda:1".

    Args:
        name: the name.
        source: the setting that contains the name, for the error message.

    Raises:
        UnknownNameError: the name is not of that form, or no backend is registered for its kind.
        ArgumentError: the name is a CPU with an index other than 0.
    """
    match = _NAME.fullmatch(name.strip().lower())
    if match is None or match["kind"] not in registry.kinds():
        known = (*registry.kinds(), "auto", "cuda:1 (any number)")
        raise UnknownNameError("device" if not source else f"device in {source},", name, known)
    kind, index = match["kind"], match["index"]
    if kind == "cpu" and index not in (None, "0"):
        raise ArgumentError(f'got device {name!r}; there is one CPU device: use "cpu"')
    return Device(kind, int(index or 0))


def choose_device(spec: DeviceLike = None) -> Choice:
    """Choose a device and say why it was chosen.

    Args:
        spec: a `Device`, its name, "auto", or None for the default device.

    Raises:
        DeviceUnavailableError: the named device cannot be used; the message says why.
    """
    if isinstance(spec, Device):
        registry.backend_for(spec)
        return Choice(spec, "asked for")
    if spec is not None and not isinstance(spec, str):
        raise ArgumentError(
            f'got device={spec!r}; expected a name such as "cpu" or "cuda:1", or a Device'
        )
    if spec is None and _stack.get():
        return Choice(_stack.get()[-1], "with gpunn.device(...)")
    name, source = (spec, "asked for") if spec is not None else _default_name()
    if name.strip().lower() != "auto":
        device = parse(name, source if spec is None else "")
        registry.backend_for(device)
        return Choice(device, source)
    diagnosis = registry.diagnose("cuda")
    if diagnosis.usable:
        return Choice(Device("cuda", 0), f"auto: {diagnosis.reason}")
    return Choice(Device("cpu"), f"auto: no usable GPU ({diagnosis.reason})")


def resolve_device(spec: DeviceLike = None) -> Device:
    """Return the device that `spec` stands for; see `choose_device`."""
    return choose_device(spec).device


def default_device() -> Device:
    """Return the device that is used if none is named."""
    return resolve_device(None)


def backend(spec: DeviceLike = None) -> Backend:
    """Return the backend of a device.

    Args:
        spec: a `Device`, its name, "auto", or None for the default device.
    """
    return registry.backend_for(resolve_device(spec))


@contextmanager
def device(spec: Device | str) -> Iterator[Device]:
    """Make `spec` the default device inside a `with` block; blocks nest.

    Example:
        >>> import gpunn as gn
        >>> with gn.device("cpu"):
        ...     gn.tensor([1.0]).device
        Device(kind='cpu', index=0)
    """
    resolved = resolve_device(spec)
    token = _stack.set((*_stack.get(), resolved))
    try:
        yield resolved
    finally:
        _stack.reset(token)


def set_default_device(spec: Device | str | None) -> None:
    """Make `spec` the default device of the whole process; None undoes the setting.

    Raises:
        DeviceUnavailableError: the device cannot be used.
    """
    name = None if spec is None else str(resolve_device(spec))
    _default[:] = [] if name is None else [name]


def _default_name() -> tuple[str, str]:
    if _default:
        return _default[0], "gpunn.set_default_device"
    if os.environ.get("GPUNN_DEVICE"):
        return os.environ["GPUNN_DEVICE"], "GPUNN_DEVICE"
    return "cpu", "the default"
