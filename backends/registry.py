"""Which backend serves which kind of device. The only place where a kind is looked up."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from gpunn.errors import DeviceUnavailableError, DTypeError

if TYPE_CHECKING:
    from gpunn.backends.base import Backend
    from gpunn.backends.device import Device
    from gpunn.backends.diagnosis import Diagnosis
    from gpunn.typing import Array, DeviceLike


def _numpy_backend() -> type[Backend]:
    from gpunn.backends.cpu.backend import NumpyBackend

    return NumpyBackend


def _cupy_backend() -> type[Backend]:
    from gpunn.backends.cuda.backend import CupyBackend

    return CupyBackend


def _outline_backend() -> type[Backend]:
    from gpunn.backends.shapes import OutlineBackend

    return OutlineBackend


_instances: dict[Device, Backend] = {}
_factories: dict[str, Callable[[], type[Backend]]] = {
    "cpu": _numpy_backend,
    "cuda": _cupy_backend,
    "outline": _outline_backend,
}


def register_backend(kind: str, factory: Callable[[], type[Backend]]) -> None:
    """Serve devices of `kind` with the class that `factory` returns, called on first use."""
    _factories[kind] = factory


def kinds() -> tuple[str, ...]:
    """The kinds of device that can be named: all but the outline, which computes nothing."""
    return tuple(kind for kind in _factories if kind != "outline")


@cache
def diagnose(kind: str) -> Diagnosis:
    """Whether devices of `kind` can be used, found out once per process."""
    return _factories[kind]().diagnose()


_making = threading.Lock()  # two threads that ask first must not get two backends


def backend_for(device: Device) -> Backend:
    """The one backend object of a device.

    Raises:
        DeviceUnavailableError: the device cannot be used; the message says why and what to do.
    """
    found = _instances.get(device)
    if found is None:
        with _making:
            found = _instances.get(device)
            if found is None:
                found = _instances[device] = _make(device)
    return found


def backend(spec: DeviceLike = None) -> Backend:
    """The backend of a device named as in `gpunn.device`; None means the default device."""
    from gpunn.backends.device import resolve_device

    return backend_for(resolve_device(spec))


def backend_of(array: Array) -> Backend:
    """The backend of the device that an array lives on.

    Raises:
        DTypeError: it is no array of any device.
    """
    if type(array) is np.ndarray:
        return _cpu()
    for factory in reversed(_factories.values()):  # the CPU last: a device array may be a subclass
        device = factory().device_of(array)
        if device is not None:
            return backend_for(device)
    raise DTypeError(
        f"got {type(array).__name__}; expected a NumPy or CuPy array: convert it with numpy.asarray"
    )


def as_array(data: Any) -> Array:
    """`data` itself if it is an array of some device, else what NumPy makes of it.

    Raises:
        DTypeError: it holds something else than numbers, or rows of several lengths.
    """
    if type(data) is np.ndarray:
        return data
    if hasattr(data, "dtype") and any(
        factory().device_of(data) is not None for factory in _factories.values()
    ):
        return data
    try:
        found = np.asarray(data)
    except ValueError as error:
        raise DTypeError(
            f"got data that is no array ({error}); expected rows of one length: pad or cut them"
        ) from error
    if found.dtype.kind in "USO":
        raise DTypeError(
            f"got a {type(data).__name__} of {found.dtype}; expected an array of numbers"
        )
    return found


def _make(device: Device) -> Backend:
    diagnosis = diagnose(device.kind)
    if not diagnosis.usable:
        remedy = f" {diagnosis.remedy}." if diagnosis.remedy else ""
        raise DeviceUnavailableError(
            f'device "{device}" cannot be used: {diagnosis.reason}.{remedy} '
            'Use device="cpu" or "auto" to run without a GPU; `gpunn doctor` shows every check'
        )
    return _factories[device.kind]()(device)


@cache
def _cpu() -> Backend:
    from gpunn.backends.device import Device

    return backend_for(Device("cpu"))
