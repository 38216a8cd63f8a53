"""Arrays that have a shape and a dtype but take no memory. They show the sizes of a model."""

from __future__ import annotations

from typing import Any

import numpy as np

from gpunn.backends.cpu.backend import NumpyBackend
from gpunn.backends.device import Device
from gpunn.typing import Array, DType, Shape


class Outline(np.ndarray[Any, Any]):
    """An array whose elements all share one number in memory."""


class OutlineBackend(NumpyBackend):
    """A backend that makes outlines of arrays.

    A model is built on it to compare the sizes of its parameters with those in a file. The backend
    cannot compute, so `gpunn.device` has no name for it.
    """

    kind = "outline"

    @classmethod
    def device_of(cls, array: Any) -> Device | None:
        """Return the device "outline" for an `Outline`; None for anything else."""
        return Device("outline") if isinstance(array, Outline) else None

    def describe(self) -> str:
        """Describe the device in words."""
        return "outlines of arrays, which take no memory"

    def empty(self, shape: Shape, dtype: DType) -> Array:
        """Return an outline of that shape; it takes the memory of one number."""
        shape, dtype = tuple(shape), np.dtype(dtype)
        return Outline(shape, dtype, bytearray(dtype.itemsize), strides=(0,) * len(shape))

    def full(self, shape: Shape, value: float, dtype: DType) -> Array:
        """Return an outline filled with one value, which is written once."""
        array = self.empty(shape, dtype)
        if array.size:
            array[(0,) * len(shape)] = value
        return array

    def upload(self, array: np.ndarray[Any, Any]) -> Array:
        """Return a view of the array as an outline. It shares the memory of the array."""
        return np.asarray(array).view(Outline)
