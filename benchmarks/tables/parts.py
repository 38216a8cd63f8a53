"""The recipe of a table model with one of its parts taken away, as further contenders."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from typing import Any
from unittest.mock import patch

from gpunn.benchmarks.tables.contenders import Contender
from gpunn.nn import Activate, Sequential, Standardize
from gpunn.tables import recipe as recipes
from gpunn.train import Callback, Trainer


class _Nothing(Callback):
    """Stands for a callback that is taken away."""

    def __init__(self, quantity: str) -> None:
        self.quantity = quantity


def _standard(features: Any) -> Any:
    return Standardize.fit(features)


def _plain_activation(units: int, activation: str) -> Sequential:
    return Sequential(Activate(activation))


def _gpunn(options: dict[str, Any], **replaced: Any) -> Contender:
    """Return gpunn's ensemble with names of the recipe replaced."""

    def fit(frame: Any, y: Any, classes: bool, seed: int) -> Any:
        import gpunn.sklearn

        kind = getattr(gpunn.sklearn, "TableClassifier" if classes else "TableRegressor")
        with patch.multiple(recipes, **replaced) if replaced else nullcontext():
            return kind(random_state=seed, **options).fit(frame, y)

    return fit


def _without_smoothing() -> Contender:
    def fit(frame: Any, y: Any, classes: bool, seed: int) -> Any:
        from gpunn.sklearn import tables

        with patch.object(tables, "Recipe", partial(recipes.Recipe, smoothing=0.0)):
            return _gpunn({})(frame, y, classes, seed)

    return fit


def _without_embeddings(network: Callable[..., Any]) -> Callable[..., Any]:
    def plain(recipe: Any, width: int, numbers: int, outputs: int, **options: Any) -> Any:
        return network(recipe, width, 0, outputs, **options)

    return plain


WITHOUT: dict[str, Contender] = {
    "gpunn without robust scale": _gpunn({}, RobustScale=type("S", (), {"fit": _standard})),
    "gpunn without embeddings": _gpunn({}, network=_without_embeddings(recipes.network)),
    "gpunn without schedule": _gpunn(
        {}, Trainer=lambda *given, schedule, **options: Trainer(*given, **options)
    ),
    "gpunn without smoothing": _without_smoothing(),
    "gpunn without best epoch": _gpunn({}, KeepBest=_Nothing),
    "gpunn without learned shares": _gpunn({}, ParametricActivation=_plain_activation),
    "gpunn without folds": _gpunn({"folds": 1}),
}
"""Contenders by name. "learned shares" are those of the parametric activations."""
