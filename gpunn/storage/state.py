"""Check that named arrays are those of a model or an optimizer."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any, NamedTuple

from gpunn.arguments import fitting
from gpunn.errors import LISTED, DataError, ModelFileError, listed


class IncompatibleKeys(NamedTuple):
    """The names that a state and a model do not share, as PyTorch reports them.

    Attributes:
        missing_keys: the names in the model that the state lacks.
        unexpected_keys: the names in the state that the model lacks.
    """

    missing_keys: list[str]
    unexpected_keys: list[str]


def not_shared(found: Collection[str], expected: Collection[str]) -> IncompatibleKeys:
    """Return the names that a state and a model do not share, in their own orders."""
    here, there = {*expected}, {*found}
    missing = [name for name in expected if name not in there]
    return IncompatibleKeys(missing, [name for name in found if name not in here])


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
    missing, unknown = (sorted(names) for names in not_shared(found, expected))
    if missing or unknown:
        raise ModelFileError(
            f"got {what} with other names (missing: {listed(missing) or 'none'}; unknown: "
            f"{listed(unknown) or 'none'}); expected {wanted}"
        )


def check_shapes(what: str, given: Iterable[tuple[str, Any, Any]], todo: str) -> None:
    """Check that arrays have the shapes that they must have.

    Args:
        what: the name of the state in the message.
        given: the name of each array, its shape, and the shape that it must have.
        todo: what to do, for the message.

    Raises:
        ModelFileError: shapes differ; the message lists them.
    """
    other = [
        f"{name} of shape {shape}; expected {wanted}"
        for name, shape, wanted in given
        if shape != wanted
    ]
    if other:
        more = f", and {len(other) - LISTED} more" if len(other) > LISTED else ""
        raise ModelFileError(f"got {what} with {', and '.join(other[:LISTED])}{more}: {todo}")


def check_state(
    found: Mapping[str, Any],
    expected: Mapping[str, Any],
    *,
    what: str = "a state",
    exact: bool,
    strict: bool = True,
) -> IncompatibleKeys:
    """Check that arrays are those of a model or an optimizer, before any of them is read.

    Args:
        found: name -> array, or another object with a shape and a dtype.
        expected: the same for the model or the optimizer.
        what: the name of `found` in messages.
        exact: whether the dtypes must be the same; otherwise all real numbers are accepted.
        strict: whether the names must be the same; otherwise only the shared ones are checked.

    Returns:
        The names that are not shared.

    Raises:
        ModelFileError: names are missing or left over; a shape or a dtype differs.
    """
    if not hasattr(found, "keys"):
        raise ModelFileError(
            f"got {what} of type {type(found).__name__}; expected a mapping of names to arrays: "
            "pass what state_dict() returned"
        )
    if strict:
        check_names(found, expected, what, "those of this model: build the model that was saved")
    shared = {name: value for name, value in expected.items() if name in found}
    shapes: dict[str, Any] = {name: getattr(found[name], "shape", None) for name in shared}
    check_shapes(
        what,
        (
            (name, None if shapes[name] is None else tuple(shapes[name]), tuple(value.shape))
            for name, value in shared.items()
        ),
        "build the model that was saved",
    )
    for name, value in shared.items():
        dtype = getattr(found[name], "dtype", None)
        real = getattr(dtype, "kind", "-") in "fiu" or getattr(dtype, "name", "") == "bfloat16"
        same = dtype == value.dtype if exact else real
        if not same:
            raise ModelFileError(
                f"got {what} with {name} of dtype {dtype}; expected "
                f"{value.dtype if exact else 'real numbers'}: build the model that was saved, or "
                "convert with astype"
            )
    return not_shared(found.keys(), expected.keys())


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
