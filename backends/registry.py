"""The backend of each kind of device. Only this module looks up a kind.

The registry imports the backends, and no backend imports the registry. The module of a kind is
imported when a device of that kind is first used, so a session on the CPU never loads the CUDA
backend.
"""

from __future__ import annotations

import copyreg
import sys
import threading
from collections.abc import Callable
from functools import cache, lru_cache
from typing import Any, NamedTuple

import numpy as np

from gpunn.backends.base import Backend
from gpunn.backends.device import Device
from gpunn.backends.diagnosis import Diagnosis
from gpunn.errors import DataError, DeviceUnavailableError, DTypeError
from gpunn.typing import Array


def _numpy_backend() -> type[Backend]:
    from gpunn.backends.cpu.backend import NumpyBackend

    return NumpyBackend


def _cupy_backend() -> type[Backend]:
    from gpunn.backends.cuda.backend import CupyBackend

    return CupyBackend


def _outline_backend() -> type[Backend]:
    from gpunn.backends.shapes import OutlineBackend

    return OutlineBackend


class _Kind(NamedTuple):
    """A kind of device.

    Attributes:
        load: returns the backend class.
        home: the module that must have been imported before an array of this kind can exist.
    """

    load: Callable[[], type[Backend]]
    home: str


_instances: dict[Device, Backend] = {}
_kinds: dict[str, _Kind] = {
    "cpu": _Kind(_numpy_backend, "numpy"),
    "cuda": _Kind(_cupy_backend, "cupy"),
    "outline": _Kind(_outline_backend, "gpunn.backends.shapes"),
}


def register_backend(kind: str, load: Callable[[], type[Backend]], home: str = "numpy") -> None:
    """Register the backend class for a kind of device.

    Args:
        kind: the name of the kind.
        load: returns the class; called on first use.
        home: the module that defines the arrays of this kind. Until it is imported, no array can
            be of this kind, and `load` is not called to check an array.
    """
    _kinds[kind] = _Kind(load, home)


def kinds() -> tuple[str, ...]:
    """Return the kinds of device that a user can name: all but "outline", which cannot compute."""
    return tuple(kind for kind in _kinds if kind != "outline")


@lru_cache(maxsize=16)
def diagnose(kind: str) -> Diagnosis:
    """Check whether devices of `kind` can be used; done once per process."""
    return _kinds[kind].load().diagnose()


_making = threading.Lock()  # two threads that ask at once must not make two backends


def backend_for(device: Device) -> Backend:
    """Return the backend of a device. There is only one per device.

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


def backend_of(array: Array) -> Backend:
    """Return the backend of the device that an array lives on.

    Raises:
        DTypeError: it is not an array of any device.
    """
    if type(array) is np.ndarray:
        return _cpu()
    device = _device_of(array)
    if device is not None:
        return backend_for(device)
    raise DTypeError(
        f"got {type(array).__name__}; expected a NumPy or CuPy array: convert it with numpy.asarray"
    )


def as_array(data: Any) -> Array:
    """Return `data` itself if it is an array of some device, else convert it to a NumPy array.

    Raises:
        DTypeError: it contains something other than numbers, or rows of different lengths.
        DataError: it is a masked array of NumPy in which an element is masked.
    """
    if type(data) is np.ndarray:
        return data
    if isinstance(data, np.ma.MaskedArray):
        return _unmasked(data)
    if _device_of(data) is not None:
        return data
    try:
        found = np.asarray(data)
    except ValueError as error:
        raise DTypeError(
            f"got data that is not an array ({error}); expected rows of the same length: pad or "
            "cut them"
        ) from error
    if found.dtype.kind in "USO":
        raise DTypeError(
            f"got a {type(data).__name__} of {found.dtype}; expected an array of numbers"
        )
    return found


def _unmasked(data: Any) -> Array:
    hidden = np.count_nonzero(np.ma.getmaskarray(data))
    if hidden:
        raise DataError(
            f"got a masked array of shape {data.shape} in which {hidden} elements are masked; "
            "expected all of them: fill them in with data.filled(value), or drop their rows"
        )
    return np.asarray(data)


def _device_of(array: Any) -> Device | None:
    """Return the device of an array; None for anything else."""
    for load, home in reversed(_kinds.values()):  # the CPU last: "outline" subclasses its arrays
        if home in sys.modules:
            device = load().device_of(array)
            if device is not None:
                return device
    return None


def _make(device: Device) -> Backend:
    diagnosis = diagnose(device.kind)
    if not diagnosis.usable:
        remedy = f" {diagnosis.remedy}." if diagnosis.remedy else ""
        raise DeviceUnavailableError(
            f'device "{device}" cannot be used: {diagnosis.reason}.{remedy} '
            'Use device="cpu" or "auto" to run without a GPU; `gpunn doctor` shows every check'
        )
    found = _kinds[device.kind].load()
    copyreg.pickle(found, _again)
    return found(device)


def _again(backend: Backend) -> tuple[Any, ...]:
    """Pickle a backend as its device, so that a copy of a backend is the same object."""
    return backend_for, (backend.device,)


@cache
def _cpu() -> Backend:
    return backend_for(Device("cpu"))
