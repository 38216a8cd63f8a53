"""Helpers for SciPy's sparse matrices that do not import SciPy."""

from __future__ import annotations

import sys
from typing import Any


def is_sparse(data: object) -> bool:
    """Return whether `data` is a SciPy sparse matrix or array."""
    scipy_sparse = sys.modules.get("scipy.sparse")
    return scipy_sparse is not None and bool(scipy_sparse.issparse(data))


def sparse_rows(data: Any, dtype: Any) -> Any:
    """Convert a sparse matrix to CSR format, with entries of a dtype."""
    return data.tocsr().astype(dtype, copy=False)
