"""The reasons why a fit or a prediction stays with scikit-learn."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.neural_network import _multilayer_perceptron as theirs
from sklearn.neural_network._stochastic_optimizers import AdamOptimizer, SGDOptimizer

from gpunn.sparse import is_sparse

DIVERGED = "a number overflowed, about which scikit-learn warns in its own words"

ACTIVATIONS = ("identity", "logistic", "tanh", "relu")
LOSSES = ("log_loss", "squared_error", "poisson")

HOMES = (
    "sklearn.neural_network._multilayer_perceptron",
    "sklearn.neural_network._base",
    "gpunn.accel.switch",
)
"""The modules whose functions are scikit-learn's own, or stand for them."""

METHODS = (
    *("_fit_stochastic", "_fit_lbfgs", "_backprop", "_compute_loss_grad", "_loss_grad_lbfgs"),
    *("_forward_pass", "_forward_pass_fast", "_predict", "_score", "_score_with_function"),
    *("_unpack", "_update_no_improvement_count"),
)
"""The methods that a fit of scikit-learn's calls, and that a fit of gpunn's does not."""

TABLES = ("ACTIVATIONS", "DERIVATIVES", "LOSS_FUNCTIONS")
OPTIMIZERS = (AdamOptimizer, SGDOptimizer)


def against_fit(found: Any, kind: type | None, X: Any, y: Any) -> str | None:
    """Return the reason why scikit-learn must fit an estimator; None if gpunn can.

    Args:
        found: the estimator.
        kind: the class of its twin, or None.
        X: (N, D) checked examples.
        y: (N, K) checked targets.
    """
    for name in METHODS:
        if name in vars(found) or not _is_own(getattr(type(found), name, None)):
            return f"{name} is not scikit-learn's"
    if "_optimizer" in vars(found) and type(found._optimizer) not in OPTIMIZERS:
        return "the optimizer is not scikit-learn's"
    if (theirs.AdamOptimizer, theirs.SGDOptimizer) != OPTIMIZERS:
        return "the optimizers are not scikit-learn's"
    if X.dtype != np.float64:
        return f"the examples are {X.dtype}, in which gpunn rounds in another order"
    if y.dtype.kind not in "biuf":
        return f"the targets are of dtype {y.dtype}"
    taken_by_rows = found.shuffle and found.solver != "lbfgs"  # scikit-learn then copies batches
    return _against(found, kind, X) or (None if taken_by_rows else _against_layout(X))


def against_prediction(found: Any, kind: type | None, X: Any) -> str | None:
    """Return the reason why scikit-learn must predict; None if gpunn can.

    Args:
        found: the estimator.
        kind: the class of its twin, or None.
        X: (N, D) checked examples.
    """
    return _against(found, kind, X) or _against_layout(X)


def _against(found: Any, kind: type | None, X: Any) -> str | None:
    """Return the reason that holds for fits and predictions alike."""
    if kind is None:
        return "its class inherits from neither MLPClassifier nor MLPRegressor"
    for name in TABLES:
        if not all(map(_is_own, getattr(theirs, name).values())):
            return f"{name} is not scikit-learn's"
    if found.activation not in ACTIVATIONS:
        return f"scikit-learn has no activation {found.activation!r}"
    if found.loss not in LOSSES:
        return f"scikit-learn has no loss {found.loss!r}"
    if not isinstance(X, np.ndarray) and not (is_sparse(X) and X.format == "csr"):
        return f"the examples are a {type(X).__name__}"
    if not np.can_cast(X.dtype, np.float64):
        return f"the examples are {X.dtype}"
    if any(w.dtype != np.float64 for w in (*found.coefs_, *found.intercepts_)):
        return f"the weights are {found.coefs_[0].dtype}, in which gpunn rounds in another order"
    return None


def _against_layout(X: Any) -> str | None:
    """Return the reason if BLAS would add in another order, as gpunn copies the examples."""
    if isinstance(X, np.ndarray) and not X.flags.c_contiguous:
        return "the examples are not row by row in memory, and BLAS then adds in another order"
    return None


def _is_own(function: Any) -> bool:
    """Return whether a function was defined in one of scikit-learn's modules.

    Its `__module__` does not tell, because a wrapper has that of the function it wraps.
    """
    return getattr(function, "__globals__", {}).get("__name__") in HOMES
