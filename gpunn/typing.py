"""The type aliases that annotations share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from gpunn.backends.device import Device

Array: TypeAlias = Any
"""An array of a device: `numpy.ndarray` or `cupy.ndarray`, which share no static type."""

Message: TypeAlias = "tuple[int, Array]"
"""The number of another worker, and the contiguous array for it or from it."""

Shape: TypeAlias = tuple[int, ...]
DType: TypeAlias = Any
DeviceLike: TypeAlias = "Device | str | None"
