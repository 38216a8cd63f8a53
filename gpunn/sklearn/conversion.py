"""Conversion of estimators between scikit-learn and gpunn, fitted or not."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

from sklearn import neural_network
from sklearn.base import is_classifier

from gpunn.errors import ArgumentError
from gpunn.sklearn.classifier import MLPClassifier
from gpunn.sklearn.prediction import HELD
from gpunn.sklearn.regressor import MLPRegressor
from gpunn.sklearn.translation import has_scores

PAIRS = (
    (neural_network.MLPClassifier, MLPClassifier),
    (neural_network.MLPRegressor, MLPRegressor),
)
SCIKIT_LEARNS = ("identity", "logistic", "tanh", "relu")
OURS = ("device_", "stopped_", "validation_loss_curve_", "_optimizer_state", "_training_state")


def from_sklearn(model: Any, **options: Any) -> Any:
    """Convert scikit-learn's MLPClassifier or MLPRegressor to gpunn's.

    Args:
        model: the estimator, fitted or not. It is not changed, and its arrays are copied.
        options: arguments that scikit-learn does not have, such as `device`.

    Returns:
        An estimator with the same parameters, attributes and predictions. Its `partial_fit` starts
        with new moments of the optimizer.

    Raises:
        ArgumentError: `model` is another kind of estimator, or already gpunn's.
    """
    for theirs, ours in PAIRS:
        if type(model) is theirs:
            return _moved(model, ours(**model.get_params(deep=False), **options), ())
    raise ArgumentError(
        f"got a {type(model).__module__}.{type(model).__name__}; expected scikit-learn's "
        "MLPClassifier or MLPRegressor: pass one of these"
    )


def to_sklearn(model: Any) -> Any:
    """Convert gpunn's MLPClassifier or MLPRegressor to scikit-learn's.

    Args:
        model: the estimator, fitted or not. It is not changed, and its arrays are copied.

    Returns:
        scikit-learn's estimator, with the same predictions on the CPU.

    Raises:
        ArgumentError: `model` is another kind of estimator, or has activations or a loss with
            which scikit-learn could not make the same predictions.
    """
    for theirs, ours in PAIRS:
        if type(model) is ours:
            known = theirs().get_params()
            given = {k: v for k, v in model.get_params(deep=False).items() if k in known}
            _check(model, given)
            return _moved(model, theirs(**given), (*OURS, *HELD))
    raise ArgumentError(
        f"got a {type(model).__module__}.{type(model).__name__}; expected gpunn's MLPClassifier "
        "or MLPRegressor: pass one of these"
    )


def _check(model: Any, given: dict[str, Any]) -> None:
    """Check that scikit-learn's estimator would predict the same, and adapt its arguments."""
    names = model.activation
    if isinstance(names, list | tuple) and len(set(names)) == 1:
        names = given["activation"] = names[0]
    if isinstance(names, list | tuple) or names not in SCIKIT_LEARNS:
        raise ArgumentError(
            f"got activation={names!r}; expected one of scikit-learn's for all layers, identity, "
            "logistic, tanh or relu: export it with gpunn.interop.to_onnx, or use model.to_module()"
        )
    if is_classifier(model) and has_scores(model):
        raise ArgumentError(
            'got loss="hinge", whose outputs are not probabilities; expected "log_loss": export '
            "it with gpunn.interop.to_onnx, or use model.to_module()"
        )
    if "loss" in given and given["loss"] not in ("squared_error", "poisson"):
        given["loss"] = "squared_error"  # the predictions are the same with this loss


def _moved(source: Any, target: Any, without: tuple[str, ...]) -> Any:
    """Copy the fitted attributes of `source` to `target`, and return it."""
    parameters = source.get_params(deep=False)
    skipped = {*parameters, *without, "loss", "_optimizer"}
    moved = {name: value for name, value in vars(source).items() if name not in skipped}
    vars(target).update(deepcopy(moved))  # as a whole: attributes that are one list stay one
    return target
