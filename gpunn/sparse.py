"""SciPy's sparse matrices, told without importing SciPy."""

from __future__ import annotations

import sys
from typing import Any


def is_sparse(data: object) -> bool:
    """Whether `data` is one of SciPy's sparse matrices or arrays."""
    scipy_sparse = sys.modules.get("scipy.sparse")
    return scipy_sparse is not None and bool(scipy_sparse.issparse(data))


def sparse_rows(data: Any, dtype: Any) -> Any:
    """A sparse matrix by rows, with entries of a dtype."""
    return data.tocsr().astype(dtype, copy=False)
