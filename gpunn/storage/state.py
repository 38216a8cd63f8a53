"""Check that named arrays are those of a model or an optimizer."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from gpunn.arguments import fitting
from gpunn.errors import DataError, ModelFileError, listed


def check_names(found: Collection[str], expected: Collection[str], what: str, wanted: str) -> None:
    """Check that two sets of names are equal.

    Args:
        found: the names that are there.
        expected: the names that must be there.
        what: what has the names, for the message.
        wanted: what was expected, and what to do.

    Raises:
        ModelFileError: names are missing or left over.
    """
    missing, unknown = sorted({*expected} - {*found}), sorted({*found} - {*expected})
    if missing or unknown:
        raise ModelFileError(
            f"got {what} with other names (missing: {listed(missing) or 'none'}; unknown: "
            f"{listed(unknown) or 'none'}); expected {wanted}"
        )


def check_state(
    found: Mapping[str, Any], expected: Mapping[str, Any], *, what: str = "a state", exact: bool
) -> None:
    """Check that arrays are those of a model or an optimizer, before any of them is read.

    Args:
        found: name -> array, or another object with a shape and a dtype.
        expected: the same for the model or the optimizer.
        what: the name of `found` in messages.
        exact: whether the dtypes must be the same; otherwise all real numbers are accepted.

    Raises:
        ModelFileError: names are missing or left over; a shape or a dtype differs.
    """
    if not hasattr(found, "keys"):
        raise ModelFileError(
            f"got {what} of type {type(found).__name__}; expected a mapping of names to arrays: "
            "pass what state_dict() returned"
        )
    check_names(found, expected, what, "those of this model: build the model that was saved")
    for name, value in expected.items():
        shape, dtype = getattr(found[name], "shape", None), getattr(found[name], "dtype", None)
        if shape is None or tuple(shape) != tuple(value.shape):
            raise ModelFileError(
                f"got {what} with {name} of shape {shape}; expected {tuple(value.shape)}: build "
                "the model that was saved"
            )
        real = getattr(dtype, "kind", "-") in "fiu" or getattr(dtype, "name", "") == "bfloat16"
        same = dtype == value.dtype if exact else real
        if not same:
            raise ModelFileError(
                f"got {what} with {name} of dtype {dtype}; expected "
                f"{value.dtype if exact else 'real numbers'}: build the model that was saved, or "
                "convert with astype"
            )


def fitted(found: Mapping[str, Any], expected: Mapping[str, Any], what: str) -> dict[str, Any]:
    """Return arrays that were checked, in the dtypes of a model or an optimizer.

    Args:
        found: name -> array.
        expected: the names to convert, with objects that have a dtype.
        what: the name of `found` in messages.

    Raises:
        ModelFileError: a number is beyond the range of its dtype.
    """
    try:
        return {name: fitting(name, found[name], v.dtype) for name, v in expected.items()}
    except DataError as error:
        raise ModelFileError(f"{error} (in {what})") from error
