"""The options of losses that are weights of classes or elements, and the label to ignore."""

from __future__ import annotations

from typing import Any

import numpy as np

from gpunn.arguments import fitting
from gpunn.autograd import Tensor
from gpunn.backends import Backend, backend_of
from gpunn.errors import ArgumentError, DeviceMismatchError, ShapeError
from gpunn.typing import Array, DType, Shape


def _on_host(given: Any) -> bool:
    return isinstance(given, np.ndarray | np.generic) or not hasattr(given, "dtype")


def _numbers(loss: str, option: str, given: Any) -> np.ndarray[Any, Any]:
    """Check weights of the host.

    Raises:
        ArgumentError: they are not finite numbers of at least 0.
    """
    try:
        numbers = np.asarray(given)
    except (TypeError, ValueError):
        numbers = np.asarray(None)
    fits = numbers.dtype.kind in "fiu" and bool(np.isfinite(numbers).all())
    if not fits or bool((numbers < 0).any()):
        raise ArgumentError(
            f"got {option}={given!r} in {loss}; expected finite numbers of at least 0: pass one "
            "number for each class"
        )
    return numbers


def written(loss: str, option: str, given: Any) -> Any:
    """Return weights as a number or a tuple of numbers; arrays of a device as they are.

    Raises:
        ArgumentError: they are not finite numbers of at least 0.
    """
    given = given.data if isinstance(given, Tensor) else given
    if given is None or not _on_host(given):
        return given
    numbers = _numbers(loss, option, given)
    if numbers.ndim > 1:
        return numbers
    return tuple(numbers.tolist()) if numbers.ndim else float(numbers)


def weights_for(
    b: Backend, loss: str, option: str, given: Any, shape: Shape, dtype: DType
) -> Array:
    """Return weights on a device, as an array that broadcasts to a shape.

    Args:
        b: the backend.
        loss: the name of the loss, for messages.
        option: the name of the option.
        given: a number, a sequence or an array; None for the weight 1.
        shape: the shape that they are broadcast to.
        dtype: their dtype on the device.

    Raises:
        ArgumentError: they are not finite numbers of at least 0.
        ShapeError: their shape does not broadcast to that shape.
        DeviceMismatchError: they are on another device.
    """
    given = given.data if isinstance(given, Tensor) else given
    if given is None:
        return b.one(dtype)
    if _on_host(given):
        numbers = _numbers(loss, option, given)
        found = b.constant(np.ascontiguousarray(fitting(option, numbers, dtype)))
    elif backend_of(given) is b:
        found = b.cast(given, dtype)
    else:
        raise DeviceMismatchError(
            f"got {option} on {backend_of(given).device} in {loss}; expected {b.device}: pass a "
            "list of numbers, which is copied once"
        )
    if found.ndim > len(shape) or any(
        size not in (1, wanted)
        for size, wanted in zip(found.shape[::-1], shape[::-1], strict=False)
    ):
        raise ShapeError(
            f"got {option} of shape {found.shape} in {loss} for {tuple(shape)}; expected a shape "
            f"that broadcasts to it: pass {shape[-1] if shape else 1} numbers, one for each column"
        )
    return found


def ignored_label(loss: str, given: Any) -> float:
    """Return the label to ignore as a float; NaN, which no label is, for None.

    Raises:
        ArgumentError: it is neither an integer nor None.
    """
    if given is None:
        return float("nan")
    whole = isinstance(given, int | np.integer) and not isinstance(given, bool)
    if not whole or abs(int(given)) > 2**53:
        raise ArgumentError(
            f"got ignore_index={given!r} in {loss}; expected an integer or None: pass the label "
            "that does not count, for example -100"
        )
    return float(given)
