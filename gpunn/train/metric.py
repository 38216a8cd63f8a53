"""Metrics of predictions, by name or as functions; scikit-learn computes those with names."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from importlib.util import find_spec
from typing import Any

import numpy as np

from gpunn.arguments import flag, lookup
from gpunn.errors import ArgumentError, MissingExtraError
from gpunn.guesses import meant

KINDS = ("classes", "probabilities", "outputs")
FALLING = ("loss", "error")
"""How the names of functions end whose smaller values are better, as in scikit-learn."""


@dataclass(frozen=True)
class Metric:
    """A number that says how good predictions are.

    Args:
        function: a function of (N,) targets and of predictions, both NumPy arrays, that returns a
            number, such as those of `sklearn.metrics`.
        name: the name of its curve, without "val_"; by default that of the function.
        of: the predictions that it gets: (N,) "classes"; (N, C) "probabilities"; or "outputs", as
            they come from the network. With a loss that has no classes it gets the outputs.
        rises: whether a larger number is better. By default it is, unless the name ends with "loss"
            or "error".
        two: whether it is for two classes only. It then gets the probability of the second one.

    Raises:
        ArgumentError: an argument is not one of these.
    """

    function: Callable[..., Any]
    name: str = ""
    of: str = "classes"
    rises: bool | None = None
    two: bool = False

    def __post_init__(self) -> None:
        if not callable(self.function):
            raise ArgumentError(
                f"got {self.function!r} as a metric; expected a name or a function of targets and "
                f"predictions: {', '.join(sorted(METRICS))}, top_3_accuracy, ..."
            )
        lookup("of", self.of, dict.fromkeys(KINDS))
        if self.rises is not None:
            flag("rises", self.rises)
        name = self.name or getattr(self.function, "__name__", type(self.function).__name__)
        object.__setattr__(self, "name", name)
        if self.rises is None:
            object.__setattr__(self, "rises", not name.endswith(FALLING))

    def __call__(self, targets: np.ndarray[Any, Any], predictions: np.ndarray[Any, Any]) -> float:
        """Compute the number.

        Raises:
            ArgumentError: the result is not one number, or there are more than two classes for a
                metric of two.
        """
        if self.two and predictions.ndim == 2:
            if predictions.shape[1] > 2:
                raise ArgumentError(
                    f"got {predictions.shape[1]} classes for the metric {self.name}; expected two"
                )
            predictions = predictions[:, -1]
        found = np.asarray(self.function(targets, predictions))
        if found.size != 1:
            raise ArgumentError(
                f"got an array of shape {found.shape} from the metric {self.name}; expected one "
                "number"
            )
        return float(found.reshape(()))


def _of_sklearn(name: str, **options: Any) -> Callable[..., Any]:
    """Return a function of `sklearn.metrics`, which is imported at the first call."""

    def call(targets: Any, predictions: Any) -> Any:
        import sklearn.metrics

        return getattr(sklearn.metrics, name)(targets, predictions, **options)

    return call


def _log_loss(targets: Any, shares: Any) -> Any:
    return _of_sklearn("log_loss", labels=np.arange(shares.shape[1]))(targets, shares)


def _roc_auc(targets: Any, shares: Any) -> Any:
    if shares.shape[1] == 2:
        return _of_sklearn("roc_auc_score")(targets, shares[:, 1])
    every = {"multi_class": "ovr", "labels": np.arange(shares.shape[1])}
    return _of_sklearn("roc_auc_score", **every)(targets, shares)


def _top(k: int) -> Callable[..., Any]:
    def call(targets: Any, shares: Any) -> Any:
        labels = np.arange(shares.shape[1])
        shares = shares[:, 1] if len(labels) == 2 else shares
        return _of_sklearn("top_k_accuracy_score", k=k, labels=labels)(targets, shares)

    return call


def _averaged(name: str) -> dict[str, Metric]:
    return {
        name: Metric(_of_sklearn(f"{name}_score", zero_division=0), name, two=True),
        f"{name}_macro": Metric(_of_sklearn(f"{name}_score", average="macro", zero_division=0)),
    }


METRICS = {
    "log_loss": Metric(_log_loss, "log_loss", "probabilities"),
    "roc_auc": Metric(_roc_auc, "roc_auc", "probabilities"),
    "average_precision": Metric(
        _of_sklearn("average_precision_score"), "average_precision", "probabilities", two=True
    ),
    "balanced_accuracy": Metric(_of_sklearn("balanced_accuracy_score"), "balanced_accuracy"),
    **_averaged("f1"),
    **_averaged("precision"),
    **_averaged("recall"),
    **{
        name: Metric(_of_sklearn(name), name, "outputs")
        for name in ("mean_absolute_error", "mean_squared_error", "root_mean_squared_error")
    },
    "r2": Metric(_of_sklearn("r2_score"), "r2", "outputs"),
}
"""The metrics that have a name; top_1_accuracy, top_2_accuracy and so on are names, too."""

ALWAYS = ("loss", "accuracy", "acc")
"""Names of curves that a fit has anyway."""

_TOP = re.compile(r"top_([1-9]\d*)(_accuracy)?")


def get_metrics(metrics: Iterable[str | Metric | Callable[..., Any]]) -> tuple[Metric, ...]:
    """Return metrics that are given by name, as functions, or as metrics.

    Raises:
        UnknownNameError: a name is unknown; the message lists the known names.
        ArgumentError: they are no list, something is no metric, or two have one name.
        MissingExtraError: a metric has a name and scikit-learn is not installed.
    """
    if isinstance(metrics, str | Metric) or not isinstance(metrics, Iterable):
        raise ArgumentError(f"got metrics={metrics!r}; expected a list: pass metrics=[...]")
    wanted = [m for m in metrics if m not in ALWAYS]
    found = tuple(map(_metric, wanted))
    names = [*ALWAYS, *(metric.name for metric in found)]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ArgumentError(
            f"got two curves named {twice!r}; expected one: give a metric another name with "
            "gn.train.Metric(function, name=...)"
        )
    return found


def _metric(given: Any) -> Metric:
    if isinstance(given, Metric):
        return given
    if not isinstance(given, str):
        return Metric(given)
    if find_spec("sklearn") is None:
        raise MissingExtraError("scikit-learn", "sklearn", f"the metric {given!r}")
    top = _TOP.fullmatch(given)
    if top:
        return Metric(_top(int(top[1])), given, "probabilities")
    return replace(lookup("metric", meant("metric", given), METRICS), name=given)


def rises(curve: str, metrics: Iterable[Metric]) -> bool:
    """Return whether larger numbers of a curve are better."""
    named = {metric.name: bool(metric.rises) for metric in metrics}
    return named.get(curve.removeprefix("val_"), curve.endswith("accuracy"))
