"""The methods of scikit-learn's classes that are replaced, now or when they are imported."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from inspect import signature
from types import ModuleType
from typing import Any

from gpunn.accel.report import logger

MODULE = "sklearn.neural_network._multilayer_perceptron"

_replaced: dict[str, Callable[..., Any]] = {}
"""scikit-learn's own methods by their names; empty while nothing is replaced."""


def fit_stochastic(self: Any, X: Any, y: Any, sample_weight: Any, *rest: Any) -> None:
    """Train with the solvers "sgd" and "adam"; called by scikit-learn's `fit`."""
    from gpunn.accel import running

    own = _replaced["_fit_stochastic"]
    running.fit_stochastic(own, self, X, y, sample_weight, *rest)


def fit_lbfgs(self: Any, X: Any, y: Any, sample_weight: Any, *rest: Any) -> None:
    """Train with the solver "lbfgs"; called by scikit-learn's `fit`."""
    from gpunn.accel import running

    running.fit_lbfgs(_replaced["_fit_lbfgs"], self, X, y, sample_weight, *rest)


def forward_pass_fast(self: Any, X: Any, check_input: bool = True) -> Any:
    """Compute the (N, K) outputs for examples; called by scikit-learn's `predict`."""
    from gpunn.accel import running

    return running.outputs(_replaced["_forward_pass_fast"], self, X, check_input)


METHODS = {
    "_fit_stochastic": fit_stochastic,
    "_fit_lbfgs": fit_lbfgs,
    "_forward_pass_fast": forward_pass_fast,
}


def turn_on() -> None:
    """Replace the methods if their module is imported; otherwise wait for its import."""
    module = sys.modules.get(MODULE)
    if hasattr(module, "MLPRegressor"):  # otherwise it is being imported
        _replace(module)
    elif WAITING not in sys.meta_path:
        sys.meta_path.insert(0, WAITING)


def turn_off() -> None:
    """Restore scikit-learn's methods."""
    if WAITING in sys.meta_path:
        sys.meta_path.remove(WAITING)
    if _replaced:
        base: Any = sys.modules[MODULE].BaseMultilayerPerceptron
        for name, own in _replaced.items():
            setattr(base, name, own)
        _replaced.clear()


def _replace(module: Any) -> None:
    base = module.BaseMultilayerPerceptron
    if "sample_weight" not in signature(base._fit_stochastic).parameters:
        logger.warning(
            "this scikit-learn is older than 1.7, and its perceptrons stay as they are: "
            'pip install "gpunn[sklearn]"'
        )
    elif not _replaced:
        for name, method in METHODS.items():
            _replaced[name] = getattr(base, name)
            setattr(base, name, method)


class Waiting(MetaPathFinder):
    """A finder of the one module, which replaces the methods when it is imported."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Find the module, and let its import end with the replacement."""
        spec = PathFinder.find_spec(fullname, path) if fullname == MODULE else None
        if spec is None or spec.loader is None:
            return None
        load = spec.loader.exec_module

        def loaded(module: ModuleType) -> None:
            load(module)
            if self in sys.meta_path:
                sys.meta_path.remove(self)
                _replace(module)

        spec.loader.exec_module = loaded  # type: ignore[method-assign]
        return spec


WAITING = Waiting()
