"""The dtypes that gpunn computes in, and the names of precisions."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import numpy as np

from gpunn.arguments import lookup
from gpunn.errors import DTypeError, MissingExtraError
from gpunn.typing import DType

FLOATS = ("float16", "float32", "float64")
PRECISIONS = ("float32", "tf32", "float16", "bfloat16")


def precision_dtype(precision: str) -> np.dtype[Any]:
    """Return the dtype that a network computes in when it is trained with a precision.

    Raises:
        UnknownNameError: there is no such precision.
        MissingExtraError: `precision` is "bfloat16" and the package `ml_dtypes` is missing.
    """
    lookup("precision", precision, dict.fromkeys(PRECISIONS))
    if precision == "float16":
        return np.dtype(np.float16)
    if precision != "bfloat16":
        return np.dtype(np.float32)
    try:
        import ml_dtypes
    except ImportError as error:
        raise MissingExtraError("ml_dtypes", "bfloat16", 'precision="bfloat16"') from error
    found: np.dtype[Any] = np.dtype(ml_dtypes.bfloat16)
    return found


def real_dtype(dtype: DType) -> np.dtype[Any]:
    """Check that a tensor can have a dtype, and return it as a NumPy dtype.

    Raises:
        DTypeError: the dtype is not one of floats, integers or booleans.
    """
    found: np.dtype[Any] | None = None
    with suppress(TypeError, ValueError):
        found = None if dtype is None else np.dtype(dtype)
    if found is None or not (found.kind in "iub" or found.name in (*FLOATS, "bfloat16")):
        raise DTypeError(
            f"got dtype {dtype!r}; expected {', '.join(FLOATS)}, bfloat16, integers or booleans"
        )
    return found


def float_dtype(dtype: DType) -> np.dtype[Any]:
    """Check that gpunn computes in a dtype, and return it as a NumPy dtype.

    Raises:
        DTypeError: the dtype is not float16, float32 or float64.
    """
    found: np.dtype[Any] | None = None
    # NumPy parses any other text with literal_eval, and the text may come from an untrusted file.
    if not isinstance(dtype, str) or dtype.lstrip("<>=|").isidentifier():
        with suppress(TypeError, ValueError):
            found = np.dtype(dtype)
    if found is None or found.name not in FLOATS:
        raise DTypeError(
            f"got dtype {dtype!r}; expected one of {', '.join(FLOATS)}: convert with astype"
        )
    return found


def differentiable(dtype: DType) -> bool:
    """Return True for a dtype that gradients can be computed in.

    Raises:
        DTypeError: it is not a dtype of floats.
    """
    if np.dtype(dtype).kind != "f":
        raise DTypeError(
            f"got requires_grad=True for {dtype}; expected floats: convert them to float32"
        )
    return True
