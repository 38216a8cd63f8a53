"""Arrays that have a shape and a dtype and take no memory: what a model would be, before it is."""

from __future__ import annotations

from typing import Any

import numpy as np

from gpunn.backends.cpu.backend import NumpyBackend
from gpunn.backends.device import Device
from gpunn.typing import Array, DType, Shape


class Outline(np.ndarray[Any, Any]):
    """An array all of whose elements are one number in memory."""


class OutlineBackend(NumpyBackend):
    """Gives outlines of arrays. Models are built on it to compare their sizes with a file's.

    It computes nothing, so no name stands for it in `gpunn.device`.
    """

    kind = "outline"

    @classmethod
    def device_of(cls, array: Any) -> Device | None:
        """The outline for its own arrays alone."""
        return Device("outline") if isinstance(array, Outline) else None

    def describe(self) -> str:
        """The device in words."""
        return "outlines of arrays, which take no memory"

    def empty(self, shape: Shape, dtype: DType) -> Array:
        """An array of one number, whatever its shape."""
        shape, dtype = tuple(shape), np.dtype(dtype)
        return Outline(shape, dtype, bytearray(dtype.itemsize), strides=(0,) * len(shape))

    def full(self, shape: Shape, value: float, dtype: DType) -> Array:
        """An array of that number, written once and not for every element."""
        array = self.empty(shape, dtype)
        if array.size:
            array[(0,) * len(shape)] = value
        return array

    def upload(self, array: np.ndarray[Any, Any]) -> Array:
        """The array itself as an outline: it takes what it takes already."""
        return np.asarray(array).view(Outline)
