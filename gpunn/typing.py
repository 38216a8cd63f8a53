"""The names that annotations share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from gpunn.backends.device import Device

Array: TypeAlias = Any
"""An array of the device at hand: `numpy.ndarray` or `cupy.ndarray`. They share no static type."""

Shape: TypeAlias = tuple[int, ...]
DType: TypeAlias = Any
DeviceLike: TypeAlias = "Device | str | None"
