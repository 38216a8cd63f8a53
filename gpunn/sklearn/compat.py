"""Features of scikit-learn 1.9, callbacks and checks of array libraries, for older versions too."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

__all__ = ["CallbackSupportMixin", "FitTask", "check_same_namespace", "with_callbacks"]

try:
    from sklearn.callback import CallbackSupportMixin, with_callbacks
except ImportError:  # before 1.9

    class CallbackSupportMixin:  # type: ignore[no-redef]
        """An empty class, because this scikit-learn has no callbacks."""

    def with_callbacks(method: Callable[..., Any]) -> Callable[..., Any]:
        """Return the method unchanged, because this scikit-learn has no callbacks."""
        return method


try:
    from sklearn.utils._array_api import check_same_namespace
except ImportError:  # before 1.9

    def check_same_namespace(X: Any, estimator: Any, *, attribute: str, method: str) -> None:
        """Do nothing, because this scikit-learn does not check array libraries."""


class FitTask:
    """One call of `fit`, which is reported to scikit-learn's callbacks epoch by epoch.

    Args:
        estimator: the estimator that is fitted.
        X: the examples.
        y: their targets.
        sample_weight: their weights, or None.
        epochs: the largest number of epochs.
    """

    def __init__(self, estimator: Any, X: Any, y: Any, sample_weight: Any, epochs: int) -> None:
        self.estimator = estimator
        self._given = {
            "estimator": estimator,
            "X": X,
            "y": y,
            "metadata": None if sample_weight is None else {"sample_weight": sample_weight},
        }
        self._fit: Any = None
        self._epoch: Any = None
        if getattr(estimator, "_skl_callbacks", None):
            self._fit = estimator._init_callback_context(max_subtasks=epochs)
            self._fit.call_on_fit_task_begin(**self._given)

    def epoch_begins(self) -> None:
        """Report the start of an epoch."""
        if self._fit is not None:
            self._epoch = self._fit.subcontext(task_name="epoch")
            self._epoch.call_on_fit_task_begin(**self._given, reconstruction_attributes=self._now)

    def epoch_ends(self) -> bool:
        """Report the end of an epoch, and return whether a callback asks to stop."""
        if self._fit is None:
            return False
        stop = self._epoch.call_on_fit_task_end(**self._given, reconstruction_attributes=self._now)
        return bool(stop)

    def ends(self) -> None:
        """Report the end of the fit."""
        if self._fit is not None:
            self._fit.call_on_fit_task_end(**self._given, reconstruction_attributes={})

    def _now(self) -> dict[str, Any]:
        """Return the attributes that a copy of the estimator needs to predict at this point."""
        self.estimator._show_weights()
        return {
            name: [array.copy() for array in getattr(self.estimator, name)]
            for name in ("coefs_", "intercepts_")
        }
