"""Check that named arrays are those of a model or an optimizer."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from gpunn.errors import ModelFileError
from gpunn.storage.untrusted.bounded_json import shown


def listed(names: Collection[str]) -> str:
    """Return names for a message: the first ten in order, and the number of the others."""
    few = [
        name if len(name) < 60 and name.isprintable() else shown(name)
        for name in sorted(names)[:10]
    ]
    more = f" and {len(names) - 10} more" if len(names) > 10 else ""
    return ", ".join(few) + more or "none"


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
    if found.keys() != expected.keys():
        missing, unknown = expected.keys() - found.keys(), found.keys() - expected.keys()
        raise ModelFileError(
            f"got {what} with other names (missing: {listed(missing)}; unknown: {listed(unknown)})"
            "; expected those of this model: build the model that was saved"
        )
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
